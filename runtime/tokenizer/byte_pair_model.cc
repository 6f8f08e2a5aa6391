#include "runtime/tokenizer/byte_pair_model.h"

#include <algorithm>

#include "formats/base/error.h"

// The symbols of a word are a doubly linked list inside one array: a join writes the new id over the left symbol and takes the right one
// out, so the others keep their places. A heap holds the pairs that may be joined. Pairs that a join has made stale stay in it and are
// known when they come up, because what then stands at their place no longer makes that token: symbols only ever grow. A join adds two
// pairs at most and takes one symbol away, which bounds the heap and ends the loop. Merges are looked up by the ids of the pair; their
// texts are compared once, when the model is made.

namespace quern {
namespace {

// GPT-2 spells bytes by printable characters: those that are printable in Latin-1 by themselves, the others by U+0100, U+0101 ...
// Source: openai/gpt-2 src/encoder.py (bytes_to_unicode).
struct ByteSpelling {
  ByteSpelling() {
    uint32_t spare = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
      const bool printable_byte = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
      const uint32_t character = printable_byte ? byte : spare++;
      bytes[character] = static_cast<int16_t>(byte);
      std::string& text = texts[byte];
      if (character < 0x80) {
        text = static_cast<char>(character);
      } else {
        text = {static_cast<char>(0xC0 | character >> 6), static_cast<char>(0x80 | (character & 0x3F))};
      }
    }
  }

  std::array<std::string, 256> texts;
  std::array<int16_t, 0x144> bytes = filled();  // by character; -1: spells no byte

 private:
  static std::array<int16_t, 0x144> filled() {
    std::array<int16_t, 0x144> all;
    all.fill(-1);
    return all;
  }
};

const ByteSpelling kSpelling;

// The bytes that a token spells; empty if one of its characters spells none.
std::string spelled_bytes(std::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    uint32_t character = static_cast<unsigned char>(text[i]);
    if (character >= 0xC2 && character <= 0xC5 && i + 1 < text.size()) {
      character = (character & 0x1F) << 6 | (static_cast<unsigned char>(text[++i]) & 0x3F);
    } else if (character >= 0x80) {
      return {};
    }
    if (character >= kSpelling.bytes.size() || kSpelling.bytes[character] < 0) return {};
    out += static_cast<char>(kSpelling.bytes[character]);
  }
  return out;
}

uint64_t pair_key(int32_t left, int32_t right) { return uint64_t{static_cast<uint32_t>(left)} << 32 | static_cast<uint32_t>(right); }

}  // namespace

// Buffers that words of one text share.
struct BytePairModel::Scratch {
  struct Symbol {
    int32_t id;
    int32_t previous;
    int32_t next;  // -1: last
  };
  struct Candidate {
    int32_t rank;
    int32_t left;  // index of a symbol
    int32_t id;    // of the merged token
    // The queue's top is its greatest element: the lowest rank, then the leftmost.
    bool operator<(const Candidate& other) const { return rank != other.rank ? rank > other.rank : left > other.left; }
  };

  std::vector<std::string_view> words;
  std::vector<Symbol> symbols;
  std::vector<Candidate> heap;
};

BytePairModel::BytePairModel(const TokenTable& table, const std::vector<std::string>& merges, const PreTokenizer& pre)
    : table_(table), splitter_(pre.expressions) {
  std::unordered_map<std::string_view, int32_t> ids;
  ids.reserve(table.tokens.size());
  for (size_t id = 0; id < table.tokens.size(); ++id) {
    if (table.type(id) == TokenType::kNormal) ids.emplace(table.tokens[id], static_cast<int32_t>(id));
  }
  const auto id_of = [&](std::string_view text) {
    const auto it = ids.find(text);
    return it == ids.end() ? -1 : it->second;
  };
  for (size_t byte = 0; byte < 256; ++byte) byte_ids_[byte] = id_of(kSpelling.texts[byte]);
  merges_.reserve(merges.size());
  std::string joined;
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const std::string_view merge = merges[rank];
    const size_t space = merge.find(' ', 1);
    if (space == std::string_view::npos) throw Error(ErrorKind::kFormat, "merge " + std::to_string(rank) + " has no space in it");
    const std::string_view left = merge.substr(0, space);
    const std::string_view right = merge.substr(space + 1);
    joined.assign(left).append(right);
    const int32_t left_id = id_of(left);
    const int32_t right_id = id_of(right);
    const int32_t id = id_of(joined);
    if (left_id >= 0 && right_id >= 0 && id >= 0) merges_.emplace(pair_key(left_id, right_id), Merge{static_cast<int32_t>(rank), id});
  }
  if (pre.ignore_merges == PreTokenizer::IgnoreMerges::kNo) return;
  for (const auto& [text, id] : ids) {
    if (std::string bytes = spelled_bytes(text); !bytes.empty()) words_.emplace(std::move(bytes), id);
  }
}

