#include "formats/statistics/imatrix.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

#include "formats/base/bytes.h"
#include "formats/base/checked.h"
#include "formats/base/error.h"
#include "formats/base/sha256.h"
#include "formats/gguf/gguf.h"

// Both forms are read through one function that fills a span from an offset, so that files, tests and the fuzzer share the parsers and a
// file is never held beside the sums made from it. The first four bytes tell the forms apart.
//
// A GGUF matrix has two tensors per weight, NAME.in_sum2 and NAME.counts. Counts are stored as floats and are rounded; how many there are
// says into how many slices the sums divide. A .dat has neither shapes nor counts, only means times a number of chunks. It is read as one
// slice with that number as its count, so that sums over counts are means in either form, and counts_are_chunks() tells who must know the
// difference.
//
// Merging adds sums and counts weight by weight, in double and in the order of the files, and rounds once. Chunks are turned into rows by
// the size of a chunk, for the sums as for the counts, so that a .dat weighs about as much as its text deserves.

namespace quern {
namespace {

constexpr std::string_view kSumsSuffix = ".in_sum2";
constexpr std::string_view kCountsSuffix = ".counts";
constexpr const char* kTypeKey = "general.type";
constexpr const char* kDatasetsKey = "imatrix.datasets";
constexpr const char* kChunkCountKey = "imatrix.chunk_count";
constexpr const char* kChunkSizeKey = "imatrix.chunk_size";
constexpr int64_t kDefaultChunkSize = 512;
constexpr double kMaxCount = 9007199254740992.0;  // 2^53: whole numbers beyond it are not exact in a double
constexpr uint64_t kMaxDatasetBytes = 65535;

// The bytes of a file wherever they are. read fills a span from an offset and throws when the file ends first.
struct Input {
  uint64_t size_bytes = 0;
  std::function<void(uint64_t, std::span<std::byte>)> read;
};

void sort_entries(Imatrix& imatrix) {
  std::ranges::sort(imatrix.entries, {}, &ImatrixEntry::name);
  const auto twice = std::ranges::adjacent_find(imatrix.entries, {}, &ImatrixEntry::name);
  if (twice != imatrix.entries.end()) throw Error(ErrorKind::kFormat, "has two entries").tensor(twice->name);
}

std::vector<float> read_floats(const Input& in, const TensorInfo& tensor) {
  if (tensor.dtype != DType::F32) {
    throw Error(ErrorKind::kFormat, "is " + std::string(name_of(tensor.dtype)) + ", F32 expected").tensor(tensor.name);
  }
  std::vector<float> values(static_cast<size_t>(tensor.shape.n_elements()));
  in.read(tensor.file_offset, std::as_writable_bytes(std::span(values)));
  return values;
}

std::vector<int64_t> read_counts(const Input& in, const TensorInfo& tensor) {
  std::vector<int64_t> counts;
  for (const float value : read_floats(in, tensor)) {
    const double count = std::round(static_cast<double>(value));
    if (!(count >= 0 && count <= kMaxCount)) throw Error(ErrorKind::kFormat, "a count is not a number of rows").tensor(tensor.name);
    counts.push_back(static_cast<int64_t>(count));
  }
  return counts;
}

ImatrixEntry read_entry(const Input& in, std::string name, const TensorInfo* sums, const TensorInfo* counts) {
  if (sums == nullptr || counts == nullptr) {
    throw Error(ErrorKind::kFormat, sums == nullptr ? "has counts but no sums" : "has sums but no counts").tensor(name);
  }
  ImatrixEntry entry;
  entry.name = std::move(name);
  entry.counts = read_counts(in, *counts);
  entry.n_slices = static_cast<int64_t>(entry.counts.size());
  const int64_t n_sums = sums->shape.n_elements();
  if (n_sums % entry.n_slices != 0) {
    throw Error(ErrorKind::kFormat, std::to_string(n_sums) + " sums do not divide into " + std::to_string(entry.n_slices) + " slices")
        .tensor(entry.name);
  }
  entry.n_columns = n_sums / entry.n_slices;
  entry.sums = read_floats(in, *sums);
  return entry;
}

Imatrix parse_gguf(const Input& in, const gguf::Header& header) {
  struct Pair {
    const TensorInfo* sums = nullptr;
    const TensorInfo* counts = nullptr;
  };
  std::map<std::string, Pair> pairs;
  for (const TensorInfo& tensor : header.tensors) {
    const std::string_view name = tensor.name;
    if (name.ends_with(kSumsSuffix)) pairs[std::string(name.substr(0, name.size() - kSumsSuffix.size()))].sums = &tensor;
    if (name.ends_with(kCountsSuffix)) pairs[std::string(name.substr(0, name.size() - kCountsSuffix.size()))].counts = &tensor;
  }
  if (pairs.empty()) {
    const std::string arch = header.metadata.find_string("general.architecture").value_or("");
    throw Error(ErrorKind::kFormat,
                std::string("is not an importance matrix: no tensor '*.in_sum2'") + (arch.empty() ? "" : " (a model?)"));
  }
  Imatrix imatrix;
  imatrix.chunk_count = checked_cast<uint32_t>(header.metadata.find_int(kChunkCountKey).value_or(0), kChunkCountKey);
  const int64_t chunk_size = header.metadata.find_int(kChunkSizeKey).value_or(kDefaultChunkSize);
  imatrix.chunk_size = std::max<int64_t>(checked_cast<uint32_t>(chunk_size, kChunkSizeKey), 1);
  if (const auto* datasets = header.metadata.find_string_array(kDatasetsKey)) imatrix.datasets = *datasets;
  for (const auto& [name, pair] : pairs) imatrix.entries.push_back(read_entry(in, name, pair.sums, pair.counts));
  sort_entries(imatrix);
  return imatrix;
}

// Reads a .dat from front to back.
class DatReader {
 public:
  explicit DatReader(const Input& in) : in_(in) {}

