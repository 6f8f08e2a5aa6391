#include "formats/statistics/importance.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <optional>
#include <set>
#include <string_view>

#include "formats/arch/stems.h"
#include "formats/base/counted.h"
#include "formats/base/error.h"

// Tensors are gone through in the order of the model. A tensor takes the entry of its own name when the number of values fits, in the finer
// division of "NAME.groups" where there is one; else the entry of a tensor that multiplies the same input; else all its columns weigh the
// same. An entry of which no slice says anything is as good as none. Whether the matrix belongs to the model at all is decided afterwards,
// by how many entries fit a tensor and how many name none.
//
// The sums of an entry become means where they stand, when the first tensor uses them; tensors that share an entry share its floats. Slices
// that no token reached, or whose sums are no sums of squares, get the mean over the others. Routed experts are drawn to that mean as if
// they had seen one row more, since an expert that saw one token would otherwise know the noise of that token only. In the end small values
// are raised to a floor, so that no encoder may spoil a column for free.
//
// Nothing is thrown for a matrix that is merely poor: what was found is collected and told in one finding per kind, and --strict decides.

namespace quern {
namespace {

constexpr double kFloor = 1e-6;  // of the mean of a slice
constexpr std::string_view kGroupsSuffix = ".groups";

// "12 tensors ... 'a', 'b' and 10 more"
std::string list_names(const std::vector<std::string>& names) {
  constexpr size_t kShown = 4;
  return first_of(names, kShown, "'");
}

bool is_sum_of_squares(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return std::isfinite(value) && value >= 0; });
}

// No input of a model is zero in every column for every token.
bool is_zero(std::span<const float> values) {
  return std::ranges::all_of(values, [](float value) { return value == 0; });
}

}  // namespace

// Works through the tensors in order and collects what it finds.
class Importance::Matcher {
 public:
  Matcher(Importance& importance, const Imatrix& imatrix, std::span<const LogicalTensor> tensors)
      : out_(importance), by_chunks_(imatrix.counts_are_chunks()), model_(tensors) {
    for (ImatrixEntry& entry : out_.entries_) entries_.emplace(entry.name, &entry);
  }

  void run() {
    out_.tensors_.resize(model_.size());
    for (size_t t = 0; t < model_.size(); ++t) match(t);
    std::vector<std::string> unknown;
    for (const ImatrixEntry& entry : out_.entries_) {
      if (!known_.contains(&entry)) unknown.push_back(entry.name);
    }
    check_model(unknown);
    report(unknown);
  }

 private:
  // How the values of an entry divide among the slices of a tensor.
  struct Division {
    int64_t n_slices = 1;
    bool shared = false;  // all slices use the same values
  };

  static int64_t n_values(const ImatrixEntry& entry) { return static_cast<int64_t>(entry.sums.size()); }

  // The slices of a 3-D tensor are its outer dimension; those of attn_output_a are the groups that the entry has.
  static std::optional<Division> divide(const ImatrixEntry& entry, const LogicalTensor& tensor) {
    const int64_t n_columns = tensor.shape.row_length(), values = n_values(entry);
    if (tensor.shape.rank() == 3) {
      if (values == tensor.shape[0] * n_columns) return Division{tensor.shape[0], false};
      if (values == n_columns) return Division{tensor.shape[0], true};
      return std::nullopt;
    }
    if (values == n_columns) return Division{1, false};
    const bool grouped = tensor.name.ends_with(".attn_output_a.weight");
    if (grouped && values % n_columns == 0 && tensor.shape.n_rows() % (values / n_columns) == 0) return Division{values / n_columns, false};
    return std::nullopt;
  }

  ImatrixEntry* find(std::string_view name) const {
    const auto found = entries_.find(name);
    return found == entries_.end() ? nullptr : found->second;
  }

