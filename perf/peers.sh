#!/bin/sh
# Builds the release binary and compares it with what else there is: Redis, RocksDB, fjall; see
# perf/README.md. Arguments go to `pinion bench peers`, for instance: perf/peers.sh --only get,put
#
# Installs nothing: what is not on the machine is told in the tables. RocksDB and fjall are compiled in,
# which takes a while; without a C++ compiler and libclang the build goes on without them.
set -eu
cd "$(dirname "$0")/.."
cargo build --release --package pinion --features peers || {
    echo "peers.sh: the other engines do not compile here; building without them" >&2
    cargo build --release --package pinion
}
results=perf/results
mkdir -p "$results"
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
name=peers
for argument in "$@"; do
    [ "$argument" != --steady ] || name=peers-steady
done
out=$results/$name-$(date -u +%Y%m%dT%H%M%SZ)-$commit
"${CARGO_TARGET_DIR:-target}/release/pinion" bench peers \
    --dir "${PINION_BENCH_DIR:-target/bench}" \
    --json "$out.json" \
    --markdown "$out.md" \
    "$@"
