#pragma once

#include <string>
#include <utility>
#include <vector>

#include "formats/tokenizer/sentencepiece.h"
#include "formats/tokenizer/tokenizer_json.h"
#include "formats/tokenizer/vocabulary.h"

namespace quern {

// How each kind of tokenizer fills the token list. Types and scores as ggml-org/llama.cpp's converter chooses them
// (conversion/base.py: get_vocab_base, _create_vocab_sentencepiece). kFormat for ids outside the vocabulary and merges of unknown
// tokens; added tokens outside the vocabulary have no embedding and are left out with a note.

void fill_from_byte_level(const TokenizerJson& json, Vocabulary& vocabulary, std::vector<std::string>& notes);

// GGUF has scores instead of merges for this kind: a token's score is minus the number of tokens that earlier merges make, so that the
// engine's order (highest score first) is the file's. That is exact when all merges of a token follow each other and every pair of
// tokens that makes a token is a merge, as in files made from SentencePiece models; otherwise a note says so.
void fill_from_metaspace(const TokenizerJson& json, Vocabulary& vocabulary, std::vector<std::string>& notes);

// Throws kUnsupported for algorithms other than BPE, whose ids engines would not reproduce.
void fill_from_sentencepiece(const SentencePieceModel& model, Vocabulary& vocabulary, std::vector<std::string>& notes);

// Sets those added tokens whose ids are still padding, and notes those whose ids have another text. spaces_marked: U+2581 in their text
// stands for a space.
void fill_padding(const std::vector<AddedToken>& added, bool spaces_marked, Vocabulary& vocabulary, std::vector<std::string>& notes);

// Sets all added tokens, whatever has their ids.
void replace_added(const std::vector<AddedToken>& added, Vocabulary& vocabulary, std::vector<std::string>& notes);

// Merges as GGUF stores them: "left right", a space inside a part spelled U+0120.
std::vector<std::string> merge_texts(const std::vector<std::pair<std::string, std::string>>& merges);

}  // namespace quern
