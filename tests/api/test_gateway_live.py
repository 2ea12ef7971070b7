"""Live subscriptions: every committed change, whoever made it, once and in order, and nothing of others."""

import json
import random
import threading
import time

import pytest

from gateway import Stream

# A writer of the property below, and how often a subscriber comes and goes.
WRITES, CHURNS = 400, 40


def add(database, key, name="Alice"):
    database.sql('INSERT INTO "Person" VALUES (?, ?, NULL)', key, name)


def versions(changes):
    return [change["version"] for change in changes]


def keys(changes):
    return [json.loads(change["pkValue"])["Id"] for change in changes]


def test_the_first_event_says_who_you_are(subscribe):
    stream = subscribe()
    assert stream.response.headers["content-type"] == "text/event-stream"
    assert stream.response.headers["cache-control"] == "no-cache"
    stream.wait(1, 0.5)
    [(event, data)] = stream.events
    assert event == "connected"
    assert stream.raw.startswith(f'event: connected\ndata: {{"subscriptionId":"{json.loads(data)["subscriptionId"]}"}}\n\n')


def test_a_write_by_any_path_is_an_event(subscribe, database, http):
    add(database, "before")
    stream = subscribe()
    add(database, "by sql")
    database.sql('UPDATE "Person" SET "Name" = ? WHERE "Id" = ?', "Bob", "by sql")
    payload = '{"Id":"by http","Name":"x","Email":null}'
    one = {
        "version": 1, "tableName": "Person", "pkValue": '{"Id":"by http"}', "operation": "Insert", "payload": payload,
        "origin": "6242d466-6887-433a-923f-bcc1ec471740", "timestamp": "2026-01-15T10:30:00.000Z",
    }
    http.post("/sync/changes", json={"originId": one["origin"], "changes": [one]})
    database.sql('DELETE FROM "Person" WHERE "Id" = ?', "before")
    changes = stream.wait(4)
    assert keys(changes) == ["by sql", "by sql", "by http", "before"]
    assert versions(changes) == [2, 3, 4, 5], "the versions are the server's"
    assert [c["operation"] for c in changes] == ["Insert", "Update", "Insert", "Delete"]
    assert changes[2] == json.loads(json.dumps({**one, "version": 4})) | {"payload": payload}
    assert changes == http.get("/sync/changes?fromVersion=1").json()["changes"], "one format for pull and events"


def test_what_is_rolled_back_or_refused_is_no_event(subscribe, database, http):
    stream = subscribe()
    database.begin()
    add(database, "never")
    database.sql("ROLLBACK")
    bad = {
        "version": 1, "tableName": "Person", "pkValue": '{"Id":"p1"}', "operation": "Insert", "payload": '{"Id":"p1","Nope":1}',
        "origin": "6242d466-6887-433a-923f-bcc1ec471740", "timestamp": "2026-01-15T10:30:00.000Z",
    }
    assert http.post("/sync/changes", json={"originId": bad["origin"], "changes": [bad]}).json()["rejected"] == 1
    add(database, "after")
    assert keys(stream.wait(1)) == ["after"]


def test_an_event_carries_its_version_as_id(subscribe, database):
    stream = subscribe()
    add(database, "p1")
    stream.wait(1)
    assert "event: change\nid: 1\ndata: {" in stream.raw


# A table of two entries a row in SQLite, of which the first is lost; in PostgreSQL an operation that there is none of.
WIDE = f"CREATE TABLE wide (id integer PRIMARY KEY, {', '.join(f'c{number} integer' for number in range(70))})"
DAMAGE = {"sqlite": "DELETE FROM _sync_log_data WHERE operation = 3", "postgres": "UPDATE _sync_log_data SET operation = 9 WHERE version = 3"}


def test_a_subscription_to_a_table_begins_without_a_look_at_the_whole_log(subscribe, database, http):
    database.sql(WIDE)
    database.track("wide")
    add(database, "p1")
    add(database, "p2")
    database.sql("INSERT INTO wide (id) VALUES (1)")
    add(database, "p3")
    database.sql(DAMAGE[database.kind])
    assert http.get("/sync/tables").status_code >= 400, "who counts the log meets what cannot be read"
    stream = subscribe()
    add(database, "p4")
    assert keys(stream.wait(1)) == ["p4"]


