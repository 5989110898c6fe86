# What the end-to-end tests share. A test is run as  test_X.sh BIN TESTS FIXTURES  with the directories of
# the programs, of the test tools, and of tests/fixtures. Every check prints a line; the first failure
# ends the test with exit code 1.
set -euo pipefail
BIN=$1; TESTS=$2; FIXTURES=$3
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
export OMP_WAIT_POLICY=passive
WORK=$(mktemp -d "${TMPDIR:-/tmp}/qvl_e2e.XXXXXX")
trap 'rm -rf "$WORK"' EXIT
cd "$WORK"

ok()   { echo "ok - $*"; }
fail() { echo "not ok - $*" >&2; exit 1; }

# on N PROGRAM ARGS...: under mpirun with N ranks; output in $WORK/log
on() {
  local n=$1; shift
  mpirun --oversubscribe --bind-to none -np "$n" "$BIN/$@" > "$WORK/log" 2>&1
}

# must NAME COMMAND...: the command succeeds, else its log is shown
must() {
  local name=$1; shift
  local code=0
  "$@" || code=$?
  [ $code = 0 ] || { cat "$WORK/log" >&2; fail "$name (exit $code)"; }
  ok "$name"
}

# start RANKS PROGRAM ARGS: in the background; $launcher is its process, output in $WORK/log
start() {
  local n=$1; shift
  mpirun --oversubscribe --bind-to none -np "$n" "$BIN/$@" > "$WORK/log" 2>&1 & launcher=$!
}
# rank R: the process of a rank of $launcher
rank() { pgrep -P "$launcher" qvl_ | sed -n "$(($1 + 1))p"; }
# until_log TEXT: waits for it, 60 s at most
until_log() {
  for _ in $(seq 600); do grep -q -- "$1" "$WORK/log" && return; sleep 0.1; done
  cat "$WORK/log" >&2; fail "no '$1' within 60 s"
}

# same NAME A B: two files have the same bytes
same() { cmp -s "$2" "$3" || fail "$1: $2 and $3 differ"; ok "$1"; }

# A copy of a fixture to work in.
fixture() { cp -r "$FIXTURES/$1" "$WORK/$1"; chmod -R u+w "$WORK/$1"; cd "$WORK/$1"; }

# seconds since an earlier  date +%s%N
since() { awk -v a="$1" -v b="$(date +%s%N)" 'BEGIN { printf "%.2f", (b - a) / 1e9 }'; }
