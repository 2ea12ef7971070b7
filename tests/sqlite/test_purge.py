"""Purging and compacting forget what nobody needs: replay rebuilds, cursors stay valid, and nothing deleted comes back."""

import pytest

from crafted import ALICE, BOB, let_the_clock_tick, person, push, stamp
from replica import settle, sync_error


def register(server, origin=ALICE, version=None):
    server.sql("SELECT sync_register_client(?, ?)", origin, server.state["maxVersion"] if version is None else version)


def purge(server, *bound):
    return server.value(f"SELECT sync_purge_tombstones({', '.join(['?'] * len(bound))})", *bound)


def compact(server):
    return server.value("SELECT sync_compact()")


@pytest.fixture
def busy(server):
    """Rows 1 to 6, of which 2 and 4 are deleted and 3 was updated twice: versions 1 to 10."""
    server.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in range(1, 7)])
    server.sql("DELETE FROM Person WHERE Id = 2")
    server.sql("UPDATE Person SET Name = 'once' WHERE Id = 3")
    server.sql("UPDATE Person SET Name = 'twice' WHERE Id = 3")
    server.sql("DELETE FROM Person WHERE Id = 4")
    return server


def test_tombstones_every_client_has_passed_are_removed(busy):
    register(busy)
    assert purge(busy) == 2
    assert purge(busy) == 0
    assert [entry["operation"] for entry in busy.log()].count("delete") == 0


def test_tombstones_a_client_has_not_passed_stay(busy):
    register(busy, version=8)
    assert purge(busy) == 1
    assert [entry["pk_value"] for entry in busy.log() if entry["operation"] == "delete"] == ['{"Id":4}']


def test_without_clients_nothing_is_purged(busy):
    assert purge(busy) == 0


def test_a_bound_limits_what_is_purged(busy):
    register(busy)
    assert purge(busy, 7) == 1


@pytest.mark.parametrize("bound", [10, 9, -1])
def test_a_bound_above_the_safe_version_is_refused(busy, bound):
    register(busy, version=8)
    with sync_error("InvalidArgument"):
        purge(busy, bound)


def test_replay_after_purging_and_compacting_rebuilds_the_tables(busy, client):
    register(busy)
    purge(busy)
    compact(busy)
    client.pull(busy, size=1)
    assert client.rows("Person") == busy.rows("Person")
    assert client.hash() == busy.hash()


def test_the_newest_entry_of_a_live_row_is_never_purged(busy):
    register(busy)
    purge(busy)
    compact(busy)
    assert {entry["pk_value"] for entry in busy.log()} == {'{"Id":%d}' % id for id in (1, 3, 5, 6)}


def test_compacting_removes_superseded_entries_and_says_how_many(busy):
    before = len(busy.log())
    assert compact(busy) == 4, "the inserts of 2 and 4, and two older states of 3"
    assert len(busy.log()) == before - 4
    assert compact(busy) == 0
    assert [entry["operation"] for entry in busy.log()].count("delete") == 2, "tombstones are no superseded entries"


def test_compacting_keeps_what_is_not_pushed_yet(client, server):
    client.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    client.sql("UPDATE Person SET Name = 'b'")
    client.sql("INSERT INTO Person VALUES (2, 'c', NULL)")
    client.sql("DELETE FROM Person WHERE Id = 2")
    compact(client)
    client.sync(server)
    assert server.rows("Person") == [(1, "b", None)]


def test_cursors_stay_valid(busy, client):
    client.pull(busy, size=3, limit=1)
    compact(busy)
    busy.sql("INSERT INTO Person VALUES (7, 'new', NULL)")
    client.pull(busy, size=2)
    assert client.rows("Person") == busy.rows("Person")
    assert client.cursor == busy.state["maxVersion"]


def test_has_more_is_exact_after_purging(busy):
    register(busy)
    purge(busy)
    compact(busy)
    first = busy.fetch(0, 3)
    assert (len(first["changes"]), first["hasMore"]) == (3, True)
    rest = busy.fetch(first["toVersion"], 1)
    assert (len(rest["changes"]), rest["hasMore"]) == (1, False)


