#include "convert/record/key_kinds.h"

#include <algorithm>

#include "formats/containers/container.h"

namespace quern {

bool is_of_the_build(std::string_view key) {
  return key.starts_with("quern.") || key.starts_with("quantize.imatrix.") ||
         std::ranges::any_of(all_containers(), [&](const Container* container) { return container->is_of_the_file(key); });
}

bool is_of_the_publisher(std::string_view key) {
  return key.starts_with("general.") && !key.starts_with("general.sampling.") && key != "general.architecture" && key != "general.type" &&
         !is_of_the_build(key);
}

}  // namespace quern
