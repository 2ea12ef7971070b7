"""What an operator sees: metrics, logs, and how a gateway starts and stops."""

import json
import signal
import subprocess
import threading
import time

from gateway import PROGRAM, postgres_url, run
from prometheus_client.parser import text_string_to_metric_families

ME = "6242d466-6887-433a-923f-bcc1ec471740"


def change(version, payload='{"Id":"p1","Name":"x","Email":null}'):
    return {
        "version": version, "tableName": "Person", "pkValue": f'{{"Id":"p{version}"}}', "operation": "Insert",
        "payload": payload.replace("p1", f"p{version}"), "origin": ME, "timestamp": "2026-01-15T10:30:00.000Z",
    }


def metrics(http):
    """Every sample by its name and labels."""
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def test_metrics_count_what_happens(http, database, subscribe):
    http.post("/sync/changes", json={"originId": ME, "changes": [change(1), change(2), change(3, '{"Id":"p1","Nope":1}')]})
    http.post("/sync/clients", json={"originId": ME, "lastSyncVersion": 1})
    http.get("/sync/changes")
    subscribe("tableName=Person&fromVersion=0").wait(2)
    seen = metrics(http)
    assert seen["sync_client_lag", (("origin", ME),)] == 1
    for name, value in [
        ("sync_changes_pushed_total", 3), ("sync_changes_applied_total", 2), ("sync_push_rejections_total", 1), ("sync_changes_pulled_total", 2),
        ("sync_rejections", 1), ("sync_conflicts", 0), ("sync_log_version", 2), ("sync_subscriptions", 1), ("sync_events_total", 2),
    ]:
        assert seen[name, ()] == value, name
    assert seen["sync_request_seconds_count", (("method", "POST"), ("route", "/sync/changes"), ("status", "200"))] == 1


def test_a_path_is_no_label(http):
    for number in range(20):
        http.get(f"/nothing/{number}")
        http.delete(f"/sync/subscribe/{number}")
        http.request(f"METHOD{number}", "/sync/state")
    labels = {dict(labels).get("route") for name, labels in metrics(http) if name == "sync_request_seconds_count"}
    assert labels == {"none", "/sync/subscribe/{id}", "/sync/state"}


def test_a_log_of_json_is_one_object_a_line(make_gateway, database):
    gateway = make_gateway(database, "--log-json")
    with gateway.client() as http:
        http.get("/sync/changes?fromVersion=0")
    gateway.stop()
    lines = [json.loads(line) for line in gateway.log().splitlines()]
    [request] = [line["fields"] for line in lines if line["fields"]["message"] == "request"]
    assert (request["method"], request["route"], request["status"]) == ("GET", "/sync/changes", 200)


def test_a_push_in_flight_is_finished_before_the_end(make_gateway, database):
    gateway = make_gateway(database)
    many = [change(number) for number in range(1, 5001)]
    answers = []

    def push():
        with gateway.client() as http:
            answers.append(http.post("/sync/changes", json={"originId": ME, "changes": many}))

    thread = threading.Thread(target=push)
    thread.start()
    gateway.wait_for("listening")
    time.sleep(0.15)
    gateway.process.send_signal(signal.SIGTERM)
    thread.join(30)
    assert gateway.process.wait(30) == 0
    assert not answers or answers[0].status_code == 200
    assert database.value('SELECT count(*) FROM "Person"') == (answers[0].json()["applied"] if answers else 0)


def test_a_new_file_is_a_replica_at_once(make_gateway, tmp_path):
    with make_gateway(str(tmp_path / "new.db")).client() as http:
        assert http.get("/sync/changes").json()["changes"] == []


def test_a_table_can_be_tracked_when_the_gateway_starts(make_gateway, tmp_path):
    subprocess.run(["sqlite3", tmp_path / "a.db", "CREATE TABLE t (id TEXT PRIMARY KEY NOT NULL); INSERT INTO t VALUES ('x')"], check=True)
    with make_gateway(str(tmp_path / "a.db"), "--track", "t").client() as http:
        assert len(http.get("/sync/changes").json()["changes"]) == 1
    refused = run("--database", tmp_path / "a.db", "--listen", "127.0.0.1:0", "--track", "nope", check=False)
    assert refused.returncode == 1 and "nope" in refused.stderr


def test_what_cannot_be_started_says_why_and_tells_no_secret(postgres, tmp_path):
    def url(database):
        return postgres_url(postgres, database=database, more="&password=canary")

    for database, words in [
        (url("postgres"), "CREATE EXTENSION pg_sync"), ("mysql://canary@x/y", "--database"), (url("nope"), "3D000"),
        (str(tmp_path / "no" / "such" / "folder" / "x.db"), "cannot open"), ("postgres://canary:canary@[/x", "connection string"),
    ]:
        refused = subprocess.run([PROGRAM, "--database", database, "--listen", "127.0.0.1:0"], text=True, capture_output=True, timeout=90, check=False)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
        assert "canary" not in refused.stderr
