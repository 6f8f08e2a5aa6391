#include "formats/tokenizer/import.h"

#include "formats/base/error.h"
#include "formats/tokenizer/build_vocabulary.h"
#include "formats/tokenizer/chat_template.h"
#include "formats/tokenizer/pretokenizers.h"
#include "formats/tokenizer/sentencepiece.h"
#include "formats/tokenizer/tokenizer_json.h"
#include "formats/tokenizer/vocabulary.h"

// Several files of a folder say the same things and do not always agree; this file is the order in which they are believed. The vocabulary
// is that of one file (import.h has the order). Tokens that the others add fill padding, except that beside a tokenizer.model, which need
// not know them, added_tokens.json and tokenizer_config.json are right whatever has their ids. Special ids come from the texts named in
// tokenizer_config.json, else from config.json, else from the SentencePiece model. Where transformers has a rule for a contradiction, it is
// followed, because the ids of the model's training came from there; what GGUF cannot say, or what had to be assumed, becomes a note.

namespace quern {
namespace {

// The largest tokenizer.json in use is 35 MB.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

// Everything the folder says, parsed.
struct TokenizerFiles {
  std::optional<TokenizerJson> json;
  std::optional<SentencePieceModel> sentencepiece;
  TokenizerConfig config;
  std::vector<AddedToken> added;  // added_tokens.json
};

// parse(folder.open(name)), where errors name the file.
template <typename Parse>
auto parse_file(const ModelFolder& folder, const char* name, Parse parse) {
  try {
    return parse(folder.open(name));
  } catch (Error& error) {
    error.file((folder.path() / name).string());
    throw;
  }
}

std::string text_of(const InputFile& file) { return read_text_file(file, kMaxFileBytes); }

[[noreturn]] void no_tokenizer(const ModelFolder& folder) {
  for (const auto& [file, what] : {std::pair{"tiktoken.model", "tiktoken ranks"}, std::pair{"tekken.json", "Mistral's tekken format"}}) {
    if (folder.has(file)) {
      throw Error(ErrorKind::kUnsupported, std::string("the only tokenizer is ") + file + " (" + what +
                                               "), which is not supported; add a tokenizer.json made from it")
          .file(folder.path().string());
    }
  }
  throw Error(ErrorKind::kFormat, "no tokenizer.json or tokenizer.model (incomplete download?)").file(folder.path().string());
}

// A tokenizer.json that GGUF cannot express is passed over when there is a SentencePiece model as well: the file was made from it.
TokenizerFiles read_files(const ModelFolder& folder) {
  TokenizerFiles files;
  const bool has_sentencepiece = folder.has("tokenizer.model");
  if (folder.has("tokenizer.json")) {
    try {
      files.json = parse_file(folder, "tokenizer.json", [](const InputFile& file) { return parse_tokenizer_json(text_of(file)); });
    } catch (const Error& error) {
      if (!has_sentencepiece || error.kind() != ErrorKind::kUnsupported) throw;
    }
  }
  const bool byte_level = files.json && files.json->kind == TokenizerJson::Kind::kByteLevel;
  if (has_sentencepiece && !byte_level) {
    files.sentencepiece =
        parse_file(folder, "tokenizer.model", [](const InputFile& file) { return parse_sentencepiece(read_file(file, kMaxFileBytes)); });
  }
  if (!files.json && !files.sentencepiece) no_tokenizer(folder);
  if (folder.has("tokenizer_config.json")) {
    files.config = parse_file(folder, "tokenizer_config.json", [](const InputFile& file) { return parse_tokenizer_config(text_of(file)); });
  }
  if (folder.has("added_tokens.json")) {
    files.added = parse_file(folder, "added_tokens.json", [](const InputFile& file) { return parse_added_tokens(text_of(file)); });
  }
  return files;
}

// The name under which engines know the expressions of the file. DeepSeek-V4's are those of V3; public V4 files use another name.
std::string_view pre_tokenizer_name(const TokenizerJson& json, std::string_view gguf_arch, std::vector<std::string>& notes) {
  const PreTokenizer* pre = find_pre_tokenizer(json.expressions, json.ignore_merges);
  if (pre == nullptr) {
    std::string list;
    for (const std::string& expression : json.expressions) list += (list.empty() ? "'" : ", '") + printable(expression, 400) + "'";
    throw Error(ErrorKind::kUnsupported, "no GGUF pre-tokenizer has the regular expressions " + (list.empty() ? "(none)" : list) +
                                             (json.ignore_merges ? " with ignore_merges" : ""));
  }
  if (json.nfc != pre->nfc) {
    notes.push_back(std::string("tokenizer.json ") + (json.nfc ? "normalises to NFC" : "does not normalise to NFC") +
                    ", unlike other tokenizers of type " + std::string(pre->name) + "; texts with combining marks may get other ids");
  }
  return gguf_arch == "deepseek4" && pre->name == "deepseek-v3" ? "joyai-llm" : pre->name;
}

void set_special_ids(const TokenizerFiles& files, const TokenizerInputs& inputs, const Vocabulary& vocabulary, Metadata& metadata,
                     std::vector<std::string>& notes) {
  struct Kind {
    std::string_view name;
    std::string_view key;
    std::optional<int64_t> config_id;
    int64_t sentencepiece_id;
  };
  const auto& sp = files.sentencepiece;
  const Kind kinds[] = {
      {"bos", "tokenizer.ggml.bos_token_id", inputs.bos_token_id, sp ? sp->bos_id : -1},
      {"eos", "tokenizer.ggml.eos_token_id", inputs.eos_token_id, sp ? sp->eos_id : -1},
      {"unk", "tokenizer.ggml.unknown_token_id", inputs.unk_token_id, sp ? sp->unk_id : -1},
      {"sep", "tokenizer.ggml.seperator_token_id", std::nullopt, -1},  // spelled so in GGUF
      {"pad", "tokenizer.ggml.padding_token_id", inputs.pad_token_id, sp ? sp->pad_id : -1},
      {"cls", "tokenizer.ggml.cls_token_id", std::nullopt, -1},
      {"mask", "tokenizer.ggml.mask_token_id", std::nullopt, -1},
  };
  for (const Kind& kind : kinds) {
    int64_t id = -1;
    for (const auto& [name, text] : files.config.special_tokens) {
      if (name == kind.name) id = vocabulary.find(text);
    }
    if (id < 0 && kind.config_id) {
      id = *kind.config_id;
      if (!vocabulary.has(id)) {
        notes.push_back("config.json: " + std::string(kind.name) + "_token_id " + std::to_string(id) +
                        " is outside the vocabulary; left out");
        id = -1;
      }
    }
    if (id < 0 && vocabulary.has(kind.sentencepiece_id)) id = kind.sentencepiece_id;
    if (id >= 0) metadata.set(kind.key, static_cast<uint32_t>(id));
  }
}

// Whether BOS and EOS are put around a text. transformers' Llama classes rebuild that step from the two flags and ignore the one in
// tokenizer.json; every other class uses the step and ignores the flags. Without either, llama.cpp's default for the type applies.
void set_add_flags(const TokenizerFiles& files, const Vocabulary& vocabulary, Metadata& metadata, std::vector<std::string>& notes) {
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
    if (!step->first.empty() && !*add_bos) {
      notes.push_back("tokenizer.json puts '" + printable(step->first, 40) + "', which is not BOS, before texts; GGUF cannot say that");
    }
  }
  if (add_bos.value_or(false) && bos.empty()) {
    notes.push_back("add_bos_token is true but there is no BOS token; written as false");
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

}  // namespace

void set_tokenizer_metadata(const ModelFolder& folder, const TokenizerInputs& inputs, Metadata& metadata, std::vector<std::string>& notes) {
  const TokenizerFiles files = read_files(folder);
  const bool byte_level = !files.sentencepiece && files.json->kind == TokenizerJson::Kind::kByteLevel;
  Vocabulary vocabulary(inputs.vocab_size);
  try {
    if (files.sentencepiece) {
      fill_from_sentencepiece(*files.sentencepiece, vocabulary, notes);
    } else if (byte_level) {
      fill_from_byte_level(*files.json, vocabulary, notes);
    } else {
      fill_from_metaspace(*files.json, vocabulary, notes);
    }
    if (files.sentencepiece && files.json) fill_padding(files.json->added, !byte_level, vocabulary, notes);
    if (files.sentencepiece) {
      replace_added(files.added, vocabulary, notes);
      replace_added(files.config.added, vocabulary, notes);
    } else {
      fill_padding(files.added, !byte_level, vocabulary, notes);
      fill_padding(files.config.added, !byte_level, vocabulary, notes);
    }
    metadata.set("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
    metadata.set("tokenizer.ggml.pre", std::string(byte_level ? pre_tokenizer_name(*files.json, inputs.gguf_arch, notes) : "default"));
  } catch (Error& error) {
    error.file((folder.path() / (files.sentencepiece ? "tokenizer.model" : "tokenizer.json")).string());
    throw;
  }
  set_special_ids(files, inputs, vocabulary, metadata, notes);
  set_add_flags(files, vocabulary, metadata, notes);
  if (!byte_level) {
    const bool prefix = files.sentencepiece ? files.sentencepiece->add_dummy_prefix : files.json->space_prefix;
    metadata.set("tokenizer.ggml.add_space_prefix", files.config.add_prefix_space.value_or(prefix));
  }
  if (files.sentencepiece) metadata.set("tokenizer.ggml.remove_extra_whitespaces", files.sentencepiece->remove_extra_whitespaces);
  metadata.set("tokenizer.ggml.tokens", vocabulary.take_tokens());
  if (!byte_level) metadata.set("tokenizer.ggml.scores", vocabulary.take_scores());
  metadata.set("tokenizer.ggml.token_type", vocabulary.types());
  if (byte_level) metadata.set("tokenizer.ggml.merges", merge_texts(files.json->merges));
  set_chat_template(folder, inputs.chat_template, files.config.chat_templates, metadata, notes);
}

}  // namespace quern