def test_it_begins_where_it_is_told(subscribe, database):
    for number in range(5):
        add(database, f"p{number}")
    assert versions(subscribe("tableName=Person&fromVersion=0").wait(5)) == [1, 2, 3, 4, 5]
    assert versions(subscribe("tableName=Person&fromVersion=3").wait(2)) == [4, 5]
    assert versions(subscribe("tableName=Person&fromVersion=0", last=4).wait(1)) == [5], "Last-Event-ID says more than the address"


def test_a_name_in_another_case_is_the_table(subscribe, database):
    stream = subscribe("tableName=pERSON")
    add(database, "p1")
    assert len(stream.wait(1)) == 1


def test_a_key_matches_exactly(subscribe, database):
    streams = {key: subscribe(f"tableName=Person&pkValue={key}") for key in ["p1", "p10", "Id", '{"Id":"p1"}']}
    for key in ["p1", "p10", "p1 ", "xp1"]:
        add(database, key)
    assert keys(streams["p1"].wait(1)) == ["p1"]
    assert keys(streams['{"Id":"p1"}'].wait(1)) == ["p1"]
    assert keys(streams["p10"].wait(1)) == ["p10"]
    assert streams["Id"].wait(1, 0.5) == []


def test_a_number_is_a_key(subscribe, database):
    database.sql('CREATE TABLE "Thing" ("Id" integer PRIMARY KEY NOT NULL, "Name" text)')
    database.track('"Thing"' if database.kind == "postgres" else "Thing")
    stream = subscribe("tableName=Thing&pkValue=1")
    for number in [10, 1, 11]:
        database.sql('INSERT INTO "Thing" VALUES (?, ?)', number, "x")
    assert [json.loads(c["pkValue"]) for c in stream.wait(1)] == [{"Id": 1}]


def test_other_tables_do_not_show_and_all_tables_do(subscribe, database):
    database.sql('CREATE TABLE "Other" ("Id" text PRIMARY KEY NOT NULL)')
    database.track('"Other"' if database.kind == "postgres" else "Other")
    one, every = subscribe("tableName=Person"), subscribe("tableName=*")
    database.sql("""INSERT INTO "Other" VALUES ('x')""")
    add(database, "p1")
    assert [c["tableName"] for c in every.wait(2)] == ["Other", "Person"]
    assert [c["tableName"] for c in one.wait(1)] == ["Person"]


@pytest.mark.parametrize(
    ("query", "status"), [("", 400), ("tableName=", 400), ("tableName=nope", 404), ("tableName=_sync_state", 404),
                          ("tableName=Person&pkValue=%7B%22Nope%22:1%7D", 400), ("tableName=Person&fromVersion=-1", 400),
                          ("tableName=Person&more=1", 400), ("tableName=*&pkValue=1", 400), ("tableName=Person&fromVersion=77", 410)],
)
def test_what_cannot_be_subscribed_to_is_refused(http, query, status):
    assert http.get(f"/sync/subscribe?{query}").status_code == status


def test_a_bad_last_event_id_is_refused(http):
    for last in ["x", "-1", "1.5"]:
        assert http.get("/sync/subscribe?tableName=Person", headers={"Last-Event-ID": last}).status_code == 400


def test_a_subscription_can_be_ended_by_its_id_once(subscribe, http):
    stream = subscribe()
    stream.wait(1, 0.3)
    identity = json.loads(stream.events[0][1])["subscriptionId"]
    answer = http.delete(f"/sync/subscribe/{identity}")
    assert answer.status_code == 200 and answer.json() == {"unsubscribed": True}
    assert stream.is_over.wait(5)
    assert http.delete(f"/sync/subscribe/{identity}").status_code == 404
    assert http.delete("/sync/subscribe/nonsense").status_code == 404