  Imatrix read() {
    const uint64_t n_entries = natural("number of entries", in_.size_bytes / kMinEntryBytes);
    if (n_entries == 0) throw Error(ErrorKind::kFormat, "is not an importance matrix: it has no entries");
    Imatrix imatrix;
    imatrix.format = ImatrixFormat::kDat;
    for (uint64_t i = 0; i < n_entries; ++i) imatrix.entries.push_back(read_entry());
    read_trailer(imatrix);
    sort_entries(imatrix);
    return imatrix;
  }

 private:
  static constexpr uint64_t kMinEntryBytes = 4 + 1 + 4 + 4 + 4;  // a name of one byte, one value

  uint64_t remaining() const noexcept { return in_.size_bytes - position_; }

  void take(std::span<std::byte> out, const char* what) {
    if (out.size() > remaining()) {
      throw Error(ErrorKind::kFormat, std::string(what) + ": " + std::to_string(out.size()) + " bytes expected, " +
                                          std::to_string(remaining()) + " are left (incomplete download, or not an importance matrix?)")
          .at(position_);
    }
    in_.read(position_, out);
    position_ += out.size();
  }

  int32_t integer(const char* what) {
    std::byte bytes[4];
    take(bytes, what);
    return load_le<int32_t>(bytes);
  }

  uint64_t natural(const char* what, uint64_t max) {
    const uint64_t at = position_;
    const int32_t value = integer(what);
    if (value < 0 || static_cast<uint64_t>(value) > max) {
      throw Error(ErrorKind::kFormat, std::string(what) + " " + std::to_string(value) + ", 0 to " + std::to_string(max) +
                                          " expected (not an importance matrix?)")
          .at(at);
    }
    return static_cast<uint64_t>(value);
  }

  std::string text(const char* what, uint64_t max_bytes) {
    std::string value(natural(what, std::min(max_bytes, remaining())), '\0');
    take(std::as_writable_bytes(std::span(value)), what);
    return value;
  }

