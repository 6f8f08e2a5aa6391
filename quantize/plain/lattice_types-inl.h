// The code books of the lattice types and what their scales mean. Compiled once per CPU target.

#if defined(QUERN_QUANTIZE_LATTICE_TYPES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#undef QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#else
#define QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
#endif

#include <algorithm>
#include <iterator>

#include "formats/types/codebooks.h"
#include "quantize/plain/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace quern::HWY_NAMESPACE {

// Where signs are: all stored beside magnitudes, with an even number of minus signs per unit or per two units, or in the book itself.
enum class SignRule : uint8_t { kStored, kEvenUnits, kEvenPairs, kInBook };

constexpr bool is_parity_rule(SignRule rule) { return rule == SignRule::kEvenUnits || rule == SignRule::kEvenPairs; }

// Searches of the book for a unit: with a sign flipped or not, or one per book.
template <typename Spec>
inline constexpr int kSearches = Spec::kSigns == SignRule::kEvenPairs ? 2 : Spec::kBooks;

// What a pass over the book finds for a unit at one scale s, relative to a first guess s0 of it: the row with the least error, as its place
// in the order of the search, p = 2 / s0 sum w x g and r = sum w g^2.
struct FoundRow {
  Lanes p;
  Lanes r;
  Lanes row;
};

// Which of the levels a value of the book is.
template <typename Spec>
size_t number_of_level(float value) {
  return static_cast<size_t>(std::find(std::begin(Spec::kLevels), std::end(Spec::kLevels), value) - std::begin(Spec::kLevels));
}

// The one book of a kind, made when it is first needed.
template <typename Book>
const Book& the_book() {
  static const Book book;
  return book;
}

// Each type gives: kDim weights of a unit, which is an entry of the book; kEntries; kSubSize weights of a sub-block; kScales values of its
// integer l, which stands for the scale d * kLeastScale * (1 + 2 l); kLevels of the book; nearest(magnitude) among them; kBooks that differ
// by the offset(book) of all values; kLadderLow: least scale worth trying, relative to the one that maps the largest weight to kTop;
// kTargets: l-factors 1 + 2 l that the largest sub-block scale is mapped to. Types without a parity rule also: level(number) of kLevels.

struct MagnitudeBook {
  static constexpr int kScales = 16, kBooks = 1;
  static constexpr bool kSharedBook = false;
  static constexpr float kTargets[] = {31, 29, 26, 34, 30, 28, 32, 24};
  static float offset(int) { return 0.0f; }
};

struct Iq2xxs : MagnitudeBook {
  static constexpr int kDim = 8, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 43.0f, kLadderLow = 0.25f, kLeastScale = 0.125f, kBookScale = 1.06f, kSpread = 1.5f;
  static constexpr int kLines = 6;
  static constexpr float kLevels[] = {8, 25, 43};
  static constexpr SignRule kSigns = SignRule::kEvenUnits;
  static const auto& rows() { return kIq2xxsGrid; }
  static Lanes nearest(const Lanes& v) {
    return select_less(v, splat(16.5f), splat(8.0f), select_less(v, splat(34.0f), splat(25.0f), splat(43.0f)));
  }
};

struct Iq2xs : Iq2xxs {
  static constexpr int kEntries = 512, kSubSize = 16;
  static const auto& rows() { return kIq2xsGrid; }
};

struct Iq2s : Iq2xxs {
  static constexpr int kEntries = 1024, kSubSize = 16;
  static constexpr SignRule kSigns = SignRule::kStored;
  static const auto& rows() { return kIq2sGrid; }
  static Part level(Part number) {
    const PartTag tag;
    const Part one = hn::Set(tag, 1.0f);
    return hn::Add(hn::Add(hn::Mul(number, hn::Set(tag, 17.0f)), hn::Set(tag, 8.0f)), hn::Max(hn::Sub(number, one), hn::Zero(tag)));
  }
};

struct Iq3s : MagnitudeBook {
  static constexpr int kDim = 4, kEntries = 512, kSubSize = 32;
  static constexpr float kTop = 15.0f, kLadderLow = 0.4f, kLeastScale = 1.0f, kBookScale = 1.0f, kSpread = 1.35f;
  static constexpr int kLines = 7;
  static constexpr float kLevels[] = {1, 3, 5, 7, 9, 11, 13, 15};
  static constexpr SignRule kSigns = SignRule::kStored;
  static const auto& rows() { return kIq3sGrid; }
  static Part level(Part number) { return hn::Add(hn::Add(number, number), hn::Set(PartTag(), 1.0f)); }
  static Lanes nearest(const Lanes& v) {
    return clamp(round_to_int((v - splat(1.0f)) * splat(0.5f)) * splat(2.0f) + splat(1.0f), 1.0f, 15.0f);
  }
};

struct Iq3xxs : MagnitudeBook {
  static constexpr int kDim = 4, kEntries = 256, kSubSize = 32;
  static constexpr float kTop = 62.0f, kLadderLow = 0.4f, kLeastScale = 0.25f, kBookScale = 1.0f, kSpread = 1.35f;
  static constexpr int kLines = 6;
  static constexpr float kLevels[] = {4, 12, 20, 28, 36, 44, 52, 62};
  static constexpr SignRule kSigns = SignRule::kEvenPairs;
  static const auto& rows() { return kIq3xxsGrid; }
  static Lanes nearest(const Lanes& v) {  // as if the last level were 60
    return clamp(round_to_int((v - splat(4.0f)) * splat(0.125f)) * splat(8.0f) + splat(4.0f), 4.0f, 60.0f);
  }
};

// The books of IQ1 are one code book plus or minus 1/8; a sub-block of IQ1_S takes the same for all units.
struct Iq1s {
  static constexpr int kDim = 8, kEntries = 2048, kSubSize = 32, kScales = 8, kBooks = 2;
  static constexpr float kTop = 1.125f, kLadderLow = 0.15f, kLeastScale = 1.0f, kBookScale = 1.06f, kSpread = 2.0f;
  static constexpr int kLines = 6;
  static constexpr float kLevels[] = {-1, 0, 1};
  static constexpr float kTargets[] = {15, 13, 17, 11, 14, 16, 12, 10};
  static constexpr SignRule kSigns = SignRule::kInBook;
  static constexpr bool kSharedBook = true;
  static const auto& rows() { return kIq1Grid; }
  static Part level(Part number) { return hn::Sub(number, hn::Set(PartTag(), 1.0f)); }
  static float offset(int book) { return book == 0 ? 0.125f : -0.125f; }
  static Lanes nearest(const Lanes& v) { return clamp(round_to_int(v), 0.0f, 1.0f); }
};

struct Iq1m : Iq1s {
  static constexpr int kSubSize = 16;
  static constexpr bool kSharedBook = false;
};

}  // namespace quern::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // QUERN_QUANTIZE_LATTICE_TYPES_INL_H_
