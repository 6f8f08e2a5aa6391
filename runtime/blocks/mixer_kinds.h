#pragma once

#include "formats/base/error.h"
#include "runtime/blocks/mixer.h"

namespace quern {

// The known kinds: a declaration and an entry of the list each.
extern const MixerKind kGroupedAttention;     // grouped_attention.cc
extern const MixerKind kLatentAttention;      // latent_attention.cc
extern const MixerKind kCompressedAttention;  // compressed_attention.cc

inline const MixerKind* const kMixerKinds[] = {&kGroupedAttention, &kLatentAttention, &kCompressedAttention};

inline const MixerKind& mixer_kind(AttentionKind kind) {
  for (const MixerKind* known : kMixerKinds) {
    if (known->kind == kind) return *known;
  }
  throw Error(ErrorKind::kInternal, "a kind of attention without a mixer");
}

}  // namespace quern
