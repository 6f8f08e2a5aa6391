#include "verify/drift/zstd_filter.h"

#include <hdf5.h>
#include <zstd.h>

#include <cstdlib>

#include "formats/base/error.h"

// HDF5 calls one function in both directions, a chunk of a dataset at a time. A Zstandard frame says how large its content is, which is
// what has to be allocated; frames that do not say so, or speak of more than a GiB, fail instead of taking the memory.

namespace quern {
namespace {

// HDF5 owns the buffer and expects it replaced by one from malloc; 0 means failure.
size_t replace_buffer(void** buffer, size_t* buffer_size, void* made, size_t capacity, size_t used) {
  if (made == nullptr || ZSTD_isError(used)) {
    std::free(made);
    return 0;
  }
  std::free(*buffer);
  *buffer = made;
  *buffer_size = capacity;
  return used;
}

size_t zstd_filter(unsigned flags, size_t n_values, const unsigned values[], size_t n_bytes, size_t* buffer_size, void** buffer) {
  if ((flags & H5Z_FLAG_REVERSE) != 0) {
    constexpr unsigned long long kMaxChunk = 1ull << 30;
    const unsigned long long size = ZSTD_getFrameContentSize(*buffer, n_bytes);
    if (size == ZSTD_CONTENTSIZE_ERROR || size == ZSTD_CONTENTSIZE_UNKNOWN || size > kMaxChunk) return 0;
    void* made = std::malloc(size == 0 ? 1 : size);
    return replace_buffer(buffer, buffer_size, made, size, made == nullptr ? 0 : ZSTD_decompress(made, size, *buffer, n_bytes));
  }
  const size_t bound = ZSTD_compressBound(n_bytes);
  void* made = std::malloc(bound);
  const int level = n_values > 0 ? static_cast<int>(values[0]) : 3;
  return replace_buffer(buffer, buffer_size, made, bound, made == nullptr ? 0 : ZSTD_compress(made, bound, *buffer, n_bytes, level));
}

}  // namespace

void register_zstd_filter() {
  static const H5Z_class2_t filter = {H5Z_CLASS_T_VERS, static_cast<H5Z_filter_t>(kZstdFilter), 1, 1, "zstd", nullptr, nullptr,
                                      zstd_filter};
  if (H5Zregister(&filter) < 0) throw Error(ErrorKind::kInternal, "HDF5 refused the zstd filter");
}

}  // namespace quern
