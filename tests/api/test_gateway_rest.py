"""Pull, push, clients and state over HTTP: the shapes of the contract, the original's answers, and the status of every error."""

import gzip
import json
import threading
import time
import uuid

import pytest

from cluster import Cluster
from gateway import postgres_url
from pg_replica import PgReplica

ME = "6242d466-6887-433a-923f-bcc1ec471740"
OTHER = "442ee4a2-12ec-4977-8b31-c8e491afc239"


def add(database, key, name="Alice"):
    database.sql('INSERT INTO "Person" VALUES (?, ?, ?)', key, name, f"{name}@example.com")


def change(version, key, name="Pushed", **members):
    row = {"Id": key, "Name": name, "Email": None}
    return {
        "version": version, "tableName": "Person", "pkValue": json.dumps({"Id": key}, separators=(",", ":")), "operation": "Insert",
        "payload": json.dumps(row, separators=(",", ":")), "origin": ME, "timestamp": "2026-01-15T10:30:00.000Z", **members,
    }


def push(*changes, **members):
    return {"kind": "push", "originId": ME, "changes": list(changes), **members}


def error(answer, status, kind):
    """The answer is an error of this status and kind, in the contract's form and with a sentence."""
    assert answer.status_code == status, answer.text
    body = answer.json()
    assert body["kind"] == kind and len(body["message"]) > 10 and set(body) <= {"kind", "code", "message", "data"}, body
    return body


def test_health_needs_nothing_and_says_healthy(http):
    answer = http.get("/health", headers={"Authorization": ""})
    assert answer.status_code == 200 and answer.json()["status"] == "Healthy"


def test_a_pull_is_the_batch_that_sql_gives(http, database):
    add(database, "p1")
    answer = http.get("/sync/changes?fromVersion=0&batchSize=100")
    assert answer.status_code == 200 and answer.headers["content-type"] == "application/json"
    assert answer.text == database.value("SELECT sync_fetch_changes(0, 100)")
    [one] = answer.json()["changes"]
    assert one["operation"] == "Insert" and json.loads(one["payload"])["Name"] == "Alice"


def test_pages_end_exactly(http, database):
    for number in range(5):
        add(database, f"p{number}")
    seen, version = [], 0
    while True:
        batch = http.get(f"/sync/changes?fromVersion={version}&batchSize=5").json()
        seen += [c["version"] for c in batch["changes"]]
        version = batch["toVersion"]
        if not batch["hasMore"]:
            break
    assert seen == [1, 2, 3, 4, 5] and batch["changes"], "the last page is full and says that there is no other"


def test_parameters_come_in_any_case(http, database):
    add(database, "p1")
    assert http.get("/sync/changes?FromVersion=0&batch_size=1").json()["changes"]


def test_a_push_is_applied_and_answered_as_by_sql(http, database):
    answer = http.post("/sync/changes", json=push(change(1, "p1"), fromVersion=0, toVersion=1))
    assert answer.status_code == 200
    assert answer.json()["applied"] == 1 and answer.json()["rejections"] == []
    assert database.rows("Person") == [("p1", "Pushed", None)]


def test_the_same_push_again_changes_nothing(http, database):
    batch = push(change(1, "p1"), fromVersion=0, toVersion=1)
    http.post("/sync/changes", json=batch)
    before = database.log()
    answer = http.post("/sync/changes", json=batch).json()
    assert (answer["applied"], answer["skipped"]) == (0, 1)
    assert database.log() == before


def test_the_originals_spelling_is_taken(http, database):
    one = {name[0].upper() + name[1:]: value for name, value in change(1, "p1", operation="insert").items()}
    answer = http.post("/sync/changes", json={"OriginId": ME, "Changes": [one]})
    assert answer.json()["applied"] == 1
    assert database.rows("Person") == [("p1", "Pushed", None)]


def test_a_push_under_the_servers_own_origin_is_applied(http, database):
    answer = http.post("/sync/changes", json={"OriginId": database.origin, "Changes": [change(1, "p1")]})
    assert answer.json()["applied"] == 1
    assert len(database.rows("Person")) == 1


def test_what_a_pull_answers_can_be_pushed_elsewhere(http, database, make_database, make_gateway):
    add(database, "p1")
    pulled = http.get("/sync/changes").content
    target = make_database(database.kind, "target")
    with make_gateway(target).client() as other:
        answer = other.post("/sync/changes", content=pulled, headers={"Content-Type": "application/json"})
    assert answer.status_code == 200 and answer.json()["applied"] == 1
    assert target.rows("Person") == database.rows("Person")
    assert target.state["lastServerVersion"] == 0, "a push does not move the receiver's cursor"


