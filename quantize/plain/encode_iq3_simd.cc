// Encoders of IQ3_XXS and IQ3_S: magnitudes of 4 weights from a book, their signs apart.

#include "quantize/plain/block_weights.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_iq3_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/lattice_rows-inl.h"
#include "quantize/plain/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

void encode_rows_IQ3_XXS(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq3xxs, BlockIQ3_XXS>(x, n_rows, importance, n_cols, effort, out);
}

void encode_rows_IQ3_S(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq3s, BlockIQ3_S>(x, n_rows, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(IQ3_XXS)
QUERN_DISPATCH_ROWS_ENCODER(IQ3_S)
}  // namespace quern
#endif
