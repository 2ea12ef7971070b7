"""A server that was restored or replaced is noticed at first contact, and a resync repairs its clients and keeps every write."""

import pytest

from conftest import PERSON
from crafted import ALICE, let_the_clock_tick
from replica import settle, sync_error


def add(replica, id, name=None):
    replica.sql("INSERT INTO Person VALUES (?, ?, NULL)", id, name or f"Person {id}")


def ids(replica):
    return [row[0] for row in replica.rows("Person")]


def begin_resync(*replicas):
    for replica in replicas:
        assert replica.value("SELECT sync_begin_resync()") == 1


def equal(*replicas):
    return len({replica.hash() for replica in replicas}) == 1


# The server


def test_another_server_in_its_place_is_noticed(server, client, make_replica):
    add(server, 1)
    client.sync(server)
    replacement = make_replica("replacement", PERSON, track=["Person"])
    add(replacement, 7)
    add(replacement, 8)
    with sync_error("EpochMismatch") as error:
        client.pull(replacement)
    assert set(error.data) >= {"expected", "actual"} and error.data["expected"] != error.data["actual"]
    assert "sync_begin_resync" in error.message
    assert ids(client) == [1] and client.cursor == 1


def test_a_push_to_another_server_is_refused(server, client, make_replica):
    add(server, 1)
    client.sync(server)
    replacement = make_replica("replacement", PERSON, track=["Person"])
    add(client, 2)
    with sync_error("EpochMismatch"):
        client.push(replacement)
    assert ids(replacement) == []


def test_a_resync_moves_a_client_to_another_server_with_its_unpushed_changes(server, client, make_replica):
    add(server, 1)
    client.sync(server)
    replacement = make_replica("replacement", PERSON, track=["Person"])
    add(replacement, 7)
    add(client, 2)
    begin_resync(client)
    client.sync(replacement)
    assert ids(replacement) == ids(client) == [2, 7]
    assert equal(client, replacement)


def test_a_restored_server_is_noticed(server, client, disk):
    add(server, 1)
    disk.save(server, "monday")
    add(server, 2)
    client.sync(server)
    server = disk.load(server, "monday")
    with sync_error("EpochMismatch"):
        client.pull(server)
    assert ids(client) == [1, 2]


@pytest.mark.parametrize("writes", [1, 2, 20])
def test_a_restored_server_that_went_on_is_noticed(server, client, disk, writes):
    add(server, 1)
    disk.save(server, "monday")
    add(server, 2)
    client.sync(server)
    server = disk.load(server, "monday")
    for id in range(100, 100 + writes):
        add(server, id)
    with sync_error("EpochMismatch"):
        client.pull(server)


def test_a_push_to_a_restored_server_is_noticed(server, client, disk):
    add(server, 1)
    disk.save(server, "monday")
    add(server, 2)
    client.sync(server)
    server = disk.load(server, "monday")
    add(client, 3)
    with sync_error("EpochMismatch"):
        client.push(server)


def test_a_restored_server_nobody_has_pulled_past_needs_nothing(server, client, disk):
    add(server, 1)
    client.sync(server)
    disk.save(server, "monday")
    server = disk.load(server, "monday")
    add(server, 2)
    client.sync(server)
    assert ids(client) == [1, 2]


def test_a_resync_repairs_a_restored_server(server, client, disk):
    add(server, 1)
    client.sync(server)
    disk.save(server, "monday")
    add(server, 2)
    client.sync(server)
    server = disk.load(server, "monday")
    add(server, 3)
    add(client, 4)
    begin_resync(client)
    settle(server, client, rounds=2)
    assert ids(server) == ids(client) == [1, 3, 4], "what only the lost server had is gone on both sides"
    assert equal(server, client)


def test_what_a_restored_server_lost_is_pushed_again(server, client, other, disk):
    add(server, 1)
    settle(server, client, other, rounds=1)
    disk.save(server, "monday")
    add(client, 10)
    add(other, 20)
    settle(server, client, other, rounds=2)
    server = disk.load(server, "monday")
    begin_resync(client, other)
    settle(server, client, other)
    assert ids(server) == ids(client) == ids(other) == [1, 10, 20]
    assert equal(server, client, other)


