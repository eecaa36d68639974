"""A round trip with redis-py, in both versions of RESP. Prints "ok" and what it did."""

import sys

import redis


def round_trip(address, protocol):
    host, port = address.rsplit(":", 1)
    client = redis.Redis(host=host, port=int(port), protocol=protocol, client_name="redis-py-test")
    prefix = f"py{protocol}:"
    assert client.ping()
    assert client.client_getname() in (b"redis-py-test", "redis-py-test")
    assert client.set(prefix + "text", b"\x00binary\r\n\xff")
    assert client.get(prefix + "text") == b"\x00binary\r\n\xff"
    assert client.get(prefix + "missing") is None
    assert client.set(prefix + "text", "no", nx=True) is None
    assert client.set(prefix + "text", "new", get=True) == b"\x00binary\r\n\xff"
    assert client.incrby(prefix + "number", 5) == 5
    assert client.expire(prefix + "number", 100) in (1, True)
    assert 98 <= client.ttl(prefix + "number") <= 100
    assert client.mset({prefix + str(number): number for number in range(20)})
    assert client.mget([prefix + "3", prefix + "none", prefix + "7"]) == [b"3", None, b"7"]
    pipeline = client.pipeline(transaction=False)
    pipeline.set(prefix + "p", 1).incr(prefix + "p").get(prefix + "p").delete(prefix + "p").exists(prefix + "p")
    assert pipeline.execute() == [True, 2, b"2", 1, 0]
    assert len(set(client.scan_iter(match=prefix + "*", count=7))) == 22
    assert client.append(prefix + "text", "er") == 5
    assert client.getrange(prefix + "text", 1, -2) == b"ewe"
    assert client.info("server")["redis_version"].startswith("7")
    assert client.config_get("maxmemory") == {"maxmemory": "0"}
    assert client.command_count() > 40
    try:
        client.lpush(prefix + "list", 1)
        raise AssertionError("there are no lists")
    except redis.ResponseError as error:
        assert "unknown command" in str(error)
    try:
        client.incr(prefix + "text")
        raise AssertionError("that is no number")
    except redis.ResponseError as error:
        assert "not an integer" in str(error)
    return client.dbsize()


def main():
    counts = [round_trip(sys.argv[1], protocol) for protocol in (2, 3)]
    print("ok", redis.__version__, counts)


main()