  ImatrixEntry read_entry() {
    const uint64_t at = position_;
    ImatrixEntry entry;
    entry.name = text("length of a name", gguf::kMaxNameBytes);
    if (entry.name.empty() || entry.name.find('\0') != std::string::npos) throw Error(ErrorKind::kFormat, "a name is empty").at(at);
    try {
      // Writers that have plain means say 0 or 1 calls.
      entry.counts.push_back(std::max<int64_t>(static_cast<int64_t>(natural("number of calls", INT32_MAX)), 1));
      const uint64_t n_values = natural("number of values", remaining() / sizeof(float));
      if (n_values == 0) throw Error(ErrorKind::kFormat, "has no values").at(position_);
      entry.n_columns = static_cast<int64_t>(n_values);
      entry.sums.resize(n_values);
      take(std::as_writable_bytes(std::span(entry.sums)), "values");
    } catch (Error& error) {
      error.tensor(entry.name);
      throw;
    }
    return entry;
  }

  // Number of chunks and name of the text; both may be missing.
  void read_trailer(Imatrix& imatrix) {
    if (remaining() == 0) return;
    imatrix.chunk_count = static_cast<int64_t>(natural("number of chunks", INT32_MAX));
    if (remaining() == 0) return;
    const std::string dataset = text("length of the dataset's name", kMaxDatasetBytes);
    if (!dataset.empty()) imatrix.datasets.push_back(dataset);
    if (remaining() != 0) {
      throw Error(ErrorKind::kFormat, std::to_string(remaining()) + " bytes are left after the end").at(position_);
    }
  }

  const Input& in_;
  uint64_t position_ = 0;
};

std::string sha256_of(const InputFile& file) {
  Sha256 sha;
  std::vector<std::byte> buffer(size_t{1} << 20);
  for (uint64_t offset = 0; offset < file.size_bytes(); offset += buffer.size()) {
    const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(buffer.size(), file.size_bytes() - offset)));
    file.read_at(offset, piece);
    sha.update(piece);
  }
  return sha.finish_hex();
}

bool has_gguf_magic(const Input& in) {
  std::byte magic[4];
  if (in.size_bytes < sizeof magic) return false;
  in.read(0, magic);
  return std::memcmp(magic, "GGUF", sizeof magic) == 0;
}

class Writer {
 public:
  Writer(const std::filesystem::path& path, OutputFile::Overwrite overwrite) : file_(path, overwrite) {}

  void put(std::span<const std::byte> bytes) {
    file_.write_at(position_, bytes);
    position_ += bytes.size();
  }
  void put_integer(int64_t value) {
    std::byte bytes[4];
    store_le(bytes, checked_cast<int32_t>(value, "a number of a .dat file"));
    put(bytes);
  }
  void put_text(std::string_view text) {
    put_integer(static_cast<int64_t>(text.size()));
    put(std::as_bytes(std::span(text)));
  }
  void pad(uint64_t alignment) { put(std::vector<std::byte>(align_up(position_, alignment) - position_)); }
  void commit() { file_.commit(); }

 private:
  OutputFile file_;
  uint64_t position_ = 0;
};

Shape gguf_shape(int64_t n_slices, int64_t n_columns) { return n_slices == 1 ? Shape{n_columns} : Shape{n_slices, n_columns}; }

