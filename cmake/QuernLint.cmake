# Targets for developers: `format` rewrites every C++ file by .clang-format, `tidy` runs clang-tidy on everything but the tests.

add_custom_target(format COMMAND tests/lint/format.sh --fix WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
add_custom_target(tidy COMMAND run-clang-tidy -quiet -extra-arg=-Wno-unknown-warning-option -p ${PROJECT_BINARY_DIR} "^${PROJECT_SOURCE_DIR}/(cli|convert|formats|quantize|recipes|runtime|verify)/"
                  WORKING_DIRECTORY ${PROJECT_SOURCE_DIR} VERBATIM)
