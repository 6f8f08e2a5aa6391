#include <algorithm>
#include <array>
#include <optional>
#include <unordered_map>

#include "formats/base/counted.h"
#include "formats/base/error.h"
#include "verify/intact/doctor_parts.h"

// A vocabulary is several lists of one length and ids that point into them. llama.cpp checks little of that: it stops where one text
// stands twice, reads past the end of a list that is too short, and takes an id of its own for a special token that is not named. So the
// lists are compared with one another, every id with the number of tokens, and what would be filled in is said.

namespace quern {
namespace {

// What llama.cpp takes where a file names no special token, by the kind of tokenizer; -1: none.
struct DefaultIds {
  std::string_view model;
  int64_t bos;
  int64_t eos;
  bool adds_bos;
};
constexpr std::array kKinds = {DefaultIds{"llama", 1, 2, true},   DefaultIds{"gpt2", 11, 11, false},    DefaultIds{"bert", 101, -1, true},
                               DefaultIds{"t5", -1, 1, false},    DefaultIds{"rwkv", -1, -1, false},    DefaultIds{"plamo2", 1, 2, false},
                               DefaultIds{"none", -1, -1, false}, DefaultIds{"no_vocab", -1, -1, false}};

constexpr int32_t kFirstType = 1, kLastType = 6;  // normal ... byte

class VocabularyExamination {
 public:
  VocabularyExamination(const Metadata& metadata, std::string where, std::vector<Symptom>& symptoms)
      : metadata_(metadata), where_(std::move(where)), symptoms_(symptoms) {
    if (const auto* text = get<std::string>("tokenizer.ggml.model")) model_ = *text;
  }

  void run() {
    kind();
    tokens_ = get<std::vector<std::string>>("tokenizer.ggml.tokens");
    if (tokens_ == nullptr) return;
    if (tokens_->empty()) return add(Severity::kBroken, "tokenizer.ggml.tokens is empty");
    for (size_t i = 0; i < tokens_->size(); ++i) {
      if (!ids_.try_emplace((*tokens_)[i], i).second && !(*tokens_)[i].empty()) twice_.push_back(i);
    }
    texts();
    lists();
    special_ids();
    added_tokens();
    if (model_ == "gpt2") merges();
  }

 private:
  void add(Severity severity, const std::string& message) { symptoms_.push_back({severity, where_, message}); }

  template <typename T>
  const T* get(std::string_view key) const {
    const MetaValue* value = metadata_.find(key);
    return value == nullptr ? nullptr : std::get_if<T>(value);
  }

  std::optional<int64_t> int_of(std::string_view key) const {
    try {
      return metadata_.find_int(key);
    } catch (const Error&) {
      return std::nullopt;
    }
  }

  const DefaultIds* find_kind() const {
    const auto found = std::ranges::find(kKinds, std::string_view(model_), &DefaultIds::model);
    return found == kKinds.end() ? nullptr : &*found;
  }

  void kind() {
    if (model_.empty() || find_kind() != nullptr) return;
    add(Severity::kWarning,
        "tokenizer.ggml.model is '" + printable(model_) + "', which is no kind of tokenizer that llama.cpp is known to have");
  }

  void texts() {
    if (twice_.empty()) return;
    const std::string& text = (*tokens_)[twice_.front()];
    const std::string more = twice_.size() == 1 ? "" : ", and " + std::to_string(twice_.size() - 1) + " more texts are repeated";
    add(Severity::kBroken, "tokenizer.ggml.tokens: '" + printable(text) + "' is token " + std::to_string(ids_.at(text)) + " and token " +
                               std::to_string(twice_.front()) + more + "; llama.cpp stops at this");
  }

  void lists() {
    const std::string n_tokens = std::to_string(tokens_->size()) + " tokens";
    for (const char* key : {"tokenizer.ggml.scores", "tokenizer.ggml.token_type"}) {
      const std::optional<size_t> size = array_size(key);
      if (size && *size != tokens_->size())
        add(Severity::kBroken, std::string(key) + " has " + std::to_string(*size) + " entries for " + n_tokens);
    }
    if (model_ == "llama" && metadata_.find("tokenizer.ggml.scores") == nullptr)
      add(Severity::kWarning, "tokenizer.ggml.scores is missing: nothing says which pieces come first, and text is tokenized wrongly");
    const auto* types = get<std::vector<int32_t>>("tokenizer.ggml.token_type");
    if (types == nullptr) return;
    const auto odd = std::ranges::count_if(*types, [](int32_t type) { return type < kFirstType || type > kLastType; });
    if (odd > 0) add(Severity::kWarning, "tokenizer.ggml.token_type: " + counted(static_cast<size_t>(odd), "value") + " outside 1 to 6");
  }

