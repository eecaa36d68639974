"""The work of asked.sh: see there. Called with the binary, a directory for files, the name of the results
without its ending, and the rows that are wanted.

Every row is a ratio of two numbers that are taken in turn, three times where that takes seconds, once where it
takes minutes; the median counts. The server or engine is on cpu 0 (of two cores: on both), the load on cpu 1. In the
row of write amplification both engines run at the same time, each on one of them."""

import concurrent.futures
import contextlib
import glob
import itertools
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import threading
import time

BINARY, BASE, RESULT = sys.argv[1:4]
WANTED = sys.argv[4:]
ROUNDS = 3
PAIRS = 9
SLOW_CLIENTS = 1_000
SLOW_PERIOD_S = 1
# Runs in which compaction may end what overwrites have left.
SETTLE_RUNS_MAX = 60
KEY_BYTES, VALUE_BYTES = 32, 512
RECORD_BYTES = KEY_BYTES + VALUE_BYTES
MEMORY_MIB = 128
# Overwrites of the row of write amplification: what both engines keep up with on one cpu each. Before they are
# measured everything has been written about twice.
STEADY_RATE = 30_000
STEADY_WARMUP_S, STEADY_S = 90, 180
# Ten times the memory.
COLD_RECORDS = 10 * MEMORY_MIB * (1 << 20) // RECORD_BYTES
WORK = os.path.join(BASE, f"asked-{os.getpid()}")
READS = ["-p", "readproportion=1", "-p", "updateproportion=0"]
WRITES = ["-p", "readproportion=0", "-p", "updateproportion=1"]
rows = []


def note(text):
    print(text, file=sys.stderr, flush=True)


def row(name, what, measured, against, ratio, asked, met):
    rows.append(
        {"row": name, "what": what, "measured": measured, "against": against, "ratio": ratio, "asked": asked, "met": met}
    )
    note(f"{what}: {measured}; {against}: {ratio} (asked: {asked})")


