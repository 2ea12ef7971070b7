"""HTTP/2 serves what HTTP/1.1 does: with prior knowledge in the clear, and agreed on by ALPN under TLS."""

import asyncio
import json
import signal
import ssl
import time
import uuid

import httpx
import pytest
from hyperframe.frame import DataFrame, GoAwayFrame, RstStreamFrame

from gateway import PATIENCE, Stream
from wire import Wire

ME = str(uuid.uuid4())
# Requests of a kind at once.
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
    """A gateway before a SQLite file; `options_of_client` are those of httpx for HTTP/2, or what is agreed on."""
    options = []
    if request.param == "tls":
        certificate = request.getfixturevalue("certificate")
        options = ["--tls-cert", certificate / "server.pem", "--tls-key", certificate / "server.key"]
    gateway = make_gateway(make_database("sqlite"), *options)
    gateway.options_of_client = {"http2": True, "http1": False}
    if request.param == "tls":
        gateway.options_of_client = {"http2": True, "verify": ssl.create_default_context(cafile=certificate / "server.pem")}
    return gateway


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


def test_a_client_that_goes_away_leaves_no_subscription(served):
    wire = Wire(served)
    wire.ask(1, "/sync/subscribe?tableName=Person")
    with served.client(**served.options_of_client) as http:
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
