#include "verify/drift/base_file.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "formats/base/bytes.h"
#include "formats/base/checked.h"

// The file is written in one pass over the original's rows and read a batch of rows at a time. It has no checksum and no end mark: that its
// size is exactly the one that its head asks for is all that tells a whole file from an unfinished one, so anything else is refused.

namespace quern {
namespace {

constexpr char kMagic[] = "_logits_";
constexpr uint64_t kHeaderBytes = 20;
constexpr double kFloor = -16.0;  // below it a 16-bit code says only "small"

uint64_t row_size(int64_t n_vocab) { return 2 * (2 * ((static_cast<uint64_t>(n_vocab) + 1) / 2) + 4); }

int64_t scored_rows(int64_t n_ctx) { return n_ctx - 1 - n_ctx / 2; }

}  // namespace

void encode_base_row(std::span<const float> logits, std::span<std::byte> row) {
  const auto [smallest, largest] = std::ranges::minmax(logits);
  const float low = std::max(smallest, largest - 16.0f);
  double sum = 0.0;
  for (const float z : logits) sum += std::exp(static_cast<double>(z) - static_cast<double>(largest));
  const float scale = (largest - low) / 65535.0f;
  const float min_log_prob = static_cast<float>(static_cast<double>(low) - static_cast<double>(largest) - std::log(sum));
  std::ranges::fill(row, std::byte{0});
  store_le(row.data(), scale);
  store_le(row.data() + 4, min_log_prob);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double code = scale > 0.0f && logits[i] > low ? std::nearbyint(static_cast<double>((logits[i] - low) / scale)) : 0.0;
    store_le(row.data() + 8 + 2 * i, static_cast<uint16_t>(code));
  }
}

void decode_base_row(std::span<const std::byte> row, std::vector<double>& log_probs) {
  const float scale = load_le<float>(row.data()), lowest = load_le<float>(row.data() + 4);
  for (size_t i = 0; i < log_probs.size(); ++i) {
    log_probs[i] = static_cast<double>(scale * static_cast<float>(load_le<uint16_t>(row.data() + 8 + 2 * i)) + lowest);
  }
}

std::string why_no_distribution(std::span<const double> log_probs) {
  // Codes round by 16 / 131070 at most, and what is less probable than e^-16 of the best counts as just that.
  const double least = 0.99, most = 1.01 + 2e-7 * static_cast<double>(log_probs.size());
  double sum = 0.0;
  for (const double p : log_probs) sum += std::exp(p);
  return sum >= least && sum <= most ? "" : "its probabilities add up to " + std::to_string(sum) + " and not to 1";
}

void write_base_file(const std::filesystem::path& path, OriginalModel& original, std::span<const int32_t> text_tokens,
                     OutputFile::Overwrite overwrite) {
  const auto n_chunks = static_cast<int64_t>(original.chunks().size());
  const auto n_ctx = static_cast<int64_t>(original.chunks().front().tokens.size());
  QUERN_CHECK(static_cast<int64_t>(text_tokens.size()) == n_chunks * n_ctx);
  OutputFile file(path, overwrite);
  std::vector<std::byte> head(kHeaderBytes + text_tokens.size_bytes());
  std::memcpy(head.data(), kMagic, 8);
  store_le(head.data() + 8, static_cast<int32_t>(n_ctx));
  store_le(head.data() + 12, static_cast<int32_t>(original.n_vocab()));
  store_le(head.data() + 16, static_cast<int32_t>(n_chunks));
  std::memcpy(head.data() + kHeaderBytes, text_tokens.data(), text_tokens.size_bytes());
  file.write_at(0, head);
  std::vector<std::byte> row(row_size(original.n_vocab()));
  uint64_t offset = head.size();
  original.for_each_row([&](int64_t, int64_t, std::span<const float> logits) {
    encode_base_row(logits, row);
    file.write_at(offset, row);
    offset += row.size();
  });
  file.commit();
}

