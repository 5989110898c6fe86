#!/usr/bin/env bash
# Installs, builds, and runs all tests: the release build, then the sanitizer build without the
# end-to-end tests, which check speed as well.
#   jobs/test.sh [CTEST ARGUMENTS]     for example  jobs/test.sh -R unit.rng
set -euo pipefail
cd "$(dirname "$0")/.."

jobs/install-deps.sh
[ "$(id -u)" -ne 0 ] || export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
cores=$(nproc)

cmake --preset release
cmake --build --preset release
ctest --preset release --parallel "$cores" "$@"

cmake --preset asan
cmake --build --preset asan
ctest --preset asan --parallel "$cores" --label-exclude e2e "$@"
