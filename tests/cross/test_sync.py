"""SQLite clients and a PostgreSQL server, and the other way round: after a sync both hold the same rows and the same hash."""

import json
import time

import pytest

from crafted import let_the_clock_tick
from replica import settle

SQLITE = "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)"
POSTGRES = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"
MILLISECONDS = 0.005


@pytest.fixture
def server(make_server):
    return make_server(POSTGRES, track=["person"])


@pytest.fixture
def client(make_replica):
    return make_replica("client", SQLITE, track=["Person"])


@pytest.fixture
def other(make_replica):
    return make_replica("other", SQLITE, track=["Person"])


def same(*replicas):
    hashes = {replica.hash() for replica in replicas}
    assert len(hashes) == 1, [replica.rows(table) for replica, table in zip(replicas, ("person", "Person", "Person"))]


def test_changes_go_both_ways_whatever_the_case_of_the_names(server, client, other):
    server.sql("INSERT INTO person VALUES (1, 'Alice', NULL), (2, 'Bob', 'b@x')")
    client.sql("INSERT INTO Person VALUES (3, 'Carol', 'c@x')")
    pulled, pushed = client.sync(server)
    assert (pulled["applied"], pushed["applied"]) == (2, 1)
    other.sync(server)
    same(server, client, other)
    client.sql("UPDATE Person SET Name = 'Bobby' WHERE Id = 2")
    other.sql("DELETE FROM Person WHERE Id = 1")
    client.sync(server)
    other.sync(server)
    client.sync(server)
    assert server.rows("person") == [(2, "Bobby", "b@x"), (3, "Carol", "c@x")]
    same(server, client, other)


def test_nobody_gets_a_change_back_and_a_quiet_fleet_moves_nothing(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'a', 'b')")
    client.sync(server)
    versions = server.state["maxVersion"], client.state["maxVersion"]
    for _ in range(3):
        pulled, pushed = client.sync(server)
        assert pulled["applied"] == pushed["applied"] == 0
    assert (server.state["maxVersion"], client.state["maxVersion"]) == versions


def test_the_log_keeps_origin_and_stamp_of_an_applied_change(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'a', 'b')")
    [mine] = client.fetch_local()["changes"]
    client.push(server)
    [entry] = server.log()
    assert (entry["origin"], entry["timestamp"]) == (client.origin, mine["timestamp"])
    assert json.loads(entry["payload"]) == {"id": 1, "name": "a", "email": "b"}


def test_a_batch_that_arrives_twice_changes_nothing(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'a', 'b')")
    batch = client.fetch_local_text()
    assert server.apply(batch)["applied"] == 1
    head = server.state["maxVersion"]
    assert server.apply(batch) | {"rejections": None} == server.apply(batch) | {"rejections": None}
    assert server.apply(batch)["skipped"] == 1 and server.state["maxVersion"] == head


@pytest.mark.parametrize("strategy, winner", [
    ("last_write_wins", "client"), ("server_wins", "server"), ("client_wins", "client"),
])
def test_a_conflict_ends_the_same_on_both_sides(make_server, make_replica, strategy, winner):
    server = make_server(POSTGRES, track=["person"], conflict=strategy)
    client = make_replica("client", SQLITE)
    client.track("Person", conflict=strategy)
    server.sql("INSERT INTO person VALUES (1, 'both', NULL)")
    client.sync(server)
    server.sql("UPDATE person SET name = 'server'")
    time.sleep(MILLISECONDS)
    client.sql("UPDATE Person SET Name = 'client'")
    client.sync(server)
    client.sync(server)
    assert server.value("SELECT name FROM person") == client.value("SELECT Name FROM Person") == winner
    assert len(client.conflicts()) + len(server.conflicts()) >= 1
    same(server, client)


def test_fields_are_merged(make_server, make_replica):
    server = make_server(POSTGRES, track=["person"], conflict="merge")
    client = make_replica("client", SQLITE)
    client.track("Person", conflict="merge")
    server.sql("INSERT INTO person VALUES (1, 'name', 'email')")
    client.sync(server)
    server.sql("UPDATE person SET name = 'server'")
    client.sql("UPDATE Person SET Email = 'client'")
    for _ in range(2):
        client.sync(server)
    assert server.rows("person") == client.rows("Person") == [(1, "server", "client")]


def test_a_merged_row_is_logged_once(make_server, make_replica):
    server = make_server(POSTGRES)
    server.track("person", conflict="merge")
    client = make_replica("client", POSTGRES, track=["person"])
    server.sql("INSERT INTO person VALUES (1, 'base', 'base')")
    client.sync(server)
    server.sql("UPDATE person SET name = 'server'")
    client.sql("UPDATE person SET email = 'client'")
    before = len(server.log())
    client.push(server)
    assert [json.loads(entry["payload"]) for entry in server.log()[before:]] == [{"id": 1, "name": "server", "email": "client"}]


