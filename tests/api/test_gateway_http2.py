"""HTTP/2: with prior knowledge in the clear, and agreed on by ALPN under TLS. It serves what HTTP/1.1 does, and survives what its frames can do."""

import asyncio
import contextlib
import json
import signal
import socket
import ssl
import time
import uuid

import httpx
import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from gateway import PATIENCE, Stream

ME = str(uuid.uuid4())
# Error codes of RFC 9113.
PROTOCOL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 1, 7, 11
# Streams that one connection may have open.
STREAMS = 250
# Bytes of a push.
LONGEST = 64 * 1024 * 1024
CROWD = 200


def push(key):
    """A push of one new row."""
    change = {
        "version": 1, "tableName": "Person", "pkValue": json.dumps({"Id": key}), "operation": "Insert",
        "payload": json.dumps({"Id": key, "Name": "x", "Email": None}), "origin": ME, "timestamp": "2026-01-15T10:30:00.000Z",
    }
    return {"originId": ME, "changes": [change]}


@pytest.fixture(params=["clear", "tls"])
def served(request, make_database, make_gateway):
    """A gateway before a SQLite file; `options` are those of a client of httpx that speaks HTTP/2 to it, and nothing else or what is agreed on."""
    options = []
    if request.param == "tls":
        certificate = request.getfixturevalue("certificate")
        options = ["--tls-cert", certificate / "server.pem", "--tls-key", certificate / "server.key"]
    gateway = make_gateway(make_database("sqlite"), *options)
    gateway.options_of_client = {"http2": True, "http1": False}
    if request.param == "tls":
        gateway.options_of_client = {"http2": True, "verify": ssl.create_default_context(cafile=certificate / "server.pem")}
    return gateway


@pytest.fixture
def clear(make_database, make_gateway):
    """A gateway before a SQLite file with one row."""
    database = make_database("sqlite")
    database.sql("INSERT INTO Person VALUES ('kept', 'x', NULL)")
    return make_gateway(database)


# --- as over HTTP/1.1

def test_what_it_answers_is_what_http_1_1_is_answered(served):
    with served.client(**served.options_of_client) as http:
        answer = http.post("/sync/changes", json=push("p1"))
        assert (answer.status_code, answer.json()["applied"], answer.http_version) == (200, 1, "HTTP/2")
        old = httpx.Client(base_url=served.url, verify=served.options_of_client.get("verify", True))
        for path in ("/sync/changes", "/sync/state", "/health", "/openapi.json", "/", "/nothing", "/sync/changes?fromVersion=x"):
            new, known = http.get(path), old.get(path)
            assert (new.http_version, known.http_version) == ("HTTP/2", "HTTP/1.1")
            assert (new.status_code, new.content) == (known.status_code, known.content)
            assert new.headers["x-content-type-options"] == "nosniff"
            assert new.headers.get("content-encoding") == known.headers.get("content-encoding")
        old.close()


def test_many_requests_and_a_live_subscription_share_one_connection(served):
    async def crowd():
        limits = httpx.Limits(max_connections=1)
        async with httpx.AsyncClient(base_url=served.url, limits=limits, timeout=PATIENCE, **served.options_of_client) as http:
            async with http.stream("GET", "/sync/subscribe?tableName=Person") as live:
                lines = live.aiter_lines()
                assert await anext(lines) == "event: connected"
                pushes = [http.post("/sync/changes", json=push(f"p{number}")) for number in range(CROWD)]
                pulls = [http.get(f"/sync/changes?fromVersion={number}&batchSize=5") for number in range(CROWD)]
                answers = await asyncio.gather(*pushes, *pulls)
                ends = {answer.extensions["network_stream"].get_extra_info("client_addr") for answer in (live, *answers)}
                ids = []
                while len(ids) < CROWD:
                    line = await anext(lines)
                    if line.startswith("data: ") and "pkValue" in line:
                        ids.append(json.loads(json.loads(line[6:])["pkValue"])["Id"])
        return answers, ids, ends

    answers, ids, ends = asyncio.run(crowd())
    assert len(ends) == 1
    assert {(answer.status_code, answer.http_version) for answer in answers} == {(200, "HTTP/2")}
    assert sum(answer.json().get("applied", 0) for answer in answers) == CROWD
    assert sorted(ids) == sorted(f"p{number}" for number in range(CROWD)), "each change is an event, once"


def test_a_subscription_is_ended_by_its_client(served):
    with Stream(served, "tableName=Person", **served.options_of_client) as stream, served.client(**served.options_of_client) as http:
        assert stream.response.http_version == "HTTP/2"
        stream.wait(1, 0.5)
        id = json.loads(stream.events[0][1])["subscriptionId"]
        assert http.delete(f"/sync/subscribe/{id}").json() == {"unsubscribed": True}
        assert stream.is_over.wait(PATIENCE)


