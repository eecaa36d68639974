#!/bin/sh
# Builds the release binary and compares it with the machine's roof; see perf/README.md.
# Arguments go to `pinion bench hot`, for instance: perf/hot.sh --rounds 3 --work get --depths 16
set -eu
cd "$(dirname "$0")/.."
cargo build --release --package pinion
results=perf/results
mkdir -p "$results"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
# Twenty seconds of warming up: by then every memtable has been filled once and the log's segments are
# used again, on slow machines too.
"${CARGO_TARGET_DIR:-target}/release/pinion" bench hot --warmup 20 \
    --dir "${PINION_BENCH_DIR:-target/bench}" \
    --json "$results/hot-$(date -u +%Y%m%dT%H%M%SZ)-$commit.json" \
    "$@"
