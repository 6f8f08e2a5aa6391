#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "formats/base/file.h"

namespace quern {

// Importance matrices: how much each input column of each weight matrix was used on a calibration text. For y = W x the importance
// of column j is the mean of x_j^2 over the tokens seen; it weighs the squared error of the encoders.
//
// Both files of llama.cpp are read and written (docs/formats/imatrix.md): the GGUF form, which has sums and counts, and the older
// .dat, which has means and one number of chunks per weight. Source: ggml-org/llama.cpp tools/imatrix, common/imatrix-loader.cpp.

struct ImatrixEntry {
  std::string name;             // of the weight: "blk.3.ffn_down_exps.weight"
  int64_t n_columns = 0;        // as the file divides it: a stack of heads or groups with one count has them all in one slice
  int64_t n_slices = 1;         // experts
  std::vector<float> sums;      // [n_slices, n_columns]: squares of the inputs, summed over `counts` rows
  std::vector<int64_t> counts;  // [n_slices]; of a .dat the number of chunks, with sums = means * that number
};

enum class ImatrixFormat { kGguf, kDat };

// What builds say about the matrix they were made with: names only, never folders.
struct ImatrixRecord {
  std::string file;     // name of the file
  std::string sha256;   // of the file
  std::string dataset;  // name of the first text
  int64_t n_entries = 0;
  int64_t n_chunks = 0;
};

struct Imatrix {
  std::vector<ImatrixEntry> entries;  // sorted by name, names unique
  std::vector<std::string> datasets;  // names of the calibration texts
  int64_t chunk_count = 0;
  int64_t chunk_size = 0;  // tokens; 0 when read from a .dat
  ImatrixFormat format = ImatrixFormat::kGguf;
  std::string file_name;  // of the file read, without folders
  std::string sha256;     // of the file read

  bool counts_are_chunks() const noexcept { return format == ImatrixFormat::kDat; }
  const ImatrixEntry* find(std::string_view name) const noexcept;
  ImatrixRecord record() const;
};

// Longest weight name a file can hold: GGUF's 63 bytes less ".in_sum2".
inline constexpr size_t kMaxImatrixNameBytes = 55;

// Parses a whole file of either form. Throws kFormat naming offset and weight; sums may still be NaN, infinite or negative, which
// is for Importance to judge.
Imatrix parse_imatrix(std::span<const std::byte> bytes);
// Parses a file without holding its sums in memory twice; fills file_name and sha256.
Imatrix read_imatrix(const std::filesystem::path& path);

// Writes entries in the order of their names. kDat keeps means only: what it loses is which slice was seen how often.
// Throws kUnsupported for a name that the form cannot hold.
void write_imatrix(const Imatrix& imatrix, ImatrixFormat format, const std::filesystem::path& path, OutputFile::Overwrite overwrite);

// The matrix of all texts together: sums and counts added. Counts of a .dat are taken as chunks of the size that the other files have
// (512 when none says). Throws kFormat naming the weight when two files disagree about its size.
Imatrix merge_imatrices(std::span<const Imatrix> parts);

}  // namespace quern
