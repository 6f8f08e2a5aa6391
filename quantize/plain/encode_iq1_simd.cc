// Encoders of IQ1_S and IQ1_M: ternary rows of one book, plus or minus 1/8. The files of the three families of code books share their
// search (lattice_rows-inl.h) and are apart because each takes the compiler half a minute.

#include "quantize/plain/block_weights.h"
#include "quantize/plain/encoders.h"
#include "quantize/plain/pack_blocks.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quantize/plain/encode_iq1_simd.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

#include "quantize/plain/lattice_rows-inl.h"
#include "quantize/plain/lattice_types-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

void encode_rows_IQ1_S(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq1s, BlockIQ1_S>(x, n_rows, importance, n_cols, effort, out);
}

void encode_rows_IQ1_M(const float* x, int64_t n_rows, const float* importance, int64_t n_cols, Effort effort, std::byte* out) {
  encode_lattice_rows<Iq1m, BlockIQ1_M>(x, n_rows, importance, n_cols, effort, out);
}

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace quern {
QUERN_DISPATCH_ROWS_ENCODER(IQ1_S)
QUERN_DISPATCH_ROWS_ENCODER(IQ1_M)
}  // namespace quern
#endif
