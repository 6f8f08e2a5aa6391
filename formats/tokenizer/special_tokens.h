#pragma once

#include <string>
#include <vector>

#include "formats/gguf/metadata.h"
#include "formats/tokenizer/tokenizer_files.h"
#include "formats/tokenizer/tokenizer_inputs.h"
#include "formats/tokenizer/vocabulary.h"

namespace quern {

// Sets the ids of special tokens, bos to mask, and of further end tokens.
void set_special_ids(const TokenizerFiles& files, const TokenizerInputs& inputs, const Vocabulary& vocabulary, Metadata& metadata,
                     std::vector<std::string>& notes);

// Sets add_bos_token, add_eos_token and add_sep_token, which need the ids. loader_adds_bos: what engines do without a key.
void set_add_flags(const TokenizerFiles& files, const Vocabulary& vocabulary, bool loader_adds_bos, Metadata& metadata,
                   std::vector<std::string>& notes);

}  // namespace quern