void write_gguf(const Imatrix& imatrix, Writer& out) {
  Metadata metadata;
  metadata.set(kTypeKey, std::string("imatrix"));
  metadata.set(kDatasetsKey, imatrix.datasets);
  metadata.set(kChunkCountKey, checked_cast<uint32_t>(imatrix.chunk_count, kChunkCountKey));
  metadata.set(kChunkSizeKey, checked_cast<uint32_t>(std::max<int64_t>(imatrix.chunk_size, 1), kChunkSizeKey));
  std::vector<TensorInfo> tensors;
  for (const ImatrixEntry& entry : imatrix.entries) {
    tensors.push_back({entry.name + std::string(kSumsSuffix), DType::F32, gguf_shape(entry.n_slices, entry.n_columns)});
    tensors.push_back({entry.name + std::string(kCountsSuffix), DType::F32, gguf_shape(entry.n_slices, 1)});
  }
  out.put(gguf::serialize_header(metadata, tensors));
  for (const ImatrixEntry& entry : imatrix.entries) {
    out.put(std::as_bytes(std::span(entry.sums)));
    out.pad(gguf::kDefaultAlignment);
    const std::vector<float> counts(entry.counts.begin(), entry.counts.end());
    out.put(std::as_bytes(std::span(counts)));
    out.pad(gguf::kDefaultAlignment);
  }
}

// Means times the number of chunks, as llama-imatrix does: 1 where a slice was never seen, nothing where none was.
std::vector<float> dat_values(const ImatrixEntry& entry, int64_t n_calls) {
  std::vector<float> values(entry.sums.size());
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t count = entry.counts[i / static_cast<size_t>(entry.n_columns)];
    const double mean = count == 0 ? 1.0 : static_cast<double>(entry.sums[i]) / static_cast<double>(count);
    values[i] = static_cast<float>(mean * static_cast<double>(n_calls));
  }
  return values;
}

void write_dat(const Imatrix& imatrix, Writer& out) {
  const auto most = [](const ImatrixEntry& entry) { return *std::ranges::max_element(entry.counts); };
  out.put_integer(std::ranges::count_if(imatrix.entries, [&](const ImatrixEntry& entry) { return most(entry) > 0; }));
  const int64_t chunk_size = std::max<int64_t>(imatrix.chunk_size, 1);
  for (const ImatrixEntry& entry : imatrix.entries) {
    if (most(entry) == 0) continue;
    const int64_t n_calls = (most(entry) - 1) / chunk_size + 1;
    out.put_text(entry.name);
    out.put_integer(n_calls);
    out.put_integer(static_cast<int64_t>(entry.sums.size()));
    const std::vector<float> values = dat_values(entry, n_calls);
    out.put(std::as_bytes(std::span(values)));
  }
  out.put_integer(imatrix.chunk_count);
  out.put_text(imatrix.datasets.empty() ? "" : imatrix.datasets.back());
}

// One entry of a merge: the same weight in some of the files, and by what their sums and counts are multiplied.
struct Summand {
  const ImatrixEntry* entry;
  int64_t factor;
};

// Files that count a stack once and files that count its slices alike mean the same; the finer division wins.
ImatrixEntry add_up(std::span<const Summand> summands) {
  const ImatrixEntry& first = *summands.front().entry;
  int64_t n_slices = first.n_slices;
  for (const Summand& summand : summands) n_slices = std::max(n_slices, summand.entry->n_slices);
  ImatrixEntry sum;
  sum.name = first.name;
  sum.n_slices = n_slices;
  sum.n_columns = static_cast<int64_t>(first.sums.size()) / n_slices;
  sum.counts.resize(static_cast<size_t>(n_slices));
  for (const Summand& summand : summands) {
    const ImatrixEntry& entry = *summand.entry;
    const bool broadcast = entry.n_slices != n_slices;
    if (entry.sums.size() != first.sums.size() || (broadcast && entry.n_slices != 1)) {
      throw Error(ErrorKind::kFormat, "one file has " + std::to_string(first.n_slices) + " x " + std::to_string(first.n_columns) +
                                          " values, another " + std::to_string(entry.n_slices) + " x " + std::to_string(entry.n_columns) +
                                          " (different models?)")
          .tensor(sum.name);
    }
    for (size_t i = 0; i < sum.counts.size(); ++i) {
      const int64_t rows = checked_mul(summand.factor, entry.counts[broadcast ? 0 : i], "number of rows");
      sum.counts[i] = checked_add(sum.counts[i], rows, "number of rows");
    }
  }
  sum.sums.resize(first.sums.size());
  for (size_t i = 0; i < sum.sums.size(); ++i) {
    double total = 0;
    for (const Summand& summand : summands) total += static_cast<double>(summand.factor) * static_cast<double>(summand.entry->sums[i]);
    sum.sums[i] = static_cast<float>(total);
  }
  return sum;
}

}  // namespace

