"""A process that never loaded the extension writes to tracked tables, is captured, and can read the log."""

import json

import pytest

from crafted import instant, stamp
from replica import Replica, quoted

EVERYTHING = "CREATE TABLE every(id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, x)"
WIDE = f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(f'c{number}' for number in range(200))})"


@pytest.fixture
def tracked(make_replica):
    """A replica that tracks a table of every storage class and a wide one."""
    return make_replica("server", EVERYTHING, WIDE, track=["every", "wide"])


@pytest.fixture
def stranger(tracked, open_replica):
    """The same database in a process without the extension that trusts no schema."""
    replica = open_replica("server", extension=False)
    replica.sql("PRAGMA trusted_schema = OFF")
    return replica


def test_writes_without_the_extension_are_captured(tracked, stranger, make_replica):
    stranger.sql("INSERT INTO every VALUES (1, 2, 0.1, 'text', x'00ff', -0.0), (2, NULL, NULL, 'a' || char(0) || 'b', NULL, NULL)")
    stranger.sql("INSERT INTO every VALUES (3, 9223372036854775807, 9e999, '', x'', 'x'), (4, 4, 4, 4, 4, 4)")
    stranger.sql("UPDATE every SET r = 0.30000000000000004 WHERE id = 1")
    stranger.sql("UPDATE every SET id = 30 WHERE id = 3")
    stranger.sql("DELETE FROM every WHERE id = 4")
    stranger.sql("INSERT INTO wide(id, c0, c199) VALUES (1, 'first', 'last')")
    stranger.sql("UPDATE wide SET c100 = 'middle'")
    client = make_replica("client", EVERYTHING, WIDE, track=["every", "wide"])
    client.pull(tracked)
    assert client.rows("every") == stranger.rows("every")
    assert client.rows("wide") == stranger.rows("wide")
    assert client.hash() == tracked.hash()


def test_the_log_is_read_without_the_extension(stranger):
    stranger.sql("INSERT INTO every VALUES (1, 2, 1.5, 'text', x'00ff', NULL)")
    stranger.sql("UPDATE every SET t = 'changed'")
    stranger.sql("DELETE FROM every")
    log = stranger.log()
    assert [entry["operation"] for entry in log] == ["insert", "update", "delete"]
    assert [entry["version"] for entry in log] == [1, 2, 3]
    assert {entry["table_name"] for entry in log} == {"every"}
    assert {entry["pk_value"] for entry in log} == {'{"id":1}'}
    assert json.loads(log[0]["payload"]) == {"id": 1, "i": 2, "r": 1.5, "t": "text", "b": {"$blob": "00ff"}, "x": None}
    assert log[2]["payload"] is None


def test_the_log_read_without_the_extension_is_lossless(tracked, stranger):
    stranger.sql("INSERT INTO every VALUES (1, -9223372036854775808, 0.1, 'a' || char(0) || '\"é', x'', 1e300), (2, 0, -9e999, '', NULL, 9e999)")
    stranger.sql("INSERT INTO every(id, r, x) VALUES (3, 0.30000000000000004, 123456789.123456789), (4, 5e-324, 1.7976931348623157e308)")
    stranger.sql("INSERT INTO wide(id, c0, c199) VALUES (1, 'first', 'last')")
    sent = [json.loads(change["payload"]) for change in tracked.fetch()["changes"]]
    assert [json.loads(entry["payload"]) for entry in stranger.log()] == sent


def test_stamps_made_without_the_extension_are_utc_milliseconds(stranger):
    before = instant(stamp())
    stranger.sql("INSERT INTO every(id) VALUES (1)")
    [entry] = stranger.log()
    assert len(entry["timestamp"]) == len("2025-01-15T10:30:00.000Z")
    assert before <= instant(entry["timestamp"]) <= instant(stamp())


def test_a_rollback_without_the_extension_leaves_no_entry(stranger):
    stranger.sql("BEGIN")
    stranger.sql("INSERT INTO every(id) VALUES (1)")
    stranger.sql("ROLLBACK")
    assert stranger.log() == []


def test_writes_through_an_attached_database_are_captured(tracked, tmp_path, driver):
    with Replica(tmp_path / "elsewhere.db", driver, extension=False) as elsewhere:
        elsewhere.sql("CREATE TABLE every(id INTEGER PRIMARY KEY)")
        elsewhere.sql("ATTACH ? AS tracked", str(tracked.path))
        elsewhere.sql("INSERT INTO tracked.every(id) VALUES (1)")
    assert [entry["pk_value"] for entry in tracked.log()] == ['{"id":1}']


@pytest.mark.parametrize("pragma", ["recursive_triggers = ON", "case_sensitive_like = ON", "encoding = 'UTF-8'", "reverse_unordered_selects = ON"])
def test_capture_does_not_depend_on_pragmas(stranger, tracked, make_replica, pragma):
    stranger.sql(f"PRAGMA {pragma}")
    stranger.sql("INSERT INTO every(id, t) VALUES (1, 'a'), (2, 'b')")
    stranger.sql("REPLACE INTO every(id, t) VALUES (1, 'c')")
    stranger.sql("UPDATE every SET t = 'd' WHERE id = 2")
    client = make_replica("client", EVERYTHING, WIDE, track=["every", "wide"])
    client.pull(tracked)
    assert client.rows("every") == stranger.rows("every")


def test_the_log_of_any_identifier_is_read_without_the_extension(make_replica, open_replica):
    name = "it's \"my\" tablé"
    columns = f"{quoted(name)} TEXT PRIMARY KEY, {quoted(name + '.')} INT"
    make_replica("named", f"CREATE TABLE {quoted(name)}({columns})", track=[name])
    stranger = open_replica("named", extension=False)
    stranger.sql(f"INSERT INTO {quoted(name)} VALUES ('k', 1)")
    [entry] = stranger.log()
    assert entry["table_name"] == name
    assert json.loads(entry["payload"]) == {name: "k", name + ".": 1}


def test_a_utf16_database_is_captured(open_replica, make_replica):
    server = open_replica("wide_text")
    server.sql("PRAGMA encoding = 'UTF-16le'")
    server.sql(EVERYTHING)
    server.track("every")
    stranger = open_replica("wide_text", extension=False)
    stranger.sql("INSERT INTO every(id, t, x) VALUES (1, 'é😀', 'Größe')")
    client = make_replica("client", EVERYTHING, track=["every"])
    client.pull(server)
    assert client.rows("every") == server.rows("every")
    assert client.hash() == server.hash()
