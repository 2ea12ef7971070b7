"""Large batches are written past the capture triggers. Nobody can tell: not by the rows, the log, or what is captured afterwards."""

import json

import pytest

from conftest import PERSON
from crafted import delete, insert, person, pull, push, stamp, update
from replica import DRIVER_ERRORS

LARGE = 300  # well above where it begins

VALUES = (
    "CREATE TABLE Things(Id TEXT PRIMARY KEY, Whole INTEGER, Size REAL, Price DECIMAL(10,2), Born DATETIME, Word TEXT, Loose,"
    " Data BLOB, Flag BOOLEAN NOT NULL)"
)
KEYS = "CREATE TABLE Keys(A, B INTEGER, C TEXT, PRIMARY KEY (A, B)) WITHOUT ROWID"


def thing(number):
    """A row whose values take every way into a column: as they are, or changed by its affinity."""
    reals = [0.1, 5.0, -0.0, 1e300, 12.0, -7.25]
    return {
        "Id": f"thing {number}",
        "Whole": [number, 5.0, None, 2**53, 1.5][number % 5],
        "Size": [number, reals[number % 6], None, {"$real": "-Infinity"}][number % 4],
        "Price": [10.0, 10.5, number, None][number % 4],
        "Born": ["2025-01-15T10:30:00.000Z", "soon", None][number % 3],
        "Word": [number, "text", "", 1.5, None, "\u00e9\u0000\""][number % 6],
        "Loose": [number, 1.0, "1", {"$blob": "00ff"}, None][number % 5],
        "Data": [{"$blob": ""}, {"$blob": "01"}, None][number % 3],
        "Flag": number % 2 == 0,
    }


def key(number):
    return {"A": [number, f"k{number}", number + 0.5][number % 3], "B": number % 7, "C": "x"}


def history():
    """Inserts, updates that change something, updates that change nothing, deletes, and deletes of what is not there."""
    at = iter(stamp(seconds=second / 100 - 60) for second in range(10_000))
    changes = []
    for number in range(LARGE):
        changes.append(insert("Things", thing(number), at=next(at)))
        changes.append(insert("Keys", key(number), ("A", "B"), at=next(at)))
        if number % 3 == 0:
            changes.append(update("Things", {**thing(number), "Loose": [1, 1.0, -0.0, 0.0][number % 4]}, at=next(at)))
            changes.append(update("Things", {**thing(number), "Loose": [1.0, 1.0, 0.0, 0.0][number % 4]}, at=next(at)))
            changes.append(update("Keys", {**key(number), "C": "y"}, ("A", "B"), at=next(at)))
        if number % 5 == 0:
            changes.append(delete("Things", {"Id": f"thing {number}"}, at=next(at)))
            changes.append(delete("Things", {"Id": f"thing {number}"}, at=next(at)))
            changes.append(delete("Keys", {name: key(number)[name] for name in "AB"}, at=next(at)))
        if number % 20 == 0:
            changes.append(update("Things", {**thing(number), "Flag": None}, at=next(at)))
    return changes


def stored(replica, table):
    """The rows, bit for bit."""
    columns = [name for (name,) in replica.sql("SELECT name FROM pragma_table_info(?)", table)]
    exact = ", ".join(f"typeof({name}), quote({name}), printf('%!.20e', {name})" for name in columns)
    return sorted(replica.sql(f"SELECT {exact} FROM {table}"))


def logged(replica):
    """The log but for its clock, bit for bit."""
    columns = [name for (name,) in replica.sql("SELECT name FROM pragma_table_info('_sync_log_data')") if name != "clock"]
    exact = ", ".join(f"typeof({name}) || quote({name})" for name in columns)
    return replica.sql(f"SELECT {exact} FROM _sync_log_data ORDER BY version")


def captures(replica):
    """A local write is logged as such."""
    before = replica.state["maxVersion"]
    replica.sql("INSERT OR REPLACE INTO Person VALUES (99999, hex(randomblob(8)), NULL)")
    return [entry["origin"] for entry in replica.log() if entry["version"] > before] == [replica.origin]


@pytest.mark.parametrize("kind", [push, pull])
def test_a_large_batch_leaves_what_small_ones_leave(make_replica, kind):
    changes = history()
    large = make_replica("large", VALUES, KEYS, track=["Things", "Keys"])
    small = make_replica("small", VALUES, KEYS, track=["Things", "Keys"])
    answers = [large.apply(kind(*changes))]
    parts = [changes[first : first + 50] for first in range(0, len(changes), 50)]
    answers_of_parts = [small.apply(kind(*part, after=50 * place)) for place, part in enumerate(parts)]
    for count in ("applied", "skipped", "conflicts", "rejected", "deferred"):
        assert sum(a[count] for a in answers) == sum(a[count] for a in answers_of_parts), count
    assert answers[0]["rejected"] > 0
    for table in ("Things", "Keys"):
        assert stored(large, table) == stored(small, table)
    assert logged(large) == logged(small)
    clocks = [clock for (clock,) in large.sql("SELECT clock FROM _sync_log_data ORDER BY version")]
    assert clocks == sorted(clocks)