  void match(size_t t) {
    const LogicalTensor& tensor = model_[t];
    ImatrixEntry* entry = find(tensor.name);
    if (entry != nullptr) known_.insert(entry);
    if (ImatrixEntry* groups = find(tensor.name + std::string(kGroupsSuffix)); groups != nullptr && divide(*groups, tensor)) {
      entry = groups;
      known_.insert(entry);
    }
    if (entry != nullptr) {
      if (const std::optional<Division> division = divide(*entry, tensor)) {
        ++n_fitting_;
        if (says_something(*entry, tensor, *division)) return use(t, *entry, *division);
      } else {
        wrong_shapes_.push_back(tensor.name);
      }
    }
    if (tensor.keep != Keep::kMix || substitute(t)) return;
    (tensor.role == Role::kTokenEmbedding || tensor.role == Role::kOutput ? missing_ends_ : missing_).push_back(tensor.name);
  }

  bool substitute(size_t t) {
    for (const std::string& name : weights_with_same_input(model_[t].name)) {
      ImatrixEntry* entry = find(name);
      if (entry == nullptr) continue;
      ImatrixEntry* usable_entry = divide(*entry, model_[t]) ? entry : mean_of_heads(*entry, model_[t].shape.row_length());
      if (usable_entry == nullptr) continue;
      const Division division = divide(*usable_entry, model_[t]).value();
      if (!says_something(*usable_entry, model_[t], division)) continue;
      known_.insert(entry);
      use(t, *usable_entry, division);
      substituted_.push_back(model_[t].name);
      return true;
    }
    return false;
  }

  // One row from the entry of an attn_v_b, which has a row per head; nullptr for other entries.
  ImatrixEntry* mean_of_heads(const ImatrixEntry& entry, int64_t n_columns) {
    if (!entry.name.ends_with(".attn_v_b.weight") || n_values(entry) % n_columns != 0) return nullptr;
    const int64_t n_heads = n_values(entry) / n_columns;
    ImatrixEntry& mean = out_.folded_.emplace_back();
    mean = {entry.name, n_columns, 1, std::vector<float>(static_cast<size_t>(n_columns)), {0}};
    for (int64_t head = 0; head < n_heads; ++head) mean.counts[0] += count_of(entry, head);
    for (int64_t j = 0; j < n_columns; ++j) {
      double sum = 0;
      for (int64_t i = j; i < n_values(entry); i += n_columns) sum += static_cast<double>(entry.sums[static_cast<size_t>(i)]);
      mean.sums[static_cast<size_t>(j)] = static_cast<float>(sum);
    }
    return &mean;
  }

  void use(size_t t, ImatrixEntry& entry, const Division& division) {
    const LogicalTensor& tensor = model_[t];
    if (averaged_.insert(&entry).second) {
      most_rows_ = std::max(most_rows_, *std::ranges::max_element(entry.counts));
      average(entry, tensor, division.shared ? 1 : division.n_slices);
    }
    out_.tensors_[t] = {entry.sums, division.n_slices, tensor.shape.row_length()};
  }

  static int64_t count_of(const ImatrixEntry& entry, int64_t slice) {
    return entry.counts[entry.n_slices == 1 ? size_t{0} : static_cast<size_t>(slice)];
  }

  enum class Verdict { kGood, kBroken, kUnseen };

  Verdict judge(const ImatrixEntry& entry, bool experts, int64_t slice, std::span<const float> sums) const {
    if (!is_sum_of_squares(sums)) return Verdict::kBroken;
    // A .dat says 1 for experts that were never seen.
    const int64_t count = count_of(entry, slice);
    const auto one = static_cast<float>(count);
    const bool placeholder = experts && by_chunks_ && std::ranges::all_of(sums, [one](float value) { return value == one; });
    if (count == 0 || placeholder) return Verdict::kUnseen;
    return experts && is_zero(sums) ? Verdict::kBroken : Verdict::kGood;
  }

  static std::span<float> slice_of(ImatrixEntry& entry, int64_t n_slices, int64_t slice) {
    const size_t n_columns = entry.sums.size() / static_cast<size_t>(n_slices);
    return std::span(entry.sums).subspan(static_cast<size_t>(slice) * n_columns, n_columns);
  }

  static bool has_experts(const LogicalTensor& tensor, int64_t n_slices) { return tensor.role == Role::kRoutedExpert && n_slices > 1; }

