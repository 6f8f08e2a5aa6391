#include <algorithm>
#include <array>
#include <cstring>

#include "formats/containers/container.h"
#include "formats/containers/gguf_container.h"

namespace quern {

std::span<const Container* const> all_containers() {
  static const std::array<const Container*, 1> kRows = {&gguf_container()};
  return kRows;
}

const Container& default_container() { return *all_containers().front(); }

const Container* find_container(std::string_view name) {
  const auto rows = all_containers();
  const auto found = std::ranges::find(rows, name, &Container::name);
  return found == rows.end() ? nullptr : *found;
}

std::vector<uint64_t> plane_sizes(const Container& container, DType type, const Shape& shape) {
  const uint64_t n_blocks = tensor_size_bytes(type, shape) / static_cast<uint64_t>(traits(type).block_bytes);
  std::vector<uint64_t> sizes;
  for (const Plane& plane : container.planes(type)) sizes.push_back(n_blocks * plane.block_bytes);
  return sizes;
}

void copy_field(const Plane& plane, size_t block_bytes, std::span<const std::byte> blocks, std::span<std::byte> out) {
  const std::byte* from = blocks.data() + plane.block_offset;
  for (size_t at = 0; at < out.size(); at += plane.block_bytes, from += block_bytes) {
    std::memcpy(out.data() + at, from, plane.block_bytes);
  }
}

}  // namespace quern
