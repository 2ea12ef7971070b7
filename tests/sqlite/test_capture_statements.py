"""What each kind of statement leaves in the log, and that the log lives and dies with the writer's transaction."""

import json

import pytest

from replica import DRIVER_ERRORS


def entries(replica, after=0):
    """(operation, key, payload) of the log's entries."""
    return [
        (entry["operation"], json.loads(entry["pk_value"]), entry["payload"] and json.loads(entry["payload"]))
        for entry in replica.log()
        if entry["version"] > after
    ]


def row(id, name=None, email=None):
    return {"Id": id, "Name": name, "Email": email}


@pytest.fixture
def alice(server):
    """The server with one person, already logged; yields the version of that entry."""
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    return server.state["maxVersion"]


def test_an_insert_is_logged_with_the_whole_row(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'a@example.com')")
    assert entries(server) == [("insert", {"Id": 1}, row(1, "Alice", "a@example.com"))]


def test_an_update_is_logged_with_the_whole_row(server, alice):
    server.sql("UPDATE Person SET Email = 'new'")
    assert entries(server, alice) == [("update", {"Id": 1}, row(1, "Alice", "new"))]


def test_a_delete_is_logged_without_the_row(server, alice):
    server.sql("DELETE FROM Person")
    assert entries(server, alice) == [("delete", {"Id": 1}, None)]


def test_entries_carry_the_replicas_origin_and_rising_versions(server, alice):
    server.sql("UPDATE Person SET Email = 'new'")
    log = server.log()
    assert {entry["origin"] for entry in log} == {server.origin}
    assert [entry["version"] for entry in log] == [1, 2]


def test_a_new_key_is_a_delete_of_the_old_and_an_insert_of_the_new(server, alice):
    server.sql("UPDATE Person SET Id = 2, Name = 'Alicia'")
    assert entries(server, alice) == [("delete", {"Id": 1}, None), ("insert", {"Id": 2}, row(2, "Alicia"))]


def test_keys_that_move_along_are_followed(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'one', NULL), (2, 'two', NULL), (3, 'three', NULL)")
    client.pull(server)
    server.sql("UPDATE Person SET Id = Id + 10")
    server.sql("UPDATE Person SET Id = -Id")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person") == [(-13, "three", None), (-12, "two", None), (-11, "one", None)]


def test_an_update_that_changes_nothing_is_not_logged(server, alice):
    server.sql("UPDATE Person SET Name = Name, Email = NULL")
    server.sql("UPDATE Person SET Id = Id")
    assert entries(server, alice) == []


@pytest.mark.parametrize("column", ["name TEXT COLLATE NOCASE", "name TEXT COLLATE RTRIM"])
@pytest.mark.parametrize(("before", "after"), [("a", "A"), ("a", "a ")])
def test_a_change_the_collation_calls_equal_is_logged(make_pair, column, before, after):
    server, client = make_pair(f"CREATE TABLE t(id INTEGER PRIMARY KEY, {column})", track=["t"])
    server.sql("INSERT INTO t VALUES (1, ?)", before)
    server.sql("UPDATE t SET name = ?", after)
    client.pull(server)
    assert client.rows("t") == [(1, after)]


def test_a_key_change_the_collation_calls_equal_is_followed(make_pair):
    server, client = make_pair("CREATE TABLE t(name TEXT PRIMARY KEY NOT NULL COLLATE NOCASE, n)", track=["t"])
    server.sql("INSERT INTO t VALUES ('a', 1)")
    client.pull(server)
    server.sql("UPDATE t SET name = 'A'")
    client.pull(server)
    assert client.rows("t") == server.rows("t") == [("A", 1)]
    assert client.hash() == server.hash()


def test_a_change_of_the_storage_class_only_is_logged(make_pair):
    server, client = make_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", track=["t"])
    server.sql("INSERT INTO t VALUES (1, 1), (2, '2'), (3, 'x')")
    client.pull(server)
    server.sql("UPDATE t SET x = CASE id WHEN 1 THEN 1.0 WHEN 2 THEN 2 ELSE x'78' END")
    client.pull(server)
    assert client.sql("SELECT typeof(x) FROM t ORDER BY id") == [("real",), ("integer",), ("blob",)]