# A resync


def lose_row(server, client, id):
    """The server deletes a row and forgets that it did, behind this client's back."""
    server.sql("DELETE FROM Person WHERE Id = ?", id)
    server.sql("SELECT sync_remove_client(?)", client.origin)
    server.sql("SELECT sync_register_client(?, ?)", ALICE, server.state["maxVersion"])
    assert server.value("SELECT sync_purge_tombstones()") == 1


def test_a_resync_removes_rows_that_are_gone_on_the_server(server, client):
    for id in (1, 2, 3):
        add(server, id)
    client.sync(server)
    lose_row(server, client, 2)
    server.sql("UPDATE Person SET Name = 'changed' WHERE Id = 3")
    begin_resync(client)
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "Person 1", None), (3, "changed", None)]


@pytest.mark.parametrize("size", [1, 2])
def test_a_resync_may_take_many_batches_and_removes_rows_with_the_last(server, client, size):
    for id in range(1, 8):
        add(server, id)
    client.sync(server)
    add(client, 100)
    lose_row(server, client, 3)
    begin_resync(client)
    client.pull(server, size=size, limit=1)
    assert ids(client) == [*range(1, 8), 100]
    client.sync(server, size=size)
    assert ids(client) == ids(server) == [1, 2, 4, 5, 6, 7, 100]


def test_a_resync_keeps_unpushed_updates_and_deletes(server, client):
    for id in (1, 2, 3):
        add(server, id)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'mine' WHERE Id = 1")
    client.sql("DELETE FROM Person WHERE Id = 2")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert server.rows("Person") == client.rows("Person") == [(1, "mine", None), (3, "Person 3", None)]


def test_a_resync_keeps_what_this_client_had_pushed(server, client):
    add(client, 1)
    client.sync(server)
    begin_resync(client)
    client.sync(server)
    assert ids(client) == ids(server) == [1]


def test_a_resync_of_a_client_in_step_changes_nothing(server, client):
    add(server, 1)
    add(client, 2)
    settle(server, client, rounds=2)
    before = client.rows("Person"), server.rows("Person")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert (client.rows("Person"), server.rows("Person")) == before


def test_a_client_below_the_purge_horizon_must_resync(server, client, other):
    for id in (1, 2):
        add(server, id)
    settle(server, client, other, rounds=1)
    server.sql("DELETE FROM Person WHERE Id = 2")
    other.sync(server)
    client_cursor = client.cursor
    server.sql("SELECT sync_remove_client(?)", client.origin)
    assert server.value("SELECT sync_purge_tombstones()") == 1
    add(client, 3)
    with sync_error("FullResyncRequired") as error:
        client.pull(server)
    assert error.data["clientVersion"] == client_cursor
    assert error.data["oldestVersion"] > client_cursor
    begin_resync(client)
    client.sync(server)
    assert ids(client) == ids(server) == [1, 3]


# What this replica wrote itself, which the server leaves out of its answers


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_a_resync_keeps_acknowledged_edits_of_rows_the_server_made(server, client, size):
    for id in (1, 2, 3):
        add(server, id)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'mine' WHERE Id = 1")
    client.sql("DELETE FROM Person WHERE Id = 2")
    client.sync(server)
    expected = [(1, "mine", None), (3, "Person 3", None)]
    assert server.rows("Person") == client.rows("Person") == expected
    begin_resync(client)
    for _ in range(2):
        client.sync(server, size=size)
        assert server.rows("Person") == client.rows("Person") == expected
    assert client.conflicts() == client.rejections() == server.conflicts() == []


@pytest.mark.parametrize("size", [1, 1000])
def test_a_resync_takes_what_others_wrote_after_this_client(server, client, other, size):
    add(server, 1)
    settle(server, client, other)
    client.sql("UPDATE Person SET Name = 'mine'")
    settle(server, client, other)
    other.sql("UPDATE Person SET Name = 'theirs'")
    other.sync(server)
    begin_resync(client)
    client.sync(server, size=size)
    assert client.rows("Person") == server.rows("Person") == [(1, "theirs", None)]


