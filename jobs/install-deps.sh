#!/usr/bin/env bash
# Installs what qvl needs to build, run and be tested: Debian 12 and Ubuntu 24.04, as root or with sudo.
# Where everything is there already, it does nothing. CUDA and NCCL are not installed: where nvcc is on
# PATH the build finds it.
set -euo pipefail

packages=(gcc g++ cmake ninja-build pkg-config git
  openmpi-bin libopenmpi-dev libhdf5-dev hdf5-tools libyaml-dev libjansson-dev libpcre2-dev libutf8proc-dev
  libjpeg-dev libpng-dev libwebp-dev libcairo2-dev fonts-dejavu-core libopenblas-dev libssl-dev libcmocka-dev)
for_fuzzing=(clang libclang-rt-dev) # without them everything but the fuzz targets is built and tested

if ! command -v apt-get > /dev/null || ! command -v dpkg-query > /dev/null; then
  cat >&2 <<'TEXT'
install-deps.sh: no apt here. On a cluster, load modules instead, for example
  module load gcc cmake ninja openmpi hdf5 openblas openssl cuda nccl
and, where there are no modules of them, install with spack or conda-forge:
  libyaml jansson pcre2 utf8proc libjpeg-turbo libpng libwebp cairo cmocka
TEXT
  exit 69
fi

missing=()
for package in "${packages[@]}" "${for_fuzzing[@]}"; do
  dpkg-query -W -f '${Status}\n' "$package" 2> /dev/null | grep -q '^install ok installed' || missing+=("$package")
done
[ ${#missing[@]} -gt 0 ] || exit 0

as_root=()
if [ "$(id -u)" -ne 0 ]; then
  command -v sudo > /dev/null || { echo "install-deps.sh: needs root or sudo to install: ${missing[*]}" >&2; exit 77; }
  as_root=(sudo)
fi
echo "install-deps.sh: installing ${missing[*]}"
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq update
wanted=()
for package in "${missing[@]}"; do
  if [[ " ${for_fuzzing[*]} " == *" $package "* ]] && ! apt-cache show "$package" > /dev/null 2>&1; then
    echo "install-deps.sh: WARNING: there is no package $package here; the fuzz targets need it" >&2
  else
    wanted+=("$package")
  fi
done
[ ${#wanted[@]} -gt 0 ] || exit 0
"${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends "${wanted[@]}" > /dev/null
