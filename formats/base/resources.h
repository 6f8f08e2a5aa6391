#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "formats/base/platform.h"  // with sizes goes what the machine offers

namespace quern {

// A number of bytes as people write it. Decimal units K, M, G, T (also KB, MB, ...) are powers of 1000, as in llama-gguf-split and
// on the Hub; KiB, MiB, GiB, TiB are powers of 1024; no unit means bytes. Decimals ("1.5GiB"), a space before the unit and any
// letter case are allowed, exponents and signs are not. Throws kUsage with a suggestion.
uint64_t parse_size(std::string_view text);
// "161.9 GB" (decimal units, 3-4 significant digits).
std::string format_size(uint64_t bytes);

// The smaller of 2 GiB and half of available_memory_bytes().
uint64_t default_memory_budget();

}  // namespace quern