def test_a_caller_has_so_many_subscriptions_and_no_more(make_gateway, database):
    gateway = make_gateway(database, "--subscriptions", 2)
    with Stream(gateway, "tableName=Person"), Stream(gateway, "tableName=Person"), Stream(gateway, "tableName=Person") as third:
        assert third.response.status_code == 429 and third.response.headers["retry-after"]
    time.sleep(0.3)
    with Stream(gateway, "tableName=Person") as another:
        assert another.response.status_code == 200, "those that ended count no more"


def test_a_gateway_that_stops_says_so(subscribe, gateway):
    stream = subscribe()
    stream.wait(1, 0.3)
    assert gateway.stop() == 0
    assert stream.is_over.wait(5)
    assert stream.events[-1][0] == "reconnect" and "retry: " in stream.raw


def test_another_gateway_goes_on_where_this_one_stopped(subscribe, gateway, make_gateway, database):
    stream = subscribe()
    add(database, "p1")
    stream.wait(1)
    gateway.kill()
    add(database, "p2")
    again = subscribe(to=make_gateway(database), last=stream.last)
    add(database, "p3")
    assert keys(again.wait(2)) == ["p2", "p3"]


def test_a_filter_that_lets_nothing_through_still_moves_the_id(subscribe, database):
    stream = subscribe("tableName=Person&pkValue=nobody&fromVersion=0")
    for number in range(3):
        add(database, f"p{number}")
    again = subscribe("tableName=Person&pkValue=nobody&fromVersion=0")
    again.wait(1, 0.5)
    assert again.last == 3 and again.changes() == []
    assert stream.changes() == []


def test_no_gap_and_no_duplicate_between_replay_and_live(database, gateway):
    """Subscribers come at any version, go and come again, while a writer writes: each sees every version after its first, once."""
    seed = random.randrange(10**9)
    print(f"seed {seed}")
    chance = random.Random(seed)
    errors = []

    def churn(chance):
        try:
            begin = chance.randrange(0, 30)
            seen, last = [], begin
            with gateway.client() as client:
                while not done.is_set() or last < client.get("/sync/state").json()["maxVersion"]:
                    with Stream(gateway, f"tableName=Person&fromVersion={last}", last=last) as stream:
                        assert stream.response.status_code == 200, stream.response.text
                        stream.wait(chance.randrange(1, 60), chance.random() * 0.5)
                        got = versions(stream.changes())
                    seen += got
                    last = got[-1] if got else last
            assert seen == list(range(begin + 1, 30 + WRITES + 1)), f"begun at {begin}: {seen}"
        except Exception as error:  # noqa: BLE001
            errors.append(error)

    done = threading.Event()
    for number in range(30):
        add(database, f"first {number}")
    threads = [threading.Thread(target=churn, args=(random.Random(chance.random()),)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for number in range(WRITES):
        add(database, f"p{number}")
        if chance.random() < 0.2:
            time.sleep(chance.random() * 0.02)
    done.set()
    for thread in threads:
        thread.join(60)
    assert not errors, errors[0]


def test_a_consumer_that_takes_nothing_loses_nothing(database, gateway):
    """More is written than any buffer holds while a subscriber does not read; what it reads afterwards is whole."""
    with gateway.client() as client, client.stream("GET", "/sync/subscribe?tableName=Person&fromVersion=0") as answer:
        text = "x" * 2000
        database.begin()
        database.many('INSERT INTO "Person" VALUES (?, ?, NULL)', [(f"p{number}", text) for number in range(20_000)])
        database.sql("COMMIT")
        time.sleep(1)
        add(database, "last")
        seen, rest = [], ""
        for part in answer.iter_text():
            *frames, rest = (rest + part).split("\n\n")
            seen += [int(line[4:]) for frame in frames if "event: change" in frame for line in frame.split("\n") if line.startswith("id: ")]
            if seen and seen[-1] == 20_001:
                break
    assert seen == list(range(1, 20_002))


def test_heartbeats_tell_that_the_stream_is_alive_however_busy_others_are(subscribe, database):
    stream = subscribe("tableName=Person&pkValue=nobody")
    end, number = time.monotonic() + 20, 0
    while not stream.comments and time.monotonic() < end:
        add(database, f"p{number}")
        number += 1
        time.sleep(0.05)
    assert stream.comments == [": heartbeat"]
    assert stream.last > 0, "and move its id past what is not for it"
