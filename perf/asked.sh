#!/bin/sh
# Builds the release binary and measures what neither hot.sh nor peers.sh compares: cold reads beside
# the disk, two cores beside one, recovery beside reading the log, a fixed rate of reads and synced
# writes, bulk load, write amplification, memory for each key, an idle node, requests over HTTP and what
# slow HTTP clients do to others; see perf/README.md.
# Needs python3, and for requests over HTTP `ab` (apache2-utils). Arguments: the rows that are wanted, none for all.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --package pinion
mkdir -p perf/results
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
exec python3 perf/asked.py "${CARGO_TARGET_DIR:-target}/release/pinion" "${PINION_BENCH_DIR:-target/bench}" \
    "perf/results/asked-$(date -u +%Y%m%dT%H%M%SZ)-$commit" "$@"
