#!/usr/bin/env bash
# test_failing_ranks.sh MPIRUN PROGRAM: a rank that is late, stopped, killed or failing ends the job within seconds.
set -u
mpirun=$1 program=$2
failures=0

# expect CASE RANKS STATUS TEXT: the job ends with this status ("any": not 0) and says TEXT, once.
expect() {
    local case=$1 ranks=$2 want=$3 text=$4 output status started=$SECONDS
    output=$(timeout -k 5 50 "$mpirun" -np "$ranks" --oversubscribe "$program" "$case" 2>&1 </dev/null)
    status=$?
    if ((SECONDS - started > 30)); then
        echo "FAILED $case: took $((SECONDS - started)) s"; failures=$((failures + 1))
    fi
    if [[ $want == any && $status -eq 0 ]] || [[ $want != any && $status -ne $want ]]; then
        echo "FAILED $case: status $status, expected $want"; failures=$((failures + 1))
    fi
    if [[ -n $text && $(grep -cF -- "$text" <<<"$output") -ne 1 ]]; then
        echo "FAILED $case: does not say once: $text"; failures=$((failures + 1))
    fi
    ((failures)) && printf '%s\n' "$output"
}

expect late 2 69 "failing_ranks: while waiting in a test: waited 1 s for the other ranks (reduction); ddp_timeout is 1 s"
expect stopping 2 69 "failing_ranks: while waiting in a test: waited 1 s for the other ranks (reduction); ddp_timeout is 1 s"
expect killed 3 any ""
expect failing 3 65 "failing_ranks: rank 2: sample 17: this is the reason"
expect stalled 1 69 "while waiting in a test: a call to the GPU has not returned for"
expect beating 1 0 ""
expect resting 1 0 ""
((failures == 0)) && echo "all ended as they should"
exit $((failures > 0))