BaseFile::BaseFile(const std::filesystem::path& path, std::optional<int32_t> bos) : file_(path) {
  std::vector<std::byte> head(kHeaderBytes);
  file_.read_at(0, head);
  if (std::memcmp(head.data(), kMagic, 8) != 0) throw Error(ErrorKind::kFormat, "does not begin with '_logits_'").file(path.string());
  n_ctx_ = load_le<int32_t>(head.data() + 8);
  n_vocab_ = load_le<int32_t>(head.data() + 12);
  const int64_t n_chunks = load_le<int32_t>(head.data() + 16);
  if (n_ctx_ < 4 || n_vocab_ < 1 || n_chunks < 1)
    throw Error(ErrorKind::kFormat, "context, vocabulary and chunks must be positive").file(path.string());
  row_bytes_ = row_size(n_vocab_);
  const uint64_t n_tokens = checked_mul(static_cast<uint64_t>(n_ctx_), static_cast<uint64_t>(n_chunks), "number of tokens");
  data_offset_ = checked_add(kHeaderBytes, checked_mul(n_tokens, uint64_t{4}, "token bytes"), "data offset");
  const uint64_t n_rows = checked_mul(static_cast<uint64_t>(scored_rows(n_ctx_)), static_cast<uint64_t>(n_chunks), "number of rows");
  const uint64_t expected = checked_add(data_offset_, checked_mul(n_rows, row_bytes_, "row bytes"), "file size");
  if (file_.size_bytes() != expected) {
    throw Error(ErrorKind::kFormat, "has " + std::to_string(file_.size_bytes()) + " bytes, expected " + std::to_string(expected) +
                                        " (an unfinished run of the tool?)")
        .file(path.string());
  }
  std::vector<int32_t> tokens(n_tokens);
  file_.read_at(kHeaderBytes, std::as_writable_bytes(std::span(tokens)));
  for (const int32_t token : tokens) {
    if (token < 0 || token >= n_vocab_)
      throw Error(ErrorKind::kFormat, "token " + std::to_string(token) + " is outside the vocabulary").file(path.string());
  }
  for (int64_t c = 0; c < n_chunks; ++c) {
    const auto begin = tokens.begin() + c * n_ctx_;
    chunks_.push_back({{begin, begin + n_ctx_}});
    if (bos) chunks_.back().tokens.front() = *bos;
  }
}

void BaseFile::begin_rows(int64_t chunk, int64_t first, int64_t n) {
  first_position_ = first;
  rows_.resize(static_cast<size_t>(n) * row_bytes_);
  const int64_t row = chunk * scored_rows(n_ctx_) + first - n_ctx_ / 2;
  file_.read_at(data_offset_ + static_cast<uint64_t>(row) * row_bytes_, rows_);
  std::vector<double> p(static_cast<size_t>(n_vocab_));
  for (int64_t i = 0; i < n; ++i) {
    decode_base_row(row_at(i), p);
    if (const std::string why = why_no_distribution(p); !why.empty()) refuse_row(file_.path(), chunk, first + i, why);
  }
}

std::span<const std::byte> BaseFile::row_at(int64_t i) const {
  return std::span(rows_).subspan(static_cast<size_t>(i) * row_bytes_, row_bytes_);
}

TokenDrift BaseFile::compare(int64_t chunk, int64_t t, std::span<const float> tested) const {
  std::vector<double> p(static_cast<size_t>(n_vocab_)), q;
  decode_base_row(row_at(t - first_position_), p);
  log_softmax(tested, q);
  return compare_distributions(p, q, chunks_[static_cast<size_t>(chunk)].tokens[static_cast<size_t>(t + 1)], kFloor);
}

bool is_base_file(const std::filesystem::path& path) {
  const InputFile file(path);
  std::byte magic[8];
  if (file.size_bytes() < sizeof magic) return false;
  file.read_at(0, magic);
  return std::memcmp(magic, kMagic, sizeof magic) == 0;
}

}  // namespace quern
