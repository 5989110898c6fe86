# How our own targets are compiled. Flags attach to targets, never to dependencies.
find_package(Git QUIET)
set(QVL_GIT_REVISION "unknown")
# Asked again when HEAD moves.
if(EXISTS ${CMAKE_SOURCE_DIR}/.git/logs/HEAD)
  set_property(DIRECTORY ${CMAKE_SOURCE_DIR} APPEND PROPERTY CMAKE_CONFIGURE_DEPENDS ${CMAKE_SOURCE_DIR}/.git/logs/HEAD)
endif()
if(GIT_FOUND)
  execute_process(COMMAND ${GIT_EXECUTABLE} describe --always --dirty
                  WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} OUTPUT_VARIABLE QVL_GIT_REVISION
                  OUTPUT_STRIP_TRAILING_WHITESPACE ERROR_QUIET)
endif()
configure_file(${CMAKE_SOURCE_DIR}/src/base/version.h.in ${CMAKE_BINARY_DIR}/generated/qvl_version.h)

add_library(qvl_flags INTERFACE)
target_include_directories(qvl_flags INTERFACE ${CMAKE_SOURCE_DIR})
target_compile_definitions(qvl_flags INTERFACE _POSIX_C_SOURCE=200809L _XOPEN_SOURCE=700 _DEFAULT_SOURCE)
set(host_flags -Wall -Wextra -Wpedantic -Wshadow -Wvla -Wundef -Wwrite-strings
    $<$<COMPILE_LANGUAGE:C>:-Wstrict-prototypes> $<$<COMPILE_LANGUAGE:C>:-Wmissing-prototypes>
    $<$<COMPILE_LANGUAGE:C>:-Wimplicit-fallthrough> -fno-math-errno)
if(QVL_FUZZ) # what only a pragma uses is unused there
  list(APPEND host_flags -Wno-unknown-pragmas -Wno-unused-parameter -Wno-unused-variable)
endif()
if(QVL_FATAL_WARNINGS)
  list(APPEND host_flags -Werror)
endif()
target_compile_options(qvl_flags INTERFACE "$<$<COMPILE_LANGUAGE:C,CXX>:${host_flags}>")
if(QVL_ARENA_GUARDS)
  target_compile_definitions(qvl_flags INTERFACE QVL_ARENA_GUARDS)
endif()
set(sanitizers)
if(QVL_SANITIZE_ADDRESS)
  list(APPEND sanitizers -fsanitize=address)
endif()
if(QVL_SANITIZE_UNDEFINED)
  list(APPEND sanitizers -fsanitize=undefined -fno-sanitize-recover=undefined)
endif()
if(QVL_FUZZ)
  list(APPEND sanitizers -fsanitize=fuzzer-no-link)
endif()
if(sanitizers)
  target_compile_options(qvl_flags INTERFACE
    "$<$<COMPILE_LANGUAGE:C,CXX>:${sanitizers};-fno-omit-frame-pointer>")
  target_link_options(qvl_flags INTERFACE ${sanitizers})
endif()

# qvl_library(NAME FOLDERS LINK ...): static library qvl_NAME of all C files in FOLDERS.
function(qvl_library name folders)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  list(TRANSFORM folders REPLACE "(.+)" "${CMAKE_SOURCE_DIR}/\\1/*.c" OUTPUT_VARIABLE patterns)
  file(GLOB sources CONFIGURE_DEPENDS ${patterns})
  add_library(qvl_${name} STATIC ${sources})
  target_link_libraries(qvl_${name} PUBLIC ${ARG_LINK} PRIVATE qvl_flags)
  target_include_directories(qvl_${name} PUBLIC ${CMAKE_SOURCE_DIR} PRIVATE ${CMAKE_BINARY_DIR}/generated)
endfunction()

# qvl_program(NAME LINK ...): executable of src/bin/NAME.c.
function(qvl_program name)
  cmake_parse_arguments(ARG "" "" "LINK" ${ARGN})
  add_executable(${name} ${CMAKE_SOURCE_DIR}/src/bin/${name}.c)
  target_link_libraries(${name} PRIVATE ${ARG_LINK} qvl_flags)
  target_include_directories(${name} PRIVATE ${CMAKE_BINARY_DIR}/generated)
endfunction()