def test_a_client_that_goes_away_leaves_no_subscription(clear):
    wire = Wire(clear)
    wire.ask(1, "/sync/subscribe?tableName=Person")
    with clear.client() as http:
        wait_for_subscriptions(http, 1)
        wire.send(RstStreamFrame(1, error_code=8))
        wait_for_subscriptions(http, 0)


def wait_for_subscriptions(http, count):
    end = time.monotonic() + PATIENCE
    while f"\nsync_subscriptions {count}\n" not in http.get("/metrics").text:
        assert time.monotonic() < end
        time.sleep(0.05)


def is_end(frame, stream):
    return isinstance(frame, DataFrame) and frame.stream_id == stream and "END_STREAM" in frame.flags


def test_a_stop_tells_subscribers_and_answers_what_has_begun(served):
    wire = Wire(served)
    wire.ask(1, "/sync/subscribe?tableName=Person")
    wire.wait_for(lambda frame: isinstance(frame, DataFrame) and b"event: connected" in frame.data)
    wire.ask(3, "/sync/changes?fromVersion=0&waitMs=60000")
    assert wire.is_heard()
    time.sleep(0.3)
    began = time.monotonic()
    served.process.send_signal(signal.SIGTERM)
    frames = wire.read()
    assert served.process.wait(PATIENCE) == 0 and time.monotonic() - began < 5
    assert {frame.error_code for frame in frames if isinstance(frame, GoAwayFrame)} == {0}
    assert any(is_end(frame, 1) for frame in frames) and any(is_end(frame, 3) for frame in frames)
    told = b"".join(frame.data for frame in frames if isinstance(frame, DataFrame) and frame.stream_id == 1)
    assert told.startswith(b"retry: 1000\nevent: reconnect\n")


# --- what is too much

def test_a_body_that_is_too_long_is_refused(clear):
    """By its length before it is read, and without one as soon as it is too long."""
    for length in ([("content-length", "99999999999")], []):
        wire = Wire(clear)
        wire.ask(1, method="POST", more=[("content-type", "application/json"), *length], flags=["END_HEADERS"])
        frames = wire.pour(1, 0 if length else LONGEST + 1)
        [head] = [frame for frame in frames if isinstance(frame, HeadersFrame)]
        assert status(head) == 413 and wire.is_heard()
    is_alive(clear)


def status(head):
    return int(dict(Decoder().decode(head.data))[":status"])


class Wire:
    """One connection, frame by frame, for what no client would send."""

    def __init__(self, gateway, settings=None):
        host, port = gateway.listen.split(":")
        self.authority = gateway.listen
        self.socket = socket.create_connection((host, int(port)), timeout=PATIENCE)
        if gateway.url.startswith("https"):
            context = gateway.options_of_client["verify"]
            context.set_alpn_protocols(["h2"])
            self.socket = context.wrap_socket(self.socket, server_hostname=host)
        self.encoder = Encoder()
        self.seen = b""
        self.socket.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(settings=settings or {}).serialize())

    def send(self, *frames):
        """False when the gateway has hung up."""
        try:
            self.socket.sendall(b"".join(frame if isinstance(frame, bytes) else frame.serialize() for frame in frames))
        except OSError:
            return False
        return True

    def head(self, stream, path="/sync/changes", method="GET", more=(), flags=("END_HEADERS", "END_STREAM")):
        fields = [(":method", method), (":scheme", "http"), (":authority", self.authority), (":path", path), *more]
        return HeadersFrame(stream, self.encoder.encode(fields), flags=flags)

    def ask(self, stream, path="/sync/changes", **more):
        return self.send(self.head(stream, path, **more))

    def pour(self, stream, count):
        """Send so many blanks as a body, as far and as fast as the gateway takes them; the frames until it has answered."""
        frames = self.wait_for(lambda frame: isinstance(frame, SettingsFrame))
        room = {0: 65_535, stream: frames[-1].settings.get(SettingsFrame.INITIAL_WINDOW_SIZE, 65_535)}
        while not any(isinstance(frame, (HeadersFrame, RstStreamFrame)) for frame in frames):
            piece = min(count, 16_384, *room.values())
            if piece:
                self.send(DataFrame(stream, b" " * piece))
                room, count = {stream: left - piece for stream, left in room.items()}, count - piece
                continue
            frames += self.read(enough=lambda frame: isinstance(frame, (WindowUpdateFrame, HeadersFrame)))
            if isinstance(frames[-1], WindowUpdateFrame):
                room[frames[-1].stream_id] += frames[-1].window_increment
        return frames

    def read(self, patience=PATIENCE, enough=lambda frame: False):
        """The frames until one is enough, the end of the connection, or `patience` seconds of silence."""
        frames = []
        self.socket.settimeout(patience)
        with contextlib.suppress(OSError):
            while not any(map(enough, frames[-1:])):
                while len(self.seen) < 9 or len(self.seen) < 9 + int.from_bytes(self.seen[:3], "big"):
                    part = self.socket.recv(65536)
                    if not part:
                        return frames
                    self.seen += part
                frame, length = Frame.parse_frame_header(memoryview(self.seen[:9]))
                frame.parse_body(memoryview(self.seen[9 : 9 + length]))
                self.seen = self.seen[9 + length :]
                frames.append(frame)
                if isinstance(frame, (PingFrame, SettingsFrame)) and "ACK" not in frame.flags:
                    self.send(PingFrame(0, frame.opaque_data, flags=["ACK"]) if isinstance(frame, PingFrame) else SettingsFrame(flags=["ACK"]))
        return frames

    def wait_for(self, enough):
        frames = self.read(enough=enough)
        assert frames and enough(frames[-1]), frames
        return frames

    def is_heard(self):
        """Does the connection still answer?"""
        return self.send(PingFrame(0, b"\0" * 8)) and bool(self.read(enough=lambda frame: isinstance(frame, PingFrame) and "ACK" in frame.flags)[-1:])


