#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string_view>
#include <vector>

#include "formats/base/file.h"
#include "formats/base/progress.h"
#include "formats/gguf/gguf.h"

namespace quern::gguf {

// Changing the metadata of a file that may be 160 GB large. Files that quern writes hold a string of spaces under a key of their own,
// the last one: what other keys gain in length it loses, so that the header keeps its size and the tensor data its place.

inline constexpr std::string_view kPaddingKey = "quern.padding";
// Room for a chat template to grow.
inline constexpr uint64_t kPaddingBytes = 16384;
// Puts the padding key last, with kPaddingBytes.
void reserve_padding(Metadata& metadata);

struct Edit {
  bool in_place = false;          // the header keeps its size, or there is no tensor data that could move
  uint64_t missing_bytes = 0;     // by which the header has outgrown its room when not
  std::vector<std::byte> header;  // the new one
  uint64_t old_data_offset = 0;
};

// What changing the metadata of `file` to `metadata` takes; the padding key in it is ours to set. Throws kUnsupported for what GGUF
// cannot hold.
Edit plan_edit(const Header& header, const Metadata& metadata);

// Overwrites the header. The old one is kept, synced, in "PATH.header" meanwhile: when a crash leaves that file, the next edit puts it
// back first (restore_header).
void edit_in_place(const std::filesystem::path& path, const Edit& edit);
// True when there was a header to put back.
bool restore_header(const std::filesystem::path& path);

// A new file with the new header and the data of the old one. `to` may be the file itself.
void edit_by_copy(const InputFile& from, const std::filesystem::path& to, const Edit& edit, OutputFile::Overwrite overwrite,
                  Progress& progress);

}  // namespace quern::gguf