def test_a_custom_resolver_in_sql(make_server, make_replica):
    server = make_server(
        POSTGRES,
        "CREATE FUNCTION longest(local jsonb, remote jsonb) RETURNS jsonb IMMUTABLE LANGUAGE sql AS"
        " 'SELECT CASE WHEN length(local->>''name'') > length(remote->>''name'') THEN local ELSE remote END'",
    )
    server.track("person", conflict="custom", resolver="longest")
    client = make_replica("client", POSTGRES, track=["person"])
    server.sql("INSERT INTO person VALUES (1, 'x', NULL)")
    client.sync(server)
    server.sql("UPDATE person SET name = 'the longest name'")
    client.sql("UPDATE Person SET Name = 'short'")
    client.push(server)
    client.sync(server)
    assert server.value("SELECT name FROM person") == client.value("SELECT Name FROM Person") == "the longest name"


def test_batches_of_any_size_and_a_child_before_its_parent(make_server, make_replica):
    tables = ("CREATE TABLE parent(id integer PRIMARY KEY, name text)",
              "CREATE TABLE child(id integer PRIMARY KEY, parent integer REFERENCES parent(id), name text)")
    server = make_server(*tables, track=["parent", "child"])
    client = make_replica("client", *tables, track=["parent", "child"])
    client.sql("PRAGMA foreign_keys = OFF")
    for n in range(10):
        client.sql("INSERT INTO child VALUES (?, ?, 'c')", n, n)
    for n in range(10):
        client.sql("INSERT INTO parent VALUES (?, 'p')", n)
    client.push(server, size=3)
    assert server.rejections() == []
    same(server, client)


def test_one_bad_row_waits_and_the_others_are_applied(make_server, make_replica):
    server = make_server("CREATE TABLE person(id bigint PRIMARY KEY, name varchar(5), email text UNIQUE)", track=["person"])
    client = make_replica("client", SQLITE, track=["Person"])
    server.sql("INSERT INTO person VALUES (100, 'x', 'taken')")
    client.sql("INSERT INTO Person VALUES (1, 'ok', 'a'), (2, 'too long', 'b'), (3, 'ok', 'taken'), (4, 'ok', 'd')")
    answer = client.push(server)
    assert (answer["applied"], answer["rejected"]) == (2, 2)
    assert [(r["kind"], r["code"]) for r in answer["rejections"]] == [("TypeMismatch", "22001"), ("UniqueViolation", "23505")]
    assert [row[0] for row in server.rows("person")] == [1, 4, 100]
    server.sql("DELETE FROM person WHERE id = 100")
    assert server.json("SELECT sync_retry()")["applied"] == 1
    server.sql("ALTER TABLE person ALTER name TYPE text")
    assert server.json("SELECT sync_retry()")["applied"] == 1
    assert server.rejections() == []
    client.sync(server)
    same(server, client)


def test_a_postgres_client_of_a_sqlite_server(make_server, make_replica):
    client, server = make_server(POSTGRES, track=["person"]), make_replica("server", SQLITE, track=["Person"])
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    client.sql("INSERT INTO person VALUES (2, 'b', NULL)")
    client.sync(server, size=1)
    same(client, server)
    server.sql("UPDATE Person SET Name = 'aa'")
    client.sql("DELETE FROM person WHERE id = 2")
    client.sync(server)
    client.sync(server)
    same(client, server)


def test_a_resync_of_either_side(make_server, make_replica):
    for client, server, c, s in (
        (make_replica("c", SQLITE, track=["Person"]), make_server(POSTGRES, track=["person"]), "Person", "person"),
        (make_server(POSTGRES, track=["person"]), make_replica("s", SQLITE, track=["Person"]), "person", "Person"),
    ):
        server.sql(f"INSERT INTO {s} VALUES (1, 'a', NULL), (2, 'b', NULL)")
        client.sync(server)
        client.sql(f"INSERT INTO {c} VALUES (3, 'mine', NULL)")
        client.value("SELECT sync_begin_resync()")
        client.sync(server, size=1)
        same(client, server)
        assert len(client.rows(c)) == 3


def test_purged_tombstones_ask_a_late_client_for_a_resync(server, client, other):
    server.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    client.sync(server)
    other.sync(server)
    server.sql("DELETE FROM person WHERE id = 1")
    client.sync(server)
    server.sql("SELECT sync_remove_client(?)", other.origin)
    assert server.value("SELECT sync_purge_tombstones()") == 1
    from pg_replica import pg_error

    with pg_error("FullResyncRequired"):
        other.pull(server)
    other.value("SELECT sync_begin_resync()")
    other.sync(server)
    same(server, client, other)


