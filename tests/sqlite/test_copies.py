"""A client that was restored or copied is noticed at first contact, and no write of any copy is lost."""

import pytest

from crafted import ALICE
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


def test_a_restored_client_is_noticed_and_repaired(server, client, disk):
    add(server, 1)
    client.sync(server)
    disk.save(client, "monday")
    add(client, 2)
    add(client, 3)
    client.sync(server)
    client = disk.load(client, "monday")
    with sync_error("EpochMismatch"):
        client.sync(server)
    client.sql("SELECT sync_regenerate_origin()")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert ids(client) == ids(server) == [1, 2, 3]
    assert equal(server, client)


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_restored_client_that_went_on_is_noticed_and_loses_no_write(server, client, disk, writes):
    add(server, 1)
    client.sync(server)
    disk.save(client, "monday")
    add(client, 2)
    add(client, 3)
    client.sync(server)
    client = disk.load(client, "monday")
    mine = list(range(100, 100 + writes))
    for id in mine:
        add(client, id)
    with sync_error("EpochMismatch"):
        client.sync(server)
    client.sql("SELECT sync_regenerate_origin()")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert ids(client) == ids(server) == [1, 2, 3, *mine]
    assert equal(server, client)


def test_a_copy_that_takes_a_new_origin_is_a_replica_of_its_own(server, client, disk):
    add(server, 1)
    client.sync(server)
    add(client, 2)
    copy = disk.clone(client, "copy")
    origin = copy.origin
    assert copy.value("SELECT sync_regenerate_origin()") == copy.origin != origin
    assert copy.state["epoch"] != client.state["epoch"]
    add(client, 3)
    add(copy, 4)
    settle(server, client, copy)
    assert ids(server) == ids(client) == ids(copy) == [1, 2, 3, 4]
    assert equal(server, client, copy)


def test_of_two_copies_with_one_origin_the_second_is_told_and_no_write_is_lost(server, client, disk):
    add(server, 1)
    client.sync(server)
    copy = disk.clone(client, "copy")
    add(client, 2)
    add(copy, 3)
    client.sync(server)
    with sync_error("EpochMismatch"):
        copy.sync(server)
    copy.sql("SELECT sync_regenerate_origin()")
    begin_resync(copy)
    settle(server, copy, client)
    assert ids(server) == ids(client) == ids(copy) == [1, 2, 3]


def test_a_lost_answer_to_a_push_is_no_restored_client(server, client):
    add(client, 1)
    server.apply(client.fetch_local_text())
    add(client, 2)
    settle(server, client, rounds=1)
    assert ids(server) == ids(client) == [1, 2]
    assert server.conflicts() == client.conflicts() == []


@pytest.mark.parametrize("forget", ["SELECT sync_compact()", "SELECT sync_purge_tombstones()"])
def test_a_lost_answer_and_a_shorter_log_are_no_copy(server, client, forget):
    """The server has what the client pushed, and the client does not know; meanwhile the client's log got shorter."""
    for number in range(3):
        client.sql("INSERT OR REPLACE INTO Person VALUES (1, ?, NULL)", str(number))
    client.sql("DELETE FROM Person")
    client.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    server.apply(client.fetch_local_text())
    client.sql("UPDATE Person SET Name = 'c'")
    client.sql("SELECT sync_register_client(?, ?)", ALICE, client.state["maxVersion"])
    client.sql(forget)
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(2, "c", None)]


def test_two_copies_that_both_went_on_are_told(server, client, disk):
    add(server, 1)
    client.sync(server)
    clone = disk.clone(client, "clone")
    add(clone, 2)
    clone.sync(server)
    add(client, 3)
    with sync_error("EpochMismatch"):
        client.sync(server)
    client.sql("SELECT sync_regenerate_origin()")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert ids(client) == ids(server) == [1, 2, 3]


def test_a_lost_answer_and_a_compaction_are_no_copy(server, client):
    add(client, 1)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'twice'")
    server.apply(client.fetch_local_text())
    client.sql("SELECT sync_compact()")
    add(client, 2)
    client.sync(server)
    assert ids(client) == ids(server) == [1, 2] and equal(server, client)


def test_a_pull_that_comes_late_sends_nothing_again(server, client):
    add(server, 1)
    client.sync(server)
    late = server.fetch_text(client.cursor, exclude=client.origin)
    add(client, 2)
    client.sync(server)
    add(server, 3)
    client.sync(server)
    client.apply(late)
    assert client.fetch_local()["changes"] == []


@pytest.mark.parametrize("writes", [1, 2, 5])
def test_a_copy_that_pushes_without_a_pull_is_told_and_loses_no_write(server, client, disk, writes):
    """Whether it wrote as much as the other copy, less or more, and although it wrote before the other one pushed."""
    add(server, 1)
    client.sync(server)
    clone = disk.clone(client, "clone")
    mine = list(range(100, 100 + writes))
    for id in mine:
        add(client, id)
    add(clone, 2)
    add(clone, 3)
    clone.push(server)
    with sync_error("EpochMismatch"):
        client.push(server)
    client.sql("SELECT sync_regenerate_origin()")
    begin_resync(client)
    settle(server, client, rounds=2)
    assert ids(client) == ids(server) == [1, 2, 3, *mine]


def test_a_push_that_comes_late_or_twice_is_no_copy(server, client):
    batches = []
    for id in range(1, 6):
        add(client, id)
        batches.append(client.fetch_local_text(size=1 + id % 3))
    for batch in (batches[2], batches[0], batches[4], batches[1], batches[3], batches[4]):
        server.apply(batch)
    client.sync(server)
    assert ids(client) == ids(server) == [1, 2, 3, 4, 5] and equal(server, client)
