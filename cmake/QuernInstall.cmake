# What `cmake --install` adds to the libraries and headers that quern_library() installs: the program, its manual page, and the
# package files behind find_package(quern).

include(CMakePackageConfigHelpers)

set(package_dir ${CMAKE_INSTALL_LIBDIR}/cmake/quern)
configure_package_config_file(cmake/quern-config.cmake.in ${PROJECT_BINARY_DIR}/quern-config.cmake INSTALL_DESTINATION ${package_dir})
write_basic_package_version_file(${PROJECT_BINARY_DIR}/quern-config-version.cmake COMPATIBILITY SameMinorVersion)

install(TARGETS quern RUNTIME DESTINATION ${CMAKE_INSTALL_BINDIR})
install(FILES docs/man/quern.1 DESTINATION ${CMAKE_INSTALL_MANDIR}/man1)
install(EXPORT quern_targets FILE quern-targets.cmake NAMESPACE quern:: DESTINATION ${package_dir})
install(FILES ${PROJECT_BINARY_DIR}/quern-config.cmake ${PROJECT_BINARY_DIR}/quern-config-version.cmake DESTINATION ${package_dir})