def test_cascades_of_an_apply_are_local_changes(make_server, make_replica):
    tables = ("CREATE TABLE parent(id integer PRIMARY KEY)",
              "CREATE TABLE child(id integer PRIMARY KEY, parent integer REFERENCES parent(id) ON DELETE CASCADE)")
    server = make_server(*tables, track=["parent", "child"])
    client, other = (make_replica(name, *tables, track=["parent", "child"]) for name in ("client", "other"))
    server.sql("INSERT INTO parent VALUES (1)")
    server.sql("INSERT INTO child VALUES (1, 1)")
    client.sync(server)
    other.sync(server)
    client.sql("PRAGMA foreign_keys = ON")
    client.sql("DELETE FROM child")
    client.sync(server)
    other.sync(server)
    server.sql("INSERT INTO child VALUES (2, 1)")
    client.sql("DELETE FROM parent")
    client.push(server)
    entry = server.log()[-1]
    assert (entry["table_name"], entry["operation"], entry["origin"]) == ("child", "delete", server.origin)
    for _ in range(2):
        client.sync(server)
        other.sync(server)
    same(server, client, other)


def test_a_trigger_that_changes_the_row_tells_its_author(make_server, make_replica):
    server = make_server(
        POSTGRES,
        "CREATE FUNCTION shout() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN NEW.name = upper(NEW.name); RETURN NEW; END'",
        "CREATE TRIGGER shout BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION shout()",
        track=["person"],
    )
    client = make_replica("client", SQLITE, track=["Person"])
    client.sql("INSERT INTO Person VALUES (1, 'quiet', NULL)")
    client.sync(server)
    client.sync(server)
    assert client.value("SELECT Name FROM Person") == "QUIET"
    same(server, client)


def test_a_new_columns_default_on_the_server_reaches_clients_that_have_none(server, client, make_replica):
    server.sql("INSERT INTO person(id, name) VALUES (1, 'Alice'), (2, 'Bob')")
    client.sync(server)
    server.sql("ALTER TABLE person ADD COLUMN status text DEFAULT 'active'")
    server.sql("SELECT sync_reconcile('person')")
    client.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    client.sync(server)
    assert client.sql("SELECT Status FROM Person") == [("active",), ("active",)]
    client.sql("UPDATE Person SET Name = 'Alicia' WHERE Id = 1")
    settle(server, client)
    assert server.sql("SELECT name, status FROM person ORDER BY id") == [("Alicia", "active"), ("Bob", "active")]
    assert server.hash() == client.hash() and server.conflicts() == client.conflicts() == []


def test_another_primary_key_goes_on_for_old_and_new_replicas(make_server, make_replica):
    server = make_server("CREATE TABLE t(id int PRIMARY KEY, v text, code text NOT NULL)", track=["t"])
    client = make_replica("client", "CREATE TABLE t(id INTEGER PRIMARY KEY, v TEXT, code TEXT NOT NULL)", track=["t"])
    server.sql("INSERT INTO t VALUES (1, 'a', 'x'), (2, 'b', 'y'), (3, 'c', 'z')")
    server.sql("DELETE FROM t WHERE id = 3")
    client.sync(server)
    server.sql("ALTER TABLE t DROP CONSTRAINT t_pkey, ADD PRIMARY KEY (code)")
    with client.transaction():
        client.sql("CREATE TABLE n(id INTEGER, v TEXT, code TEXT PRIMARY KEY NOT NULL)")
        client.sql("INSERT INTO n SELECT * FROM t")
        client.sql("DROP TABLE t")
        client.sql("ALTER TABLE n RENAME TO t")
    server.sql("UPDATE t SET v = 'server' WHERE code = 'x'")
    client.sql("UPDATE t SET v = 'client' WHERE code = 'y'")
    settle(server, client)
    new = make_replica("new", "CREATE TABLE t(id INTEGER, v TEXT, code TEXT PRIMARY KEY NOT NULL)", track=["t"])
    settle(server, new, client)
    assert server.sql("SELECT id, v FROM t ORDER BY id") == [(1, "server"), (2, "client")]
    assert server.hash() == client.hash() == new.hash()


def test_the_server_finds_a_conflict_though_a_key_column_was_renamed(server, client, other):
    server.sql("INSERT INTO person(id, name) VALUES (1, 'Alice'), (2, 'Bob')")
    settle(server, client, other)
    server.sql("UPDATE person SET name = 'server' WHERE id = 1")
    client.sql("UPDATE Person SET Name = 'Bobby' WHERE Id = 2")
    client.push(server)
    let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'client' WHERE Id = 1")
    server.sql("ALTER TABLE person RENAME COLUMN id TO person_id")
    for replica in (client, other):
        replica.sql("ALTER TABLE Person RENAME COLUMN Id TO person_id")
    client.push(server)
    assert len(server.conflicts()) == 1
    settle(server, client, other)
    assert server.value("SELECT name FROM person WHERE person_id = 1") == "client"
    assert server.hash() == client.hash() == other.hash()
