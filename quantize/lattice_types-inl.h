// The code books of the lattice types and what their scales mean. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_LATTICE_TYPES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#undef QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#endif

#include "formats/codebooks.h"
#include "quantize/lattice_search-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

inline float iq2_scale(float d, int l) { return d * (0.5f + static_cast<float>(l)) * 0.25f; }

struct Iq2xxs {
  static constexpr int kDim = 8, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 43.0f, kLadderLow = 0.25f;
  static constexpr bool kEvenSigns = true;
  static const auto& rows() { return kIq2xxsGrid; }
  static float scale(float d, int l) { return iq2_scale(d, l); }
};

struct Iq2xs : Iq2xxs {
  static constexpr int kEntries = 512, kSubSize = 16;
  static const auto& rows() { return kIq2xsGrid; }
};

struct Iq2s : Iq2xxs {
  static constexpr int kEntries = 1024, kSubSize = 16;
  static constexpr bool kEvenSigns = false;
  static const auto& rows() { return kIq2sGrid; }
};

struct Iq3s {
  static constexpr int kDim = 4, kEntries = 512, kSubSize = 32;
  static constexpr float kTop = 15.0f, kLadderLow = 0.4f;
  static constexpr bool kEvenSigns = false;
  static const auto& rows() { return kIq3sGrid; }
  static float scale(float d, int l) { return d * static_cast<float>(1 + 2 * l); }
};

struct Iq3xxs {
  static constexpr int kDim = 4, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 62.0f, kLadderLow = 0.4f;
  static constexpr bool kEvenSigns = true;  // over two units
  static const auto& rows() { return kIq3xxsGrid; }
  static float scale(float d, int l) { return d * (0.5f + static_cast<float>(l)) * 0.5f; }
};

template <typename Spec>
const LatticeBook<Spec::kDim, Spec::kEntries>& book_of() {
  static const LatticeBook<Spec::kDim, Spec::kEntries> book(Spec::rows(), 0.0f);
  return book;
}

using Iq1Book = LatticeBook<8, 2048>;

// Book 0 adds 1/8 to every value, book 1 subtracts it.
inline const Iq1Book& iq1_book(int which) {
  static const Iq1Book books[2] = {Iq1Book(kIq1Grid, 0.125f), Iq1Book(kIq1Grid, -0.125f)};
  return books[which];
}

inline float iq1_scale(float d, int l) { return d * static_cast<float>(2 * l + 1); }

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
