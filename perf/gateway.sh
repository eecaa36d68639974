#!/bin/sh
# Builds the release binary and measures the gateway: requests per second over HTTP, and what a thousand slow
# HTTP clients do to native requests; see perf/README.md. Needs python3, and for the first `ab` (apache2-utils).
set -eu
cd "$(dirname "$0")/.."
cargo build --release --package pinion
mkdir -p perf/results
commit=$(git rev-parse --short HEAD 2>/dev/null || echo unknown)
exec python3 perf/gateway.py "${CARGO_TARGET_DIR:-target}/release/pinion" "${PINION_BENCH_DIR:-target/bench}" \
    "perf/results/gateway-$(date -u +%Y%m%dT%H%M%SZ)-$commit.json"
