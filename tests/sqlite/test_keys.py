"""How keys are spelled: rows whose keys an engine holds to be equal are not taken for one another, and a UUID or a time is found in each spelling."""

import pytest

from crafted import LOWER, UPPER
from replica import refusals, settle

CASELESS = "CREATE TABLE t(email TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, v TEXT)"
PLAIN = "CREATE TABLE t(email TEXT PRIMARY KEY NOT NULL, v TEXT)"
EXACT = "CREATE TABLE t(id {} PRIMARY KEY NOT NULL, v TEXT)"


def test_a_key_whose_case_is_corrected_stays_one_row_everywhere(make_replica):
    server, client, other = (make_replica(name, CASELESS, track=["t"]) for name in ("server", "client", "other"))
    server.sql("INSERT INTO t VALUES ('bob@x.com', '1')")
    settle(server, client, other)
    client.sql("UPDATE t SET email = 'Bob@x.com'")
    settle(server, client, other)
    other.sql("UPDATE t SET v = '2' WHERE email = 'BOB@X.COM'")
    settle(server, client, other)
    assert server.rows("t") == client.rows("t") == other.rows("t") == [("Bob@x.com", "2")]
    client.sql("DELETE FROM t WHERE email = 'bob@x.com'")
    settle(server, client, other)
    assert server.rows("t") == client.rows("t") == other.rows("t") == []


@pytest.mark.parametrize("width", [2, 70])
def test_what_refers_to_a_key_whose_case_is_corrected_stays(make_replica, width):
    more = "".join(f", x{i} INTEGER" for i in range(width - 2))
    tables = (CASELESS[:-1] + more + ")", "CREATE TABLE child(id INTEGER PRIMARY KEY, email TEXT REFERENCES t(email) ON UPDATE CASCADE ON DELETE CASCADE)")
    server, client, other = (make_replica(name, *tables, track=["t", "child"]) for name in ("server", "client", "other"))
    client.sql("PRAGMA foreign_keys = ON")
    client.sql("INSERT INTO t(email, v) VALUES ('bob@x.com', '1')")
    client.sql("INSERT INTO child VALUES (1, 'bob@x.com'), (2, 'bob@x.com')")
    settle(server, client, other)
    client.sql("UPDATE t SET email = 'Bob@x.com'")
    client.sql("UPDATE t SET v = '2'")
    settle(server, client, other)
    for one in (server, client, other):
        assert one.sql("SELECT email, v FROM t") == [("Bob@x.com", "2")]
        assert len(one.rows("child")) == 2
        assert one.rejections() == one.conflicts() == []
    assert server.hash() == client.hash() == other.hash()
    assert [(e["operation"].lower(), e["origin"]) for e in server.fetch()["changes"] if e["tableName"] == "t"][1:3] == [("delete", client.origin), ("insert", client.origin)]


def test_a_key_whose_case_is_corrected_is_one_row_where_case_matters(make_replica):
    server, plain, client = make_replica("server", PLAIN, track=["t"]), make_replica("plain", PLAIN, track=["t"]), make_replica("client", CASELESS, track=["t"])
    client.sql("INSERT INTO t VALUES ('abc', '1')")
    settle(server, client, plain)
    client.sql("UPDATE t SET email = 'ABC'")
    settle(server, client, plain)
    assert server.rows("t") == plain.rows("t") == [("ABC", "1")]
    client.sql("DELETE FROM t WHERE email = 'abc'")
    settle(server, client, plain)
    assert server.rows("t") == plain.rows("t") == client.rows("t") == []


def test_two_rows_whose_keys_differ_in_case_do_not_overwrite_each_other(make_replica):
    server, client, other = (make_replica(name, CASELESS, track=["t"]) for name in ("server", "client", "other"))
    client.sql("INSERT INTO t VALUES ('New', 'of client')")
    other.sql("INSERT INTO t VALUES ('NEW', 'of other'), ('next', 'of other')")
    settle(server, client, other)
    assert server.rows("t") == client.rows("t") == [("New", "of client"), ("next", "of other")]
    assert other.rows("t") == [("NEW", "of other"), ("next", "of other")]
    assert refusals(server) == [("ConstraintViolation", "insert", '{"email":"NEW"}')]
    assert refusals(other) == [("ConstraintViolation", "insert", '{"email":"New"}')]
    assert "New" in server.rejections()[0]["message"] and "NEW" in server.rejections()[0]["message"]