def test_a_resync_in_many_batches_shows_no_older_state_on_the_way(server, client):
    add(server, 1, "oldest")
    for number in range(5):
        server.sql("UPDATE Person SET Name = ?", f"older {number}")
    server.sql("UPDATE Person SET Name = 'newest'")
    client.sync(server)
    log = len(client.log())
    begin_resync(client)
    for _ in range(7):
        client.pull(server, size=1, limit=1)
        assert client.rows("Person") == [(1, "newest", None)]
    assert not client.state["lastServerVersion"] < server.state["maxVersion"]
    assert len(client.log()) == log, "what is as it should be is not logged again"


def test_writes_and_pushes_in_the_middle_of_a_resync_are_kept(server, client, other):
    for id in range(1, 6):
        add(server, id)
    settle(server, client, other)
    server.sql("UPDATE Person SET Name = 'changed' WHERE Id = 5")
    begin_resync(client)
    client.pull(server, size=2, limit=1)
    client.sql("UPDATE Person SET Name = 'mine' WHERE Id = 1")
    client.sql("DELETE FROM Person WHERE Id = 2")
    add(client, 9, "new")
    client.push(server)
    client.sql("UPDATE Person SET Email = 'later' WHERE Id = 9")
    client.pull(server, size=2)
    settle(server, client, other)
    expected = [(1, "mine", None), (3, "Person 3", None), (4, "Person 4", None), (5, "changed", None), (9, "new", "later")]
    assert server.rows("Person") == client.rows("Person") == other.rows("Person") == expected


def test_a_resync_repairs_a_client_whose_row_the_lost_server_had_changed(server, client, disk):
    add(server, 1)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'mine'")
    client.sync(server)
    disk.save(server, "monday")
    server.sql("UPDATE Person SET Name = 'lost with the server'")
    client.sync(server)
    client.sql("SELECT sync_compact()")
    server = disk.load(server, "monday")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert client.rows("Person") == server.rows("Person")
    assert equal(server, client)


def test_a_resync_gives_up_old_refusals_of_the_server_s_changes(make_pair):
    item = "CREATE TABLE item(id INTEGER PRIMARY KEY, code TEXT UNIQUE)"
    server, client = make_pair(item, track=["item"])
    client.sql("INSERT INTO item VALUES (2, 'taken')")
    server.sql("INSERT INTO item VALUES (1, 'taken')")
    client.pull(server)
    assert len(client.rejections()) == 1
    server.sql("UPDATE item SET code = 'free'")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert client.rejections() == []
    assert client.rows("item") == server.rows("item") == [(1, "free"), (2, "taken")]


def test_a_resync_is_resumed_where_it_stopped(server, client, open_replica):
    for id in range(1, 8):
        add(server, id)
    client.sync(server)
    lose_row(server, client, 3)
    begin_resync(client)
    client.pull(server, size=2, limit=2)
    client.close()
    client = open_replica("client")
    client.pull(server, size=2)
    assert ids(client) == ids(server) == [1, 2, 4, 5, 6, 7]


def test_a_purge_in_the_middle_of_a_resync_asks_for_another(server, client):
    for id in range(1, 8):
        add(server, id)
    settle(server, client)
    begin_resync(client)
    client.pull(server, size=2, limit=1)
    lose_row(server, client, 1)
    with sync_error("FullResyncRequired"):
        client.pull(server, size=2)
    begin_resync(client)
    client.pull(server, size=2)
    assert ids(client) == ids(server) == [2, 3, 4, 5, 6, 7]


PARENT_AND_CHILD = (
    "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
    "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id))",
)


@pytest.mark.parametrize("change", ["INSERT INTO child VALUES (2, 9)", "UPDATE child SET parent = 9 WHERE id = 1"])
def test_a_resync_keeps_what_waits_at_the_server(make_pair, change):
    server, client = make_pair(*PARENT_AND_CHILD, track=["parent", "child"])
    server.sql("INSERT INTO parent VALUES (1)")
    server.sql("INSERT INTO child VALUES (1, 1)")
    client.sync(server)
    client.sql("PRAGMA foreign_keys = OFF")
    client.sql(change)
    client.push(server)
    assert len(server.rejections()) == 1
    before = client.rows("child")
    begin_resync(client)
    client.sync(server, size=1)
    assert client.rows("child") == before
    server.sql("INSERT INTO parent VALUES (9)")
    server.json("SELECT sync_retry()")
    client.sync(server)
    assert client.rows("child") == server.rows("child") == before
    assert server.rejections() == []


