# What `cmake --install` adds to the libraries that quern_library() installs: their doors and what those include, the program, its manual
# page, and the package files behind find_package(quern).

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quern)
configure_package_config_file(cmake/quern-config.cmake.in ${PROJECT_BINARY_DIR}/quern-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quern-config-version.cmake COMPATIBILITY SameMinorVersion)

set(man_page ${PROJECT_BINARY_DIR}/quern.1)
set(man_folder ${PROJECT_SOURCE_DIR}/docs/man)
add_custom_command(OUTPUT ${man_page} COMMAND ${man_folder}/make.sh $<TARGET_FILE:quern> > ${man_page}
                   DEPENDS quern ${man_folder}/make.sh ${man_folder}/quern.1.in VERBATIM)
add_custom_target(man ALL DEPENDS ${man_page})

# Which headers the doors include is found out when it is done, not when it is configured: then no header needs to reconfigure the build.
get_property(doors GLOBAL PROPERTY QUERN_DOORS)
install(CODE "set(doors \"${doors}\")
set(root \"${PROJECT_SOURCE_DIR}\")
set(destination \"\${CMAKE_INSTALL_PREFIX}/${CMAKE_INSTALL_INCLUDEDIR}/quern\")
include(\"${PROJECT_SOURCE_DIR}/cmake/InstallDoors.cmake\")")

install(TARGETS quern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES ${man_page} DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(EXPORT quern_targets FILE quern-targets.cmake NAMESPACE quern:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/quern-config.cmake ${PROJECT_BINARY_DIR}/quern-config-version.cmake DESTINATION ${package_dir})
