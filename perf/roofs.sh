#!/bin/sh
# Builds the release binary and measures what the machine can do without it; see perf/README.md.
# Arguments go to `pinion bench roofs`, for instance: perf/roofs.sh --seconds 10 --file-mib 8192
set -eu
cd "$(dirname "$0")/.."
cargo build --release --package pinion
results=perf/results
mkdir -p "$results"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
"${CARGO_TARGET_DIR:-target}/release/pinion" bench roofs \
    --dir "${PINION_BENCH_DIR:-target/bench}" \
    --json "$results/roofs-$(date -u +%Y%m%dT%H%M%SZ)-$commit.json" \
    "$@"