  // Whether any slice of an entry does. Asked before its sums become means; what does not is noted once.
  bool says_something(ImatrixEntry& entry, const LogicalTensor& tensor, const Division& division) {
    if (averaged_.contains(&entry)) return true;
    if (silent_.contains(&entry)) return false;
    const int64_t n_slices = division.shared ? 1 : division.n_slices;
    bool broken = false;
    for (int64_t s = 0; s < n_slices; ++s) {
      const std::span<const float> sums = slice_of(entry, n_slices, s);
      const Verdict verdict = judge(entry, has_experts(tensor, n_slices), s, sums);
      if (verdict == Verdict::kGood && !is_zero(sums)) return true;
      broken = broken || verdict != Verdict::kUnseen;
    }
    silent_.insert(&entry);
    (broken ? broken_ : unreached_).push_back(entry.name);
    return false;
  }

  // Whether a slice is worth its means; what is doubtful about it is noted.
  bool is_usable(const ImatrixEntry& entry, bool experts, int64_t slice, std::span<const float> sums) {
    const std::string name = entry.name + (experts ? " expert " + std::to_string(slice) : "");
    const Verdict verdict = judge(entry, experts, slice, sums);
    if (verdict == Verdict::kBroken) broken_.push_back(name);
    if (verdict == Verdict::kUnseen) unseen_.push_back(name);
    if (verdict != Verdict::kGood) return false;
    if (experts && !by_chunks_ && count_of(entry, slice) < kFewRows) few_rows_.push_back(name);
    return true;
  }

  // Sums become means. Slices that say nothing get the mean over the others; experts are drawn to it as if by one more row.
  void average(ImatrixEntry& entry, const LogicalTensor& tensor, int64_t n_slices) {
    const auto n_columns = entry.sums.size() / static_cast<size_t>(n_slices);
    const bool experts = has_experts(tensor, n_slices);
    std::vector<bool> usable;
    std::vector<double> all(n_columns, 0.0);
    double n_rows = 0;
    for (int64_t s = 0; s < n_slices; ++s) {
      const auto sums = slice_of(entry, n_slices, s);
      usable.push_back(is_usable(entry, experts, s, sums));
      if (!usable.back()) continue;
      for (size_t j = 0; j < n_columns; ++j) all[j] += static_cast<double>(sums[j]);
      n_rows += static_cast<double>(count_of(entry, s));
    }
    for (double& value : all) value /= std::max(n_rows, 1.0);
    const double prior = experts && entry.n_slices > 1 ? 1.0 : 0.0;
    for (int64_t s = 0; s < n_slices; ++s) {
      const auto values = slice_of(entry, n_slices, s);
      const double count = static_cast<double>(count_of(entry, s));
      for (size_t j = 0; j < n_columns; ++j) {
        const double seen = static_cast<double>(values[j]);
        values[j] = static_cast<float>(usable[static_cast<size_t>(s)] ? (seen + prior * all[j]) / (count + prior) : all[j]);
      }
      raise_zeros(values);
    }
  }

  static void raise_zeros(std::span<float> values) {
    double sum = 0;
    for (const float value : values) sum += static_cast<double>(value);
    const auto least = static_cast<float>(kFloor * sum / static_cast<double>(values.size()));
    if (!(least > 0)) {
      std::ranges::fill(values, 1.0f);
      return;
    }
    for (float& value : values) value = std::max(value, least);
  }

  // Entries of another model may fit by chance, because widths are round numbers; names rarely do.
  void check_model(const std::vector<std::string>& unknown) const {
    const size_t n_entries = out_.entries_.size();
    if (n_fitting_ > 0 && 4 * (unknown.size() + wrong_shapes_.size()) <= n_entries) return;
    std::string what = "none of its " + std::to_string(n_entries) + " entries fits a tensor of the model";
    if (!unknown.empty()) what = std::to_string(unknown.size()) + " entries name no tensor of the model: " + list_names(unknown);
    if (!wrong_shapes_.empty())
      what = std::to_string(wrong_shapes_.size()) + " entries have another size than the model's tensors: " + list_names(wrong_shapes_);
    throw Error(ErrorKind::kFormat, "the importance matrix is of another model: " + what).file(out_.record_.file);
  }