def test_a_new_client_joins_after_a_purge_however_long_the_log_is(server, client):
    server.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in range(1, 12_001)])
    server.sql("DELETE FROM Person WHERE Id = 2")
    register(server)
    assert purge(server) == 1
    client.pull(server)
    assert client.hash() == server.hash()


# A replay below the horizon


def horizon_at_the_end(server, rows=7):
    """Rows 1 to `rows` and one that was deleted last, which is forgotten."""
    server.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in range(1, rows + 2)])
    server.sql("DELETE FROM Person WHERE Id = ?", rows + 1)
    register(server)
    assert purge(server) == 1


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8])
def test_a_replay_below_the_horizon_has_batches_of_the_size_asked_for(server, size):
    horizon_at_the_end(server)
    cursor, ids = 0, []
    while True:
        batch = server.fetch(cursor, size)
        assert len(batch["changes"]) <= size
        ids += [change["pkValue"] for change in batch["changes"]]
        cursor = batch["toVersion"]
        if not batch["hasMore"]:
            break
    assert ids == ['{"Id":%d}' % id for id in range(1, 8)]
    assert cursor == server.state["maxVersion"]


@pytest.mark.parametrize("size", [1, 3])
def test_a_new_client_may_be_interrupted_below_the_horizon(server, client, open_replica, size):
    horizon_at_the_end(server)
    client.pull(server, size=size, limit=2)
    client.close()
    client = open_replica("client")
    client.sql("UPDATE Person SET Name = 'mine' WHERE Id = 1")
    client.push(server)
    assert client.conflicts() == server.conflicts() == [], "it had seen the row that it changed"
    client.pull(server, size=size)
    assert client.rows("Person") == server.rows("Person")
    assert client.hash() == server.hash()


def test_a_stale_client_is_told_from_a_replay(server):
    server.sql("INSERT INTO Person VALUES (1, 'x', NULL), (2, 'x', NULL), (3, 'x', NULL)")
    stale = server.fetch(0, 2)["toVersion"]
    server.sql("DELETE FROM Person WHERE Id = 1")
    register(server)
    assert purge(server) == 1
    replay = server.fetch(0, 1)["toVersion"]
    assert server.fetch(replay, 1)["changes"]
    with sync_error("FullResyncRequired") as error:
        server.fetch(stale, 1)
    assert error.data == {"clientVersion": 2, "oldestVersion": 4}


def test_a_purge_in_the_middle_of_a_replay_ends_it(server, client):
    horizon_at_the_end(server)
    client.pull(server, size=2, limit=1)
    server.sql("SELECT sync_remove_client(?)", client.origin)
    server.sql("DELETE FROM Person WHERE Id = 1")
    register(server)
    assert purge(server) == 1
    with sync_error("FullResyncRequired"):
        client.pull(server, size=2)
    client.sql("SELECT sync_begin_resync()")
    client.pull(server, size=2)
    assert client.rows("Person") == server.rows("Person")


def test_a_client_in_the_middle_of_a_replay_holds_back_the_purge(server, client):
    horizon_at_the_end(server)
    client.pull(server, size=2, limit=1)
    assert server.value("SELECT sync_safe_purge_version()") == 2
    server.sql("DELETE FROM Person WHERE Id = 1")
    assert purge(server) == 0
    client.pull(server, size=2)
    assert client.rows("Person") == server.rows("Person")


def test_versions_are_never_reused(server):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("DELETE FROM Person")
    highest = server.state["maxVersion"]
    register(server)
    purge(server)
    compact(server)
    assert server.log() == []
    server.sql("VACUUM")
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert server.log()[0]["version"] > highest


def test_the_state_keeps_the_highest_version(server):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("DELETE FROM Person")
    register(server)
    purge(server)
    compact(server)
    assert server.state["maxVersion"] == 2
    done = server.fetch(2)
    assert (done["changes"], done["toVersion"], done["hasMore"]) == ([], 2, False)


def test_the_log_is_numbered_on_after_everything_was_purged_and_reopened(server, open_replica):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("DELETE FROM Person")
    register(server)
    purge(server)
    server.close()
    stranger = open_replica("server", extension=False)
    stranger.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert stranger.log()[-1]["version"] == 3


