#!/bin/sh
# What a request costs, in counts, beside the bounds in tests/counts.txt; see perf/README.md.
#
#     perf/counts.sh [--dev] [--propose]
#
# --dev: of a dev build, as tests are, instead of a release build. --propose: prints the list of bounds as
# it follows from what is counted, to take the place of tests/counts.txt.
set -eu
profile=release
counts=
for option; do
    case $option in
        --dev) profile=dev ;;
        --propose) counts=propose ;;
        *)
            echo "counts.sh: no such option: $option; see the head of this file" >&2
            exit 1
            ;;
    esac
done
cd "$(dirname "$0")/.."
# The whole workspace, as `cargo test --workspace` builds it: other features would be other instructions.
cargo build --quiet --workspace --bin pinion-tests --bin pinion --profile $profile
[ $profile = release ] || profile=debug
PINION_COUNTS=$counts exec "${CARGO_TARGET_DIR:-target}/$profile/pinion-tests" counts
