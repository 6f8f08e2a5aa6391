# Run by `cmake --install` with `doors` (headers, from the root of the repository), `root`, `destination` and `staging` (a scratch folder) set:
# installs the doors and every header of ours that they include, directly or not. In the copies the includes of ours begin with quern/, so
# that users need one folder in their search path and no name of a folder can meet one of theirs. What no door leads to stays inside.

cmake_policy(VERSION 3.25)

set(todo ${doors})
set(installed "")
while(todo)
  list(POP_FRONT todo header)
  if(header IN_LIST installed)
    continue()
  endif()
  list(APPEND installed ${header})
  file(READ ${root}/${header} text)
  file(STRINGS ${root}/${header} includes REGEX "^#include \"")
  foreach(include IN LISTS includes)
    string(REGEX REPLACE "^#include \"([^\"]+)\".*" "\\1" included "${include}")
    if(EXISTS ${root}/${included})
      list(APPEND todo ${included})
      string(REPLACE "#include \"${included}\"" "#include <quern/${included}>" text "${text}")
    endif()
  endforeach()
  cmake_path(GET header PARENT_PATH folder)
  file(WRITE ${staging}/${header} "${text}")
  file(INSTALL ${staging}/${header} DESTINATION ${destination}/${folder})
endwhile()