@pytest.mark.parametrize("collation", ["NOCASE", "RTRIM"])
def test_a_delete_removes_the_row_that_is_spelled_so(make_replica, collation):
    one, two = ("a", "A") if collation == "NOCASE" else ("a", "a ")
    server = make_replica("server", PLAIN, track=["t"])
    client = make_replica("client", PLAIN.replace("NOT NULL", f"NOT NULL COLLATE {collation}"), track=["t"])
    server.sql("INSERT INTO t VALUES (?, '1'), (?, '2')", one, two)
    settle(server, client)
    assert client.rows("t") == [(one, "1")]
    assert len(client.rejections()) == 1
    server.sql("DELETE FROM t WHERE email = ?", two)
    server.sql("UPDATE t SET v = '3'")
    settle(server, client)
    assert client.rows("t") == server.rows("t") == [(one, "3")]


@pytest.mark.parametrize("count", [1, 150])
@pytest.mark.parametrize(("declared", "ours", "theirs"), [
    ("UUID", UPPER, LOWER),
    ("GUID COLLATE NOCASE", UPPER.replace("6242D466", "6242d466"), LOWER),
    ("DATETIME", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00.000Z"),
    ("TIMESTAMP", "2024-01-01 00:00:00", "2024-01-01T00:00:00.000"),
])
def test_a_row_is_found_by_each_spelling_of_its_key_and_keeps_its_own(make_pair, declared, ours, theirs, count):
    server, client = make_pair(EXACT.format(declared), "CREATE TABLE more(id INTEGER PRIMARY KEY)", track=["t", "more"])
    many = f"WITH n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {count}) INSERT INTO more SELECT i FROM n"
    client.sql("INSERT INTO t VALUES (?, 'client')", ours)
    settle(server, client)
    assert server.rows("t") == [(theirs, "client")]
    assert client.hash() == server.hash()
    server.sql("UPDATE t SET v = 'server'")
    server.sql(many)
    settle(server, client)
    assert client.rows("t") == [(ours, "server")]
    client.sql("UPDATE t SET v = 'client again'")
    settle(server, client)
    assert server.rows("t") == [(theirs, "client again")]
    server.sql("DELETE FROM t")
    server.sql("DELETE FROM more")
    settle(server, client)
    assert client.rows("t") == []
    assert server.rejections() == client.rejections() == server.conflicts() == []


def test_two_spellings_of_one_uuid_meet_as_a_conflict(make_pair):
    server, client = make_pair(EXACT.format("UUID"), track=["t"])
    client.sql("INSERT INTO t VALUES (?, 'client')", UPPER)
    server.sql("INSERT INTO t VALUES (?, 'server')", LOWER)
    settle(server, client)
    assert [len(server.rows("t")), len(client.rows("t")), len(client.conflicts() + server.conflicts())] == [1, 1, 1]
    assert client.hash() == server.hash()


def test_one_row_in_two_spellings_is_no_conflict(make_pair):
    server, client = make_pair(EXACT.format("UUID"), track=["t"])
    client.sql("INSERT INTO t VALUES (?, 'same')", UPPER)
    server.sql("INSERT INTO t VALUES (?, 'same')", LOWER)
    settle(server, client)
    assert client.conflicts() == server.conflicts() == []
    assert client.hash() == server.hash()


def test_fields_of_one_row_in_two_spellings_are_merged(make_replica):
    server, client = (make_replica(name, "CREATE TABLE t(id UUID PRIMARY KEY NOT NULL, a TEXT, b TEXT)") for name in ("server", "client"))
    for one in (server, client):
        one.track("t", conflict="merge")
    client.sql("INSERT INTO t VALUES (?, '1', '1')", UPPER)
    settle(server, client)
    client.sql("UPDATE t SET a = '2'")
    server.sql("UPDATE t SET b = '2'")
    settle(server, client)
    assert client.rows("t") == [(UPPER, "2", "2")]
    assert server.rows("t") == [(LOWER, "2", "2")]


@pytest.mark.parametrize("count", [1, 150])
def test_what_refers_to_a_uuid_refers_to_it_as_it_is_spelled_here(make_pair, count):
    server, client = make_pair(
        EXACT.format("UUID"), "CREATE TABLE child(id INTEGER PRIMARY KEY, t_id UUID REFERENCES t(id), n INTEGER)", track=["t", "child"]
    )
    client.sql("INSERT INTO t VALUES (?, 'x')", UPPER)
    client.sql("INSERT INTO child VALUES (1, ?, 0)", UPPER)
    settle(server, client)
    assert server.rows("child") == [(1, LOWER, 0)]
    server.sql("UPDATE child SET n = 1")
    server.sql(f"WITH m(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM m WHERE i < {count + 1}) INSERT INTO child SELECT i, ?, i FROM m", LOWER)
    settle(server, client)
    assert client.rows("child")[0] == (1, UPPER, 1)
    assert client.value("SELECT count(*) FROM child WHERE t_id = ?", UPPER) == count + 1
    server.sql("DELETE FROM child")
    server.sql("DELETE FROM t")
    settle(server, client)
    assert client.rows("child") == client.rows("t") == client.rejections() == []


def test_a_key_that_would_come_back_in_another_spelling_is_refused(make_replica):
    server, client = make_replica("server", EXACT.format("UUID"), track=["t"]), make_replica("client", EXACT.format("TEXT"), track=["t"])
    client.sql("INSERT INTO t VALUES (?, 'x'), ('other', 'y')", UPPER)
    settle(server, client)
    assert server.rows("t") == [("other", "y")]
    assert refusals(server) == [("TypeMismatch", "insert", f'{{"id":"{UPPER}"}}')]
    assert UPPER in server.rejections()[0]["message"] and LOWER in server.rejections()[0]["message"]
    assert client.rejections() == []


def findings(replica, declared, *keys):
    replica.sql(EXACT.format(declared))
    for key in keys:
        replica.sql("INSERT INTO t VALUES (?, 'x')", key)
    return sorted({(f["severity"], f["code"]) for f in replica.records("SELECT severity, code FROM sync_check_table('t')")})


@pytest.mark.parametrize(("declared", "keys", "found"), [
    ("TEXT", [LOWER, "bob", "Bob"], []),
    ("TEXT", [LOWER, UPPER.replace("6", "7")], [("warning", "UpperCaseUuid")]),
    ("UUID", [LOWER, UPPER.replace("6", "7")], []),
    ("UUID", [UPPER.replace("D4", "d4")], [("warning", "MixedCaseUuid")]),
    ("UUID", [LOWER, UPPER], [("error", "SameKeyTwice")]),
    ("UUID COLLATE NOCASE", [UPPER.replace("D4", "d4")], []),
    ("DATETIME", ["2024-01-01 00:00:00", "2024-01-01T00:00:00"], [("error", "SameKeyTwice")]),
    ("DATETIME", ["2024-01-01T01:00:00+01:00"], [("warning", "DatetimeSpelling")]),
    ("TEXT COLLATE NOCASE", [], [("warning", "FoldedKey")]),
    ("TEXT COLLATE RTRIM", [], [("warning", "FoldedKey")]),
])
def test_keys_that_may_be_taken_for_others_are_found(open_replica, declared, keys, found):
    assert findings(open_replica("checked"), declared, *keys) == found


def test_tracking_warns_of_keys_in_upper_case_and_takes_them_as_uuids(make_replica):
    server, client = make_replica("server", EXACT.format("UUID"), track=["t"]), make_replica("client", EXACT.format("TEXT"))
    client.sql("INSERT INTO t VALUES (?, 'x')", UPPER)
    assert "UpperCaseUuid" in str(client.track("t")["warnings"])
    assert "UpperCaseUuid" not in str(client.track("t", types={"id": "uuid"})["warnings"])
    settle(server, client)
    assert server.rows("t") == [(LOWER, "x")]
    server.sql("UPDATE t SET v = 'y'")
    settle(server, client)
    assert client.rows("t") == [(UPPER, "y")]
