#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

namespace quern {

// What GGUF needs of a SentencePiece model file (tokenizer.model): a protobuf message ModelProto, of which only these fields are
// read. Field numbers: google/sentencepiece src/sentencepiece_model.proto.
struct SentencePieceModel {
  enum class Algorithm { kUnigram = 1, kBpe = 2, kWord = 3, kChar = 4 };
  struct Piece {
    std::string text;  // spaces are U+2581
    float score = 0.0f;
    int32_t type = 1;  // as in GGUF: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  };

  std::vector<Piece> pieces;  // by id
  Algorithm algorithm = Algorithm::kUnigram;
  bool byte_fallback = false;
  bool add_dummy_prefix = true;
  bool remove_extra_whitespaces = true;
  bool escape_whitespaces = true;
  bool has_charsmap = false;  // characters are normalised by a compiled table
  int32_t unk_id = 0;         // -1: there is none
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  int32_t pad_id = -1;
};

// Throws kFormat with the offset for bytes that are not such a message, among them tiktoken rank files of the same name.
SentencePieceModel parse_sentencepiece(std::span<const std::byte> file);

}  // namespace quern
