#pragma once

namespace quern {

// Registers HDF5 filter 32015 (Zstandard, as registered with The HDF Group; readable elsewhere through the hdf5plugin package) with
// the HDF5 library of this process. Harmless to call again.
void register_zstd_filter();
inline constexpr unsigned kZstdFilter = 32015;

}  // namespace quern