def test_an_upsert_that_updates_is_an_update(server, alice):
    server.sql("INSERT INTO Person VALUES (1, 'x', NULL) ON CONFLICT (Id) DO UPDATE SET Name = 'Upserted'")
    assert entries(server, alice) == [("update", {"Id": 1}, row(1, "Upserted"))]


def test_an_upsert_that_inserts_is_an_insert(server, alice):
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL) ON CONFLICT (Id) DO UPDATE SET Name = 'no'")
    assert entries(server, alice) == [("insert", {"Id": 2}, row(2, "Bob"))]


@pytest.mark.parametrize("verb", ["INSERT OR IGNORE INTO Person VALUES (1, 'x', NULL)", "UPDATE OR IGNORE Person SET Id = 2 WHERE Id = 1"])
def test_an_ignored_row_leaves_no_entry(server, alice, verb):
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    server.sql(verb)
    assert len(entries(server, alice)) == 1


@pytest.mark.parametrize("recursive_triggers", ["OFF", "ON"])
def test_a_replace_on_the_key_arrives(server, client, recursive_triggers):
    server.sql(f"PRAGMA recursive_triggers = {recursive_triggers}")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'kept?'), (2, 'Bob', NULL)")
    client.pull(server)
    server.sql("REPLACE INTO Person(Id, Name) VALUES (1, 'Replaced')")
    server.sql("UPDATE OR REPLACE Person SET Id = 1 WHERE Id = 2")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "Bob", None)]
    assert client.hash() == server.hash()


def test_statements_over_many_rows_are_captured_row_by_row(server, client):
    server.sql("WITH n(x) AS (VALUES (1) UNION ALL SELECT x + 1 FROM n WHERE x < 100) INSERT INTO Person SELECT x, 'p' || x, NULL FROM n")
    server.sql("UPDATE Person SET Email = Name || '@example.com' WHERE Id % 2")
    server.sql("UPDATE Person SET Name = other.Name FROM Person AS other WHERE other.Id = Person.Id + 1")
    server.sql("DELETE FROM Person WHERE Id > 90")
    client.pull(server, size=37)
    assert client.rows("Person") == server.rows("Person")
    server.sql("DELETE FROM Person")
    client.pull(server)
    assert client.rows("Person") == []


def test_a_write_through_a_view_is_captured(server):
    server.sql("CREATE VIEW people AS SELECT * FROM Person")
    server.sql("CREATE TRIGGER write INSTEAD OF INSERT ON people BEGIN INSERT INTO Person VALUES (NEW.Id, NEW.Name, NULL); END")
    server.sql("INSERT INTO people(Id, Name) VALUES (1, 'Alice')")
    assert entries(server) == [("insert", {"Id": 1}, row(1, "Alice"))]


def test_what_a_users_trigger_writes_is_captured(make_replica):
    audit = "CREATE TABLE audit(id INTEGER PRIMARY KEY, what)"
    server = make_replica("server", "CREATE TABLE t(id INTEGER PRIMARY KEY)", audit, track=["t", "audit"])
    server.sql("CREATE TRIGGER note AFTER DELETE ON t BEGIN INSERT INTO audit(what) VALUES ('deleted ' || OLD.id); END")
    server.sql("INSERT INTO t VALUES (7)")
    server.sql("DELETE FROM t")
    assert ("insert", {"id": 1}, {"id": 1, "what": "deleted 7"}) in entries(server)


CASCADES = {
    "ON DELETE CASCADE": ("DELETE FROM parent WHERE id = 1", []),
    "ON DELETE SET NULL": ("DELETE FROM parent WHERE id = 1", [(1, None)]),
    "ON DELETE SET DEFAULT": ("DELETE FROM parent WHERE id = 1", [(1, 2)]),
    "ON UPDATE CASCADE": ("UPDATE parent SET id = 3 WHERE id = 1", [(1, 3)]),
}


