# Run by `cmake --install` with `doors` (headers, from the root of the repository), `root` and `destination` set: copies the doors and
# every header of ours that they include, directly or not, each to its path from the root. What no door leads to stays inside.

cmake_policy(VERSION 3.25)

set(todo ${doors})
set(installed "")
while(todo)
  list(POP_FRONT todo header)
  if(header IN_LIST installed)
    continue()
  endif()
  list(APPEND installed ${header})
  cmake_path(GET header PARENT_PATH folder)
  file(INSTALL ${root}/${header} DESTINATION ${destination}/${folder})
  file(STRINGS ${root}/${header} includes REGEX "^#include \"")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" included "${include}")
    if(EXISTS ${root}/${included})
      list(APPEND todo ${included})
    endif()
  endforeach()
endwhile()
