#!/usr/bin/env python3
"""A plain client of the Pinion protocol, version 1, written from net/protocol/PROTOCOL.md alone.

One blocking connection to any core; put, get, delete and the scan of a whole namespace. Standard
library only.

    python3 pinion_client.py HOST:PORT selftest      puts, gets, scans, deletes; prints `ok N`
    python3 pinion_client.py HOST:PORT put KEY VALUE
    python3 pinion_client.py HOST:PORT get KEY
    python3 pinion_client.py HOST:PORT delete KEY
    python3 pinion_client.py HOST:PORT scan
"""

import socket
import struct
import sys

PREFACE = b"\xb1PIN" + struct.pack("<HH", 1, 1)
# frame_bytes, header_bytes, opcode, flags, request_id, epoch, deadline_us, reserved
HEADER = struct.Struct("<IHBBQQII")
RESPONSE, ERROR = 1, 2
HELLO, GET, PUT, DELETE, SCAN = 1, 2, 4, 5, 10
FRAME_BYTES_MAX_BEFORE_HELLO = 20 << 20
CODES = (
    "OK TOO_LARGE BAD_REQUEST BAD_CURSOR OVERLOADED DEADLINE UNSUPPORTED TOO_MANY_CONNECTIONS "
    "NO_SUCH_NAMESPACE CONDITION_FAILED STAMP_TOO_OLD STAMP_AHEAD DISK_FULL DAMAGED NOT_LINEARIZABLE "
    "WRONG_NODE MAP_CHANGED SHUTTING_DOWN STORAGE_FAILED NAMESPACE_EXISTS TOO_MANY_NAMESPACES"
).split()


class PinionError(Exception):
    """The server's error answer. `applied` is False (not applied) or None (unknown)."""

    def __init__(self, code, outcome, retry_after_ms, message):
        name = CODES[code] if code < len(CODES) else str(code)
        super().__init__(f"{name}: {message}")
        self.code, self.retry_after_ms = code, retry_after_ms
        self.applied = False if outcome == 0 else None


class Client:
    """One connection. Not for several threads at once."""

    def __init__(self, host, port, namespace=0, timeout=10.0):
        self.namespace, self.timeout = namespace, timeout
        self.next_id, self.epoch = 1, 0
        self.frame_bytes_max = FRAME_BYTES_MAX_BEFORE_HELLO
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        name = b"plain-python"
        body = struct.pack("<HHIQ", 0xFFFF, len(name), 0, 0) + name
        reply = self._call(HELLO, body, before=PREFACE)
        (self.version, self.core, self.cores, shards, self.partitions, self.key_bytes_max, _features,
         self.node_id, self.incarnation, self.stamp, self.value_bytes_max, self.batch_ops_max,
         self.batch_bytes_max, self.frame_bytes_max, self.in_flight_max,
         self.retry_window_ms) = struct.unpack_from("<HHHHIIQ16sQQIIIIII", reply)
        self.shard_cores = struct.unpack_from(f"<{shards}H", reply, 80)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def put(self, key, value, ttl_ms=None, buffered=False):
        """Writes a value. `ttl_ms`: None = the namespace's default, 0 = for ever. Returns the version."""
        flags = 0 if ttl_ms is None else 2
        head = struct.pack("<IHBBQQII", self.namespace, len(key), int(buffered), flags, ttl_ms or 0,
                           0, 0, len(value))
        return self._written(self._call(PUT, head + key + value))

    def get(self, key):
        """The value, or None."""
        reply = self._call(GET, struct.pack("<IHH", self.namespace, len(key), 0) + key)
        found, value_len = struct.unpack_from("<B3xI", reply)
        return reply[40:40 + value_len] if found else None

    def delete(self, key, buffered=False):
        """Removes what may stand under the key. Returns the version of the removal."""
        head = struct.pack("<IHBBQII", self.namespace, len(key), int(buffered), 0, 0, 0, 0)
        return self._written(self._call(DELETE, head + key))

    def scan(self, page=0, reverse=False):
        """Every (key, value) of the namespace in placement order, `page` records at a time."""
        cursor, done = b"", False
        while not done:
            head = struct.pack("<IIIHBBBBHHHHHI", self.namespace, page, 0, 0xFFFF, 2, int(reverse), 0, 0,
                               0, 0, 0, 0, len(cursor), 0)
            reply = self._call(SCAN, head + cursor)
            done, _, cursor_len, count, _stamp_seen = struct.unpack_from("<BBHIQ", reply)
            at = 16
            for _ in range(count):
                key_len, value_len = struct.unpack_from("<H2xI", reply, at)
                key_at, at = at + 32, at + 32 + key_len + value_len
                yield reply[key_at:key_at + key_len], reply[key_at + key_len:at]
            cursor = reply[at:at + cursor_len]

    @staticmethod
    def _written(reply):
        _outcome, version = struct.unpack_from("<B7x16s", reply)
        return version

    def _call(self, opcode, body, before=b""):
        """Sends one request and waits for its answer's body."""
        request_id, self.next_id = self.next_id, self.next_id + 1
        frame_bytes = HEADER.size + len(body)
        if frame_bytes > self.frame_bytes_max:
            raise ValueError(f"a frame of {frame_bytes} bytes is over the limit of {self.frame_bytes_max}")
        deadline_us = int(self.timeout * 1_000_000)
        header = HEADER.pack(frame_bytes, HEADER.size, opcode, 0, request_id, self.epoch, deadline_us, 0)
        self.socket.sendall(before + header + body)

        header = self._receive(HEADER.size)
        frame_bytes, header_bytes, answered, flags, answered_id, epoch, _, _ = HEADER.unpack(header)
        if not HEADER.size <= header_bytes <= frame_bytes <= self.frame_bytes_max or not flags & RESPONSE:
            raise ConnectionError("the server sent a bad header")
        rest = self._receive(frame_bytes - HEADER.size)[header_bytes - HEADER.size:]
        self.epoch = max(self.epoch, epoch)
        if flags & ERROR:
            code, outcome, retry_after_ms = struct.unpack_from("<HBxI", rest)
            message_len = struct.unpack_from("<H", rest, 36)[0]
            raise PinionError(code, outcome, retry_after_ms, rest[40:40 + message_len].decode())
        if (answered, answered_id) != (opcode, request_id):
            raise ConnectionError("the server answered what was not asked")
        return rest

    def _receive(self, count):
        received = bytearray()
        while len(received) < count:
            chunk = self.socket.recv(min(count - len(received), 1 << 16))
            if not chunk:
                raise ConnectionError("the server closed the connection")
            received += chunk
        return bytes(received)