def test_a_rejected_row_is_data_in_the_answer(http, database):
    strict = 'CREATE TABLE "Strict" ("Id" text PRIMARY KEY NOT NULL, "Name" text NOT NULL CHECK (length("Name") < 5))'
    database.sql(strict)
    database.track('"Strict"' if database.kind == "postgres" else "Strict")
    bad = {**change(1, "p1"), "tableName": "Strict", "payload": '{"Id":"p1","Name":"too long"}'}
    answer = http.post("/sync/changes", json=push(bad, change(2, "p2"))).json()
    assert answer["rejected"] == 1 and answer["applied"] == 1
    [rejection] = http.get("/sync/rejections").json()
    assert rejection["tableName"] == "Strict" and rejection["message"] == answer["rejections"][0]["message"]


def test_clients_are_registered_and_listed(http, database):
    add(database, "p1")
    answer = http.post("/sync/clients", json={"originId": ME, "lastSyncVersion": 1})
    assert answer.status_code == 200 and answer.json()["lastSyncVersion"] == 1
    again = http.post("/sync/clients", json={"OriginId": ME, "LastSyncVersion": 0}).json()
    assert again["lastSyncVersion"] == 1, "it never goes back"
    assert [c["originId"] for c in http.get("/sync/clients").json()] == [ME]


def test_state_is_that_of_sql(http, database):
    for number in range(5):
        add(database, f"p{number}")
    assert http.get("/sync/state").json() == database.state
    assert http.get("/sync/state").json()["maxVersion"] == 5


def test_reports_are_those_of_sql(http, database):
    add(database, "p1")
    assert http.get("/sync/status").json()["tables"] == database.status["tables"]
    assert http.get("/sync/hash").json() == {"hash": database.hash()}
    [table] = http.get("/sync/tables").json()
    assert (table["name"], table["primaryKey"], table["entries"]) == ("Person", ["Id"], 1)
    assert http.get("/sync/conflicts").json() == []


def test_both_sides_of_a_conflict_are_listed(http, database):
    add(database, "p1")
    http.post("/sync/changes", json=push(change(1, "p1", "Theirs")))
    [conflict] = http.get("/sync/conflicts?limit=1").json()
    assert "Alice" in conflict["local"]["payload"] and "Theirs" in conflict["remote"]["payload"]


def test_the_caller_can_leave_out_its_own(http, database):
    http.post("/sync/changes", json=push(change(1, "p1")))
    add(database, "p2")
    batch = http.get(f"/sync/changes?excludeOrigin={ME}").json()
    assert [json.loads(c["pkValue"])["Id"] for c in batch["changes"]] == ["p2"]
    assert batch["toVersion"] == 2


def test_an_answer_that_is_known_is_not_sent_again(http, database):
    add(database, "p1")
    first = http.get("/sync/changes")
    tag = first.headers["etag"]
    again = http.get("/sync/changes", headers={"If-None-Match": tag})
    assert again.status_code == 304 and again.content == b"" and again.headers["etag"] == tag
    assert http.get("/sync/changes", headers={"If-None-Match": f'"other", {tag}'}).status_code == 304
    add(database, "p2")
    assert http.get("/sync/changes", headers={"If-None-Match": tag}).status_code == 200


def test_a_long_poll_answers_when_there_is_a_change(http, database, gateway):
    result = {}

    def poll():
        begun = time.monotonic()
        with gateway.client() as client:
            result["batch"] = client.get("/sync/changes?waitMs=20000").json()
        result["took"] = time.monotonic() - begun

    thread = threading.Thread(target=poll)
    thread.start()
    time.sleep(0.4)
    add(database, "p1")
    thread.join(20)
    assert [c["version"] for c in result["batch"]["changes"]] == [1]
    assert result["took"] < 10


def test_a_long_poll_ends_without_a_change(http):
    begun = time.monotonic()
    assert http.get("/sync/changes?waitMs=300").json()["changes"] == []
    assert 0.25 < time.monotonic() - begun < 5


@pytest.mark.parametrize("encoding", ["gzip", "zstd"])
def test_answers_are_compressed_for_who_takes_it(gateway, database, encoding):
    for number in range(50):
        add(database, f"p{number}")
    with gateway.client() as client:
        request = client.build_request("GET", "/sync/changes", headers={"Accept-Encoding": encoding})
        answer = client.send(request, stream=True)
        raw = b"".join(answer.iter_raw())
    assert answer.headers["content-encoding"] == encoding
    assert len(raw) < 3000 and raw[:2] in (b"\x1f\x8b", b"\x28\xb5")


