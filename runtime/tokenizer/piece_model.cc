#include "runtime/tokenizer/piece_model.h"

#include <algorithm>
#include <charconv>

#include "formats/base/error.h"

// The symbols of a text are views into it, linked as a list; neighbours lie side by side, so a join is a longer view and nothing is copied.
// A heap holds the pairs that make a piece. A pair that has become stale is known by its size, since symbols only grow. Pieces that are
// marked as unused take part in joins like the others, but are never output: the pair that each came from is remembered, and at the end it
// is taken apart again, as deep as it takes.

namespace quern {
namespace {

constexpr std::string_view kSpaceMark = "\u2581";

size_t character_length(char first) {
  const auto byte = static_cast<unsigned char>(first);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// The byte of a "<0xNN>", or -1.
int byte_of(std::string_view text) {
  int byte = -1;
  if (text.size() != 6 || !text.starts_with("<0x") || text.back() != '>') return -1;
  const auto [end, error] = std::from_chars(text.data() + 3, text.data() + 5, byte, 16);
  return error == std::errc() && end == text.data() + 5 ? byte : -1;
}

}  // namespace

PieceModel::PieceModel(const TokenTable& table, const Options& options) : table_(table), options_(options) {
  byte_ids_.fill(-1);
  for (size_t i = 0; i < table.tokens.size(); ++i) {
    const auto id = static_cast<int32_t>(i);
    const TokenType type = table.type(i);
    if (type == TokenType::kNormal || type == TokenType::kUnused) pieces_.emplace(table.tokens[i], id);
    const int byte = type == TokenType::kByte ? byte_of(table.tokens[i]) : -1;
    if (byte >= 0) byte_ids_[static_cast<size_t>(byte)] = id;
  }
  has_bytes_ = std::ranges::find(byte_ids_, -1) == byte_ids_.end();
}

std::string PieceModel::normalized(std::string_view text, bool after_special) const {
  std::string out;
  out.reserve(text.size() + text.size() / 2 + kSpaceMark.size());
  if (options_.remove_extra_spaces) {
    const size_t first = text.find_first_not_of(' ');
    if (first == std::string_view::npos) return out;
    text = text.substr(first, text.find_last_not_of(' ') - first + 1);
  }
  if (options_.space_in_front && after_special) out += kSpaceMark;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] != ' ') {
      out += text[i];
    } else if (!options_.remove_extra_spaces || text[i - 1] != ' ') {
      out += kSpaceMark;
    }
  }
  return out;
}

// The symbols of one text while they are merged.
struct PieceModel::Merger {
  struct Symbol {
    std::string_view text;  // empty: joined to the one before
    int32_t previous;
    int32_t next;  // -1: last
  };
  struct Candidate {
    float score;
    int32_t left;  // index of a symbol
    size_t size;   // bytes of both; differs once one of them has changed
    // The queue's top is its greatest element: the highest score, then the leftmost.
    bool operator<(const Candidate& other) const { return score != other.score ? score < other.score : left > other.left; }
  };

  const PieceModel& model;
  std::vector<Symbol> symbols = {};
  std::vector<Candidate> heap = {};
  // How the unused pieces came about, which must not be output.
  std::unordered_map<std::string_view, std::pair<std::string_view, std::string_view>> unused = {};

  Symbol& at(int32_t index) { return symbols[static_cast<size_t>(index)]; }

  void start(std::string_view text) {
    for (size_t offset = 0; offset < text.size();) {
      const size_t length = std::min(character_length(text[offset]), text.size() - offset);
      const auto index = static_cast<int32_t>(symbols.size());
      const bool is_last = offset + length == text.size();
      symbols.push_back({text.substr(offset, length), index - 1, is_last ? -1 : index + 1});
      offset += length;
    }
    for (int32_t i = 0; i + 1 < static_cast<int32_t>(symbols.size()); ++i) add_candidate(i);
  }

  void add_candidate(int32_t left) {
    const int32_t right = left < 0 ? -1 : at(left).next;
    if (right < 0) return;
    const std::string_view joined(at(left).text.data(), at(left).text.size() + at(right).text.size());
    const auto piece = model.pieces_.find(joined);
    if (piece == model.pieces_.end()) return;
    const auto id = static_cast<size_t>(piece->second);
    heap.push_back({model.table_.scores[id], left, joined.size()});
    std::push_heap(heap.begin(), heap.end());
    if (model.table_.type(id) == TokenType::kUnused) unused.try_emplace(joined, at(left).text, at(right).text);
  }

  void merge_all() {
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const Candidate candidate = heap.back();
      heap.pop_back();
      Symbol& left = at(candidate.left);
      if (left.text.empty() || left.next < 0) continue;
      Symbol& right = at(left.next);
      if (left.text.size() + right.text.size() != candidate.size) continue;
      left.text = {left.text.data(), candidate.size};
      left.next = right.next;
      right.text = {};
      if (left.next >= 0) at(left.next).previous = candidate.left;
      add_candidate(left.previous);
      add_candidate(candidate.left);
    }
  }

  // An unused piece is output as the two it was joined from; their depth is at most the number of joins.
  void append(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<std::string_view> stack{text};
    while (!stack.empty()) {
      const std::string_view top = stack.back();
      stack.pop_back();
      if (const auto parts = unused.find(top); parts != unused.end()) {
        stack.push_back(parts->second.second);
        stack.push_back(parts->second.first);
      } else if (const auto piece = model.pieces_.find(top); piece != model.pieces_.end()) {
        ids.push_back(piece->second);
      } else {
        model.append_unknown(top, ids);
      }
    }
  }
};

void PieceModel::append_unknown(std::string_view character, std::vector<int32_t>& ids) const {
  if (has_bytes_) {
    for (const char byte : character) ids.push_back(byte_ids_[static_cast<unsigned char>(byte)]);
  } else if (ids.empty() || ids.back() != options_.unknown_id) {  // one token for a run of unknown characters
    ids.push_back(options_.unknown_id);
  }
}

void PieceModel::encode(std::string_view text, bool after_special, std::vector<int32_t>& ids) const {
  if (text.size() > size_t{INT32_MAX} / 3)
    throw Error(ErrorKind::kUnsupported, "text of " + std::to_string(text.size()) + " bytes is too long");
  const std::string input = normalized(text, after_special);
  if (input.empty()) return;
  Merger merger{*this};
  merger.start(input);
  merger.merge_all();
  for (int32_t i = 0; i >= 0; i = merger.at(i).next) merger.append(merger.at(i).text, ids);
}

void PieceModel::append_bytes(int32_t id, std::string& out) const {
  const auto index = static_cast<size_t>(id);
  const std::string_view text = table_.tokens[index];
  const int byte = table_.type(index) == TokenType::kByte ? byte_of(text) : -1;
  if (byte >= 0) {
    out += static_cast<char>(byte);
    return;
  }
  for (size_t i = 0; i < text.size();) {
    const bool is_space = text.substr(i).starts_with(kSpaceMark);
    out += is_space ? ' ' : text[i];
    i += is_space ? kSpaceMark.size() : 1;
  }
}

}  // namespace quern
