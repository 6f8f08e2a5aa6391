#include "formats/base/version.h"

namespace quern {

const char* const kVersion = QUERN_VERSION;

}  // namespace quern
