#include "formats/safetensors/weight_files.h"

#include <algorithm>
#include <map>

#include "formats/base/counted.h"
#include "formats/base/error.h"

// A folder may hold several saves of a model: an older one with another number of shards, one file beside shards, other formats, other
// precisions. Names tell them apart, since every program that writes shards numbers them "STEM-00001-of-00003", and so a set is known to be
// whole without an index. What transformers would load is taken; what it would never look at is left aside and named. Where two whole sets
// could both be meant there is no right choice to make for the user, and which one is newer is not asked: clones and copies set all times
// anew.

namespace quern::safetensors {
namespace {

namespace fs = std::filesystem;

constexpr const char* kSingleName = "model.safetensors";
constexpr std::string_view kEnding = ".safetensors";

bool is_digit(char c) { return c >= '0' && c <= '9'; }

// What a numbered name belongs to: "model-*-of-00003.safetensors". Empty for names without numbers.
struct NumberedName {
  std::string set;
  uint64_t n_files = 0;
};
NumberedName parse_number(std::string_view name) {
  constexpr std::string_view kOf = "-of-";
  constexpr size_t kMaxDigits = 6;
  const size_t at = name.rfind(kOf);
  if (at == name.npos || !name.ends_with(kEnding)) return {};
  size_t begin = at, end = at + kOf.size();
  while (begin > 0 && is_digit(name[begin - 1])) --begin;
  while (end < name.size() && is_digit(name[end])) ++end;
  const std::string total(name.substr(at + kOf.size(), end - at - kOf.size()));
  if (begin == at || total.empty() || total.size() > kMaxDigits) return {};
  return {std::string(name.substr(0, begin)) + "*" + std::string(name.substr(at)), std::stoull(total)};
}

// 'a', 'b', 'c' and 4 more
std::string list_of(const std::vector<std::string>& names) {
  constexpr size_t kShown = 3;
  return first_of(names, kShown, "'");
}

// Files that hold, or list, weights in a form that some loader of this model's folder would take.
bool looks_like_weights(std::string_view name) {
  if (name.ends_with(kEnding) || name.find(".safetensors.index.") != name.npos) return true;
  constexpr std::string_view kStems[] = {"pytorch_model", "consolidated", "adapter_model", "tf_model", "flax_model"};
  return std::ranges::any_of(kStems, [&](std::string_view stem) { return name.starts_with(stem); });
}

class Choice {
 public:
  explicit Choice(const ModelFolder& folder) : folder_(folder), names_(folder.names()) {
    for (const std::string& name : names_) {
      if (NumberedName number = parse_number(name); number.n_files > 0) {
        Set& set = sets_[number.set];
        set.n_files = number.n_files;
        set.names.push_back(name);
      }
    }
  }

  WeightFiles make() {
    if (folder_.has(kIndexName)) {
      by_index();
    } else if (folder_.has(kSingleName)) {
      refuse_beside_single(whole_sets());
      chosen_.names = {kSingleName};
    } else {
      by_number();
    }
    note_rest();
    return std::move(chosen_);
  }

 private:
  struct Set {
    uint64_t n_files = 0;
    std::vector<std::string> names;

    bool whole() const { return names.size() == n_files; }
    bool has(const std::string& name) const { return std::ranges::binary_search(names, name); }
  };

  [[noreturn]] void fail(const std::string& message) const { throw Error(ErrorKind::kFormat, message).file(folder_.path().string()); }

  // The numbered sets under the name that transformers gives to shards.
  std::vector<const Set*> whole_sets() const {
    std::vector<const Set*> whole;
    for (const auto& [pattern, set] : sets_) {
      if (pattern.starts_with("model-*") && set.whole()) whole.push_back(&set);
    }
    return whole;
  }

  void refuse_beside_single(const std::vector<const Set*>& sets) const {
    if (sets.empty()) return;
    fail("holds two sets of weights: '" + std::string(kSingleName) + "' and " + list_of(sets.front()->names) +
         "; transformers would load model.safetensors: move the one that is not meant out of the folder");
  }

  Index load_index() const {
    const std::vector<std::byte> json = folder_.read(kIndexName, kMaxIndexBytes);
    try {
      return parse_index(json);
    } catch (Error& e) {
      e.file((folder_.path() / kIndexName).string());
      throw;
    }
  }

  void by_index() {
    Index index = load_index();
    std::vector<std::string> there, missing;
    for (const std::string& name : index.files) (folder_.has(name) ? there : missing).push_back(name);
    if (folder_.has(kSingleName) && !std::ranges::binary_search(index.files, kSingleName)) {
      beside_single(index, there);
    } else if (const Set* set = whole_set_of(there); set != nullptr && (!missing.empty() || set->names.size() > there.size())) {
      take_numbered(*set, std::string(kIndexName) + " is stale: " + why_stale(*set, there, missing) + "; the " +
                              std::to_string(set->names.size()) + " shards are complete by their numbers and are read without it");
    } else {
      require_files(folder_, index.files);
      chosen_.names = index.files;
      chosen_.complete_by_number = set != nullptr;
      chosen_.index = std::move(index);
    }
  }