def test_a_resync_keeps_a_delete_that_waits_at_the_server(make_pair):
    server, client = make_pair(*PARENT_AND_CHILD, track=["parent", "child"])
    server.sql("INSERT INTO parent VALUES (1)")
    client.sync(server)
    server.sql("INSERT INTO child VALUES (1, 1)")
    client.sql("DELETE FROM parent")
    client.push(server)
    assert len(server.rejections()) == 1
    begin_resync(client)
    client.pull(server)
    assert client.rows("parent") == []
    server.sql("DELETE FROM child")
    server.json("SELECT sync_retry()")
    settle(server, client)
    assert client.rows("parent") == server.rows("parent") == []
    assert server.rejections() == client.rejections() == []


def test_a_resync_takes_what_the_server_has_made_of_a_row_whose_push_waits_there(make_pair):
    server, client = make_pair("CREATE TABLE item(id INTEGER PRIMARY KEY, amount INT)", track=["item"])
    server.sql("CREATE TRIGGER refuse BEFORE INSERT ON item WHEN NEW.amount < 0 BEGIN SELECT raise(ABORT, 'negative'); END")
    client.sql("INSERT INTO item VALUES (1, -1)")
    client.push(server)
    assert len(server.rejections()) == 1
    let_the_clock_tick()
    server.sql("INSERT INTO item VALUES (1, 5)")
    begin_resync(client)
    client.sync(server)
    assert client.rows("item") == [(1, 5)]
    server.sql("DROP TRIGGER refuse")
    server.json("SELECT sync_retry()")
    settle(server, client)
    assert client.rows("item") == server.rows("item") == [(1, 5)]


# Rows that were there before tracking


def test_a_resync_keeps_rows_that_were_never_logged(make_replica):
    server, client = (make_replica(name, PERSON, "INSERT INTO Person VALUES (1, 'seed', NULL), (2, 'seed', NULL)") for name in ("server", "client"))
    client.sql("INSERT INTO Person VALUES (3, 'only here', NULL)")
    for replica in (server, client):
        replica.track("Person", backfill=False)
    server.sql("UPDATE Person SET Name = 'server' WHERE Id = 1")
    client.sync(server)
    begin_resync(client)
    client.sync(server)
    assert client.rows("Person") == [(1, "server", None), (2, "seed", None), (3, "only here", None)]
    server.sql("DELETE FROM Person WHERE Id = 2")
    begin_resync(client)
    client.sync(server)
    assert ids(client) == [1, 3], "what the server has deleted is gone"


@pytest.mark.parametrize("strategy", ["last_write_wins", "server_wins"])
def test_an_edit_of_a_row_whose_tombstone_was_purged_is_a_conflict(server, client, other, strategy):
    client.sql("SELECT sync_set_conflict_strategy('Person', ?)", strategy)
    add(server, 1)
    add(server, 2)
    settle(server, client, other)
    server.sql("DELETE FROM Person WHERE Id = 1")
    other.sync(server)
    server.sql("SELECT sync_remove_client(?)", client.origin)
    assert server.value("SELECT sync_purge_tombstones()") == 1
    client.sql("UPDATE Person SET Name = 'edited offline' WHERE Id = 1")
    add(client, 3)
    begin_resync(client)
    settle(server, client, other)
    [conflict] = client.conflicts()
    assert (conflict["pk_value"], conflict["strategy"]) == ('{"Id":1}', strategy)
    assert "edited offline" in conflict["local_change"] and "Delete" in conflict["remote_change"]
    if strategy == "server_wins":
        assert conflict["winner"] == "remote" and ids(server) == ids(client) == ids(other) == [2, 3]
    else:
        assert conflict["winner"] == "local" and ids(server) == ids(client) == ids(other) == [1, 2, 3]
    assert equal(server, client, other)
