"""A table that is rebuilt is followed; one that is dropped and made again, or loses its key, deletes and hides nothing."""

import pytest

from conftest import PERSON
from replica import equal, settle, sync_error
from schema_changes import REBUILD

MAKE_AGAIN = ["DROP TABLE Person", PERSON]
WITHOUT_KEY = ["CREATE TABLE keyless AS SELECT * FROM Person", "DROP TABLE Person", "ALTER TABLE keyless RENAME TO Person"]


@pytest.fixture
def crowded(synced):
    """A server and a client that both know five people."""
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL), (3, 'Carol', NULL), (4, 'Dan', NULL), (5, 'Eve', NULL)")
    client.sync(server)
    return server, client


def run(replica, statements):
    for statement in statements:
        replica.sql(statement)


SEEDS = {"empty": [], "other rows": ["INSERT INTO Person VALUES (9, 'Zoe', NULL)"], "a few of its rows": ["INSERT INTO Person VALUES (1, 'New', NULL), (2, 'Bob', NULL)"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_table_that_is_dropped_and_made_again_deletes_nothing(crowded, seed):
    server, client = crowded
    run(client, MAKE_AGAIN + SEEDS[seed])
    for _ in range(2):
        with sync_error("SchemaMismatch"):
            client.sync(server)
    assert "sync_begin_resync" in client.status["tables"][0]["problem"]
    assert len(server.rows("Person")) == 5
    with sync_error("SchemaMismatch"):
        client.track("Person")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resync_puts_the_rows_back_that_were_dropped_with_their_table(crowded, seed):
    server, client = crowded
    client.sql("INSERT INTO Person VALUES (6, 'not pushed yet', NULL)")
    server.sql("UPDATE Person SET Name = 'Dora' WHERE Id = 4")
    run(client, MAKE_AGAIN + SEEDS[seed])
    client.sql("SELECT sync_begin_resync()")
    assert {row[0] for row in client.rows("Person")} >= {1, 2, 3, 4, 5, 6}
    settle(server, client, rounds=2)
    assert equal("Person", server, client)
    assert {row[0]: row[1] for row in server.rows("Person")}[4] == "Dora"
    client.sql("DELETE FROM Person WHERE Id = 6")
    client.sync(server)
    assert equal("Person", server, client) and "problem" not in client.status["tables"][0]


def test_a_reconciliation_says_that_the_rows_of_a_dropped_table_are_gone(crowded):
    server, client = crowded
    run(client, MAKE_AGAIN)
    client.sql("INSERT INTO Person VALUES (9, 'Zoe', NULL)")
    assert client.value("SELECT sync_reconcile('Person')") == 6
    client.sync(server)
    assert server.rows("Person") == [(9, "Zoe", None)] and equal("Person", server, client)


def test_a_server_whose_table_was_dropped_and_made_again_deletes_nothing(crowded):
    server, client = crowded
    run(server, MAKE_AGAIN)
    with sync_error("SchemaMismatch"):
        client.sync(server)
    server.sql("SELECT sync_begin_resync()")
    client.sync(server)
    assert len(server.rows("Person")) == 5 and equal("Person", server, client)


def test_a_table_that_takes_its_rows_no_more_keeps_them_in_the_log(crowded):
    server, client = crowded
    run(client, ["DROP TABLE Person", "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT NOT NULL)"])
    with sync_error("SchemaMismatch"):
        client.sql("SELECT sync_begin_resync()")
    assert client.rows("Person") == []
    run(client, MAKE_AGAIN)
    client.sql("SELECT sync_begin_resync()")
    assert equal("Person", server, client)


def test_a_table_tracked_again_without_its_rows_deletes_nothing(crowded):
    server, client = crowded
    client.sql("SELECT sync_untrack_table('Person')")
    run(client, MAKE_AGAIN)
    assert "sync_begin_resync" in client.track("Person")["warnings"][-1]
    with sync_error("SchemaMismatch"):
        client.sync(server)
    client.sql("SELECT sync_begin_resync()")
    client.sync(server)
    assert len(server.rows("Person")) == 5 and equal("Person", server, client)


@pytest.mark.parametrize("kept", [1, 3])
def test_a_rebuilt_table_may_have_lost_most_of_its_rows(crowded, kept):
    server, client = crowded
    run(client, [REBUILD[0], f"{REBUILD[1]} WHERE Id <= {kept}", *REBUILD[2:]])
    client.sync(server)
    assert len(server.rows("Person")) == kept


def test_a_table_without_its_key_is_an_error_and_what_was_written_is_found_when_it_has_one_again(synced):
    server, client = synced
    run(client, WITHOUT_KEY)
    client.sql("UPDATE Person SET Name = 'edited'")
    server.sql("UPDATE Person SET Email = NULL")
    for call in (client.pull, client.push):
        with sync_error("UnsupportedTable"):
            call(server)
    assert "no primary key" in client.status["tables"][0]["problem"]
    server.sql("UPDATE Person SET Email = 'alice@example.com'")
    run(client, REBUILD)
    settle(server, client, rounds=2)
    assert server.value("SELECT Name FROM Person") == "edited" and client.rejections() == []
    assert len(client.rows("Person")) == len(server.rows("Person")) == 1


def test_a_table_without_its_key_can_be_given_up(synced):
    server, client = synced
    run(client, WITHOUT_KEY)
    with sync_error("UnsupportedTable"):
        client.push(server)
    assert client.value("SELECT sync_untrack_table('Person')") == 1
    client.push(server)
