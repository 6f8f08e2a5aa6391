#include "formats/tokenizer/special_tokens.h"

#include <algorithm>
#include <array>

#include "formats/base/error.h"

// A special id comes from the text that a tokenizer file names, else from config.json or generation_config.json, else from the
// SentencePiece model. GGUF has no way to say that there is no such token: llama.cpp fills a missing BOS or EOS with a number that depends
// on the kind of tokenizer, 11 for byte-level ones, which is a comma in most vocabularies. So a missing id is said, and a missing BOS is
// never added.
//
// A model may have several end tokens, and GGUF has one EOS. llama.cpp also ends at tokens that it knows by their text, and at two more
// ids, end of turn and end of message. Those take what it would not know.

namespace quern {
namespace {

// What ends a text whatever the keys say. Source: ggml-org/llama.cpp src/llama-vocab.cpp, special_eog_ids.
constexpr std::array<std::string_view, 22> kKnownEnds = {"<|eot_id|>",
                                                         "<|im_end|>",
                                                         "<|end|>",
                                                         "<|return|>",
                                                         "<|call|>",
                                                         "<|flush|>",
                                                         "<|calls|>",
                                                         "<end_of_turn>",
                                                         "<|endoftext|>",
                                                         "</s>",
                                                         "<|eom_id|>",
                                                         "<EOT>",
                                                         "_<EOT>",
                                                         "[EOT]",
                                                         "[EOS]",
                                                         "<|end_of_text|>",
                                                         "<end_of_utterance>",
                                                         "<eos>",
                                                         "<turn|>",
                                                         "<|tool_response>",
                                                         "<｜end▁of▁sentence｜>",
                                                         "[e~["};

constexpr int64_t kByteLevelDefault = 11;  // BOS and EOS of llama.cpp where no key says otherwise
constexpr int64_t kTextDefaultBos = 1;
constexpr int64_t kTextDefaultEos = 2;

std::string named(const Vocabulary& vocabulary, int64_t id) {
  return "'" + printable(vocabulary.text(id), 40) + "' (id " + std::to_string(id) + ")";
}

class SpecialIds {
 public:
  SpecialIds(const TokenizerFiles& files, const Vocabulary& vocabulary, Metadata& metadata, std::vector<std::string>& notes)
      : files_(files), vocabulary_(vocabulary), metadata_(metadata), notes_(notes) {}

  void set(std::string_view name, const char* key, std::optional<int64_t> config_id, int64_t vocabulary_id) {
    const std::optional<int64_t> configured = checked(name, config_id);
    std::optional<int64_t> id = id_of_text(name);
    // Several end tokens are no contradiction.
    if (id && configured && *id != *configured && name != "eos") {
      notes_.push_back(std::string(name) + "_token_id is " + named(vocabulary_, *configured) +
                       " in config.json, but the tokenizer's files name " + named(vocabulary_, *id) + ", which counts");
    }
    if (!id) id = configured;
    if (!id && vocabulary_.has(vocabulary_id)) id = vocabulary_id;
    if (id) metadata_.set(key, static_cast<uint32_t>(*id));
  }

  void set_further_ends(const std::vector<int64_t>& end_ids) {
    const std::optional<int64_t> eos = metadata_.find_int("tokenizer.ggml.eos_token_id");
    std::vector<int64_t> unknown;
    for (const int64_t id : end_ids) {
      const bool known = !vocabulary_.has(id) || id == eos || std::ranges::find(kKnownEnds, vocabulary_.text(id)) != kKnownEnds.end();
      if (!known) unknown.push_back(id);
    }
    const std::array<const char*, 2> keys = {"eot_token_id", "eom_token_id"};
    for (size_t i = 0; i < unknown.size(); ++i) {
      const std::string text = "texts end at " + named(vocabulary_, unknown[i]) + " too, ";
      if (i < keys.size()) metadata_.set(std::string("tokenizer.ggml.") + keys[i], static_cast<uint32_t>(unknown[i]));
      notes_.push_back(text +
                       (i < keys.size() ? std::string("written as ") + keys[i] : "which GGUF has no key for: engines go on after it"));
    }
  }

  // No key for EOS: what llama.cpp takes instead.
  void note_missing_eos() {
    if (metadata_.find("tokenizer.ggml.eos_token_id") != nullptr) return;
    const int64_t assumed = files_.byte_level() ? kByteLevelDefault : kTextDefaultEos;
    const bool fits = vocabulary_.has(assumed) && std::ranges::find(kKnownEnds, vocabulary_.text(assumed)) != kKnownEnds.end();
    if (fits) return;
    notes_.push_back("no file names an end-of-text token (eos)" +
                     (vocabulary_.has(assumed) ? ": llama.cpp ends answers at " + named(vocabulary_, assumed) + " instead" : "") +
                     "; quern edit FILE --set tokenizer.ggml.eos_token_id:u32=ID sets it");
  }

 private:
  std::optional<int64_t> id_of_text(std::string_view name) {
    for (const auto& [special, text] : files_.config.special_tokens) {
      if (special != name) continue;
      const int64_t id = vocabulary_.find(text);
      if (id >= 0) return id;
      notes_.push_back(std::string(name) + "_token '" + printable(text, 40) +
                       "' of the tokenizer's files is not in the vocabulary; left out");
    }
    return std::nullopt;
  }