const BytePairModel::Merge* BytePairModel::find_merge(int32_t left, int32_t right) const {
  const auto it = merges_.find(pair_key(left, right));
  return it == merges_.end() ? nullptr : &it->second;
}

void BytePairModel::encode(std::string_view text, bool /*after_special*/, std::vector<int32_t>& ids) const {
  if (text.size() > size_t{INT32_MAX})
    throw Error(ErrorKind::kUnsupported, "text of " + std::to_string(text.size()) + " bytes is too long");
  Scratch scratch;
  splitter_.split(text, scratch.words);
  for (const std::string_view word : scratch.words) {
    const auto whole = words_.empty() ? words_.end() : words_.find(std::string(word));
    if (whole != words_.end()) {
      ids.push_back(whole->second);
    } else {
      encode_word(word, scratch, ids);
    }
  }
}

void BytePairModel::encode_word(std::string_view word, Scratch& scratch, std::vector<int32_t>& ids) const {
  auto& symbols = scratch.symbols;
  auto& heap = scratch.heap;
  symbols.clear();
  heap.clear();
  const auto add_candidate = [&](int32_t left) {
    const int32_t right = left < 0 ? -1 : symbols[static_cast<size_t>(left)].next;
    if (right < 0) return;
    const Merge* merge = find_merge(symbols[static_cast<size_t>(left)].id, symbols[static_cast<size_t>(right)].id);
    if (merge == nullptr) return;
    heap.push_back({merge->rank, left, merge->id});
    std::push_heap(heap.begin(), heap.end());
  };
  const auto n = static_cast<int32_t>(word.size());
  for (int32_t i = 0; i < n; ++i) {
    const auto byte = static_cast<unsigned char>(word[static_cast<size_t>(i)]);
    if (byte_ids_[byte] < 0) throw Error(ErrorKind::kFormat, "the vocabulary has no token for byte " + std::to_string(byte));
    symbols.push_back({byte_ids_[byte], i - 1, i + 1 < n ? i + 1 : -1});
  }
  for (int32_t i = 0; i + 1 < n; ++i) add_candidate(i);

  while (!heap.empty()) {
    std::pop_heap(heap.begin(), heap.end());
    const Scratch::Candidate candidate = heap.back();
    heap.pop_back();
    Scratch::Symbol& left = symbols[static_cast<size_t>(candidate.left)];
    if (left.id < 0 || left.next < 0) continue;
    Scratch::Symbol& right = symbols[static_cast<size_t>(left.next)];
    const Merge* merge = find_merge(left.id, right.id);
    if (merge == nullptr || merge->id != candidate.id) continue;  // one of the two has changed since
    left.id = candidate.id;
    left.next = right.next;
    right.id = -1;
    if (left.next >= 0) symbols[static_cast<size_t>(left.next)].previous = candidate.left;
    add_candidate(left.previous);
    add_candidate(candidate.left);
  }
  for (int32_t i = 0; i >= 0 && i < n; i = symbols[static_cast<size_t>(i)].next) ids.push_back(symbols[static_cast<size_t>(i)].id);
}

void BytePairModel::append_bytes(int32_t id, std::string& out) const {
  const std::string& text = table_.tokens[static_cast<size_t>(id)];
  const std::string bytes = spelled_bytes(text);
  out += bytes.empty() ? text : bytes;
}

}  // namespace quern