@pytest.mark.parametrize("batch", ["good", "rejected", "dry run", "broken", "wrong hash"])
def test_capture_goes_on_after_a_large_batch(server, batch):
    changes = [person(id, "x") for id in range(1, LARGE)]
    options = {"dryRun": True} if batch == "dry run" else {}
    if batch == "rejected":
        changes.append(insert("Person", {"Id": LARGE, "Name": "x", "Email": None, "Unknown": 1}))
    if batch == "broken":
        changes.append(insert("Nobody", {"Id": 1}))
    sent = push(*changes)
    if batch == "wrong hash":
        sent["hash"] = "00" * 32
    try:
        server.apply(sent, **options)
    except DRIVER_ERRORS:
        assert batch in ("broken", "wrong hash")
    assert captures(server)


def test_another_connection_is_captured_while_one_applies(server, open_replica):
    other = open_replica("server")
    server.sql("BEGIN")
    server.apply(push(*(person(id, "x") for id in range(1, LARGE))))
    server.sql("COMMIT")
    assert captures(other) and captures(server)


def test_what_a_users_trigger_writes_in_a_large_batch_is_captured(make_replica):
    replica = make_replica("r", PERSON, "CREATE TABLE Audit(Id INTEGER PRIMARY KEY, Word TEXT)", track=["Person", "Audit"])
    replica.sql("CREATE TRIGGER noted AFTER INSERT ON Person BEGIN INSERT INTO Audit VALUES (NEW.Id, NEW.Name); END")
    replica.apply(push(*(person(id, "x") for id in range(1, LARGE))))
    assert len(replica.rows("Audit")) == LARGE - 1
    assert {entry["origin"] for entry in replica.log("Audit")} == {replica.origin}
    assert len(replica.log("Audit")) == LARGE - 1


def test_what_a_temporary_trigger_writes_in_a_large_batch_is_captured(make_replica):
    replica = make_replica("r", PERSON, "CREATE TABLE Audit(Id INTEGER PRIMARY KEY, Word TEXT)", track=["Person", "Audit"])
    replica.sql("CREATE TEMP TRIGGER noted AFTER INSERT ON Person BEGIN INSERT INTO Audit VALUES (NEW.Id, NEW.Name); END")
    replica.apply(push(*(person(id, "x") for id in range(1, LARGE))))
    assert len(replica.log("Audit")) == LARGE - 1


def test_what_cascades_in_a_large_batch_is_captured(make_replica):
    child = "CREATE TABLE Note(Id INTEGER PRIMARY KEY, Owner INTEGER REFERENCES Person(Id) ON DELETE CASCADE)"
    replica = make_replica("r", PERSON, child, track=["Person", "Note"])
    replica.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in range(1, LARGE)])
    replica.many("INSERT INTO Note VALUES (?, ?)", [(id, id) for id in range(1, LARGE)])
    seen = replica.state["maxVersion"]
    replica.apply(push(*(delete("Person", {"Id": id}) for id in range(1, LARGE)), seen=seen))
    assert replica.rows("Note") == []
    deletes = [entry for entry in replica.log("Note") if entry["operation"] == "delete"]
    assert len(deletes) == LARGE - 1 and {entry["origin"] for entry in deletes} == {replica.origin}


def test_a_query_that_goes_on_is_not_disturbed_by_a_large_batch(server):
    """Switching triggers makes statements expire, and one that opens a table after that would fail."""
    server.sql("CREATE TABLE Inbox(Id INTEGER PRIMARY KEY, Batch TEXT)")
    for place in range(3):
        batch = push(*(person(id + place * LARGE, "x") for id in range(1, LARGE)), after=place * LARGE)
        server.sql("INSERT INTO Inbox(Batch) VALUES (?)", json.dumps(batch))
    query = "SELECT (SELECT count(*) FROM Person WHERE Id < Inbox.Id), sync_apply_batch(Batch) FROM Inbox"
    assert [json.loads(answer)["applied"] for _, answer in server.sql(query)] == [LARGE - 1] * 3
    reading = server.connection.cursor()
    reading.execute("SELECT Id, (SELECT max(Id) FROM Inbox WHERE Id < Person.Id) FROM Person ORDER BY Id")
    assert next(reading)[0] == 1
    server.apply(push(*(person(id, "y", at=stamp()) for id in range(1, LARGE)), after=10 * LARGE))
    assert len(list(reading)) == 3 * (LARGE - 1) - 1
