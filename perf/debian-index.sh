#!/bin/sh
# The main job on real input: the Debian package index (name -> stanza) is imported, the server is
# killed with -9 in the middle and restarted, the import is repeated, and every record is read back
# byte for byte: by get and by scan with the plain Python client, and by export. Prints numbers.
#
#     perf/debian-index.sh [PINION]
#
# PINION is the binary; without it a release build is made. Needs apt-cache with package lists
# (apt-get update) and python3. PINION_BENCH_DIR says where the data directory is made (and
# removed): target/bench if not set. Exit code 0 = every byte was there.
set -eu
cd "$(dirname "$0")/.."
command -v apt-cache > /dev/null && command -v python3 > /dev/null || {
    echo "skipped: apt-cache and python3 are needed"
    exit 0
}
if [ $# -gt 0 ]; then
    pinion=$1
else
    cargo build --release --quiet
    pinion=${CARGO_TARGET_DIR:-target}/release/pinion
fi
work=${PINION_BENCH_DIR:-target/bench}/debian-index.$$
mkdir -p "$work"
apt-cache dumpavail > "$work/available"
exec python3 perf/debian_index.py "$pinion" "$work"
