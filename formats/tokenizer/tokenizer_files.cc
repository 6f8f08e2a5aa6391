#include "formats/tokenizer/tokenizer_files.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>

#include "formats/base/error.h"
#include "formats/tokenizer/pretokenizers.h"

// The name of a file does not say what is in it: tokenizer.model is SentencePiece for most and a list of tiktoken ranks for some, which is
// found out by the first line. The slow form of a byte-level tokenizer, vocab.json and merges.txt, lacks the expression that cuts text into
// words; the class of the tokenizer has it built in, so that only classes in a table are read. What is there in a form that is not read is
// named for what it is, because a second download would bring the same.

namespace quern {
namespace {

// The largest tokenizer.json in use is 35 MB.
constexpr uint64_t kMaxFileBytes = uint64_t{256} << 20;

std::string text_of(const InputFile& file) { return read_text_file(file, kMaxFileBytes); }

// parse(text of the file), where errors name the file.
template <typename Parse>
auto parse_file(const ModelFolder& folder, const char* name, Parse parse) {
  try {
    return parse(text_of(folder.open(name)));
  } catch (Error& error) {
    error.file((folder.path() / name).string());
    throw;
  }
}

// "BASE64 RANK" as the first line. A SentencePiece model begins with a line break, its first field's tag.
bool is_rank_file(std::string_view text) {
  const std::string_view line = text.substr(0, std::min(text.find('\n'), size_t{256}));
  const size_t space = line.find(' ');
  if (space == std::string_view::npos || space == 0) return false;
  const auto is_base64 = [](char c) { return std::isalnum(static_cast<unsigned char>(c)) || c == '+' || c == '/' || c == '='; };
  return std::ranges::all_of(line.substr(0, space), is_base64) &&
         line.find_first_not_of("0123456789\r", space + 1) == std::string_view::npos && space + 1 < line.size();
}

SentencePieceModel parse_model_file(const std::string& text) {
  if (is_rank_file(text)) {
    throw Error(ErrorKind::kUnsupported,
                "holds tiktoken ranks and is not a SentencePiece model: it says neither how text is cut into words nor which tokens are "
                "special; add the tokenizer.json of the same model in transformers' layout");
  }
  if (text.starts_with('{')) throw Error(ErrorKind::kFormat, "is JSON and not a SentencePiece model; a tokenizer.json under another name?");
  return parse_sentencepiece(std::as_bytes(std::span(text)));
}

// Forms of a vocabulary that are not read. Names that begin with '*' stand for every name that ends so.
struct OtherForm {
  std::string_view name;
  std::string_view what;
};
constexpr std::string_view kWriteJson =
    "transformers' AutoTokenizer.from_pretrained(FOLDER).save_pretrained(FOLDER) may write a tokenizer.json";
constexpr std::array kOtherForms = {
    OtherForm{"tiktoken.model", "tiktoken ranks"},
    OtherForm{"*.tiktoken", "tiktoken ranks"},
    OtherForm{"tekken.json", "Mistral's tekken format"},
    OtherForm{"spiece.model", "SentencePiece, which is read under the name tokenizer.model"},
    OtherForm{"sentencepiece.bpe.model", "SentencePiece, which is read under the name tokenizer.model"},
    OtherForm{"tokenizer.model.v3", "SentencePiece, which is read under the name tokenizer.model"},
    OtherForm{"vocab.txt", "a WordPiece vocabulary"},
    OtherForm{"vocab.json", "a vocabulary whose merges.txt is missing"},
    OtherForm{"merges.txt", "merges whose vocab.json is missing"},
};

[[noreturn]] void no_tokenizer(const ModelFolder& folder) {
  for (const std::string& file : folder.names()) {
    const auto form = std::ranges::find_if(kOtherForms, [&](const OtherForm& other) {
      return other.name.starts_with('*') ? file.ends_with(other.name.substr(1)) : file == other.name;
    });
    if (form == kOtherForms.end()) continue;
    throw Error(ErrorKind::kUnsupported, "the only tokenizer is " + printable(file, 60) + " (" + std::string(form->what) +
                                             "); add the model's tokenizer.json, " + std::string(kWriteJson))
        .file(folder.path().string());
  }
  throw Error(ErrorKind::kFormat, "no tokenizer.json or tokenizer.model (incomplete download?)").file(folder.path().string());
}

bool has_slow_form(const ModelFolder& folder) { return folder.has("vocab.json") && folder.has("merges.txt"); }

// Name in the table of pre-tokenizers, by the class whose slow form it is.
std::string_view pre_tokenizer_of_class(std::string_view tokenizer_class, std::string_view gguf_arch) {
  if (tokenizer_class.ends_with("Fast")) tokenizer_class.remove_suffix(4);
  if (tokenizer_class == "GPT2Tokenizer") return "gpt-2";
  const bool is_qwen = gguf_arch.starts_with("qwen2") || gguf_arch.starts_with("qwen3");
  if (tokenizer_class == "Qwen2Tokenizer" || (tokenizer_class.empty() && is_qwen)) return "qwen2";
  const std::string found = tokenizer_class.empty() ? "no file names a tokenizer_class"
                                                    : "tokenizer_class '" + printable(tokenizer_class, 40) + "' is not one of them";
  throw Error(ErrorKind::kUnsupported,
              "vocab.json and merges.txt do not say how text is cut into words, which is known of GPT2Tokenizer and Qwen2Tokenizer; " +
                  found + "; " + std::string(kWriteJson));
}

// Tokens that are special by name only are control tokens too.
void add_named_specials(const TokenizerConfig& config, TokenizerJson& json) {
  for (const auto& special : config.special_tokens) {
    const std::string& text = special.second;
    const auto added = std::ranges::find(json.added, text, &AddedToken::content);
    if (added != json.added.end()) {
      added->special = true;
      continue;
    }
    const auto token = std::ranges::find(json.vocab, text, [](const auto& entry) { return entry.first; });
    if (token != json.vocab.end()) json.added.push_back({token->second, text, true});
  }
}

// added_tokens.json says again what the decoder of a newer tokenizer_config.json says with more.
TokenizerJson read_slow_form(const ModelFolder& folder, const TokenizerFiles& files, std::string_view gguf_arch) {
  TokenizerJson json;
  const PreTokenizer* pre = find_pre_tokenizer(pre_tokenizer_of_class(files.config.tokenizer_class, gguf_arch));
  json.expressions.assign(pre->expressions.begin(), pre->expressions.end());
  json.nfc = pre->nfc;
  json.vocab = parse_file(folder, "vocab.json", parse_vocab_json);
  json.merges = parse_file(folder, "merges.txt", parse_merges_txt);
  json.added = files.config.added.empty() ? files.added : files.config.added;
  add_named_specials(files.config, json);
  return json;
}

// transformers reads special_tokens_map.json after the tokenizer_config.json of older files, and not beside one that lists added tokens.
void add_special_tokens_map(const ModelFolder& folder, TokenizerConfig& config, std::vector<std::string>& notes) {
  constexpr const char* kMap = "special_tokens_map.json";
  if (!folder.has(kMap) || !config.added.empty()) return;
  for (auto& [name, text] : parse_file(folder, kMap, parse_special_tokens_map)) {
    const auto known = std::ranges::find(config.special_tokens, name, [](const auto& entry) { return entry.first; });
    if (known == config.special_tokens.end()) {
      config.special_tokens.emplace_back(std::move(name), std::move(text));
    } else if (known->second != text) {
      notes.push_back("tokenizer_config.json names '" + printable(known->second, 40) + "' as " + name + "_token, " + kMap + " '" +
                      printable(text, 40) + "'; the second counts");
      known->second = std::move(text);
    }
  }
}

void read_side_files(const ModelFolder& folder, TokenizerFiles& files, std::vector<std::string>& notes) {
  if (folder.has("tokenizer_config.json")) files.config = parse_file(folder, "tokenizer_config.json", parse_tokenizer_config);
  for (const std::string& key : files.config.repeated) {
    notes.push_back("tokenizer_config.json: the key '" + printable(key, 40) + "' occurs twice; the last one counts");
  }
  add_special_tokens_map(folder, files.config, notes);
  if (folder.has("added_tokens.json")) files.added = parse_file(folder, "added_tokens.json", parse_added_tokens);
}

}  // namespace

bool has_tokenizer(const ModelFolder& folder) {
  return folder.has("tokenizer.json") || folder.has("tokenizer.model") || has_slow_form(folder);
}

TokenizerFiles read_tokenizer_files(const ModelFolder& folder, std::string_view gguf_arch, std::vector<std::string>& notes) {
  if (!has_tokenizer(folder)) no_tokenizer(folder);
  TokenizerFiles files;
  read_side_files(folder, files, notes);
  const bool has_model = folder.has("tokenizer.model");
  if (folder.has("tokenizer.json")) {
    try {
      files.json = parse_file(folder, "tokenizer.json", parse_tokenizer_json);
      files.vocabulary_file = "tokenizer.json";
    } catch (const Error& error) {
      // What GGUF cannot express is passed over when there is a SentencePiece model as well: the file was made from it.
      const bool has_original = has_model && !is_rank_file(text_of(folder.open("tokenizer.model")));
      if (!has_original || error.kind() != ErrorKind::kUnsupported) throw;
    }
  } else if (!has_model) {
    files.json = read_slow_form(folder, files, gguf_arch);
    files.vocabulary_file = "vocab.json";
  }
  if (has_model && !(files.json && files.json->kind == TokenizerJson::Kind::kByteLevel)) {
    files.sentencepiece = parse_file(folder, "tokenizer.model", parse_model_file);
    files.vocabulary_file = "tokenizer.model";
  }
  return files;
}

}  // namespace quern