@pytest.mark.parametrize("action", CASCADES)
def test_what_a_foreign_key_cascades_is_captured(make_pair, action):
    child = f"CREATE TABLE child(id INTEGER PRIMARY KEY, parent INT DEFAULT 2 REFERENCES parent {action})"
    server, client = make_pair("CREATE TABLE parent(id INTEGER PRIMARY KEY)", child, track=["parent", "child"])
    server.sql("PRAGMA foreign_keys = ON")
    server.sql("INSERT INTO parent VALUES (1), (2)")
    server.sql("INSERT INTO child VALUES (1, 1)")
    client.pull(server)
    statement, left = CASCADES[action]
    server.sql(statement)
    client.pull(server)
    assert client.rows("child") == server.rows("child") == left
    assert client.rows("parent") == server.rows("parent")


def test_a_rolled_back_transaction_leaves_no_entry(server, alice):
    before = server.state
    server.sql("BEGIN")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    server.sql("DELETE FROM Person WHERE Id = 1")
    server.sql("ROLLBACK")
    assert server.state == before
    assert entries(server, alice) == []


def test_a_rolled_back_savepoint_leaves_no_entry(server, alice):
    server.sql("BEGIN")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    server.sql("SAVEPOINT doubt")
    server.sql("INSERT INTO Person VALUES (3, 'Carol', NULL)")
    server.sql("ROLLBACK TO doubt")
    server.sql("INSERT INTO Person VALUES (4, 'Dan', NULL)")
    server.sql("COMMIT")
    assert [key["Id"] for _, key, _ in entries(server, alice)] == [2, 4]


def test_a_failing_statement_leaves_no_entry(server, alice):
    with pytest.raises(DRIVER_ERRORS):
        server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL), (1, 'taken', NULL)")
    assert entries(server, alice) == []


def test_a_writer_that_fails_half_way_is_captured_as_far_as_it_got(server, client, alice):
    with pytest.raises(DRIVER_ERRORS):
        server.sql("INSERT OR FAIL INTO Person VALUES (2, 'Bob', NULL), (1, 'taken', NULL)")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "Alice", None), (2, "Bob", None)]


TOUCH = "CREATE TRIGGER touch AFTER {} ON t BEGIN UPDATE t SET touched = touched + 1 WHERE id = NEW.id; END"


@pytest.mark.parametrize("event", ["INSERT", "UPDATE"])
@pytest.mark.parametrize("created", ["before tracking", "after tracking"])
def test_a_users_trigger_that_changes_the_same_row_has_the_last_word(make_replica, event, created):
    table = "CREATE TABLE t(id INTEGER PRIMARY KEY, x, touched INT DEFAULT 0)"
    server, client = make_replica("server", table), make_replica("client", table, track=["t"])
    if created == "before tracking":
        server.sql(TOUCH.format(event))
    server.track("t")
    if created == "after tracking":
        server.sql(TOUCH.format(event))
    server.sql("INSERT INTO t(id, x) VALUES (1, 'a'), (2, 'b')")
    server.sql("UPDATE t SET x = 'c' WHERE id = 1")
    client.pull(server)
    assert client.rows("t") == server.rows("t")
    server.sql("UPDATE t SET x = 'd' WHERE id = 2")
    client.pull(server)
    assert client.rows("t") == server.rows("t")
    assert client.hash() == server.hash()


def test_a_users_before_trigger_is_captured(make_pair):
    server, client = make_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", track=["t"])
    server.sql("CREATE TRIGGER evict BEFORE INSERT ON t BEGIN DELETE FROM t WHERE x = NEW.x; END")
    server.sql("INSERT INTO t VALUES (1, 'a')")
    server.sql("INSERT INTO t VALUES (2, 'a')")
    client.pull(server)
    assert client.rows("t") == server.rows("t") == [(2, "a")]