  std::optional<int64_t> checked(std::string_view name, std::optional<int64_t> id) {
    if (!id || vocabulary_.has(*id)) return id;
    notes_.push_back("config.json: " + std::string(name) + "_token_id " + std::to_string(*id) + " is outside the vocabulary; left out");
    return std::nullopt;
  }

  const TokenizerFiles& files_;
  const Vocabulary& vocabulary_;
  Metadata& metadata_;
  std::vector<std::string>& notes_;
};

// What stands around a text and is neither BOS nor EOS, or more than one token.
void note_other_affixes(const SpecialTemplate& step, bool adds_bos, bool adds_eos, std::vector<std::string>& notes) {
  const auto note = [&](const std::string& text, size_t n, bool expressed, const char* place, const char* name) {
    const size_t n_expressed = expressed ? 1 : 0;
    if (n == n_expressed) return;
    notes.push_back("tokenizer.json puts " +
                    (n == 1 ? "'" + printable(text, 40) + "', which is not " + name + "," : std::to_string(n) + " tokens") + " " + place +
                    " texts; GGUF cannot say that");
  };
  note(step.first, step.n_before, adds_bos, "before", "BOS");
  note(step.last, step.n_after, adds_eos, "after", "EOS");
}

}  // namespace

void set_special_ids(const TokenizerFiles& files, const TokenizerInputs& inputs, const Vocabulary& vocabulary, Metadata& metadata,
                     std::vector<std::string>& notes) {
  SpecialIds ids(files, vocabulary, metadata, notes);
  const auto& sp = files.sentencepiece;
  ids.set("bos", "tokenizer.ggml.bos_token_id", inputs.bos_token_id, sp ? sp->bos_id : -1);
  ids.set("eos", "tokenizer.ggml.eos_token_id", inputs.eos_token_id, sp ? sp->eos_id : -1);
  // 0 is what llama.cpp assumes.
  const int64_t unk_of_json = files.byte_level() || !files.json ? 0 : vocabulary.find(files.json->unk_token);
  ids.set("unk", "tokenizer.ggml.unknown_token_id", inputs.unk_token_id, sp ? sp->unk_id : unk_of_json > 0 ? unk_of_json : -1);
  ids.set("sep", "tokenizer.ggml.seperator_token_id", std::nullopt, -1);  // spelled so in GGUF
  ids.set("pad", "tokenizer.ggml.padding_token_id", inputs.pad_token_id, sp ? sp->pad_id : -1);
  ids.set("cls", "tokenizer.ggml.cls_token_id", std::nullopt, -1);
  ids.set("mask", "tokenizer.ggml.mask_token_id", std::nullopt, -1);
  ids.set_further_ends(inputs.end_ids);
  ids.note_missing_eos();
}

// Whether BOS and EOS are put around a text. transformers' Llama classes rebuild that step from the two flags and ignore the one in
// tokenizer.json; every other class uses the step and ignores the flags.
void set_add_flags(const TokenizerFiles& files, const Vocabulary& vocabulary, bool loader_adds_bos, Metadata& metadata,
                   std::vector<std::string>& notes) {
  std::optional<bool> add_bos = files.config.add_bos_token;
  std::optional<bool> add_eos = files.config.add_eos_token;
  const bool flags_rule = files.config.tokenizer_class.starts_with("Llama") || files.config.tokenizer_class.starts_with("CodeLlama");
  const auto text_of_id = [&](const char* key) {
    const std::optional<int64_t> id = metadata.find_int(key);
    return id ? vocabulary.text(*id) : std::string();
  };
  const std::string bos = text_of_id("tokenizer.ggml.bos_token_id");
  const std::string eos = text_of_id("tokenizer.ggml.eos_token_id");
  const SpecialTemplate* step = files.json && files.json->special_template ? &*files.json->special_template : nullptr;
  if (flags_rule) {
    add_bos = add_bos.value_or(true);
    add_eos = add_eos.value_or(false);
  } else if (step != nullptr) {
    add_bos = !step->first.empty() && step->first == bos;
    add_eos = !step->last.empty() && step->last == eos;
    note_other_affixes(*step, *add_bos, *add_eos, notes);
  }
  const bool assumes_bos = !add_bos && loader_adds_bos && bos.empty() && (files.byte_level() || vocabulary.text(kTextDefaultBos) != "<s>");
  if ((add_bos.value_or(false) || assumes_bos) && bos.empty()) {
    notes.push_back(std::string(add_bos ? "add_bos_token is true" : "engines add BOS for this kind of tokenizer") +
                    " but there is no BOS token; written as false");
    add_bos = false;
  }
  if (add_eos.value_or(false) && eos.empty()) {
    notes.push_back("add_eos_token is true but there is no EOS token; written as false");
    add_eos = false;
  }
  if (add_bos) metadata.set("tokenizer.ggml.add_bos_token", *add_bos);
  if (add_eos) metadata.set("tokenizer.ggml.add_eos_token", *add_eos);
  if (step != nullptr && step->has_pair_separator) {
    const bool separates = step->separators.front() == eos && step->last.empty() && !eos.empty();
    metadata.set("tokenizer.ggml.add_sep_token", separates);
  }
}

}  // namespace quern
