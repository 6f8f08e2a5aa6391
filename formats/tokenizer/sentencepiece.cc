#include "formats/tokenizer/sentencepiece.h"

#include <cmath>

#include "formats/base/bytes.h"
#include "formats/base/error.h"

// A protobuf message is a row of numbered fields, and sixteen of them are wanted, which does not ask for a protobuf library. A reader walks
// the fields of one message; messages inside the file get a reader of their own each, so nesting is two deep whatever the file says.
// Unknown fields are passed over by their wire type. Every field takes at least one byte and is checked against what its own message has
// left, so that reading ends and never leaves the file.

namespace quern {
namespace {

[[noreturn]] void fail(uint64_t offset, const std::string& message) { throw Error(ErrorKind::kFormat, message).at(offset); }

// One field of a protobuf message: number, and either a value or the bytes of a nested message or text.
struct Field {
  enum class Kind { kValue, kBytes, kFixed32, kFixed64 };
  uint64_t number = 0;
  Kind kind = Kind::kValue;
  uint64_t value = 0;
  std::span<const std::byte> bytes;
  uint64_t offset = 0;  // of the bytes, from the start of the file
};

// Walks the fields of one message without recursion: nested messages are walked by a reader of their own.
class FieldReader {
 public:
  FieldReader(std::span<const std::byte> bytes, uint64_t offset) : bytes_(bytes), offset_(offset) {}

  bool next(Field& field) {
    if (position_ == bytes_.size()) return false;
    const uint64_t start = offset_ + position_;
    const uint64_t tag = read_varint();
    field.number = tag >> 3;
    if (field.number == 0) fail(start, "protobuf field number 0; this is not a SentencePiece model");
    switch (tag & 7) {
      case 0:
        field.kind = Field::Kind::kValue;
        field.value = read_varint();
        break;
      case 1:
        field.kind = Field::Kind::kFixed64;
        take(8, field);
        break;
      case 2:
        field.kind = Field::Kind::kBytes;
        take(read_varint(), field);
        break;
      case 5:
        field.kind = Field::Kind::kFixed32;
        take(4, field);
        break;
      default:
        fail(start, "protobuf wire type " + std::to_string(tag & 7) + " is not used by SentencePiece models");
    }
    return true;
  }

 private:
  uint64_t read_varint() {
    const uint64_t start = offset_ + position_;
    uint64_t value = 0;
    for (int shift = 0; shift < 64; shift += 7) {
      if (position_ == bytes_.size()) fail(start, "protobuf integer runs past the end of its message");
      const auto byte = static_cast<uint64_t>(bytes_[position_++]);
      value |= (byte & 127) << shift;
      if (byte < 128) return value;
    }
    fail(start, "protobuf integer is longer than 10 bytes");
  }

  void take(uint64_t size, Field& field) {
    const uint64_t left = bytes_.size() - position_;
    field.offset = offset_ + position_;
    if (size > left) {
      fail(field.offset, "protobuf field of " + std::to_string(size) + " bytes, but its message has only " + std::to_string(left) +
                             " left (incomplete download?)");
    }
    field.bytes = bytes_.subspan(position_, size);
    position_ += size;
  }

  std::span<const std::byte> bytes_;
  uint64_t offset_;
  size_t position_ = 0;
};

bool is_value(const Field& field, uint64_t number) { return field.number == number && field.kind == Field::Kind::kValue; }
bool is_bytes(const Field& field, uint64_t number) { return field.number == number && field.kind == Field::Kind::kBytes; }

SentencePieceModel::Piece read_piece(const Field& message) {
  SentencePieceModel::Piece piece;
  FieldReader reader(message.bytes, message.offset);
  for (Field field; reader.next(field);) {
    if (is_bytes(field, 1)) {
      piece.text.assign(reinterpret_cast<const char*>(field.bytes.data()), field.bytes.size());
    } else if (field.number == 2 && field.kind == Field::Kind::kFixed32) {
      piece.score = load_le<float>(field.bytes.data());
      if (!std::isfinite(piece.score)) fail(field.offset, "score of a piece is not finite");
    } else if (is_value(field, 3)) {
      if (field.value < 1 || field.value > 6) fail(message.offset, "piece type " + std::to_string(field.value) + "; expected 1 to 6");
      piece.type = static_cast<int32_t>(field.value);
    }
  }
  if (piece.text.empty()) fail(message.offset, "piece without text");
  return piece;
}

void read_trainer(const Field& message, SentencePieceModel& model) {
  FieldReader reader(message.bytes, message.offset);
  for (Field field; reader.next(field);) {
    // Negative int32 values are stored as 64-bit two's complement.
    const auto id = static_cast<int32_t>(static_cast<uint32_t>(field.value));
    if (is_value(field, 3)) {
      if (field.value < 1 || field.value > 4) fail(message.offset, "model type " + std::to_string(field.value) + "; expected 1 to 4");
      model.algorithm = static_cast<SentencePieceModel::Algorithm>(field.value);
    } else if (is_value(field, 35)) {
      model.byte_fallback = field.value != 0;
    } else if (is_value(field, 40)) {
      model.unk_id = id;
    } else if (is_value(field, 41)) {
      model.bos_id = id;
    } else if (is_value(field, 42)) {
      model.eos_id = id;
    } else if (is_value(field, 43)) {
      model.pad_id = id;
    }
  }
}

void read_normalizer(const Field& message, SentencePieceModel& model) {
  FieldReader reader(message.bytes, message.offset);
  for (Field field; reader.next(field);) {
    if (is_bytes(field, 2)) {
      model.has_charsmap = !field.bytes.empty();
    } else if (is_value(field, 3)) {
      model.add_dummy_prefix = field.value != 0;
    } else if (is_value(field, 4)) {
      model.remove_extra_whitespaces = field.value != 0;
    } else if (is_value(field, 5)) {
      model.escape_whitespaces = field.value != 0;
    }
  }
}

}  // namespace

SentencePieceModel parse_sentencepiece(std::span<const std::byte> file) {
  SentencePieceModel model;
  FieldReader reader(file, 0);
  for (Field field; reader.next(field);) {
    if (is_bytes(field, 1)) {
      model.pieces.push_back(read_piece(field));
    } else if (is_bytes(field, 2)) {
      read_trainer(field, model);
    } else if (is_bytes(field, 3)) {
      read_normalizer(field, model);
    }
  }
  if (model.pieces.empty()) fail(0, "no pieces; this is not a SentencePiece model");
  return model;
}

}  // namespace quern
