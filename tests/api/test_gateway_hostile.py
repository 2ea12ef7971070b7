"""Requests that nobody sends in good faith: each gets the status it deserves, and the database stays as it was."""

import gzip
import json
import socket
import uuid

import pytest

ME = str(uuid.uuid4())
JSON = {"Content-Type": "application/json"}
DEEP = "[" * 100_000
ONE = {
    "version": 1, "tableName": "Person", "pkValue": '{"Id":"p1"}', "operation": "Insert",
    "payload": '{"Id":"p1","Name":"x","Email":null}', "origin": ME, "timestamp": "2026-01-15T10:30:00.000Z",
}


def push(**members):
    return json.dumps({"originId": ME, "changes": [{**ONE, **members}]})


def without(name):
    return json.dumps({"originId": ME, "changes": [{key: value for key, value in ONE.items() if key != name}]})


BODIES = {
    "empty": ("", 400), "blank": ("   ", 400), "cut": (push()[:-10], 400), "two": (push() + push(), 400), "a number": ("1", 400),
    "a text": ('"x"', 400), "null": ("null", 400), "true": ("true", 400), "not JSON": ("<xml/>", 400), "a form": ("a=b&c=d", 400),
    "changes are an object": (json.dumps({"originId": ME, "changes": {}}), 400), "a change is null": (json.dumps({"originId": ME, "changes": [None]}), 400),
    "a change is a list": (json.dumps({"originId": ME, "changes": [[1]]}), 400), "no origin": (json.dumps({"changes": [ONE]}), 400),
    "origin is no UUID": (json.dumps({"originId": "'; DROP TABLE Person; --", "changes": [ONE]}), 400),
    "deep": (f'{{"originId":"{ME}","changes":{DEEP}', 400), "kind unknown": (json.dumps({"kind": "steal", "originId": ME, "changes": []}), 400),
    "no version": (without("version"), 400), "no table": (without("tableName"), 400), "no key": (without("pkValue"), 400),
    "no operation": (without("operation"), 400), "no change origin": (without("origin"), 400), "no timestamp": (without("timestamp"), 400),
    "version is text": (push(version="one"), 400), "version is negative": (push(version=-1), 400), "version is huge": (push(version=2**63), 400),
    "version is real": (push(version=1.5), 400), "operation unknown": (push(operation="Truncate"), 400), "operation 7": (push(operation=7), 400),
    "timestamp is none": (push(timestamp="yesterday"), 400), "origin of change is no UUID": (push(origin="x"), 400),
    "table of ours": (push(tableName="_sync_state"), (404, 422)), "table of the system": (push(tableName="sqlite_schema"), (404, 422)),
    "table of the catalogue": (push(tableName="pg_catalog.pg_authid"), (404, 422)), "table with SQL": (push(tableName='x"; DROP TABLE "Person"; --'), (404, 422)),
    "table is empty": (push(tableName=""), (400, 404, 422)), "table is long": (push(tableName="x" * 5000), (400, 404, 422)),
    "table with NUL": (push(tableName="Person\u0000"), (400, 404, 422)), "payload without key": (push(payload='{"Name":"x"}'), 422),
    "payload of another key": (push(payload='{"Id":"p2"}'), 422), "payload is text": (push(payload="x"), (400, 422)),
    "payload is a list": (push(payload="[]"), (400, 422)), "key with SQL": (push(pkValue='{"1=1 OR Id":"p1"}'), 422),
    "key is empty": (push(pkValue="{}"), (400, 422)), "wrong hash": (json.dumps({"originId": ME, "hash": "00", "changes": [ONE]}), (400, 422)),
    "hash is a number": (json.dumps({"originId": ME, "hash": 7, "changes": [ONE]}), 400),
    "from beyond to": (json.dumps({"originId": ME, "fromVersion": 5, "toVersion": 1, "changes": []}), 400),
    "versions fall": (json.dumps({"originId": ME, "changes": [{**ONE, "version": 2}, ONE]}), 400),
    "a member twice": (push()[:-1] + ',"changes":[]}', 400), "a restored server": (json.dumps({"originId": ME, "lastServerVersion": 99, "changes": [ONE]}), 410),
    "a lone surrogate": (push().replace('"tableName": "Person"', '"tableName": "\\ud800"'), (400, 404, 422)),
}


@pytest.fixture(autouse=True)
def unchanged(request):
    """Whatever is asked, the database is the same afterwards."""
    database = request.getfixturevalue("database")
    database.sql("""INSERT INTO "Person" VALUES ('kept', 'x', NULL)""")
    before = database.hash(), database.log(), database.state["epoch"]
    yield
    assert (database.hash(), database.log(), database.state["epoch"]) == before


def is_one_of(status, expected):
    return status in (expected if isinstance(expected, tuple) else (expected,))


@pytest.mark.parametrize("name", BODIES)
def test_a_hostile_body(http, name):
    body, expected = BODIES[name]
    answer = http.post("/sync/changes", content=body.encode("utf-8", "surrogatepass"), headers=JSON)
    assert is_one_of(answer.status_code, expected), answer.text
    assert answer.json()["kind"] and answer.json()["message"]


