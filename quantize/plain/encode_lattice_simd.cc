// Encoders of the types with code books: IQ2_XXS, IQ2_XS, IQ2_S, IQ3_XXS, IQ3_S (magnitudes from the book, signs apart), IQ1_S and IQ1_M
// (ternary rows plus or minus 1/8).

#include "quantize/plain/block_weights.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_lattice_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/lattice_rows-inl.h"
#include "quantize/plain/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

#define QUERN_LATTICE_ENCODER(name, Spec)                                                                                           \
  void encode_rows_##name(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) { \
    encode_lattice_rows<Spec, Block##name>(x, n_rows, importance, n_cols, effort, out);                                             \
  }
QUERN_LATTICE_ENCODER(IQ2_XXS, Iq2xxs)
QUERN_LATTICE_ENCODER(IQ2_XS, Iq2xs)
QUERN_LATTICE_ENCODER(IQ2_S, Iq2s)
QUERN_LATTICE_ENCODER(IQ3_XXS, Iq3xxs)
QUERN_LATTICE_ENCODER(IQ3_S, Iq3s)
QUERN_LATTICE_ENCODER(IQ1_S, Iq1s)
QUERN_LATTICE_ENCODER(IQ1_M, Iq1m)
#undef QUERN_LATTICE_ENCODER

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(IQ2_XXS)
QUERN_DISPATCH_ROWS_ENCODER(IQ2_XS)
QUERN_DISPATCH_ROWS_ENCODER(IQ2_S)
QUERN_DISPATCH_ROWS_ENCODER(IQ3_XXS)
QUERN_DISPATCH_ROWS_ENCODER(IQ3_S)
QUERN_DISPATCH_ROWS_ENCODER(IQ1_S)
QUERN_DISPATCH_ROWS_ENCODER(IQ1_M)
}  // namespace quern
#endif
