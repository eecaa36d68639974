"""The work of gateway.sh: see there. Called with the binary, a directory for files and the file for the results.

One data core on cpu 0; the gateway's thread, the load and the slow clients share cpu 1."""

import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import threading
import time

BINARY, BASE, RESULT = sys.argv[1:4]
WORK = os.path.join(BASE, f"gateway-{os.getpid()}")
PAIRS = 9
SLOW_CLIENTS = 1_000
RATE = 20_000
RECORDS = 100_000


def start():
    """A node: its process, its address and that of its gateway."""
    command = [BINARY, "serve", "--cores", "1", "--memory", "512MiB", "--listen", "127.0.0.1:0", "--http", "127.0.0.1:0"]
    process = subprocess.Popen(
        [*command, "--data", os.path.join(WORK, "data")], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    native = http = None
    for line in process.stdout:
        found = re.search(r"http://(127\.0\.0\.1:\d+)", line)
        if found:
            http = found.group(1)
        found = re.search(r"listening on (127\.0\.0\.1:\d+)", line)
        if found:
            native = found.group(1)
        if native and http:
            return process, native, http
    sys.exit(f"gateway.py: the server ended with {process.wait()}")


def bench(native, phase, *arguments):
    report = os.path.join(WORK, "report.json")
    command = [BINARY, "bench", phase, "-w", "small", "--target", f"pinion://{native}", "-p", f"recordcount={RECORDS}",
               "-p", "readproportion=1", "-p", "updateproportion=0", "--cpus", "1", "--json", report, *map(str, arguments)]
    ran = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ran.returncode != 0:
        sys.exit(f"gateway.py: {' '.join(command)} failed:\n{ran.stdout}")
    with open(report) as file:
        return json.load(file)


class SlowClients:
    """Connections that send a byte of a request every quarter of a second, and come back when they are closed."""

    def __init__(self, http):
        host, port = http.split(":")
        self.address, self.ended, self.opened, self.refused = (host, int(port)), threading.Event(), 0, 0
        self.thread = threading.Thread(target=self.run)

    def __enter__(self):
        self.thread.start()
        time.sleep(1)
        return self

    def __exit__(self, *_):
        self.ended.set()
        self.thread.join()

    def connect(self):
        client = socket.socket()
        client.setblocking(False)
        client.connect_ex(self.address)
        self.opened += 1
        return client

    def run(self):
        clients = [self.connect() for _ in range(SLOW_CLIENTS)]
        while not self.ended.wait(0.25):
            for index, client in enumerate(clients):
                try:
                    client.send(b"x")
                except BlockingIOError:
                    pass
                except OSError:
                    client.close()
                    self.refused += 1
                    clients[index] = self.connect()
        for client in clients:
            client.close()


def native_p99(native):
    run = bench(native, "run", "--connections", 16, "--depth", 4, "--rate", RATE, "--warmup", 1, "--seconds", 4)
    return dict(run["kinds"][0]["latency"]["percentiles"])[99.0]


def throughput(http):
    """Requests per second by `ab`, 32 connections that are kept."""
    if shutil.which("ab") is None:
        print("gateway.py: `ab` is missing: apt-get install apache2-utils", file=sys.stderr)
        return {}
    value = os.path.join(WORK, "value")
    with open(value, "wb") as file:
        file.write(b"v" * 512)
    measured = {}
    for name, arguments in (
        ("PUT, synced", ["-u", value, "-n", "20000"]),
        ("PUT, buffered", ["-u", value, "-n", "40000"]),
        ("GET", ["-n", "60000"]),
    ):
        query = "?durability=buffered" if "buffered" in name else ""
        rates = []
        for _ in range(3):
            command = ["taskset", "-c", "0", "ab", "-q", "-k", "-c", "32", *arguments, f"http://{http}/kv/measured{query}"]
            text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
            failed = re.search(r"(Non-2xx responses|Failed requests): +([1-9]\d*)", text)
            if failed:
                sys.exit(f"gateway.py: {' '.join(command)}: {failed.group()}")
            rates.append(float(re.search(r"Requests per second: +([\d.]+)", text).group(1)))
        measured[name] = {"per_second": statistics.median(rates), "rounds": rates}
        print(f"{name:<16}{statistics.median(rates):>10,.0f} requests/s", flush=True)
    return measured


os.makedirs(WORK)
process, native, http = start()
try:
    bench(native, "load", "--connections", 64, "--depth", 16, "-p", "durability=buffered")
    measured = throughput(http)
    pairs = []
    for pair in range(PAIRS):
        sides = {}
        for slow in (False, True) if pair % 2 == 0 else (True, False):
            if slow:
                with SlowClients(http) as clients:
                    sides[slow] = native_p99(native)
            else:
                sides[slow] = native_p99(native)
        pairs.append({"alone_us": sides[False], "beside_slow_us": sides[True]})
        print(f"p99 of native GETs: alone {sides[False]:,.0f} us, beside {SLOW_CLIENTS:,} slow HTTP clients "
              f"{sides[True]:,.0f} us ({clients.opened:,} connections, {clients.refused:,} closed)", flush=True)
    ratio = statistics.median(pair["beside_slow_us"] / pair["alone_us"] for pair in pairs)
    print(f"median of {PAIRS} pairs: {ratio:.2f}")
    with open(RESULT, "w") as file:
        json.dump({"http": measured, "pairs": pairs, "ratio": ratio}, file, indent=1)
        file.write("\n")
finally:
    process.terminate()
    process.wait()
    shutil.rmtree(WORK, ignore_errors=True)