def selftest(client, count=400):
    """Puts, gets, scans and deletes records; returns how many. Leaves none of its own behind."""
    # Bytes of every kind, NUL and braces among them, and values from nothing to more than a buffer.
    wanted = {b"selftest/%d/" % n + bytes([n % 256, 0, 255, 123, n % 7, 125]): b"%d:" % n * (n % 50)
              for n in range(count)}
    wanted[b"selftest/large"] = bytes(range(256)) * 1024
    assert all(client.get(key) is None for key in list(wanted)[:10]), "selftest records stand already"
    before = sum(1 for _ in client.scan())
    for key, value in wanted.items():
        version = client.put(key, value, buffered=True)
        assert version != bytes(16), "a written record has a version"
    key = b"selftest/large"
    client.put(key, wanted[key])
    for key, value in wanted.items():
        assert client.get(key) == value, key
    for page, reverse in ((0, False), (7, False), (33, True)):
        seen = [(key, value) for key, value in client.scan(page, reverse) if key in wanted]
        assert len(seen) == len(wanted), f"scan found {len(seen)} of {len(wanted)}, pages of {page}"
        assert dict(seen) == wanted, "scan found other values"
    for key in wanted:
        client.delete(key)
        assert client.get(key) is None, key
    assert sum(1 for _ in client.scan()) == before, "deleted records were scanned"
    try:
        client.put(b"", b"")
        raise AssertionError("an empty key was taken")
    except PinionError as error:
        assert CODES[error.code] == "TOO_LARGE" and error.applied is False, error
    return len(wanted)


def main(arguments):
    host, port = arguments[0].rsplit(":", 1)
    command, words = arguments[1], [word.encode() for word in arguments[2:]]
    with Client(host, int(port)) as client:
        if command == "selftest":
            print("ok", selftest(client))
        elif command == "put":
            client.put(words[0], words[1])
        elif command == "get":
            value = client.get(words[0])
            if value is None:
                return 1
            sys.stdout.buffer.write(value)
        elif command == "delete":
            client.delete(words[0])
        elif command == "scan":
            for key, value in client.scan():
                sys.stdout.buffer.write(repr(key).encode() + b"\t" + repr(value).encode() + b"\n")
        else:
            raise SystemExit(__doc__)
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    sys.exit(main(sys.argv[1:]))
