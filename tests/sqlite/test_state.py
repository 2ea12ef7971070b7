"""What a replica says about itself: state, cursors and status."""

import contextlib

import pytest

from crafted import ALICE, person, pull, push, stamp
from replica import DRIVER_ERRORS, sync_error

STATE = {"originId", "epoch", "lastServerVersion", "lastPushVersion", "maxVersion", "minVersion", "entries", "serverOriginId"}


def add(replica, *ids):
    replica.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in ids])


def push_version(replica):
    return replica.value("SELECT sync_last_push_version()")


def test_a_new_replica_is_at_zero(client):
    state = client.state
    assert set(state) >= STATE
    assert [state[name] for name in ("lastServerVersion", "lastPushVersion", "maxVersion", "minVersion", "entries")] == [0] * 5
    assert state["serverOriginId"] is None
    assert state["epoch"]


def test_the_state_follows_the_log(client):
    add(client, 1, 2, 3)
    client.sql("DELETE FROM Person WHERE Id = 1")
    assert [client.state[name] for name in ("minVersion", "maxVersion", "entries")] == [1, 4, 4]
    client.sql("SELECT sync_compact()")
    assert [client.state[name] for name in ("minVersion", "maxVersion", "entries")] == [2, 4, 3]


def test_the_state_follows_what_was_exchanged(server, client):
    add(server, 1, 2)
    add(client, 10)
    client.sync(server)
    state = client.state
    assert state["serverOriginId"] == server.origin
    assert state["lastServerVersion"] == client.cursor == 2
    assert state["lastPushVersion"] == push_version(client) == client.state["maxVersion"]


def test_two_replicas_have_two_origins_and_epochs(server, client):
    assert server.origin != client.origin
    assert server.state["epoch"] != client.state["epoch"]


def test_acknowledging_never_goes_back(client):
    add(client, 1, 2, 3)
    assert client.acknowledge(2) == 2
    assert client.acknowledge(1) == 2
    assert client.acknowledge(3) == 3
    assert push_version(client) == 3


def test_acknowledging_never_goes_above_the_log(client):
    add(client, 1, 2, 3)
    with contextlib.suppress(*DRIVER_ERRORS):
        client.acknowledge(1000)
    assert push_version(client) <= 3
    add(client, 4)
    assert '{"Id":4}' in [change["pkValue"] for change in client.fetch_local()["changes"]]


@pytest.mark.parametrize("version", [-1, "two", None])
def test_acknowledging_what_is_no_version_is_refused(client, version):
    with sync_error("InvalidArgument"):
        client.acknowledge(version)


def test_the_status_counts_rows_entries_and_tombstones_of_each_table(make_pair):
    server, _ = make_pair("CREATE TABLE a(id INTEGER PRIMARY KEY)", "CREATE TABLE b(id INTEGER PRIMARY KEY)", track=["a", "b"])
    server.sql("INSERT INTO a VALUES (1), (2), (3)")
    server.sql("DELETE FROM a WHERE id < 3")
    tables = server.status["tables"]
    found = {table.get("table", table.get("name")): table for table in tables} if isinstance(tables, list) else tables
    assert [found["a"][name] for name in ("rows", "entries", "tombstones")] == [1, 5, 2]
    assert [found["b"][name] for name in ("rows", "entries", "tombstones")] == [0, 0, 0]


def test_the_status_counts_what_waits(client):
    client.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad'); END")
    add(client, 1, 2)
    client.apply(pull(person(1, "conflict", at=stamp(minutes=1)), person(3, "bad")))
    status = client.status
    assert (status["rejections"], status["conflicts"], status["pendingPushes"]) == (1, 1, 1)


def test_the_status_shows_the_size_of_the_log(client):
    before = client.status["logBytes"]
    client.sql("INSERT INTO Person VALUES (1, ?, NULL)", "x" * 100_000)
    assert client.status["logBytes"] >= before + 90_000, "whole pages are counted"


def test_the_state_changes_nothing(client):
    add(client, 1)
    client.sql("PRAGMA query_only = ON")
    assert client.state["entries"] == 1


def test_the_status_changes_nothing_and_counts_what_is_not_pushed(client, server):
    add(client, 1)
    add(client, 2)
    client.sql("PRAGMA query_only = ON")
    assert client.status["pendingPushes"] == 2
    client.sql("PRAGMA query_only = OFF")
    client.push(server, size=1, limit=1)
    client.sql("DELETE FROM Person WHERE Id = 2")
    add(client, 3)
    client.sql("PRAGMA query_only = ON")
    assert client.status["pendingPushes"] == 2


def test_the_cursor_survives_a_restart(client, open_replica):
    client.apply(pull(person(1, "a")))
    client.close()
    again = open_replica("client")
    assert again.cursor == 1
    assert again.state["serverOriginId"]


def test_the_cursors_of_a_server_stand_still(server):
    server.apply(push(person(1, "a"), sender=ALICE))
    assert server.cursor == push_version(server) == 0
