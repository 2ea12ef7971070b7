"""Replicas whose schemas change apart from each other: other defaults, another primary key, other names of what tells rows apart."""

import json

import pytest

from conftest import PERSON
from crafted import let_the_clock_tick
from replica import equal, settle
from schema_changes import alter

# A default that only one side has


@pytest.mark.parametrize("first", ["server", "client"])
def test_a_new_columns_default_on_the_server_reaches_clients_that_have_none(synced, make_replica, first):
    server, client = synced
    statements = {server: "ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'", client: "ALTER TABLE Person ADD COLUMN Status TEXT"}
    for replica in (server, client) if first == "server" else (client, server):
        replica.sql(statements[replica])
        replica.sql("SELECT sync_reconcile('Person')")
        client.sync(server)
    client.sync(server)
    new = make_replica("new", PERSON[:-1] + ", Status TEXT)", track=["Person"])
    new.sync(server)
    assert equal("Person", server, client, new)
    new.sql("UPDATE Person SET Name = 'Alicia'")
    settle(server, new, client)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "active")]
    assert equal("Person", server, client, new)
    assert server.conflicts() == client.conflicts() == new.conflicts() == []


def test_a_new_columns_default_wins_over_no_edit(synced):
    server, client = synced
    client.sql("UPDATE Person SET Name = 'Alicia'")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'")
    server.sql("SELECT sync_reconcile('Person')")
    settle(server, client)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "active")]
    client.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    settle(server, client)
    assert equal("Person", server, client)


def test_a_new_columns_default_is_logged_when_that_is_asked_for_and_once(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'")
    server.track("Person")
    assert server.fetch()["toVersion"] == 2
    assert server.value("SELECT sync_reconcile('Person')") == 2
    server.sql("ALTER TABLE Person ADD COLUMN Note TEXT")
    assert server.value("SELECT sync_reconcile('Person')") == 0, "that it is NULL need not be told"
    assert server.fetch()["toVersion"] == 4
    assert [json.loads(change["payload"])["Status"] for change in server.fetch(2)["changes"]] == ["active", "active"]


def test_a_client_leaves_a_new_columns_default_to_its_server(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'", client, server)
    for replica in synced:
        replica.sql("SELECT sync_reconcile('Person')")
    assert client.fetch_local()["changes"] == []
    settle(server, client)
    assert equal("Person", server, client) and client.conflicts() == server.conflicts() == []


@pytest.mark.parametrize("strategy", ["last_write_wins", "client_wins", "server_wins", "merge"])
@pytest.mark.parametrize("order", ["edit, server, client", "server, edit, client", "server, client, edit"])
def test_an_edit_that_does_not_know_a_new_column_leaves_both_sides_with_its_value(synced, strategy, order):
    server, client = synced
    steps = {
        "edit": (client, "UPDATE Person SET Name = 'edited'"),
        "server": (server, "ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'"),
        "client": (client, "ALTER TABLE Person ADD COLUMN Status TEXT"),
    }
    for replica in synced:
        replica.sql("SELECT sync_set_conflict_strategy('Person', ?)", strategy)
    for step in order.split(", "):
        replica, statement = steps[step]
        replica.sql(statement)
        if step == "server":
            server.sql("SELECT sync_reconcile('Person')")
        let_the_clock_tick()
    settle(server, client)
    name = "Alice" if strategy == "server_wins" else "edited"
    assert server.rows("Person") == [(1, name, "alice@example.com", "active")]
    assert equal("Person", server, client) and len(client.conflicts()) == 1


def test_a_later_change_that_does_not_know_a_new_column_leaves_both_sides_with_its_value(synced):
    server, client = synced
    client.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    client.fetch_local()
    client.sql("UPDATE Person SET Status = 'set offline'")
    let_the_clock_tick()
    server.sql("UPDATE Person SET Name = 'later'")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    settle(server, client)
    assert server.rows("Person") == [(1, "later", "alice@example.com", "set offline")]
    assert equal("Person", server, client)


# Another primary key

BY_NAME = [
    "CREATE TABLE n(Id INTEGER, Name TEXT PRIMARY KEY NOT NULL, Email TEXT)",
    "INSERT INTO n SELECT * FROM Person",
    "DROP TABLE Person",
    "ALTER TABLE n RENAME TO Person",
]


def test_another_primary_key_goes_on_for_old_and_new_replicas(synced, make_replica):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL), (3, 'Carol', NULL)")
    server.sql("DELETE FROM Person WHERE Id = 3")
    client.sync(server)
    for replica in (server, client):
        with replica.transaction():
            for statement in BY_NAME:
                replica.sql(statement)
    server.sql("UPDATE Person SET Email = 'b' WHERE Name = 'Bob'")
    client.sql("UPDATE Person SET Email = 'a' WHERE Name = 'Alice'")
    settle(server, client)
    new = make_replica("new", BY_NAME[0].replace("n(", "Person("), track=["Person"])
    settle(server, new, client)
    assert server.rows("Person") == [(1, "Alice", "a"), (2, "Bob", "b")]
    assert equal("Person", server, client, new)


def rename_key(replica):
    replica.sql("ALTER TABLE Person RENAME COLUMN Id TO PersonId")


def rename_on_the_wire(replica):
    replica.track("Person", name="people")


@pytest.mark.parametrize("rename", [rename_key, rename_on_the_wire])
@pytest.mark.parametrize("later", ["server", "client"])
def test_a_conflict_is_found_though_what_tells_rows_apart_was_renamed(synced, rename, later):
    server, client = synced
    edits = {"server": server, "client": client}
    if later == "client":
        server.sql("UPDATE Person SET Name = 'server'")
        let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'client'")
    client.fetch_local()
    if later == "server":
        let_the_clock_tick()
        server.sql("UPDATE Person SET Name = 'server'")
    for replica in edits.values():
        rename(replica)
    settle(server, client)
    assert equal("Person", server, client) and server.value("SELECT Name FROM Person") == later
    assert len(client.conflicts()) == 1