def below_the_horizon(server, client, other):
    """`client` has seen rows 1 and 2; the server has deleted 2 and forgotten that it did; `other` has seen it all."""
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    settle(server, client, other, rounds=1)
    server.sql("DELETE FROM Person WHERE Id = 2")
    other.sync(server)
    server.sql("SELECT sync_remove_client(?)", client.origin)
    assert purge(server) == 1


def test_a_fetch_from_below_the_horizon_is_refused_with_both_versions(server, client, other):
    below_the_horizon(server, client, other)
    with sync_error("FullResyncRequired") as error:
        server.fetch(client.cursor, 1000, client.origin)
    assert error.data["clientVersion"] == 2 < error.data["oldestVersion"]


def test_a_fetch_from_the_horizon_or_from_zero_is_served(server, client, other):
    below_the_horizon(server, client, other)
    assert server.fetch(3)["changes"] == []
    assert len(server.fetch(0)["changes"]) == 1
    assert len(server.sql("SELECT * FROM sync_changes(0)")) == 1
    with sync_error("FullResyncRequired"):
        server.sql("SELECT * FROM sync_changes(1)")


def test_a_push_from_below_the_horizon_does_not_bring_back_what_was_deleted(server, client, other):
    below_the_horizon(server, client, other)
    client.sql("UPDATE Person SET Name = 'stale' WHERE Id = 2")
    with sync_error("FullResyncRequired"):
        client.push(server)
    assert [row[0] for row in server.rows("Person")] == [1]


def test_an_older_update_does_not_bring_back_what_was_deleted(server):
    server.apply(push(person(1, "a", at=stamp(minutes=-9)), sender=ALICE))
    server.sql("DELETE FROM Person")
    server.apply(push(person(1, "older", at=stamp(minutes=-5), origin=BOB), sender=BOB))
    assert server.rows("Person") == []
    compact(server)
    server.apply(push(person(1, "older", at=stamp(minutes=-4), origin=BOB), sender=BOB, after=1))
    assert server.rows("Person") == []


def test_compacting_everywhere_changes_nothing_in_any_order(server, client, other):
    for round_ in range(4):
        for number, replica in enumerate((server, client, other)):
            replica.sql("INSERT INTO Person VALUES (?, 'x', NULL)", 10 * round_ + number)
            replica.sql("UPDATE Person SET Name = Name || ? WHERE Id % 3 = ?", str(round_), number)
            replica.sql("DELETE FROM Person WHERE Id = ?", 10 * (round_ - 1) + number)
            let_the_clock_tick()
        for replica in (client, server, other):
            compact(replica)
            client.sync(server, size=2)
            other.sync(server, size=3)
    settle(server, client, other)
    assert server.hash() == client.hash() == other.hash()
    assert server.rows("Person") == client.rows("Person") == other.rows("Person")


def test_wide_rows_are_purged_and_compacted_whole(make_pair):
    wide = f"CREATE TABLE wide(id INTEGER PRIMARY KEY, {', '.join(f'c{number}' for number in range(200))})"
    server, client = make_pair(wide, track=["wide"])
    server.sql("INSERT INTO wide(id, c199) VALUES (1, 'a'), (2, 'b')")
    server.sql("UPDATE wide SET c199 = 'c' WHERE id = 1")
    server.sql("DELETE FROM wide WHERE id = 2")
    register(server)
    assert compact(server) == 2
    assert purge(server) == 1
    client.pull(server)
    assert client.rows("wide") == server.rows("wide")
    assert len(server.log()) == 1


def test_what_a_subscription_has_not_acknowledged_is_not_purged(busy):
    register(busy)
    table, record = (busy.value("SELECT sync_subscribe('Person', ?)", key) for key in (None, "5"))
    expired = busy.value("SELECT sync_subscribe('Person', NULL, ?)", '{"expiresAt": "2020-01-01T00:00:00Z", "fromVersion": 0}')
    busy.sql("DELETE FROM Person WHERE Id = 5")
    register(busy)
    assert purge(busy) == 2, "what was there before they subscribed, expired ones apart"
    for subscription in (table, record):
        assert [change["operation"] for change in busy.json("SELECT sync_poll(?)", subscription)["changes"]] == ["Delete"]
        assert purge(busy) == 0, "the next poll acknowledges it"
        busy.sql("SELECT sync_poll(?)", subscription)
    assert purge(busy) == 1
    assert expired
