#include "formats/base/counted.h"

#include <algorithm>

#include "formats/base/error.h"

namespace quern {

std::string first_of(std::span<const std::string> names, size_t most, std::string_view quote) {
  std::string list;
  for (size_t i = 0; i < std::min(most, names.size()); ++i) {
    if (i > 0) list += ", ";
    list.append(quote).append(printable(names[i])).append(quote);
  }
  return names.size() > most ? list + " and " + std::to_string(names.size() - most) + " more" : list;
}

}  // namespace quern
