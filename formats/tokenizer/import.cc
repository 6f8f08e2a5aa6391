#include "formats/tokenizer/import.h"

#include "formats/base/error.h"
#include "formats/tokenizer/build_vocabulary.h"
#include "formats/tokenizer/chat_template.h"
#include "formats/tokenizer/check_vocabulary.h"
#include "formats/tokenizer/pretokenizers.h"
#include "formats/tokenizer/special_tokens.h"
#include "formats/tokenizer/tokenizer_files.h"
#include "formats/tokenizer/vocabulary.h"

// Several files of a folder say the same things and do not always agree; this file is the order in which they are believed. The vocabulary
// is that of one file (import.h has the order). Tokens that the others add fill padding, except that beside a tokenizer.model, which need
// not know them, added_tokens.json and tokenizer_config.json are right whatever has their ids. The finished list is then checked as a
// whole. Where transformers has a rule for a contradiction, it is followed, because the ids of the model's training came from there; what
// GGUF cannot say, or what had to be assumed, becomes a note.

namespace quern {
namespace {

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

void fill(const TokenizerFiles& files, Vocabulary& vocabulary, std::vector<std::string>& notes) {
  const bool byte_level = files.byte_level();
  if (files.sentencepiece) {
    fill_from_sentencepiece(*files.sentencepiece, vocabulary, notes);
  } else {
    check_reach(*files.json, notes);
    byte_level ? fill_from_byte_level(*files.json, vocabulary, notes) : fill_from_metaspace(*files.json, vocabulary, notes);
  }
  if (files.sentencepiece && files.json) fill_padding(files.json->added, !byte_level, vocabulary, notes);
  if (files.sentencepiece) {
    replace_added(files.added, vocabulary, notes);
    replace_added(files.config.added, vocabulary, notes);
  } else {
    fill_padding(files.added, !byte_level, vocabulary, notes);
    fill_padding(files.config.added, !byte_level, vocabulary, notes);
  }
  check_vocabulary(byte_level, vocabulary, notes);
}

}  // namespace

void set_tokenizer_metadata(const ModelFolder& folder, const TokenizerInputs& inputs, Metadata& metadata, std::vector<std::string>& notes) {
  const TokenizerFiles files = read_tokenizer_files(folder, inputs.gguf_arch, notes);
  const bool byte_level = files.byte_level();
  std::string_view pre = "default";
  Vocabulary vocabulary(inputs.vocab_size);
  try {
    fill(files, vocabulary, notes);
    if (byte_level) pre = pre_tokenizer_name(*files.json, inputs.gguf_arch, notes);
  } catch (Error& error) {
    error.file((folder.path() / files.vocabulary_file).string());
    throw;
  }
  metadata.set("tokenizer.ggml.model", std::string(byte_level ? "gpt2" : "llama"));
  metadata.set("tokenizer.ggml.pre", std::string(pre));
  set_special_ids(files, inputs, vocabulary, metadata, notes);
  set_add_flags(files, vocabulary, byte_level ? find_pre_tokenizer(pre)->adds_bos : true, metadata, notes);
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
