#!/usr/bin/env bash
# Installs, builds, and runs all tests: the release build, then the sanitizer build without the
# end-to-end tests, which check speed as well, then 15 s of each fuzz target.
#   jobs/test.sh [CTEST ARGUMENTS]     for example  jobs/test.sh -R unit.rng
set -euo pipefail
cd "$(dirname "$0")/.."

jobs/install-deps.sh --fuzz --tests || [ $? = 69 ] # 69: no apt; CMake names what is missing
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cores=$(nproc)

cmake --preset release
cmake --build --preset release
ctest --preset release --parallel $((cores + 1)) "$@" # most of them wait for MPI to start

cmake --preset asan
cmake --build --preset asan
ctest --preset asan --parallel "$cores" --label-exclude e2e "$@"

if clang -fsanitize=fuzzer -x c - -o /dev/null 2> /dev/null <<< 'int LLVMFuzzerTestOneInput(void) { return 0; }'; then
  cmake --preset fuzz
  cmake --build --preset fuzz
  ctest --preset fuzz --parallel "$cores" "$@"
else
  echo "test.sh: WARNING: no clang with libFuzzer here: the fuzz targets are SKIPPED (clang, libclang-rt-dev)" >&2
fi
