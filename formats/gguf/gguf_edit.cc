#include "formats/gguf/gguf_edit.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "formats/base/checked.h"
#include "formats/base/error.h"

// Tensor data follows the header at once, so metadata can change in place only as long as the header keeps its length. The header is made
// without the padding key first; if rounding up to the alignment does not give the old length by itself, it is made with an empty padding
// string, which shows how many bytes are left. Both lengths are multiples of the alignment, so a string of just that many spaces fills the
// gap. A header that has outgrown its room takes a copy of the file, which gets fresh padding; a file without tensors is nothing but a
// header and is replaced as a whole.
//
// Overwriting a header is not atomic. Therefore the old one is first put beside the file under another name and synced, and is removed only
// when the new one is on the disk. Whatever moment a crash comes at, either the file is whole, or the old header lies beside it and can be
// put back; putting it back twice does no harm.

namespace quern::gguf {
namespace fs = std::filesystem;
namespace {

constexpr size_t kCopyBytes = 4u << 20;

fs::path backup_of(const fs::path& path) { return fs::path(path) += ".header"; }

std::string_view text_of(std::span<const std::byte> bytes) { return {reinterpret_cast<const char*>(bytes.data()), bytes.size()}; }

// Writes the beginning of an existing file and waits for the disk.
void overwrite_begin(const fs::path& path, std::span<const std::byte> bytes) {
  const auto fail = [&path](const char* what) {
    throw Error(ErrorKind::kIo, std::string(what) + ": " + std::strerror(errno)).file(path.string());
  };
  const int fd = ::open(path.c_str(), O_WRONLY | O_CLOEXEC);
  if (fd < 0) fail("cannot open for writing");
  uint64_t offset = 0;
  while (!bytes.empty()) {
    const ssize_t n = ::pwrite(fd, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) break;
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  const bool done = bytes.empty() && ::fsync(fd) == 0;
  ::close(fd);
  if (!done) fail("cannot write");
}

std::vector<std::byte> header_with_padding(const Header& header, Metadata metadata, uint64_t padding_bytes) {
  metadata.set(kPaddingKey, std::string(static_cast<size_t>(padding_bytes), ' '));
  return serialize_header(header, metadata);
}

}  // namespace

void reserve_padding(Metadata& metadata) {
  metadata.erase(kPaddingKey);
  metadata.set(kPaddingKey, std::string(kPaddingBytes, ' '));
}

Edit plan_edit(const Header& header, const Metadata& wanted) {
  Metadata metadata = wanted;
  metadata.erase(kPaddingKey);
  Edit edit;
  edit.old_data_offset = header.data_offset;
  edit.header = serialize_header(header, metadata);
  edit.in_place = (header.tensors.empty() && header.foreign.empty()) || edit.header.size() == header.data_offset;
  if (edit.in_place) return edit;
  const uint64_t least = header_with_padding(header, metadata, 0).size();
  edit.in_place = least <= header.data_offset;
  if (!edit.in_place) edit.missing_bytes = edit.header.size() - std::min<uint64_t>(edit.header.size(), header.data_offset);
  // Both sizes are multiples of the alignment, so their difference fills the header exactly.
  edit.header = header_with_padding(header, metadata, edit.in_place ? header.data_offset - least : kPaddingBytes);
  QUERN_CHECK(!edit.in_place || edit.header.size() == header.data_offset);
  return edit;
}

void edit_in_place(const fs::path& path, const Edit& edit) {
  QUERN_CHECK(edit.in_place);
  if (edit.header.size() != edit.old_data_offset) {  // nothing but a header
    write_file_atomically(path, text_of(edit.header), OutputFile::Overwrite::kAllow);
    return;
  }
  std::vector<std::byte> old(edit.header.size());
  InputFile(path).read_at(0, old);
  write_file_atomically(backup_of(path), text_of(old), OutputFile::Overwrite::kAllow);
  overwrite_begin(path, edit.header);
  fs::remove(backup_of(path));
}

bool restore_header(const fs::path& path) {
  if (!fs::exists(backup_of(path))) return false;
  overwrite_begin(path, read_file(backup_of(path), kMaxHeaderBytes));
  fs::remove(backup_of(path));
  return true;
}

void edit_by_copy(const InputFile& from, const fs::path& to, const Edit& edit, OutputFile::Overwrite overwrite, Progress& progress) {
  OutputFile out(to, overwrite);
  out.write_at(0, edit.header);
  const uint64_t begin = std::min(edit.old_data_offset, from.size_bytes());
  progress.begin("copying", from.size_bytes() - begin);
  std::vector<std::byte> buffer(static_cast<size_t>(std::min<uint64_t>(kCopyBytes, from.size_bytes() - begin)));
  for (uint64_t at = begin; at < from.size_bytes();) {
    throw_if_interrupted();
    const auto piece = std::span(buffer).first(static_cast<size_t>(std::min<uint64_t>(buffer.size(), from.size_bytes() - at)));
    from.read_at(at, piece);
    out.write_at(edit.header.size() + (at - begin), piece);
    progress.advance(piece.size());
    at += piece.size();
  }
  progress.end();
  out.commit();
}

}  // namespace quern::gguf