@pytest.mark.parametrize(
    ("content", "headers", "expected"),
    [
        (b"\xff\xfe{}", JSON, 400),
        (b"not gzip", {**JSON, "Content-Encoding": "gzip"}, 400),
        (gzip.compress(push().encode())[:-9], {**JSON, "Content-Encoding": "gzip"}, 400),
        (b"\x28\xb5\x2f\xfd junk", {**JSON, "Content-Encoding": "zstd"}, 400),
        (push().encode(), {**JSON, "Content-Encoding": "br"}, 415),
        (push().encode(), {**JSON, "Content-Encoding": "gzip, gzip"}, 415),
        (push().encode(), {"Content-Type": "text/plain"}, 415),
        (push().encode(), {"Content-Type": "application/jsonx"}, 415),
    ],
)
def test_a_body_that_is_not_what_it_says(http, content, headers, expected):
    assert http.post("/sync/changes", content=content, headers=headers).status_code == expected


def test_a_huge_body_is_refused_before_it_is_read(gateway):
    host, port = gateway.listen.split(":")
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        connection.sendall(
            f"POST /sync/changes HTTP/1.1\r\nHost: {gateway.listen}\r\nContent-Type: application/json\r\nContent-Length: 99999999999\r\n\r\n{{".encode()
        )
        assert connection.recv(1000).startswith(b"HTTP/1.1 413")


def test_a_body_that_unpacks_to_too_much_is_refused(http, gateway):
    bomb = gzip.compress(b" " * (200 * 1024 * 1024), 9)
    assert len(bomb) < 300_000
    assert http.post("/sync/changes", content=bomb, headers={**JSON, "Content-Encoding": "gzip"}).status_code == 413
    with open(f"/proc/{gateway.process.pid}/status", encoding="utf-8") as file:
        [peak] = [int(line.split()[1]) for line in file if line.startswith("VmHWM")]
    assert peak < 400 * 1024, "it is not unpacked whole"


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("PUT", "/sync/changes", 405), ("DELETE", "/sync/changes", 405), ("PATCH", "/sync/state", 405), ("TRACE", "/sync/state", 405),
        ("GET", "/sync/../etc/passwd", 404), ("GET", "/%2e%2e/%2e%2e/etc/passwd", 404), ("GET", "/sync/changes/", 404),
        ("GET", "/sync//changes", 404), ("GET", "/SYNC/changes", 404), ("GET", "/sync/changes%00", 404), ("GET", "/" + "x" * 5000, 404),
        ("GET", "/sync/changes?fromVersion=0;DROP", 400), ("GET", "/sync/changes?excludeOrigin=' OR 1=1", 400),
        ("GET", "/sync/changes?connectionString=Data+Source=/etc/passwd&dbType=sqlite", 400), ("GET", "/sync/hash?tableName=_sync_state", 404),
        ("GET", "/sync/hash?tableName=x\"; DROP TABLE \"Person\"", 404), ("GET", "/sync/conflicts?limit=1001", 400),
        ("GET", "/sync/conflicts?limit=-1", 400), ("DELETE", "/sync/subscribe/%27%20OR%201=1", 404), ("FROBNICATE", "/sync/state", 405),
    ],
)
def test_a_path_or_method_that_leads_nowhere(http, method, path, expected):
    answer = http.request(method, path)
    assert answer.status_code == expected, answer.text


SMUGGLED = {
    "both lengths": "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /sync/state HTTP/1.1\r\nHost: localhost\r\n\r\n",
    "two lengths": "Content-Length: 5\r\nContent-Length: 6\r\n\r\nxxxxxx",
    "a negative length": "Content-Length: -1\r\n\r\n",
    "a length with a sign": "Content-Length: +5\r\n\r\nxxxxx",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "a bad chunk": "Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n",
    "a space before the colon": "Content-Length : 5\r\n\r\nxxxxx",
    "a NUL": "X: a\0b\r\n\r\n",
    "a huge header": "X: " + "x" * 600_000 + "\r\n\r\n",
    "many headers": "".join(f"X-{number}: x\r\n" for number in range(300)) + "\r\n",
}


@pytest.mark.parametrize("name", SMUGGLED)
def test_a_request_that_two_servers_would_read_differently_is_refused(gateway, name):
    host, port = gateway.listen.split(":")
    answer = b""
    with socket.create_connection((host, int(port)), timeout=10) as connection:
        head = f"POST /sync/changes HTTP/1.1\r\nHost: {gateway.listen}\r\nContent-Type: application/json\r\n"
        try:
            connection.sendall((head + SMUGGLED[name]).encode())
            connection.shutdown(socket.SHUT_WR)
            while part := connection.recv(65536):
                answer += part
        except OSError:
            pass
    assert answer.count(b"HTTP/1.1 200") == 0, "nothing that was hidden in it was answered"
    assert not answer or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431", b"HTTP/1.1 501", b"HTTP/1.1 413", b"HTTP/1.1 411")), answer[:200]


def test_the_gateway_lives_on(http):
    assert http.get("/health").status_code == 200