def bench(phase, target, *arguments, before=()):
    """The report of one run of the load tool."""
    report = os.path.join(WORK, f"report-{threading.get_ident()}.json")
    command = [*before, BINARY, "bench", phase, "-w", "small", "--target", target, "--json", report, *map(str, arguments)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        sys.exit(f"asked.py: {' '.join(command)} failed:\n{ran.stdout}")
    with open(report) as file:
        return json.load(file)


def roofs(*arguments):
    """What the machine can do, as `pinion bench roofs` saves it."""
    report = os.path.join(WORK, "roofs.json")
    subprocess.run(
        [BINARY, "bench", "roofs", "--dir", WORK, "--json", report, *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    with open(report) as file:
        return json.load(file)


def counter(report, name):
    """How much a counter of the engine rose, and where it ended."""
    return next((after - before, after) for found, before, after in report["target_counters"] if found == name)


class Serve:
    """A node with one core, which is on cpu 0."""

    def __init__(self, data, *arguments, http="none"):
        began = time.monotonic()
        command = [BINARY, "serve", "--cores", "1", "--data", data, "--listen", "127.0.0.1:0", "--http", http]
        self.process = subprocess.Popen(
            [*command, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        for line in self.process.stdout:
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", line):
                self.http = found.group(1)
            if found := re.match(r"listening on (.*)", line):
                self.target = "pinion://" + found.group(1)
                self.started_s = time.monotonic() - began
                return
        sys.exit(f"asked.py: the server ended with {self.process.wait()}")

    def cpu_seconds(self):
        with open(f"/proc/{self.process.pid}/stat") as file:
            fields = file.read().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def end(self, by=signal.SIGTERM):
        self.process.send_signal(by)
        self.process.wait()


def fresh(name):
    path = os.path.join(WORK, name)
    shutil.rmtree(path, ignore_errors=True)
    return path


def put_bytes(report):
    return counter(report, "storage.bytes_ingested")[0]


def settle(seconds, *arguments):
    """Reads a little until compaction has ended what writes have left: until then it shares the core. Each run opens
    the engine anew, and a job that is cut off begins anew, so runs must not be short."""
    for _ in range(SETTLE_RUNS_MAX):
        report = bench("run", *arguments, *READS, "--rate", 1000, "--warmup", 0, "--seconds", seconds)
        if counter(report, "storage.compaction_debt_bytes")[1] == 0:
            return
    note("compaction did not come to an end; what follows is measured beside it")


def cold():
    """Everything that takes data ten times the memory."""
    data, sized = fresh("cold"), ["-p", f"recordcount={COLD_RECORDS}", "-p", f"memorymib={MEMORY_MIB}"]
    engine = ["--threads", 1, "--cpus", 0]
    load = bench("load", f"engine:{data}", *sized, *engine, "--depth", 64, "-p", "durability=buffered")
    seconds = load["operations"] / load["ops_per_second"]
    loaded = put_bytes(load) / seconds / 1e6
    roof = roofs("--file-mib", 1280)["log"][-1]["mb_per_second"]
    row(
        "load", f"bulk load, {COLD_RECORDS:,} records, buffered", f"{loaded:.0f} MB/s",
        f"log writes of 1 MiB, {roof:.0f} MB/s", round(loaded / roof, 2), ">= 0.3",
        loaded / roof >= 0.3,
    )
    bench(
        "run", f"engine:{data}", *sized, *engine, "--depth", 64, *WRITES, "-p", "durability=buffered",
        "-p", f"operationcount={COLD_RECORDS}", "-p", "requestdistribution=uniform", "--warmup", 0,
    )
    uniform = [*engine, "--depth", 32, "-p", f"memorymib={MEMORY_MIB}", "-p", "requestdistribution=uniform"]
    read = [f"engine:{data}", *uniform, "-p", f"recordcount={COLD_RECORDS}"]
    settle(10, *read)
    reads, raws, per_hit = [], [], None
    for _ in range(ROUNDS):
        run = bench("run", *read, *READS, "--warmup", 5, "--seconds", 10)
        reads.append(run["ops_per_second"])
        roof = roofs("--file-mib", 1280)["reads"]
        raws.append(next(at["ops_per_second"] for at in roof if at["depth"] == 32))
        found, blocks = counter(run, "storage.gets_found")[0], counter(run, "storage.blocks_read")[0]
        per_hit = blocks / found
        records = counter(run, "storage.table_bytes")[1] / RECORD_BYTES
        index = counter(run, "storage.index_bytes")[1]
    # As many records again, none of which is there.
    absent = ["-p", f"recordcount={2 * COLD_RECORDS}", "-p", f"insertstart={COLD_RECORDS}"]
    run = bench("run", f"engine:{data}", *uniform, *absent, *READS, "--warmup", 0, "--seconds", 10)
    per_miss = counter(run, "storage.blocks_read")[0] / run["kinds"][0]["not_found"]
    ratio = statistics.median(ours / raw for ours, raw in zip(reads, raws))
    row("cold", "GET cold, data ten times memory, depth 32, in process",
        f"{statistics.median(reads):,.0f}/s, {per_hit:.3f} blocks read per hit, {per_miss:.4f} per miss",
        f"random reads of 4 KiB, 32 at a time, {statistics.median(raws):,.0f}/s", round(ratio, 2),
        ">= 0.8, <= 1.01 per hit, <= 0.01 per miss", ratio >= 0.8 and per_hit <= 1.01 and per_miss <= 0.01)
    row("memory", "memory for each key outside caches", f"{index / records:.2f} bytes",
        f"indexes and filters of {records:,.0f} records", None, "<= 5", index / records <= 5)


def amplification():
    """What Pinion's engine and RocksDB write for the same overwrites, at the same time and a rate that both keep, so
    that neither owes more and more."""
    # Without a directory it begins nothing.
    asked = subprocess.run([BINARY, "bench", "run", "--target", "rocksdb:"], stderr=subprocess.PIPE, text=True)
    if "this build has no" in asked.stderr:
        return note("no write amplification: this build has no RocksDB (cargo build --release --features peers)")
    sized = ["-p", f"recordcount={COLD_RECORDS}", "-p", f"memorymib={MEMORY_MIB}", "-p", "durability=buffered"]
    ours = ["--threads", 1, "--depth", 64]
    theirs = ["--threads", 8]

    def both(cpus, phase, *arguments):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            runs = [
                pool.submit(bench, phase, f"{scheme}:{os.path.join(WORK, scheme)}", *sized, *own, "--cpus", cpu, *arguments)
                for scheme, own, cpu in zip(("engine", "rocksdb"), (ours, theirs), cpus)
            ]
            return [run.result() for run in runs]

    found = []
    for cpus in ((0, 1), (1, 0)):
        for scheme in ("engine", "rocksdb"):
            fresh(scheme)
        over = ["run", *WRITES, "-p", "requestdistribution=uniform", "--rate", STEADY_RATE, "--warmup", 0, "--seconds"]
        both(cpus, "load")
        both(cpus, *over, STEADY_WARMUP_S)
        figures = []
        for report in both(cpus, *over, STEADY_S):
            names = [name for name, _, _ in report["target_counters"]]
            put = report["operations"] * RECORD_BYTES
            whole = counter(report, "process.write_bytes")[0]
            tables = (
                whole - counter(report, "storage.log_bytes")[0] if "storage.log_bytes" in names
                else counter(report, "storage.flush_bytes")[0] + counter(report, "storage.compaction_written_bytes")[0]
            )
            figures.append((tables / put, whole / put, report["ops_per_second"],
                counter(report, "storage.compaction_debt_bytes")[1] >> 20, counter(report, "storage.table_bytes")[1] >> 20))
        for name, (tables, whole, rate, debt, held) in zip(("Pinion", "RocksDB"), figures):
            note(f"{name}: {tables:.2f} bytes of tables for each byte put, {whole:.2f} with the log, {rate:,.0f} overwrites/s, "
                f"{debt:,} MiB of debt and {held:,} MiB of tables at the end")
        found.append((figures[0][0] / figures[1][0], *figures))
    ratio = statistics.median(ratio for ratio, _, _ in found)
    tables = [" and ".join(f"{pair[side][0]:.2f}" for pair in found) for side in (1, 2)]
    whole = [" and ".join(f"{pair[side][1]:.2f}" for pair in found) for side in (1, 2)]
    row("amplification", f"bytes written to tables for each byte put, uniform overwrites at {STEADY_RATE:,}/s",
        f"{tables[0]} ({whole[0]} with the log)", f"RocksDB at the same time, {tables[1]} ({whole[1]} with the log)",
        round(ratio, 2), "<= 0.7", ratio <= 0.7)


def cores():
    """Two cores beside one, and beside two engines that share nothing but the machine: a process on each cpu, with half
    of the records and of the memory. Records are loaded for every run: what the runs before left to compact would take
    its part of them."""
    def loaded(name, cpus, threads, records, memory_mib, value_bytes):
        engine = [f"engine:{fresh(name)}", "-p", f"recordcount={records}", "-p", f"memorymib={memory_mib}",
            "-p", f"valuebytes={value_bytes}", "-p", "requestdistribution=uniform", "--depth", 64]
        formatted = ["--threads", threads, "--cpus", cpus]
        bench("load", *engine, *formatted, "-p", "durability=buffered")
        settle(10, *engine, *formatted)
        return engine

    def measured(engine, cpus, threads, mix):
        on = ["--threads", threads, "--cpus", cpus, "--warmup", 2, "--seconds", 5]
        return bench("run", *engine, *on, *mix, "-p", "durability=buffered")["ops_per_second"]

    def apart(mix, value_bytes):
        with concurrent.futures.ThreadPoolExecutor() as pool:
            engines = list(pool.map(lambda cpu: loaded(f"cores-{cpu}", cpu, 1, 200_000, 512, value_bytes), (0, 1)))
            return sum(pool.map(lambda cpu: measured(engines[cpu], cpu, 1, mix), (0, 1)))

    mixes = (
        ("GET", READS, VALUE_BYTES), ("buffered PUT of 64 B", WRITES, 64), (f"buffered PUT of {VALUE_BYTES} B", WRITES, VALUE_BYTES),
    )
    for name, mix, value_bytes in mixes:
        rounds = []
        for _ in range(ROUNDS):
            one, two = (
                measured(loaded("cores", "0,1", 2, 400_000, 1024, value_bytes), cpus, threads, mix)
                for cpus, threads in (("0", 1), ("0,1", 2))
            )
            rounds.append((two / one, one, two, apart(mix, value_bytes)))
        ratio, one, two, both = sorted(rounds)[ROUNDS // 2]
        row("cores", f"two cores, {name}, in process, a generator on each", f"{two:,.0f}/s",
            f"one core, {one:,.0f}/s (two processes that share nothing {both:,.0f}/s)", round(ratio, 2), ">= 1.9", ratio >= 1.9)


def recovery():
    """Start after a kill -9 beside reading what is replayed."""
    ratios = []
    for _ in range(ROUNDS):
        data = fresh("recovery")
        server = Serve(data, "--memory", "4GiB")
        bench("load", server.target, "-p", "recordcount=400000", "--cpus", 1, "--connections", 64, "--depth", 16)
        server.end(signal.SIGKILL)
        logs = glob.glob(f"{data}/shard-*/wal/*")
        log_bytes = sum(os.path.getsize(path) for path in logs)
        began = time.monotonic()
        for path in logs:
            subprocess.run(["taskset", "-c", "0", "dd", f"if={path}", "of=/dev/null", "bs=1M", "iflag=direct", "status=none"], check=True)
        read_s = time.monotonic() - began
        again = Serve(data, "--memory", "4GiB")
        ratios.append((read_s / again.started_s, again.started_s, read_s, log_bytes))
        again.end()
    ratio, start, read_s, log_bytes = sorted(ratios)[ROUNDS // 2]
    row("recovery", "start after kill -9, until it serves", f"{start:.2f} s", f"dd of its log of {log_bytes >> 20} MiB, {read_s:.2f} s",
        round(ratio, 2), ">= 0.5", ratio >= 0.5)


def rate():
    """100,000 reads and 10,000 synced writes a second on one core, compaction running, the records in memory. Few
    connections, as a pool of a client has: many requests in a message."""
    data, rounds = fresh("rate"), []
    server = Serve(data, "--memory", "4GiB")
    sized = ["-p", "recordcount=1000000", "--cpus", 1, "--connections", 8, "--depth", 64]
    bench("load", server.target, *sized, "-p", "durability=buffered")
    for _ in range(ROUNDS):
        run = bench(
            "run", server.target, *sized, "--rate", 110000, "-p", "readproportion=0.909090909",
            "-p", "updateproportion=0.090909091", "-p", "requestdistribution=zipfian", "--warmup", 5, "--seconds", 20,
        )
        by_kind = {kind["name"]: dict(kind["latency"]["percentiles"]) for kind in run["kinds"]}
        rounds.append((run["ops_per_second"], by_kind))
    server.end()
    for kind in ("READ", "UPDATE"):
        tails = [[by_kind[kind][percentile] / 1000 for percentile in (50.0, 99.0, 99.9)] for _, by_kind in rounds]
        p50, p99, p999 = (statistics.median(column) for column in zip(*tails))
        row("rate", f"{kind} of 100,000 reads/s and 10,000 synced writes/s, open loop",
            f"p50 {p50:.2f}, p99 {p99:.2f}, p99.9 {p999:.2f} ms", f"{statistics.median(r for r, _ in rounds):,.0f}/s reached", None,
            "p99 < 1 ms, p99.9 < 3 ms", p99 < 1 and p999 < 3)


class SlowClients:
    """HTTP connections on cpu 1 that send a byte of a request every second, one after the other, and come back when they are closed."""

    def __init__(self, http):
        host, port = http.split(":")
        self.address, self.ended = (host, int(port)), threading.Event()
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        time.sleep(1)

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def connect(self):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.address)
        return client

    def run(self):
        os.sched_setaffinity(threading.get_native_id(), {1})
        clients = [self.connect() for _ in range(SLOW_CLIENTS)]
        due = time.monotonic()
        for index in itertools.cycle(range(SLOW_CLIENTS)):
            due += SLOW_PERIOD_S / SLOW_CLIENTS
            if self.ended.wait(max(0, due - time.monotonic())):
                break
            try:
                clients[index].send(b"x")
            except BlockingIOError:
                pass
            except OSError:
                clients[index].close()
                clients[index] = self.connect()
        for client in clients:
            client.close()


def gateway():
    """Requests over HTTP, and native requests beside a thousand slow HTTP clients. The gateway's thread, the load and
    the slow clients share cpu 1, where the load goes first: it stands for clients on machines of their own."""
    server = Serve(fresh("gateway"), "--memory", "512MiB", http="127.0.0.1:0")
    sized = ["-p", "recordcount=100000", "--cpus", 1]
    bench("load", server.target, *sized, "--connections", 64, "--depth", 16, "-p", "durability=buffered")
    over_http(server.http)

    def p99():
        run = bench(
            "run", server.target, *sized, *READS, "--connections", 16, "--depth", 4, "--rate", 20000, "--warmup", 1,
            "--seconds", 4, before=("chrt", "--fifo", "1"),
        )
        return dict(run["kinds"][0]["latency"]["percentiles"])[99.0]

    pairs = []
    for pair in range(PAIRS):
        beside = {}
        for is_beside in (False, True) if pair % 2 == 0 else (True, False):
            with SlowClients(server.http) if is_beside else contextlib.nullcontext():
                beside[is_beside] = p99()
        pairs.append((beside[True] / beside[False], beside[True], beside[False]))
        note(f"p99 of native GETs: {beside[False]:,.0f} us alone, {beside[True]:,.0f} us beside slow clients")
    server.end()
    ratio, with_slow, alone = sorted(pairs)[PAIRS // 2]
    row("gateway", f"p99 of 20,000 native GETs/s beside {SLOW_CLIENTS:,} slow HTTP clients", f"{with_slow:,.0f} us",
        f"alone, {alone:,.0f} us; {PAIRS} pairs", round(ratio, 2), "<= 1.5", ratio <= 1.5)


def over_http(address):
    """Requests per second by `ab`, over 32 connections that are kept."""
    if shutil.which("ab") is None:
        return note("no requests over HTTP: `ab` is missing (apt-get install apache2-utils)")
    value = os.path.join(WORK, "value")
    with open(value, "wb") as file:
        file.write(b"v" * VALUE_BYTES)
    for name, query, arguments in (
        ("synced PUT", "", ["-u", value, "-n", "20000"]),
        ("buffered PUT", "?durability=buffered", ["-u", value, "-n", "40000"]),
        ("GET", "", ["-n", "60000"]),
    ):
        command = ["taskset", "-c", "0", "ab", "-q", "-k", "-c", "32", *arguments, f"http://{address}/kv/measured{query}"]
        rates = []
        for _ in range(ROUNDS):
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            if failed := re.search(r"(Non-2xx responses|Failed requests): +([1-9]\d*)", text):
                sys.exit(f"asked.py: {' '.join(command)}: {failed.group()}")
            rates.append(float(re.search(r"Requests per second: +([\d.]+)", text).group(1)))
        row("http", f"{name} of {VALUE_BYTES} B over HTTP, `ab -k -c 32`", f"{statistics.median(rates):,.0f}/s", "", None, "", None)


def idle():
    """An idle node."""
    server = Serve(fresh("idle"))
    time.sleep(2)
    before = server.cpu_seconds()
    time.sleep(20)
    percent = (server.cpu_seconds() - before) / 20 * 100
    server.end()
    row("idle", "idle node", f"{percent:.2f} % of a core", "20 s", None, "< 1 %", percent < 1)


def markdown():
    lines = ["| row | measured | against | ratio | asked | met |", "|---|---|---|---|---|---|"]
    for found in rows:
        met = {True: "yes", False: "no", None: ""}[found["met"]]
        ratio = "" if found["ratio"] is None else found["ratio"]
        lines.append(f"| {found['what']} | {found['measured']} | {found['against']} | {ratio} | {found['asked']} | {met} |")
    return "\n".join(lines) + "\n"


ALL = {
    "idle": idle, "cores": cores, "recovery": recovery, "rate": rate, "gateway": gateway, "cold": cold,
    "amplification": amplification,
}
unknown = [name for name in WANTED if name not in ALL]
if unknown:
    sys.exit(f"asked.py: there is no row {unknown[0]}; choose from {', '.join(ALL)}")
os.makedirs(WORK)
try:
    for name, measure in ALL.items():
        if not WANTED or name in WANTED:
            measure()
finally:
    shutil.rmtree(WORK, ignore_errors=True)
with open(RESULT + ".json", "w") as file:
    json.dump(rows, file, indent=1)
    file.write("\n")
with open(RESULT + ".md", "w") as file:
    file.write(markdown())
print(markdown(), end="")
