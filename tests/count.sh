# How `tests/run` counts a suite's output; sourced. `tests/count-test` tries it.
# shellcheck shell=bash
#
# Lines `test result: ...` (cargo) and `N passed, N failed` (everything else)
# are added up. A suite that prints neither counts as one test, by its exit
# status. A line `SKIP RING: REASON` is one skipped test. Where cargo shows what
# a passed test printed, that test is moved from the passed to the skipped ones,
# once, however many reasons it gave.

# Sum of the numbers that a sed expression takes out of a file.
sum() { sed -nE "$2" "$1" | awk '{ n += $1 } END { print n + 0 }'; }

# Skipped tests that cargo counts as passed, and skips that nothing else counts.
skips() { # FILE
    awk '
        /^successes:$/ { passed = 1; shown = 0 }
        /^failures:$/ { passed = 0; shown = 0 }
        /^test result: / { shown = 0 }
        /^---- .* stdout ----$/ { shown = 1; told = 0 }
        /^SKIP [a-z]+: / && !shown { others++ }
        /^SKIP [a-z]+: / && shown && passed && !told { moved++; told = 1 }
        END { print moved + 0, others + 0 }
    ' "$1"
}

# Sets passed_now, failed_now, skipped_now and ignored_now, and why_now: a line
# for each reason of a skip, with how many tests gave it.
count_output() { # FILE STATUS
    local moved others
    read -r moved others < <(skips "$1")
    ignored_now=$(sum "$1" 's/^test result: .* ([0-9]+) ignored;.*/\1/p')
    passed_now=$(($(sum "$1" 's/^test result: .* ([0-9]+) passed;.*/\1/p') - moved))
    passed_now=$((passed_now + $(sum "$1" 's/^([0-9]+) passed, [0-9]+ failed$/\1/p')))
    failed_now=$(sum "$1" 's/^test result: .* ([0-9]+) failed;.*/\1/p')
    failed_now=$((failed_now + $(sum "$1" 's/^[0-9]+ passed, ([0-9]+) failed$/\1/p')))
    skipped_now=$((moved + others))
    if [ "$2" != 0 ] && [ "$failed_now" = 0 ]; then
        failed_now=1
    elif [ "$skipped_now" = 0 ] \
        && ! grep -qE '^test result: |^[0-9]+ passed, [0-9]+ failed$' "$1"; then
        passed_now=1
    fi
    why_now=$(sed -nE 's/^SKIP ([a-z]+: .*)/\1/p' "$1" | sort | uniq -c \
        | sed -E 's/^ *([0-9]+) (.*)/\2 (\1 times)/; s/ \(1 times\)$//')
    # CI must run every ring: what it skips has failed.
    if [ "${CI:-}" = true ]; then
        failed_now=$((failed_now + skipped_now))
        skipped_now=0
    fi
}
