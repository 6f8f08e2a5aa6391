// Encoders of IQ2_XXS, IQ2_XS and IQ2_S: magnitudes of 8 weights from a book, their signs apart.

#include "quantize/plain/block_weights.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_iq2_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/lattice_rows-inl.h"
#include "quantize/plain/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

void encode_rows_IQ2_XXS(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq2xxs, BlockIQ2_XXS>(x, n_rows, importance, n_cols, effort, out);
}

void encode_rows_IQ2_XS(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq2xs, BlockIQ2_XS>(x, n_rows, importance, n_cols, effort, out);
}

void encode_rows_IQ2_S(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq2s, BlockIQ2_S>(x, n_rows, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(IQ2_XXS)
QUERN_DISPATCH_ROWS_ENCODER(IQ2_XS)
QUERN_DISPATCH_ROWS_ENCODER(IQ2_S)
}  // namespace quern
#endif