def is_alive(gateway, most_megabytes=400):
    """The gateway answers others, and nothing that was sent to it has filled its memory."""
    with gateway.client() as http:
        assert [json.loads(change["pkValue"])["Id"] for change in http.get("/sync/changes").json()["changes"]] == ["kept"]
    with open(f"/proc/{gateway.process.pid}/status", encoding="utf-8") as file:
        [peak] = [int(line.split()[1]) for line in file if line.startswith("VmHWM")]
    assert peak < most_megabytes * 1024
    assert "panic" not in gateway.log() and "invariant" not in gateway.log()


def test_more_streams_than_it_takes_are_refused_and_the_others_are_answered(clear):
    wire = Wire(clear)
    waiting = "/sync/changes?fromVersion=1&waitMs=60000"
    assert wire.send(*(wire.head(2 * number + 1, waiting) for number in range(STREAMS + 50)))
    refused = {frame.stream_id for frame in wire.read(2) if isinstance(frame, RstStreamFrame) and frame.error_code == REFUSED_STREAM}
    assert refused == {2 * number + 1 for number in range(STREAMS, STREAMS + 50)}
    assert wire.is_heard()
    is_alive(clear)
    assert wire.send(RstStreamFrame(1, error_code=8)) and wire.ask(1001, "/health")
    wire.wait_for(lambda frame: isinstance(frame, DataFrame) and frame.stream_id == 1001)


def test_a_client_that_asks_and_takes_it_back_without_end_is_cut_off(clear):
    wire = Wire(clear)
    for first in range(1, 40_001, 200):
        frames = ((wire.head(stream, "/sync/hash"), RstStreamFrame(stream, error_code=8)) for stream in range(first, first + 200, 2))
        if not wire.send(*(frame for pair in frames for frame in pair)):
            break
    [last] = [frame for frame in wire.read() if isinstance(frame, GoAwayFrame)][-1:] or [None]
    assert last is None or last.error_code == ENHANCE_YOUR_CALM
    assert not wire.is_heard()
    is_alive(clear)


def a_head_without_end(wire):
    wire.send(wire.head(1, flags=()))
    return all(wire.send(*[ContinuationFrame(1, b"\0\1x\1y" * 3000)] * 10) for _ in range(200))


def a_head_of_empty_pieces(wire):
    wire.send(wire.head(1, flags=()))
    return all(wire.send(*[ContinuationFrame(1)] * 1000) for _ in range(200))


def a_head_that_unpacks(wire):
    """One field of 4 KB, named by one byte each time it comes again."""
    block = wire.encoder.encode([(":method", "GET"), (":scheme", "http"), (":authority", wire.authority), (":path", "/sync/changes"), ("x", "y" * 3900)])
    return wire.send(HeadersFrame(1, block + b"\xbe" * 10_000, flags=["END_HEADERS", "END_STREAM"]))


def pings_whose_answers_nobody_takes(wire):
    wire.socket.settimeout(2)
    return all(wire.send(*[PingFrame(0, b"\0" * 8)] * 1000) for _ in range(2000))


def settings_without_end(wire):
    wire.socket.settimeout(2)
    return all(wire.send(*[SettingsFrame(settings={4: 65535 - number}) for number in range(1000)]) for _ in range(200))


def empty_data_without_end(wire):
    wire.ask(1, method="POST", more=[("content-type", "application/json")], flags=["END_HEADERS"])
    return all(wire.send(*[DataFrame(1)] * 1000) for _ in range(300))


@pytest.mark.parametrize("flood", [
    a_head_without_end, a_head_of_empty_pieces, a_head_that_unpacks, pings_whose_answers_nobody_takes, settings_without_end, empty_data_without_end,
])
def test_a_flood_fills_no_memory_and_stops_nobody_else(clear, flood):
    wire = Wire(clear)
    flood(wire)
    is_alive(clear, most_megabytes=150)


