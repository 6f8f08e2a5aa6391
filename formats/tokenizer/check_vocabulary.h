#pragma once

#include <string>
#include <vector>

#include "formats/tokenizer/tokenizer_json.h"
#include "formats/tokenizer/vocabulary.h"

namespace quern {

// A list of tokens that is in order as a list and yet spells nothing, or not what it should.

// Throws kFormat when there are no merges although tokens are longer than a character; notes that most of those are out of reach.
void check_reach(const TokenizerJson& json, std::vector<std::string>& notes);

// For the finished list. Throws kFormat when two ids have the same text, which llama.cpp refuses; padding that has the text of a token is
// renamed instead. Notes ids in between that no token has, bytes that no token spells, and byte-level tokens that spell no bytes.
void check_vocabulary(bool byte_level, Vocabulary& vocabulary, std::vector<std::string>& notes);

}  // namespace quern