  std::optional<size_t> array_size(const char* key) const {
    const MetaValue* value = metadata_.find(key);
    if (value == nullptr) return std::nullopt;
    return std::visit(
        []<typename T>(const T& v) -> std::optional<size_t> {
          if constexpr (requires { v.size(); } && !std::is_same_v<T, std::string>) return v.size();
          return std::nullopt;
        },
        *value);
  }

  // Of every key that holds ids, also those that only some models have.
  void special_ids() {
    const auto n = static_cast<int64_t>(tokens_->size());
    for (const Metadata::Entry& entry : metadata_.entries()) {
      const std::string& key = entry.first;
      if (!key.starts_with("tokenizer.ggml.")) continue;
      std::vector<int64_t> ids;
      if (key.ends_with("_token_id")) {
        if (const std::optional<int64_t> id = int_of(key)) ids = {*id};
      } else if (key.ends_with("_token_ids")) {
        ids = int_array(key);
      }
      const auto outside = std::ranges::find_if(ids, [&](int64_t id) { return id < 0 || id >= n; });
      if (outside != ids.end())
        add(Severity::kBroken, key + " is " + std::to_string(*outside) + ", there are " + std::to_string(n) + " tokens");
    }
    if (!int_of("tokenizer.ggml.eos_token_id")) add(Severity::kWarning, "there is no eos_token_id: answers may never end");
  }

  std::vector<int64_t> int_array(const std::string& key) const {
    try {
      return metadata_.find_int_array(key).value_or(std::vector<int64_t>());
    } catch (const Error&) {
      return {};
    }
  }

  // What is put around every prompt.
  void added_tokens() {
    const DefaultIds* kind = find_kind();
    const auto* add_bos = get<bool>("tokenizer.ggml.add_bos_token");
    const auto* add_eos = get<bool>("tokenizer.ggml.add_eos_token");
    const bool bos = add_bos != nullptr ? *add_bos : kind != nullptr && kind->adds_bos;
    if (bos) added_token("bos", "before", kind == nullptr ? -1 : kind->bos);
    if (add_eos != nullptr && *add_eos) added_token("eos", "behind", kind == nullptr ? -1 : kind->eos);
  }

  void added_token(const std::string& name, const char* side, int64_t filled_in) {
    if (metadata_.find("tokenizer.ggml." + name + "_token_id") != nullptr) return;
    const bool there = filled_in >= 0 && filled_in < std::ssize(*tokens_);
    const std::string taken =
        there ? "token " + std::to_string(filled_in) + ", '" + printable((*tokens_)[static_cast<size_t>(filled_in)]) + "'"
              : "some other token";
    add(Severity::kWarning,
        name + " is to be put " + side + " every prompt, but there is no " + name + "_token_id: llama.cpp takes " + taken);
  }

  void merges() {
    const MetaValue* value = metadata_.find("tokenizer.ggml.merges");
    if (value == nullptr) return add(Severity::kBroken, "tokenizer.ggml.merges is missing; llama.cpp refuses such a tokenizer");
    if (metadata_.find("tokenizer.ggml.pre") == nullptr)
      add(Severity::kWarning, "tokenizer.ggml.pre is missing: llama.cpp guesses how words are split, and text is often tokenized wrongly");
    const auto* merges = std::get_if<std::vector<std::string>>(value);
    if (merges == nullptr) return;
    if (merges->empty() && n_ordinary() > 256)
      return add(Severity::kBroken, "tokenizer.ggml.merges is empty: every text falls apart into single bytes");
    lost_merges(*merges);
  }

  // Tokens that are neither control tokens nor the like.
  size_t n_ordinary() const {
    const auto* types = get<std::vector<int32_t>>("tokenizer.ggml.token_type");
    return types == nullptr ? tokens_->size() : static_cast<size_t>(std::ranges::count(*types, kFirstType));
  }

  void lost_merges(const std::vector<std::string>& merges) {
    const std::string* first = nullptr;
    size_t n = 0;
    for (const std::string& merge : merges) {
      const size_t space = merge.find(' ', 1);
      const bool whole = space != std::string::npos && space + 1 < merge.size();
      if (whole && ids_.contains(merge.substr(0, space) + merge.substr(space + 1))) continue;
      if (n++ == 0) first = &merge;
    }
    if (n == 0) return;
    add(Severity::kWarning, "tokenizer.ggml.merges: " + counted(n, "merge") + " of " + std::to_string(merges.size()) +
                                (n == 1 ? " makes" : " make") + " no token of the vocabulary, the first is '" + printable(*first, 60) +
                                "'");
  }

  const Metadata& metadata_;
  const std::string where_;
  std::vector<Symptom>& symptoms_;
  std::string model_;
  const std::vector<std::string>* tokens_ = nullptr;
  std::unordered_map<std::string, size_t> ids_;  // of the first token of a text
  std::vector<size_t> twice_;
};

}  // namespace

void examine_vocabulary(const Metadata& metadata, const std::string& where, std::vector<Symptom>& symptoms) {
  VocabularyExamination(metadata, where, symptoms).run();
}

}  // namespace quern
