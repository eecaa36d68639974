#!/bin/sh
# Builds the release binary and measures what neither hot.sh nor peers.sh compares: cold reads beside
# the disk, two cores beside one, recovery beside reading the log, a fixed rate of reads and synced
# writes, bulk load, write amplification, memory for each key, an idle node, requests over HTTP and what
# slow HTTP clients do to others; see perf/README.md.
# Needs python3, and for requests over HTTP `ab` (apache2-utils). Arguments: the rows that are wanted, none for all.
#
# For write amplification RocksDB is compiled in, which takes a while; without a C++ compiler and libclang the build
# goes on without it, and the row is left out.
set -eu
cd "$(dirname "$0")/.."
case " ${*:-amplification} " in
*" amplification "*)
    cargo build --release --package pinion --features peers || {
        echo "asked.sh: RocksDB does not compile here; building without it" >&2
        cargo build --release --package pinion
    }
    ;;
*) cargo build --release --package pinion ;;
esac
mkdir -p perf/results
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
exec python3 perf/asked.py "${CARGO_TARGET_DIR:-target}/release/pinion" "${PINION_BENCH_DIR:-target/bench}" \
    "perf/results/asked-$(date -u +%Y%m%dT%H%M%SZ)-$commit" "$@"
