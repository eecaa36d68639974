#!/bin/sh
# Flame graph of a node: of one that runs, or of one core under a load that is made for it. See
# perf/README.md.
#
#     perf/flame.sh --pid PID [--seconds 10] [--off-cpu] [--diff FOLDED] [--out NAME]
#     perf/flame.sh [--work get|put] [--depth 16] [the same]
#
# Writes NAME.svg and NAME.folded; without --out they go to target/flame. Needs Linux's perf; nothing
# is installed. PINION_BENCH_DIR says where the node's directory is made (and removed): target/bench if
# not set. Without --pid, the node is on cpu 0 and the load on cpu 1.
set -eu

pid= work=get depth=16 seconds=10 off_cpu= diff= out=
fail() {
    echo "flame.sh: $*" >&2
    exit 1
}
here=$PWD
while [ $# -gt 0 ]; do
    option=$1
    shift
    [ "$option" = --off-cpu ] || [ $# -gt 0 ] || fail "$option needs a value; see the head of this file"
    case $option in
        --off-cpu) off_cpu=yes; continue ;;
        --pid) pid=$1 ;;
        --work) work=$1 ;;
        --depth) depth=$1 ;;
        --seconds) seconds=$1 ;;
        --diff) diff=$1 ;;
        --out) out=$1 ;;
        *) fail "no such option: $option; see the head of this file" ;;
    esac
    shift
done
# Paths are the caller's.
case $diff in '' | /*) ;; *) diff=$here/$diff ;; esac
case $out in '' | /*) ;; *) out=$here/$out ;; esac
[ -z "$pid" ] || [ -d "/proc/$pid" ] || fail "there is no process $pid"
[ -z "$diff" ] || [ -f "$diff" ] || fail "there is no file $diff"
cd "$(dirname "$0")/.."
target=${CARGO_TARGET_DIR:-target}

# A directory of ours, and what runs in it, end with this script however it ends.
mkdir -p "${PINION_BENCH_DIR:-target/bench}"
scratch=$(mktemp -d -p "${PINION_BENCH_DIR:-target/bench}")
server= load=
clean() {
    for process in $load $server; do
        kill "$process" 2> /dev/null && wait "$process" 2> /dev/null || true
    done
    rm -rf "$scratch"
}
trap clean EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

# What perf can do here is found by trying.
command -v perf > /dev/null || fail "there is no perf on this machine (Linux's tools/perf)"
paranoid=$(cat /proc/sys/kernel/perf_event_paranoid 2> /dev/null || echo unknown)
try() {
    perf record -o "$scratch/try" "$@" -- sleep 0.1 > "$scratch/try.log" 2>&1
}
if [ -n "$off_cpu" ]; then
    unit=us
    record="-e sched:sched_switch --switch-events"
    [ -d /sys/kernel/tracing/events/sched/sched_switch ] \
        || [ -d /sys/kernel/debug/tracing/events/sched/sched_switch ] \
        || fail "--off-cpu needs the tracepoint sched:sched_switch: the kernel has none, tracefs is not" \
            "mounted on /sys/kernel/tracing, or only root may look into it (this is user $(id -u))"
    # shellcheck disable=SC2086
    try $record || fail "--off-cpu needs root; perf_event_paranoid is $paranoid and perf says:" \
        "$(tail -n 5 "$scratch/try.log")"
else
    unit=samples
    event=cycles
    # perf record would take the clock by itself, without a word.
    if perf stat -x, -e cycles -- true 2>&1 | grep -q -e 'not supported' -e 'not counted'; then
        event=cpu-clock
        echo "no hardware counter of cycles here: sampling by the clock" >&2
    fi
    record="-e $event -F 999"
    # shellcheck disable=SC2086
    try $record || fail "perf may not sample; perf_event_paranoid is $paranoid and perf says:" \
        "$(tail -n 5 "$scratch/try.log")"
fi

# In a directory of its own: other flags would make cargo build everything anew in the usual one.
RUSTFLAGS="${RUSTFLAGS:-} -C force-frame-pointers=yes" CFLAGS="${CFLAGS:-} -fno-omit-frame-pointer" \
    cargo build --profile profiling --package pinion --target-dir "$target/profiling-fp"
pinion=$target/profiling-fp/profiling/pinion

if [ -n "$pid" ]; then
    what="process $pid"
    name=process-$pid
else
    what="$work, depth $depth"
    name=$work-$depth
    : > "$scratch/serve.out"
    PINION_HTTP=none taskset -c 0 "$pinion" serve --listen 127.0.0.1:0 --cores 1 --data "$scratch/data" \
        > "$scratch/serve.out" 2> "$scratch/serve.err" &
    server=$!
    pid=$server
    address=
    tries=0
    while [ -z "$address" ]; do
        address=$(sed -n 's/.*listening on \([^ ,;]*\).*/\1/p' "$scratch/serve.out" | head -n 1)
        tries=$((tries + 1))
        kill -0 "$server" 2> /dev/null && [ $tries -le 300 ] \
            || fail "the node did not start: $(tail -n 5 "$scratch/serve.err")"
        [ -n "$address" ] || sleep 0.1
    done
    # Once to write and read all records, then without end as far as the recording is concerned.
    "$pinion" bench load -w small --target "pinion://$address" --depth 16 --cpus 1 > "$scratch/fill.log" \
        || fail "the load failed: $(cat "$scratch/fill.log")"
    reads=0
    [ "$work" = put ] || reads=1
    "$pinion" bench run -w small -p readproportion=$reads -p updateproportion=$((1 - reads)) \
        --target "pinion://$address" --depth "$depth" --cpus 1 --warmup 2 --seconds "$((seconds + 2))" \
        --target-process "$server" > "$scratch/load.log" &
    load=$!
    sleep 2
fi

# shellcheck disable=SC2086
perf record $record --call-graph fp -p "$pid" -o "$scratch/perf.data" -- sleep "$seconds" >&2
if [ -n "$load" ]; then
    wait "$load" || fail "the load failed: $(cat "$scratch/load.log")"
    load=
    cat "$scratch/load.log"
fi
# Of inlined functions perf would ask another program, for hours.
perf script -i "$scratch/perf.data" --no-inline ${off_cpu:+--show-switch-events} \
    -F comm,tid,time,event,ip,sym,dso > "$scratch/script.txt" 2> "$scratch/script.log" \
    || fail "perf script: $(tail -n 5 "$scratch/script.log")"

commit=$(git rev-parse --short HEAD 2> /dev/null || echo unknown)
if [ -z "$out" ]; then
    mkdir -p target/flame
    out=target/flame/$name${off_cpu:+-off-cpu}-$(date -u +%Y%m%dT%H%M%SZ)-$commit
fi
set -- "$scratch/script.txt" --out "$out.svg" --folded "$out.folded" --unit "$unit" \
    --title "Pinion $commit, $what, $seconds s${off_cpu:+, off the cpu}${diff:+, beside $(basename "$diff")}"
[ -z "$diff" ] || set -- "$@" --diff "$diff"
"$pinion" bench flame "$@"
echo "$out.svg"