  void beside_single(const Index& index, const std::vector<std::string>& there) {
    if (!there.empty()) {
      fail("holds two sets of weights: '" + std::string(kSingleName) + "' and the " + counted(index.files.size(), "file") + " of '" +
           kIndexName + "'; transformers would load model.safetensors: move the one that is not meant out of the folder");
    }
    refuse_beside_single(whole_sets());
    chosen_.notes.push_back(std::string(kIndexName) + " is stale: none of the files that it names is there; '" + kSingleName + "' is read");
    chosen_.names = {kSingleName};
  }

  // The one whole set that all these names belong to, nullptr if there is none or more than one.
  const Set* whole_set_of(const std::vector<std::string>& there) const {
    const Set* found = nullptr;
    for (const auto& [pattern, set] : sets_) {
      const auto has = [&s = set](const std::string& name) { return s.has(name); };
      if (!set.whole() || !std::ranges::all_of(there, has) || (there.empty() && !pattern.starts_with("model-*"))) continue;
      if (found != nullptr) return nullptr;
      found = &set;
    }
    return found;
  }

  static std::string why_stale(const Set& set, const std::vector<std::string>& there, const std::vector<std::string>& missing) {
    if (!missing.empty()) return "it names " + list_of(missing) + ", which " + (missing.size() == 1 ? "is" : "are") + " not there";
    std::vector<std::string> unlisted;
    std::ranges::set_difference(set.names, there, std::back_inserter(unlisted));
    return "it does not name " + list_of(unlisted);
  }

  void take_numbered(const Set& set, std::string note) {
    chosen_.notes.push_back(std::move(note));
    chosen_.names = set.names;
    chosen_.complete_by_number = true;
  }

  // Without an index and without the one file that needs none.
  void by_number() {
    std::vector<const std::pair<const std::string, Set>*> candidates;
    for (const auto& entry : sets_) {
      if (entry.first.starts_with("model-*")) candidates.push_back(&entry);
    }
    if (candidates.empty()) fail(nothing());
    if (candidates.size() > 1) {
      fail("there is no " + std::string(kIndexName) + ", and there are shards of two saves: " + list_of({candidates[0]->second.names[0]}) +
           " and " + list_of({candidates[1]->second.names[0]}) + "; move the ones that are not meant out of the folder");
    }
    const auto& [pattern, set] = *candidates.front();
    if (!set.whole()) {
      fail(std::to_string(set.n_files - std::min<uint64_t>(set.n_files, set.names.size())) + " of " + std::to_string(set.n_files) +
           " shards are missing: of '" + printable(pattern) + "' there are " + list_of(set.names) + " (incomplete download?)");
    }
    take_numbered(set, "there is no " + std::string(kIndexName) + "; the " + std::to_string(set.names.size()) +
                           " shards are complete by their numbers and are read without it");
  }

  std::string nothing() const {
    if (!fs::is_directory(folder_.path())) return "is not a checkpoint folder";
    return "the folder has neither " + std::string(kIndexName) + " nor " + kSingleName + other_content();
  }

  // What a folder without safetensors of its own has instead.
  std::string other_content() const {
    for (const std::string& name : names_) {
      if (name.starts_with("adapter_model.")) return "; '" + printable(name) + "' is an adapter, which changes a model and is none";
    }
    for (const std::string& name : names_) {
      if (name.ends_with(kEnding)) return about_file(name);
    }
    for (const std::string& name : names_) {
      if (std::ranges::any_of(folder_.names(name), [](const std::string& inner) { return inner.ends_with(kEnding); })) {
        return "; safetensors files are in '" + printable(name) + "': name that folder, or move them here";
      }
    }
    return other_formats();
  }

  static std::string about_file(const std::string& name) {
    if (name.starts_with("consolidated")) {
      return "; '" + printable(name) + "' is of the publisher's own layout: download the files of the transformers layout";
    }
    return "; '" + printable(name) + "' is not listed by an index: if it alone is the model, rename it to " + kSingleName;
  }

  std::string other_formats() const {
    std::string others;
    for (const std::string& name : names_) {
      if (name.ends_with(".bin") || name.ends_with(".pt") || name.ends_with(".pth")) {
        others = "; '" + printable(name) + "': pickled weights are not supported";
      }
    }
    const std::string gguf = first_name(folder_, ".gguf");
    return gguf.empty() ? others : "; give the GGUF file itself, '" + printable(gguf) + "'";
  }

  void note_rest() {
    std::vector<std::string> rest;
    for (const std::string& name : names_) {
      const bool used = name == kIndexName || std::ranges::binary_search(chosen_.names, name);
      if (!used && looks_like_weights(name)) rest.push_back(name);
    }
    if (rest.empty()) return;
    const std::string what = chosen_.names.size() == 1
                                 ? "'" + printable(chosen_.names.front()) + "'"
                                 : counted(chosen_.names.size(), "file") + " from '" + printable(chosen_.names.front()) + "' on";
    chosen_.notes.push_back("weights that are not read: " + list_of(rest) + "; the model is " + what);
  }

  const ModelFolder& folder_;
  std::vector<std::string> names_;  // sorted
  std::map<std::string, Set> sets_;
  WeightFiles chosen_;
};

}  // namespace

WeightFiles find_weights(const ModelFolder& folder) { return Choice(folder).make(); }

}  // namespace quern::safetensors
