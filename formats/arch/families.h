#pragma once

#include "formats/arch/descriptor.h"

namespace quern::arch {

// The known families: a declaration and an entry of the list each.
extern const ArchDescriptor kLlama;
extern const ArchDescriptor kQwen2;
extern const ArchDescriptor kQwen3;
extern const ArchDescriptor kQwen3Moe;
extern const ArchDescriptor kDeepSeek2;
extern const ArchDescriptor kDeepSeek4;
extern const ArchDescriptor kGptOss;
extern const ArchDescriptor kDots1;

inline const ArchDescriptor* const kFamilies[] = {&kLlama, &kQwen2, &kQwen3, &kQwen3Moe, &kDeepSeek2, &kDeepSeek4, &kGptOss, &kDots1};

}  // namespace quern::arch