def test_a_compressed_push_is_taken(http, database):
    body = gzip.compress(json.dumps(push(change(1, "p1"))).encode())
    answer = http.post("/sync/changes", content=body, headers={"Content-Type": "application/json", "Content-Encoding": "gzip"})
    assert answer.json()["applied"] == 1
    assert len(database.rows("Person")) == 1


# --- errors


@pytest.mark.parametrize(
    "query", ["batchSize=0", "batchSize=5001", "batchSize=-1", "batchSize=x", "batchSize=", "fromVersion=-1", "fromVersion=1e3",
              "fromVersion=9223372036854775808", "fromVersion=0&fromVersion=1", "connectionString=x", "excludeOrigin=x", "waitMs=60001"],
)
def test_a_bad_parameter_is_a_bad_request(http, query):
    error(http.get(f"/sync/changes?{query}"), 400, "InvalidArgument")


def test_ten_thousand_changes_and_no_more(http, database):
    many = [change(number, f"p{number}") for number in range(1, 10_002)]
    body = error(http.post("/sync/changes", json=push(*many)), 400, "LimitExceeded")
    assert "10000" in body["message"]
    assert database.rows("Person") == []
    assert http.post("/sync/changes", json=push(*many[:10_000])).json()["applied"] == 10_000


def test_no_batch_is_a_bad_request(http, database):
    for body in ["{}", "[1]", "null", "", "{", '{"changes":[]}', '{"originId":"x","changes":[]}']:
        error(http.post("/sync/changes", content=body, headers={"Content-Type": "application/json"}), 400, "InvalidBatch")
    assert database.log() == []


def test_a_client_without_an_origin_is_a_bad_request(http):
    for body in [{}, {"originId": "x"}, {"originId": None}, [], {"originId": ME, "more": 1}, {"originId": ME, "lastSyncVersion": "1"}]:
        error(http.post("/sync/clients", json=body), 400, "InvalidArgument")
    error(http.post("/sync/clients", json={"originId": ME, "lastSyncVersion": 10**6}), 400, "InvalidArgument")
    assert http.get("/sync/clients").json() == []


def test_content_that_cannot_be_applied_is_unprocessable_and_changes_nothing(http, database):
    good = change(1, "p1")
    error(http.post("/sync/changes", json=push(good, change(2, "p2", pkValue='{"Id":"p3"}'))), 422, "InvalidBatch")
    error(http.post("/sync/changes", json=push(good, hash="0" * 64)), 422, "HashMismatch")
    error(http.post("/sync/changes", json=push(good, change(2, "p2", tableName="nope"))), 404, "TableNotFound")
    assert database.rows("Person") == [] and database.log() == []


def test_a_cursor_below_the_purge_horizon_is_gone(http, database):
    add(database, "p1")
    add(database, "p2")
    database.sql('DELETE FROM "Person" WHERE "Id" = ?', "p2")
    database.sql("SELECT sync_register_client(?, ?)", str(uuid.uuid4()), 3)
    assert database.value("SELECT sync_purge_tombstones()") == 1
    body = error(http.get("/sync/changes?fromVersion=1"), 410, "FullResyncRequired")
    assert body["data"] == {"clientVersion": 1, "oldestVersion": 3}
    error(http.get("/sync/subscribe?tableName=Person&fromVersion=1"), 410, "FullResyncRequired")


def test_a_push_from_another_history_is_gone(http, database):
    error(http.post("/sync/changes", json=push(change(1, "p1"), lastServerVersion=0, serverEpoch=OTHER)), 410, "EpochMismatch")


def test_a_database_that_is_gone_is_never_an_empty_success(make_gateway):
    cluster = Cluster()
    try:
        server = PgReplica(cluster)
        gateway = make_gateway(postgres_url(server), "--timeout", 2)
        server.close()
        cluster.stop("immediate")
        with gateway.client() as client:
            error(client.get("/sync/changes"), 503, "Unavailable")
            error(client.get("/sync/state"), 503, "Unavailable")
            error(client.post("/sync/clients", json={"originId": ME}), 503, "Unavailable")
            answer = client.get("/health")
            assert answer.status_code == 503 and "Unhealthy" in answer.text
            cluster.start()
            assert client.get("/sync/state").status_code == 200, "it comes back by itself"
    finally:
        cluster.close()