const ImatrixEntry* Imatrix::find(std::string_view name) const noexcept {
  const auto found = std::ranges::lower_bound(entries, name, {}, [](const ImatrixEntry& entry) -> std::string_view { return entry.name; });
  return found != entries.end() && found->name == name ? &*found : nullptr;
}

ImatrixRecord Imatrix::record() const {
  const std::string dataset = datasets.empty() ? "" : std::filesystem::path(datasets.front()).filename().string();
  return {file_name, sha256, dataset, static_cast<int64_t>(entries.size()), chunk_count};
}

Imatrix parse_imatrix(std::span<const std::byte> bytes) {
  const Input in{bytes.size(), [bytes](uint64_t offset, std::span<std::byte> out) {
                   QUERN_CHECK(offset <= bytes.size() && out.size() <= bytes.size() - offset);
                   std::ranges::copy(bytes.subspan(offset, out.size()), out.begin());
                 }};
  return has_gguf_magic(in) ? parse_gguf(in, gguf::parse_header(bytes, bytes.size())) : DatReader(in).read();
}

Imatrix read_imatrix(const std::filesystem::path& path) {
  const InputFile file(path);
  const Input in{file.size_bytes(), [&file](uint64_t offset, std::span<std::byte> out) { file.read_at(offset, out); }};
  try {
    Imatrix imatrix = has_gguf_magic(in) ? parse_gguf(in, gguf::read_header(file)) : DatReader(in).read();
    imatrix.file_name = path.filename().string();
    imatrix.sha256 = sha256_of(file);
    return imatrix;
  } catch (Error& error) {
    error.file(path.string());
    throw;
  }
}

void write_imatrix(const Imatrix& imatrix, ImatrixFormat format, const std::filesystem::path& path, OutputFile::Overwrite overwrite) {
  QUERN_CHECK(std::ranges::is_sorted(imatrix.entries, {}, &ImatrixEntry::name));
  for (const ImatrixEntry& entry : imatrix.entries) {
    if (entry.name.size() > kMaxImatrixNameBytes) {
      throw Error(ErrorKind::kUnsupported, "the name has " + std::to_string(entry.name.size()) + " bytes; an importance matrix holds " +
                                               std::to_string(kMaxImatrixNameBytes))
          .tensor(entry.name);
    }
  }
  Writer out(path, overwrite);
  format == ImatrixFormat::kGguf ? write_gguf(imatrix, out) : write_dat(imatrix, out);
  out.commit();
}

Imatrix merge_imatrices(std::span<const Imatrix> parts) {
  QUERN_CHECK(!parts.empty());
  Imatrix merged;
  for (const Imatrix& part : parts) {
    merged.chunk_count += part.chunk_count;
    if (merged.chunk_size == 0) merged.chunk_size = part.chunk_size;
    for (const std::string& dataset : part.datasets) {
      if (std::ranges::find(merged.datasets, dataset) == merged.datasets.end()) merged.datasets.push_back(dataset);
    }
  }
  if (merged.chunk_size == 0) merged.chunk_size = kDefaultChunkSize;
  std::map<std::string_view, std::vector<Summand>> summands;
  for (const Imatrix& part : parts) {
    for (const ImatrixEntry& entry : part.entries) {
      summands[entry.name].push_back({&entry, part.counts_are_chunks() ? merged.chunk_size : 1});
    }
  }
  for (const auto& [name, of_weight] : summands) merged.entries.push_back(add_up(of_weight));
  return merged;
}

}  // namespace quern
