# Settings shared by every target and the helpers that folders use.

set(CMAKE_CXX_STANDARD 20)
set(CMAKE_CXX_STANDARD_REQUIRED ON)
set(CMAKE_CXX_EXTENSIONS OFF)
set(CMAKE_EXPORT_COMPILE_COMMANDS ON)
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release)
endif()

option(QUERN_WERROR "Treat warnings as errors" OFF)

add_library(quern_options INTERFACE)
# -Wno-restrict: GCC 12 reports std::string operator+ chains that are fine (GCC bug 105651).
# -ffp-contract=off: fused multiply-adds change encoder decisions between CPUs, and published bytes must not depend on the CPU.
target_compile_options(quern_options INTERFACE -ffp-contract=off -Wall -Wextra -Wshadow -Wconversion
                                               $<$<CXX_COMPILER_ID:GNU>:-Wno-restrict>
                                               $<$<BOOL:${QUERN_WERROR}>:-Werror>)
target_include_directories(quern_options INTERFACE ${PROJECT_SOURCE_DIR})

# quern_library(NAME DEPENDS lib... DOORS header...): a static library quern_NAME (alias quern::NAME) of all .cc files at or below this
# folder, less those in the folders named by EXCLUDE. DEPENDS states the arrows of docs/architecture.md. DOORS are the headers that other
# libraries and users may include, each by its path from the root of the repository, one a line, as in an #include. The library is
# installed, and the doors with what they include (QuernInstall.cmake).
function(quern_library name)
  cmake_parse_arguments(ARG "" "" "DEPENDS;PRIVATE_DEPENDS;EXCLUDE;DOORS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*.cc)
  foreach(excluded IN LISTS ARG_EXCLUDE)
    list(FILTER sources EXCLUDE REGEX "^${CMAKE_CURRENT_SOURCE_DIR}/${excluded}/")
  endforeach()
  add_library(quern_${name} STATIC ${sources})
  add_library(quern::${name} ALIAS quern_${name})
  target_link_libraries(quern_${name} PUBLIC ${ARG_DEPENDS} PRIVATE $<BUILD_INTERFACE:quern_options> ${ARG_PRIVATE_DEPENDS})
  target_compile_features(quern_${name} PUBLIC cxx_std_20)
  target_include_directories(quern_${name} PUBLIC $<BUILD_INTERFACE:${PROJECT_SOURCE_DIR}>
                                                  $<INSTALL_INTERFACE:${CMAKE_INSTALL_INCLUDEDIR}>)
  set_target_properties(quern_${name} PROPERTIES EXPORT_NAME ${name})
  install(TARGETS quern_${name} EXPORT quern_targets ARCHIVE DESTINATION ${CMAKE_INSTALL_LIBDIR})
  foreach(door IN LISTS ARG_DOORS)
    if(NOT EXISTS ${PROJECT_SOURCE_DIR}/${door})
      message(FATAL_ERROR "quern_${name}: the door ${door} does not exist")
    endif()
  endforeach()
  set_property(GLOBAL APPEND PROPERTY QUERN_DOORS ${ARG_DOORS})
endfunction()

# quern_compile_quickly(PATTERN...): files of this folder in which nothing is hot. They plan, write JSON or draw pages, and at -O1 take the
# compiler a quarter less.
function(quern_compile_quickly)
  list(TRANSFORM ARGN PREPEND ${CMAKE_CURRENT_SOURCE_DIR}/ OUTPUT_VARIABLE patterns)
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  set_source_files_properties(${sources} PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-O1>")
endfunction()

# How much longer tests may take than in a release build.
set(QUERN_TIMEOUT_FACTOR 1)
if(CMAKE_CXX_FLAGS MATCHES "-fsanitize")
  set(QUERN_TIMEOUT_FACTOR 10)
endif()

# quern_test(NAME LABEL label DEPENDS lib...): one GoogleTest program of all *_test.cc files at or below this folder. Suites whose name
# begins with TrainedModel need the models of ../shared and get the label `model`; those that begin with Slow get `slow`.
function(quern_test name)
  cmake_parse_arguments(ARG "" "LABEL" "DEPENDS" ${ARGN})
  file(GLOB_RECURSE sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/*_test.cc)
  if(NOT sources)
    return()
  endif()
  add_executable(quern_${name}_tests ${sources})
  target_link_libraries(quern_${name}_tests PRIVATE ${ARG_DEPENDS} quern_options GTest::gmock GTest::gtest GTest::gtest_main)
  target_compile_definitions(quern_${name}_tests PRIVATE QUERN_TEST_DATA="${PROJECT_SOURCE_DIR}/tests/data"
                                                         QUERN_SHARED="${PROJECT_SOURCE_DIR}/../shared")
  # Limits are there for what hangs; no verdict may depend on how busy the machine is.
  math(EXPR timeout "600 * ${QUERN_TIMEOUT_FACTOR}")
  foreach(group IN ITEMS "${ARG_LABEL}:-TrainedModel*:Slow*" "model:TrainedModel*" "slow:Slow*")
    string(REGEX MATCH "^([a-z]+):(.*)$" matched ${group})
    set(label ${CMAKE_MATCH_1})
    if(label STREQUAL "slow")
      math(EXPR timeout "3600 * ${QUERN_TIMEOUT_FACTOR}")
    endif()
    gtest_discover_tests(quern_${name}_tests TEST_PREFIX "${name}." TEST_FILTER "${CMAKE_MATCH_2}" TEST_LIST quern_${name}_${label}
                         DISCOVERY_TIMEOUT 60 PROPERTIES LABELS ${label} TIMEOUT ${timeout})
  endforeach()
endfunction()
