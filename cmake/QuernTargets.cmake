# Settings shared by every target and the two helpers that folders use.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(QUERN_WERROR "Treat warnings as errors" OFF)

add_library(quern_options INTERFACE)
# -ffp-contract=off: fused multiply-adds change encoder decisions between CPUs, and published bytes must not depend on the CPU.
target_compile_options(quern_options INTERFACE -ffp-contract=off -Wall -Wextra -Wshadow -Wconversion
                                               $<$<BOOL:${QUERN_WERROR}>:-Werror>)
target_include_directories(quern_options INTERFACE ${PROJECT_SOURCE_DIR})

# quern_library(NAME DEPENDS lib...): a static library quern_NAME (alias quern::NAME) of all .cc files at or below this folder,
# less those in the folders named by EXCLUDE. DEPENDS states the arrows of docs/architecture.md.
function(quern_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE_DEPENDS;EXCLUDE" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(folder IN LISTS ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "^${CMAKE_CURRENT_SOURCE_DIR}/${folder}/")
  endforeach()
  add_library(quern_${name} STATIC ${sources})
  add_library(quern::${name} ALIAS quern_${name})
  target_link_libraries(quern_${name} PUBLIC ${ARG_DEPENDS} PRIVATE $<BUILD_INTERFACE:quern_options> ${ARG_PRIVATE_DEPENDS})
endfunction()

# quern_test(NAME LABEL label DEPENDS lib...): one GoogleTest program of all *_test.cc files of this folder.
function(quern_test name)
  cmake_parse_arguments(ARG "" "LABEL" "DEPENDS" ${ARGN})
  file(GLOB sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(quern_${name}_tests ${sources})
  target_link_libraries(quern_${name}_tests PRIVATE ${ARG_DEPENDS} quern_options GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(quern_${name}_tests PRIVATE QUERN_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                                                         QUERN_SHARED="${PROJECT_SOURCE_DIR}/../shared")
  gtest_discover_tests(quern_${name}_tests TEST_PREFIX "${name}." DISCOVERY_TIMEOUT 60 PROPERTIES LABELS "${ARG_LABEL}" TIMEOUT 600)
endfunction()
