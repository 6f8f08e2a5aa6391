#include "formats/types/shards.h"

#include <vector>

#include "formats/base/error.h"

namespace quern {

void require_files(const std::filesystem::path& folder, std::span<const std::string> names) {
  constexpr size_t kMaxNamed = 3;
  size_t n_missing = 0;
  std::string list;
  for (const std::string& name : names) {
    std::error_code error;
    if (std::filesystem::exists(folder / name, error)) continue;
    if (++n_missing <= kMaxNamed) list += (n_missing == 1 ? "" : ", ") + name;
  }
  if (n_missing == 0) return;
  if (n_missing > kMaxNamed) list += ", ...";
  throw Error(ErrorKind::kFormat, std::to_string(n_missing) + " of " + std::to_string(names.size()) + " shards are missing: " + list +
                                      " (incomplete download?)")
      .file(folder.string());
}

void read_tensor(const InputFile& file, const TensorInfo& tensor, uint64_t first_byte, std::span<std::byte> out) {
  QUERN_CHECK(first_byte <= tensor.size_bytes && out.size() <= tensor.size_bytes - first_byte);
  try {
    file.read_at(tensor.file_offset + first_byte, out);
  } catch (Error& e) {
    e.tensor(tensor.name);
    throw;
  }
}

}  // namespace quern
