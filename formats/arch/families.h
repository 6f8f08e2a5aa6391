#pragma once

#include "formats/arch/descriptor.h"

namespace quern::arch {

// One per file of the same name; registry.cc lists them.
extern const ArchDescriptor kLlama;
extern const ArchDescriptor kQwen2;
extern const ArchDescriptor kQwen3;
extern const ArchDescriptor kQwen3Moe;
extern const ArchDescriptor kDeepSeek2;
extern const ArchDescriptor kDeepSeek4;
extern const ArchDescriptor kGptOss;

}  // namespace quern::arch
