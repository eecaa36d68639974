"""The work of debian-index.sh: see there. Called with the binary and a directory of its own, which
holds `available`, the output of `apt-cache dumpavail`, and is removed at the end."""

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "tests", "python"))
import pinion_client  # noqa: E402

BINARY, WORK = sys.argv[1:3]
NDJSON, EXPORT = os.path.join(WORK, "index.ndjson"), os.path.join(WORK, "export.ndjson")
MEMORY = "256MiB"


def say(what, number, unit="", seconds=None):
    rate = "" if seconds is None else f"   in {seconds:.2f} s, {number / max(seconds, 1e-9):,.0f}/s"
    print(f"{what:<52}{number:>12,} {unit}{rate}", flush=True)


def stanzas():
    """(name, stanza) of each package, in the order of the index. Stanzas end with an empty line."""
    with open(os.path.join(WORK, "available"), "rb") as index:
        for stanza in index.read().split(b"\n\n"):
            stanza = stanza.strip(b"\n")
            if stanza:
                assert stanza.startswith(b"Package: "), stanza[:80]
                yield stanza.split(b"\n", 1)[0][len(b"Package: "):], stanza + b"\n"


def field(name, content):
    try:
        return {name: content.decode()}
    except UnicodeDecodeError:
        return {name + "_b64": base64.b64encode(content).decode()}


def unfield(record, name):
    encoded = record.get(name + "_b64")
    return record[name].encode() if encoded is None else base64.b64decode(encoded)


class Server:
    """A server process on the directory; the first chooses the port, the others take it again."""

    address = "127.0.0.1:0"

    def __init__(self):
        start = time.monotonic()
        self.log = open(os.path.join(WORK, "server.log"), "ab")
        data = os.path.join(WORK, "data")
        command = [BINARY, "serve", "--data", data, "--listen", Server.address, "--memory", MEMORY]
        environment = {**os.environ, "PINION_HTTP": "none"}
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=self.log, text=True, env=environment
        )
        for line in self.process.stdout:
            if line.startswith("listening on "):
                Server.address = line.split()[-1]
                self.start_seconds = time.monotonic() - start
                return
        raise SystemExit(f"the server did not start: see {WORK}/server.log")

    def end(self, number):
        self.process.send_signal(number)
        return self.process.wait()

    @staticmethod
    def run(*arguments):
        return [BINARY, *arguments, "--connect", Server.address]

    def storage(self):
        status = subprocess.run(self.run("status", "--json"), check=True, capture_output=True)
        return json.loads(status.stdout)["storage"]


def timed(command):
    start = time.monotonic()
    ended = subprocess.run(command, stderr=subprocess.PIPE, text=True, check=False)
    if ended.returncode != 0:
        raise SystemExit(f"{' '.join(command)} ended with {ended.returncode}: {ended.stderr[-1000:]}")
    return time.monotonic() - start


def check(what, found, wanted, seconds):
    wrong = sum(1 for key, value in wanted.items() if found.get(key) != value)
    foreign = sum(1 for key in found if key not in wanted)
    if wrong or foreign:
        raise SystemExit(f"{what}: {wrong} of {len(wanted)} records are wrong, {foreign} are foreign")
    say(f"records equal byte for byte, {what}", len(found), "records", seconds)


def main():
    wanted, count = {}, 0
    with open(NDJSON, "w", encoding="utf-8") as file:
        for name, stanza in stanzas():
            count += 1
            wanted[name] = stanza
            file.write(json.dumps({**field("key", name), **field("value", stanza)}) + "\n")
    say("stanzas in the index", count)
    say("names (the last stanza of a name counts)", len(wanted))
    say("bytes of names and stanzas", sum(len(name) + len(stanza) for name, stanza in wanted.items()), "bytes")

    server = Server()
    importing = subprocess.Popen(Server.run("import", NDJSON), stderr=subprocess.DEVNULL)
    while server.storage()["writes"] < count // 2:
        if importing.poll() is not None:
            raise SystemExit("the import ended before it was half done")
    written = server.storage()["writes"]
    server.end(signal.SIGKILL)
    importing.send_signal(signal.SIGTERM)
    importing.wait()
    say("writes begun when the server was killed", written)

    server = Server()
    say("operations replayed from the log", server.storage()["records_replayed"])
    print(f"{'restart until it listens':<52}{server.start_seconds:>12.2f} s", flush=True)
    host, port = Server.address.rsplit(":", 1)
    with pinion_client.Client(host, int(port)) as client:
        survived = dict(client.scan())
    known = sum(1 for key, value in survived.items() if wanted.get(key, b"")[:9] == value[:9])
    say("records there after the restart", known)

    say("records imported, each synced", count, "records", timed(Server.run("import", NDJSON)))
    for again in (False, True):
        word = " after a restart" if again else ""
        with pinion_client.Client(host, int(port)) as client:
            start = time.monotonic()
            check("get" + word, {name: client.get(name) for name in wanted}, wanted, time.monotonic() - start)
            start = time.monotonic()
            check("scan" + word, dict(client.scan()), wanted, time.monotonic() - start)
        seconds = timed(Server.run("export", EXPORT))
        with open(EXPORT, encoding="utf-8") as file:
            records = [json.loads(line) for line in file]
        exported = {unfield(record, "key"): unfield(record, "value") for record in records}
        assert len(exported) == len(records), "a key was exported twice"
        check("export" + word, exported, wanted, seconds)
        if not again:
            numbers = server.storage()
        assert server.end(signal.SIGTERM) == 0, "the server did not stop in good order"
        if not again:
            server = Server()
    for name in ("flushes", "compactions", "tables", "table_bytes", "log_commits"):
        say(f"storage: {name}", numbers[name])
    size = sum(os.path.getsize(os.path.join(at, name)) for at, _, names in os.walk(WORK + "/data") for name in names)
    say("bytes of the data directory", size, "bytes")
    shutil.rmtree(WORK)


if __name__ == "__main__":
    main()
