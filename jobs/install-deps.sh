#!/usr/bin/env bash
# Installs what qvl needs to build, run and be tested: Debian 12 and Ubuntu 24.04, as root or with sudo.
#   jobs/install-deps.sh [--fuzz] [--tests]
# --fuzz: with clang and its libFuzzer, if they can be had. --tests: with what only tests need, a Slurm and an
# Lmod to try the batch scripts and the module on.
# Where everything is there already, it does nothing. CUDA and NCCL are not installed: where nvcc is on
# PATH the build finds it.
set -euo pipefail

packages=(gcc g++ cmake ninja-build pkg-config git
  openmpi-bin libopenmpi-dev libhdf5-dev hdf5-tools libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev
  libjpeg-dev libpng-dev libwebp-dev libcairo2-dev fonts-dejavu-core libopenblas-dev libssl-dev libcmocka-dev)
[[ " $* " != *" --tests "* ]] || packages+=(slurm-wlm munge lmod procps)

if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
  cat >&2 <<'TEXT'
install-deps.sh: no apt here. On a cluster, load modules instead, for example
  module load gcc cmake ninja openmpi hdf5 openblas openssl cuda nccl
and, where there are no modules of them, install with spack or conda-forge:
  libyaml jansson pcre2 utf8proc libjpeg-turbo libpng libwebp cairo cmocka
TEXT
  exit 69
fi

has_fuzzer() {
  clang -fsanitize=fuzzer,address -x c - -o /dev/null 2> /dev/null <<< 'int LLVMFuzzerTestOneInput(void) { return 0; }'
}
# The run-time library is a package of its own, which newer releases also have without the version.
install_fuzzer() {
  local version run_time=libclang-rt-dev
  version=$(apt-cache depends clang 2> /dev/null | sed -n 's/.*Depends: clang-\([0-9]*\)$/\1/p')
  apt-cache show $run_time > /dev/null 2>&1 || run_time=libclang-rt-$version-dev
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends clang "$run_time" > /dev/null
}
wants_fuzzer=0
if [[ " $* " = *" --fuzz "* ]] && ! has_fuzzer; then wants_fuzzer=1; fi

missing=()
for package in "${packages[@]}"; do
  dpkg-query -W -f '${Status}\n' "$package" 2> /dev/null | grep -q '^install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || [ $wants_fuzzer = 1 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  if [ ${#missing[@]} = 0 ] && ! command -v sudo > /dev/null; then
    echo "install-deps.sh: WARNING: no clang with libFuzzer here, and neither root nor sudo to install it" >&2
    exit 0
  fi
  command -v sudo > /dev/null || { echo "install-deps.sh: needs root or sudo to install: ${missing[*]}" >&2; exit 77; }
  as_root=(sudo)
fi
echo "install-deps.sh: installing ${missing[*]}$([ $wants_fuzzer = 0 ] || echo " clang and libFuzzer")"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update || [ ${#missing[@]} = 0 ]
[ ${#missing[@]} = 0 ] || "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${missing[@]}" > /dev/null
if [ $wants_fuzzer = 1 ] && ! { install_fuzzer && has_fuzzer; }; then
  echo "install-deps.sh: WARNING: clang with libFuzzer could not be installed; the fuzz targets are not built" >&2
fi
