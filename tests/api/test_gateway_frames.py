"""What frames of HTTP/2 can do in bad faith: it is refused or survived, it fills no memory, and others are answered."""

import json
import socket

import pytest
from hpack import Encoder
from hyperframe.frame import ContinuationFrame, DataFrame, GoAwayFrame, HeadersFrame, PingFrame, RstStreamFrame, SettingsFrame, WindowUpdateFrame

from wire import Wire, status

# Error codes of RFC 9113.
PROTOCOL_ERROR, REFUSED_STREAM, ENHANCE_YOUR_CALM = 1, 7, 11
# Streams that one connection may have open.
STREAMS = 250
# Bytes of a push.
LONGEST = 64 * 1024 * 1024


@pytest.fixture
def clear(make_database, make_gateway):
    """A gateway before a SQLite file with one row."""
    database = make_database("sqlite")
    database.sql("INSERT INTO Person VALUES ('kept', 'x', NULL)")
    return make_gateway(database)



def is_alive(gateway, most_megabytes=400):
    """The gateway answers others, and nothing that was sent to it has filled its memory."""
    with gateway.client() as http:
        assert [json.loads(change["pkValue"])["Id"] for change in http.get("/sync/changes").json()["changes"]] == ["kept"]
    with open(f"/proc/{gateway.process.pid}/status", encoding="utf-8") as file:
        [peak] = [int(line.split()[1]) for line in file if line.startswith("VmHWM")]
    assert peak < most_megabytes * 1024
    assert "panic" not in gateway.log() and "invariant" not in gateway.log()


def test_a_body_that_is_too_long_is_refused(clear):
    """By its length before it is read, and without one as soon as it is too long."""
    for length in ([("content-length", "99999999999")], []):
        wire = Wire(clear)
        wire.ask(1, method="POST", more=[("content-type", "application/json"), *length], flags=["END_HEADERS"])
        frames = wire.pour(1, 0 if length else LONGEST + 1)
        [head] = [frame for frame in frames if isinstance(frame, HeadersFrame)]
        assert status(head) == 413 and wire.is_heard()
    is_alive(clear)


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
    for connection in connections:
        with connection:
            while connection.recv(65536):
                pass
    is_alive(clear)
