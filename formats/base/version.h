#pragma once

namespace quern {

// The version of this build, from the project() line of CMakeLists.txt; recorded in the files that we write.
extern const char* const kVersion;

}  // namespace quern
