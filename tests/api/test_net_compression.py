"""What the network client sends to a gateway and takes from it: compressed, and no answer that is not what it says."""

import contextlib
import gzip
import http.client
import http.server
import json
import threading
import time

import pytest

from calls import sync_with
from replica import DRIVER_ERRORS

# As in the client: shorter bodies are sent as they are.
WORTH_COMPRESSING = 1024
# Bytes that the client reads of an answer.
LONGEST_ANSWER = 128 * 1024 * 1024


def lowered(headers):
    return {name.lower(): value for name, value in headers.items()}


class Recorder:
    """A proxy in front of a gateway that keeps what passes, to the byte. With `answer`, headers and a body, it answers for the gateway.

    The names of headers are in lower case.
    """

    def __init__(self, target):
        self.target, self.answer, self.passed = target, None, []
        recorder = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, headers, answer = recorder.ask(self.command, self.path, lowered(self.headers), body)
                recorder.passed.append((self.command, self.path, lowered(self.headers), body, headers, answer))
                self.send_response(status)
                for name in headers.keys() & {"content-type", "content-encoding"}:
                    self.send_header(name, headers[name])
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                with contextlib.suppress(OSError):
                    self.wfile.write(answer)

            do_POST = do_GET

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def ask(self, method, path, headers, body):
        if self.answer:
            return 200, *self.answer
        connection = http.client.HTTPConnection("127.0.0.1", self.target)
        connection.request(method, path, body or None, {name: value for name, value in headers.items() if name != "host"})
        answer = connection.getresponse()
        result = answer.status, lowered(answer.headers), answer.read()
        connection.close()
        return result

    def of(self, method, path):
        """The requests of a kind and their answers."""
        return [passed for passed in self.passed if passed[0] == method and passed[1].startswith(path)]

    def close(self):
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def recorder(server, make_gateway):
    recorder = Recorder(make_gateway(server.path).port)
    yield recorder
    recorder.close()


def add(replica, first, count):
    with replica.transaction():
        replica.many("INSERT INTO Person VALUES (?, 'Alice', 'alice@example.com')", [(id,) for id in range(first, first + count)])


def test_batches_travel_compressed_both_ways(recorder, server, client):
    add(server, 1, 100)
    add(client, 1001, 100)
    assert sync_with(client, recorder.url, token="a-token")["pulled"] == 100
    assert client.hash() == server.hash()
    for method, _, said, body, _, _ in recorder.passed:
        assert "gzip" in said["accept-encoding"] and said["accept"] == "application/json" and said["authorization"] == "Bearer a-token"
        assert said["user-agent"].startswith("sqlite_sync/")
        if method == "GET":
            assert not body and "content-type" not in said
        else:
            assert said["content-type"] == "application/json" and int(said["content-length"]) == len(body)
    [pull] = [passed for passed in recorder.of("GET", "/sync/changes") if b"Alice" in gzip.decompress(passed[5])]
    assert pull[4]["content-encoding"] == "gzip"
    assert len(gzip.decompress(pull[5])) > 4 * len(pull[5])
    [push] = recorder.of("POST", "/sync/changes")
    assert push[2]["content-encoding"] == "gzip"
    batch = json.loads(gzip.decompress(push[3]))
    assert (batch["kind"], batch["originId"], len(batch["changes"])) == ("push", client.origin, 100)


def test_what_is_short_is_sent_as_it_is(recorder, client):
    add(client, 1, 1)
    sync_with(client, recorder.url)
    [push] = recorder.of("POST", "/sync/changes")
    [registration, *_] = recorder.of("POST", "/sync/clients")
    for passed in (push, registration):
        assert "content-encoding" not in passed[2] and len(passed[3]) < WORTH_COMPRESSING
    assert json.loads(registration[3])["originId"] == client.origin


def test_an_answer_that_is_not_compressed_is_taken(recorder, server, client):
    """Whatever is asked for: who stands between may have unpacked it."""
    add(server, 1, 100)
    batch = server.value("SELECT sync_fetch_changes(0, 1000, ?)", client.origin)
    # The registration that follows gets the same answer, and has no use for it.
    recorder.answer = {"content-type": "application/json"}, batch.encode()
    assert sync_with(client, recorder.url, "sync_pull")["pulled"] == 100
    assert client.hash() == server.hash()


EMPTY = b'{"applied":0}'
LIES = {
    "not compressed": ("gzip", EMPTY, "InvalidBatch.*not compressed as it says"),
    "damaged": ("gzip", gzip.compress(EMPTY)[:10] + b"\xff" * 40, "InvalidBatch.*not compressed as it says"),
    "a wrong sum": ("gzip", gzip.compress(EMPTY)[:-8] + b"\0" * 8, "InvalidBatch.*not compressed as it says"),
    "cut off": ("gzip", gzip.compress(EMPTY * 100)[:-12], "cannot be reached: the answer is cut off"),
    "nothing": ("gzip", b"", "sync: "),
    "another encoding": ("br", b"\x0b\x02\x80\xff\xfe", "InvalidBatch"),
    "a bomb": ("gzip", gzip.compress(b" " * (LONGEST_ANSWER + 1)), "LimitExceeded.*too long"),
}


@pytest.mark.parametrize("way", ["sync_pull", "sync_push"])
@pytest.mark.parametrize("name", LIES)
def test_an_answer_that_is_not_what_it_says_is_an_error_and_changes_nothing(recorder, server, client, name, way):
    encoding, body, message = LIES[name]
    add(server, 1, 3)
    add(client, 1001, 3)
    before = client.state, client.rows("Person"), client.log()
    recorder.answer = {"content-type": "application/json", "content-encoding": encoding}, body
    began = time.monotonic()
    with pytest.raises(DRIVER_ERRORS, match=message):
        sync_with(client, recorder.url, way, timeoutMs=700)
    assert time.monotonic() - began < 10
    assert (client.state, client.rows("Person"), client.log()) == before
    recorder.answer = None
    sync_with(client, recorder.url)
    assert client.hash() == server.hash()
