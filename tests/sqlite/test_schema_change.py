"""After any ALTER TABLE writes go on, no column is lost, and replicas of different schemas exchange what both have."""

import json

import pytest

from conftest import PERSON
from crafted import insert, person, push, stamp, update
from replica import equal, settle, sync_error
from schema_changes import REBUILD, alter

def drop_column(replica, table, column):
    """SQLite refuses to drop a column that a trigger names: capture is lifted for this one statement."""
    replica.sql("SELECT sync_execute_untracked(?)", f"ALTER TABLE {table} DROP COLUMN {column}")


def test_a_new_column_is_captured_from_the_first_write(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Age INT", server, client)
    server.sql("UPDATE Person SET Age = 41")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL, 7)")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alice", "alice@example.com", 41), (2, "Bob", None, 7)]
    assert equal("Person", server, client)


def test_a_write_of_only_the_new_column_is_captured(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Age INT", server, client)
    client.sync(server)
    server.sql("UPDATE Person SET Age = 41")
    client.sync(server)
    assert client.value("SELECT Age FROM Person") == 41


def test_a_new_columns_default_is_the_same_on_both_sides(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Role TEXT NOT NULL DEFAULT 'guest'", server, client)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "guest")]
    assert equal("Person", server, client)


def test_a_column_the_receiver_lacks_waits_until_it_has_it(synced):
    server, client = synced
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    server.track("Person")
    server.sql("UPDATE Person SET Age = 41, Name = 'Alicia'")
    result = client.pull(server)
    assert result["rejections"][0]["kind"] == "SchemaMismatch"
    assert client.cursor == server.state["maxVersion"]
    assert client.rows("Person") == [(1, "Alice", "alice@example.com")]

    client.sql("ALTER TABLE Person ADD COLUMN Age INT")
    client.pull(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com", 41)]
    assert client.rejections() == [] and equal("Person", server, client)


def test_a_column_the_sender_lacks_keeps_its_value(synced):
    server, client = synced
    server.sql("ALTER TABLE Person ADD COLUMN Age INT DEFAULT 18")
    client.sql("UPDATE Person SET Name = 'Alicia'")
    client.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    server.sql("UPDATE Person SET Age = 41 WHERE Id = 1")
    client.push(server)
    assert server.sql("SELECT Id, Age FROM Person ORDER BY Id")[1] == (2, 18)
    assert server.value("SELECT Age FROM Person WHERE Id = 1") == 41


def test_a_change_logged_before_the_column_existed_is_still_good(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    before = server.fetch_text(client.cursor, 1000, client.origin)
    alter("ALTER TABLE Person ADD COLUMN Age INT DEFAULT 18", server, client)
    client.apply(before)
    assert client.rows("Person")[1] == (2, "Bob", None, 18)
    settle(server, client, rounds=1)
    assert equal("Person", server, client)


def test_a_renamed_column_goes_on(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    alter("ALTER TABLE Person RENAME COLUMN Name TO FullName", server, client)
    server.sql("UPDATE Person SET FullName = 'Alice A.' WHERE Id = 1")
    client.sync(server)
    client.sql("UPDATE Person SET FullName = 'Robert' WHERE Id = 2")
    client.sync(server)
    assert server.rows("Person") == client.rows("Person") == [(1, "Alice A.", "alice@example.com"), (2, "Robert", None)]
    assert equal("Person", server, client)
    assert "FullName" in json.loads(server.log()[-1]["payload"])


def test_columns_that_swap_their_names_swap_their_values(synced):
    server, client = synced
    for replica in synced:
        replica.sql("ALTER TABLE Person RENAME COLUMN Name TO Aside")
        replica.sql("ALTER TABLE Person RENAME COLUMN Email TO Name")
        replica.sql("ALTER TABLE Person RENAME COLUMN Aside TO Email")
    server.sql("UPDATE Person SET Name = 'new name'")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "Alice", "new name")]


def test_a_renamed_key_column_goes_on(synced):
    server, client = synced
    alter("ALTER TABLE Person RENAME COLUMN Id TO Number", server, client)
    server.sql("UPDATE Person SET Name = 'Alicia' WHERE Number = 1")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    assert equal("Person", server, client)
    client.sql("DELETE FROM Person WHERE Number = 1")
    client.sync(server)
    assert server.rows("Person") == [(2, "Bob", None)]


def test_a_renamed_table_goes_on(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    alter("ALTER TABLE Person RENAME TO Human", server, client)
    server.sql("UPDATE Human SET Name = 'Alicia' WHERE Id = 1")
    client.sql("INSERT INTO Human VALUES (3, 'Carol', NULL)")
    settle(server, client, rounds=1)
    client.sync(server)
    assert len(server.rows("Human")) == 3
    assert equal("Human", server, client)
    assert server.sql("SELECT table_name FROM sync_tables()") == [("Human",)]


TWO = ["CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE b(id INTEGER PRIMARY KEY, w TEXT)"]


@pytest.mark.parametrize("names", [
    [("a", "b"), ("b", "a")],
    [("a", "b"), ("b", "c")],
    [("b", "c"), ("a", "b")],
])
def test_tables_that_take_each_others_names_go_on(make_pair, names):
    """Under the names that they have for others: a table's name is its own replica's affair."""
    server, client = make_pair(*TWO, track=["a", "b"])
    server.sql("INSERT INTO a VALUES (1, 'of a')")
    server.sql("INSERT INTO b VALUES (1, 'of b')")
    client.sync(server)
    for old, new in names:
        alter(f"ALTER TABLE {old} RENAME TO old_{new}", client)
    for _, new in names:
        alter(f"ALTER TABLE old_{new} RENAME TO {new}", client)
    now = dict(names)
    client.sql(f"UPDATE {now['a']} SET v = 'a, by the client'")
    client.sql(f"INSERT INTO {now['b']} VALUES (2, 'b, by the client')")
    client.sync(server)
    server.sql("UPDATE b SET w = 'b, by the server' WHERE id = 1")
    client.sync(server)
    assert client.rows(now["a"]) == server.rows("a") == [(1, "a, by the client")]
    assert client.rows(now["b"]) == server.rows("b") == [(1, "b, by the server"), (2, "b, by the client")]
    assert sorted(client.sql("SELECT table_name, name FROM sync_tables()")) == sorted((new, old) for old, new in names)
    triggers = dict(client.sql("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%_sync_insert'"))
    assert triggers == {f"{table}_sync_insert": table for table in now.values()}


def test_a_table_that_takes_the_name_of_one_that_was_dropped(make_pair):
    server, client = make_pair(*TWO, track=["a", "b"])
    server.sql("INSERT INTO a VALUES (1, 'of a')")
    client.sync(server)
    alter("DROP TABLE b", client)
    alter("ALTER TABLE a RENAME TO b", client)
    client.sql("UPDATE b SET v = 'by the client'")
    client.sync(server)
    assert server.rows("a") == client.rows("b") == [(1, "by the client")]
    assert server.rows("b") == []
    assert client.sql("SELECT table_name, name FROM sync_tables()") == [("b", "a")]


def test_a_dropped_column_goes_on(synced):
    server, client = synced
    for replica in synced:
        drop_column(replica, "Person", "Email")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sql("INSERT INTO Person VALUES (2, 'Bob')")
    settle(server, client, rounds=2)
    assert server.rows("Person") == client.rows("Person") == [(1, "Alicia"), (2, "Bob")]
    assert equal("Person", server, client)


def test_a_column_the_server_dropped_keeps_its_value_at_the_client(synced):
    server, client = synced
    drop_column(server, "Person", "Email")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com")]


def test_a_change_with_a_dropped_column_waits_in_the_rejections(synced):
    server, client = synced
    drop_column(server, "Person", "Email")
    client.sql("UPDATE Person SET Email = 'new@example.com'")
    client.push(server)
    assert [rejection["kind"] for rejection in server.rejections()] == ["SchemaMismatch"]
    assert server.rows("Person") == [(1, "Alice")]


def test_untracked_execution_captures_again_afterwards(server):
    drop_column(server, "Person", "Email")
    server.sql("INSERT INTO Person VALUES (1, 'Alice')")
    assert [json.loads(entry["payload"]) for entry in server.log()] == [{"Id": 1, "Name": "Alice"}]


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
def test_a_rebuilt_table_goes_on(synced, foreign_keys):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    for replica in synced:
        replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
        with replica.transaction():
            for statement in REBUILD:
                replica.sql(statement)
    server.sql("UPDATE Person SET Name = 'Alicia' WHERE Id = 1")
    server.sql("INSERT INTO Person(Id, Name) VALUES (3, 'Carol')")
    client.sql("INSERT INTO Person(Id, Name) VALUES (4, 'Dan')")
    settle(server, client, rounds=2)
    assert [row[0] for row in server.rows("Person")] == [1, 2, 3, 4]
    assert equal("Person", server, client)


def test_what_a_rebuild_changed_in_the_rows_is_noticed(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    with server.transaction():
        server.sql("CREATE TABLE new_person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)")
        server.sql("INSERT INTO new_person SELECT Id, upper(Name), Email FROM Person WHERE Id = 1")
        server.sql("DROP TABLE Person")
        server.sql("ALTER TABLE new_person RENAME TO Person")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "ALICE", "alice@example.com")]


def test_a_write_never_fails_between_the_change_and_the_next_sync(server, open_replica):
    stranger = open_replica("server", extension=False)
    for statement in (
        "ALTER TABLE Person ADD COLUMN Age INT",
        "INSERT INTO Person(Id, Name, Age) VALUES (1, 'Alice', 41)",
        "ALTER TABLE Person RENAME COLUMN Name TO FullName",
        "UPDATE Person SET FullName = 'Alicia'",
        "ALTER TABLE Person RENAME TO Human",
        "INSERT INTO Human(Id, FullName) VALUES (2, 'Bob')",
        "DELETE FROM Human WHERE Id = 1",
    ):
        stranger.sql(statement)
    assert [json.loads(entry["pk_value"])["Id"] for entry in server.log()][-2:] == [2, 1]


def test_tracking_again_follows_the_schema_at_once(server):
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    assert server.track("Person")["columns"] == ["Id", "Name", "Email", "Age"]
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL, 41)")
    assert json.loads(server.log()[-1]["payload"])["Age"] == 41


def test_a_rolled_back_change_of_the_schema_leaves_capture_as_it_was(synced):
    server, client = synced
    server.sql("BEGIN")
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    server.track("Person")
    server.sql("ROLLBACK")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com")]


def test_a_dropped_table_does_not_stop_the_others(make_pair):
    server, client = make_pair(PERSON, "CREATE TABLE gone(id INTEGER PRIMARY KEY)", track=["Person", "gone"])
    server.sql("INSERT INTO gone VALUES (1)")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    server.sql("DROP TABLE gone")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person")


def test_a_column_gone_and_back_again_is_captured(server, client):
    drop_column(server, "Person", "Email")
    server.sql("ALTER TABLE Person ADD COLUMN Email TEXT")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'back')")
    client.pull(server)
    assert client.rows("Person") == [(1, "Alice", "back")]


def test_an_unknown_column_does_not_stop_the_rest_of_the_batch(server):
    unknown = insert("Person", {"Id": 1, "Colour": "red"})
    result = server.apply(push(unknown, person(2, "Bob"), update("Person", {"Id": 2, "Name": "B"}, at=stamp(minutes=1))))
    assert (result["applied"], result["rejected"]) == (2, 1)


def test_a_table_that_vanished_is_an_error_when_it_is_sent(server):
    server.sql("DROP TABLE Person")
    with sync_error("TableNotFound"):
        server.apply(push(person(1, "Alice")))
