# What `cmake --install` adds to the libraries that quern_library() installs: their doors and what those include, the program, its manual
# page, completions for shells, the documents and the licence, and the package files behind find_package(quern) and pkg-config.

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quern)
configure_package_config_file(cmake/quern-config.cmake.in ${PROJECT_BINARY_DIR}/quern-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quern-config-version.cmake COMPATIBILITY SameMinorVersion)

set(man_page ${PROJECT_BINARY_DIR}/quern.1)
set(man_folder ${PROJECT_SOURCE_DIR}/docs/man)
add_custom_command(OUTPUT ${man_page} COMMAND ${man_folder}/make.sh $<TARGET_FILE:quern> > ${man_page}
                   DEPENDS quern ${man_folder}/make.sh ${man_folder}/quern.1.in VERBATIM)
# A shell finds the file for a program by its name and place.
set(completions ${PROJECT_BINARY_DIR}/completions)
file(MAKE_DIRECTORY ${completions})
set(completion_files bash=quern zsh=_quern fish=quern.fish)
foreach(entry IN LISTS completion_files)
  string(REGEX MATCH "^(.*)=(.*)$" matched ${entry})
  add_custom_command(OUTPUT ${completions}/${CMAKE_MATCH_2} DEPENDS quern VERBATIM
                     COMMAND quern generate ${CMAKE_MATCH_1} > ${completions}/${CMAKE_MATCH_2})
endforeach()
add_custom_target(man ALL DEPENDS ${man_page} ${completions}/quern ${completions}/_quern ${completions}/quern.fish)

# Which headers the doors include is found out when it is done, not when it is configured: then no header needs to reconfigure the build.
get_property(doors GLOBAL PROPERTY QUERN_DOORS)
install(CODE "set(doors \"${doors}\")
set(root \"${PROJECT_SOURCE_DIR}\")
set(staging \"${PROJECT_BINARY_DIR}/installed-headers\")
set(destination \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/quern\")
include(\"${PROJECT_SOURCE_DIR}/cmake/InstallDoors.cmake\")")

# For programs that are built without CMake: all of the libraries, each before those that it needs.
# The package may be moved as a whole, and `cmake --install --prefix` does so.
cmake_path(RELATIVE_PATH CMAKE_INSTALL_PREFIX BASE_DIRECTORY ${CMAKE_INSTALL_FULL_LIBDIR}/pkgconfig OUTPUT_VARIABLE prefix_from_pc)
configure_file(cmake/quern.pc.in ${PROJECT_BINARY_DIR}/quern.pc @ONLY)
install(FILES ${PROJECT_BINARY_DIR}/quern.pc DESTINATION ${CMAKE_INSTALL_LIBDIR}/pkgconfig)

install(FILES LICENSE README.md SECURITY.md DESTINATION ${CMAKE_INSTALL_DOCDIR})
install(DIRECTORY docs DESTINATION ${CMAKE_INSTALL_DOCDIR} PATTERN "man" EXCLUDE)
install(TARGETS quern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${man_page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(FILES ${completions}/quern DESTINATION ${CMAKE_INSTALL_DATADIR}/bash-completion/completions)
install(FILES ${completions}/_quern DESTINATION ${CMAKE_INSTALL_DATADIR}/zsh/site-functions)
install(FILES ${completions}/quern.fish DESTINATION ${CMAKE_INSTALL_DATADIR}/fish/vendor_completions.d)
install(EXPORT quern_targets FILE quern-targets.cmake NAMESPACE quern:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/quern-config.cmake ${PROJECT_BINARY_DIR}/quern-config-version.cmake DESTINATION ${package_dir})