  void add(ImportanceIssue issue, bool serious, std::string message) { out_.findings_.push_back({issue, serious, std::move(message)}); }

  void report(const std::vector<std::string>& unknown) {
    if (!wrong_shapes_.empty())
      add(ImportanceIssue::kWrongShape, true, "another size than the tensor, ignored: " + list_names(wrong_shapes_));
    if (!unknown.empty()) add(ImportanceIssue::kUnknownName, true, "no such tensor in the model, ignored: " + list_names(unknown));
    if (!broken_.empty())
      add(ImportanceIssue::kBroken, true,
          "sums that are NaN, infinite, negative or all zero (a collection that went wrong?), taken as never seen: " + list_names(broken_));
    if (!unreached_.empty()) add(ImportanceIssue::kUnseen, true, "no token was counted, taken as absent: " + list_names(unreached_));
    if (!missing_.empty()) add(ImportanceIssue::kNoEntry, true, "no entry, quantized with uniform importance: " + list_names(missing_));
    if (!missing_ends_.empty())
      add(ImportanceIssue::kNoEntry, false, "no entry, quantized with uniform importance: " + list_names(missing_ends_));
    if (!substituted_.empty()) add(ImportanceIssue::kSubstituted, false, "another tensor's entry stands in: " + list_names(substituted_));
    if (!unseen_.empty())
      add(ImportanceIssue::kUnseen, true, "never seen, gets the mean of the others in its layer: " + list_names(unseen_));
    if (!few_rows_.empty()) {
      add(ImportanceIssue::kFewRows, true, "seen by fewer than " + std::to_string(kFewRows) + " tokens: " + list_names(few_rows_));
    }
    if (by_chunks_) {
      add(ImportanceIssue::kNoCounts, false, "a .dat does not say how often each expert was seen");
    } else if (most_rows_ < kLittleText) {
      add(ImportanceIssue::kLittleText, true,
          "little text: " + std::to_string(most_rows_) + " tokens, at least " + std::to_string(kLittleText) + " are advised");
    }
  }

  Importance& out_;
  const bool by_chunks_;
  const std::span<const LogicalTensor> model_;
  std::map<std::string_view, ImatrixEntry*, std::less<>> entries_;
  std::set<const ImatrixEntry*> known_;     // entries that name a tensor of the model or stand in for one
  std::set<const ImatrixEntry*> averaged_;  // entries whose sums are means already
  std::set<const ImatrixEntry*> silent_;    // entries that say nothing
  size_t n_fitting_ = 0;
  int64_t most_rows_ = 0;
  std::vector<std::string> wrong_shapes_, missing_, missing_ends_, substituted_, unseen_, few_rows_, broken_, unreached_;
};

Importance::Importance(Imatrix imatrix, std::span<const LogicalTensor> tensors) : record_(imatrix.record()) {
  entries_ = std::move(imatrix.entries);
  Matcher(*this, imatrix, tensors).run();
}

int64_t Importance::n_slices(size_t tensor) const noexcept { return tensor < tensors_.size() ? tensors_[tensor].n_slices : 1; }

std::span<const float> Importance::columns(size_t tensor, int64_t slice) const noexcept {
  if (tensor >= tensors_.size() || tensors_[tensor].means.empty()) return {};
  const Slices& slices = tensors_[tensor];
  const auto n_columns = static_cast<size_t>(slices.n_columns);
  const bool shared = slices.means.size() == n_columns;
  return slices.means.subspan(shared ? 0 : static_cast<size_t>(slice) * n_columns, n_columns);
}

void Importance::require_sound() const {
  std::string text;
  for (const ImportanceFinding& finding : findings_) {
    if (finding.serious) text += (text.empty() ? "" : "; ") + finding.message;
  }
  if (!text.empty()) throw Error(ErrorKind::kGate, "the importance matrix is not sound (--strict): " + text).file(record_.file);
}

}  // namespace quern
