#pragma once

#include <cstddef>
#include <cstdint>
#include <span>

// The entry point that libFuzzer calls; the replay program calls it once per corpus file. Returns 0. An input may only end in a
// normal return or in quern::Error; everything else is a finding.
extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size);

namespace quern::test {

inline std::span<const std::byte> input_bytes(const uint8_t* data, size_t size) { return std::as_bytes(std::span(data, size)); }

}  // namespace quern::test