BROKEN = {
    "garbage": lambda wire: wire.send(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10),
    "a frame that is too long": lambda wire: wire.send(b"\xff\xff\xff\0\0\0\0\0\1" + b"x" * 20_000),
    "data of no stream": lambda wire: wire.send(DataFrame(1, b"x")),
    "data of the connection": lambda wire: wire.send(b"\0\0\1\0\0\0\0\0\0x"),
    "an even stream": lambda wire: wire.ask(2),
    "a stream of before": lambda wire: wire.ask(5) and wire.ask(3),
    "another frame within a head": lambda wire: wire.send(wire.head(1, flags=()), PingFrame(0, b"\0" * 8)),
    "a head that is no HPACK": lambda wire: wire.send(HeadersFrame(1, b"\xff" * 50, flags=["END_HEADERS", "END_STREAM"])),
    "settings that cannot be": lambda wire: wire.send(SettingsFrame(settings={5: 1})),
    "a window that is too large": lambda wire: wire.send(WindowUpdateFrame(0, window_increment=2**31 - 1)),
    "more data than the window": lambda wire: wire.ask(1, method="POST", more=[("content-type", "application/json")], flags=["END_HEADERS"])
    and all(wire.send(DataFrame(1, b" " * 16_384)) for _ in range(6000)),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_connection_that_breaks_the_rules_ends(clear, name):
    wire = Wire(clear)
    BROKEN[name](wire)
    frames = wire.read()
    assert [frame for frame in frames if isinstance(frame, (GoAwayFrame, RstStreamFrame)) and frame.error_code != 0], frames
    is_alive(clear)


BAD_HEADS = {
    "no path": [(":method", "GET"), (":scheme", "http")],
    "no method": [(":scheme", "http"), (":path", "/sync/state")],
    "a path twice": [(":method", "GET"), (":scheme", "http"), (":path", "/sync/state"), (":path", "/health")],
    "a name in capitals": [(":method", "GET"), (":scheme", "http"), (":path", "/sync/state"), ("X-Y", "z")],
    "a line break": [(":method", "GET"), (":scheme", "http"), (":path", "/sync/state"), ("x", "y\r\nhost: z")],
    "of HTTP/1.1": [(":method", "GET"), (":scheme", "http"), (":path", "/sync/state"), ("transfer-encoding", "chunked")],
    "a length that is not kept": [(":method", "POST"), (":scheme", "http"), (":path", "/sync/changes"), ("content-length", "5")],
    "a foreign name": [(":method", "GET"), (":scheme", "http"), (":authority", "evil.example"), (":path", "/sync/changes")],
    "no name": [(":method", "GET"), (":scheme", "http"), (":path", "/sync/changes")],
}


@pytest.mark.parametrize("name", BAD_HEADS)
def test_a_head_that_says_what_cannot_be_is_refused(clear, name):
    wire = Wire(clear)
    wire.send(HeadersFrame(1, Encoder().encode(BAD_HEADS[name], huffman=False), flags=["END_HEADERS", "END_STREAM"]))
    frames = wire.read(enough=lambda frame: frame.stream_id == 1 or isinstance(frame, GoAwayFrame))
    last = frames[-1]
    if isinstance(last, HeadersFrame):
        assert status(last) in (400, 403, 413)
    else:
        assert last.error_code == PROTOCOL_ERROR
    is_alive(clear)


def test_who_takes_nothing_of_an_answer_holds_nobody_up(clear):
    """A window of nothing: the gateway may send heads, and no byte of a body."""
    wire = Wire(clear, settings={4: 0})
    wire.ask(1, "/sync/subscribe?tableName=*&fromVersion=0")
    wire.ask(3, "/sync/changes")
    heads = {frame.stream_id for frame in wire.read(1) if isinstance(frame, HeadersFrame)}
    assert heads == {1, 3}
    is_alive(clear)
    wire.send(WindowUpdateFrame(3, window_increment=100_000))
    wire.wait_for(lambda frame: isinstance(frame, DataFrame) and frame.stream_id == 3 and "END_STREAM" in frame.flags)


def test_a_connection_that_asks_nothing_is_ended(clear):
    """Silence, the beginning of a head, and that of HTTP/2 itself."""
    openings = [b"", b"GET / HT", b"PRI * HTTP/2.0\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame().serialize()]
    host, port = clear.listen.split(":")
    connections = [socket.create_connection((host, int(port)), timeout=30) for _ in openings]
    for connection, opening in zip(connections, openings):
        connection.sendall(opening)
    for connection, opening in zip(connections, openings):
        with connection:
            while connection.recv(65536):
                pass
    is_alive(clear)
