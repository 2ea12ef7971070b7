"""Stamps: nothing is stamped earlier than what its author had seen, and no clock that runs ahead poisons a table."""

import json

import pytest

from crafted import ALICE, BOB, instant, let_the_clock_tick, person, pull, push, stamp
from replica import sync_error


def newest(replica, id=1):
    return [entry for entry in replica.log("Person") if json.loads(entry["pk_value"]) == {"Id": id}][-1]


def is_about_now(timestamp):
    return abs((instant(timestamp) - instant(stamp())).total_seconds()) < 300


def name_of(replica, id=1):
    return replica.value("SELECT Name FROM Person WHERE Id = ?", id)


def test_a_local_edit_is_never_stamped_before_the_edit_it_had_seen(client):
    ahead = stamp(hours=3)
    client.apply(pull(person(1, "From the future", at=ahead)))
    client.sql("UPDATE Person SET Name = 'Later'")
    assert instant(newest(client)["timestamp"]) >= instant(ahead)


def test_the_clock_floor_holds_for_every_table_and_connection(client, open_replica):
    ahead = stamp(hours=3)
    client.apply(pull(person(1, "From the future", at=ahead)))
    client.close()
    stranger = open_replica("client", extension=False)
    stranger.sql("INSERT INTO Person VALUES (2, 'Elsewhere', NULL)")
    assert instant(newest(stranger, 2)["timestamp"]) >= instant(ahead)


def test_a_later_edit_beats_the_one_it_had_seen_though_the_clocks_are_wrong(client, other):
    seen = person(1, "From the future", at=stamp(hours=3))
    client.apply(pull(seen))
    client.sql("UPDATE Person SET Name = 'Later'")
    [edit] = client.fetch_local()["changes"]
    other.apply(push(seen, sender=ALICE))
    answer = other.json("SELECT sync_resolve_conflict(?, ?)", json.dumps({"version": 1, **seen}), json.dumps(edit))
    assert json.loads(answer["winner"]["payload"])["Name"] == "Later"


def test_edits_in_one_millisecond_arrive_in_order(server, client):
    server.sql("INSERT INTO Person VALUES (1, '0', NULL)")
    with server.transaction():
        for number in range(1, 101):
            server.sql("UPDATE Person SET Name = ?", str(number))
    client.pull(server, size=7)
    assert name_of(client) == "100"


def test_the_stamps_of_the_own_entries_never_go_back(client):
    client.apply(pull(person(1, "a", at=stamp(hours=1)), person(2, "b", at=stamp(days=-400))))
    for id in (3, 4):
        client.sql("INSERT INTO Person VALUES (?, 'own', NULL)", id)
    own = [instant(entry["timestamp"]) for entry in client.log() if entry["origin"] == client.origin]
    assert own == sorted(own) and own[0] >= instant(stamp(minutes=59))


def test_an_applied_change_keeps_its_own_stamp(server):
    long_ago = "2001-02-03T04:05:06.007Z"
    server.apply(push(person(1, "Alice", at=long_ago)))
    assert newest(server)["timestamp"] == long_ago


def test_a_stamp_within_the_allowed_skew_is_kept(server):
    soon = stamp(minutes=4)
    result = server.apply(push(person(1, "Alice", at=soon)))
    assert (result["applied"], result["restamped"]) == (1, 0)
    assert newest(server)["timestamp"] == soon


@pytest.mark.parametrize("ahead", [{"minutes": 6}, {"hours": 3}, {"days": 365 * 30}])
def test_a_stamp_beyond_the_allowed_skew_is_restamped_to_the_hubs_clock_and_counted(server, ahead):
    result = server.apply(push(person(1, "Alice", at=stamp(**ahead)), person(2, "Bob")))
    assert (result["applied"], result["restamped"]) == (2, 1)
    assert is_about_now(newest(server)["timestamp"])
    assert newest(server)["origin"] == ALICE


@pytest.mark.parametrize("at", ["2038-01-19T03:14:08.000Z", "2106-02-07T06:28:16.000Z", "9999-12-31T23:59:59.999Z"])
def test_no_far_future_poisons_the_hubs_clock(server, at):
    server.apply(push(person(1, "Alice", at=at)))
    server.sql("INSERT INTO Person VALUES (2, 'Hub', NULL)")
    assert is_about_now(newest(server, 2)["timestamp"])


def test_the_hubs_clock_never_runs_away_in_small_steps(server):
    for step in range(1, 30):
        server.apply(push(person(1, str(step), at=stamp(minutes=4 * step)), after=step - 1))
    server.sql("INSERT INTO Person VALUES (2, 'Hub', NULL)")
    assert instant(newest(server, 2)["timestamp"]) <= instant(stamp(minutes=6))


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00.000Z", "1969-12-31T23:59:59.999Z", "1970-01-01T00:00:00.000Z"])
def test_a_stamp_of_long_ago_is_as_good_as_any(server, at):
    assert server.apply(push(person(1, "Alice", at=at)))["applied"] == 1
    assert newest(server)["timestamp"] == at


def test_after_restamping_the_other_clients_later_edit_wins(server):
    server.apply(push(person(1, "Ahead", at=stamp(hours=3)), sender=ALICE))
    let_the_clock_tick()
    result = server.apply(push(person(1, "Later", origin=BOB), sender=BOB))
    assert result["conflicts"] == 1
    assert name_of(server) == "Later"


def test_a_client_ahead_of_the_hub_converges_with_it(server, client):
    client.apply(pull(person(9, "From the future", at=stamp(hours=3), origin=BOB), sender=server.origin))
    client.sql("SELECT sync_begin_resync()")
    client.pull(server)
    client.sql("INSERT INTO Person VALUES (1, 'Client', NULL)")
    assert client.push(server)["restamped"] == 1
    server.sql("UPDATE Person SET Name = 'Server' WHERE Id = 1")
    client.sync(server)
    assert name_of(client) == name_of(server) == "Server"
    assert client.hash() == server.hash()


def resolved(local_at, remote_at, local_origin=ALICE, remote_origin=BOB):
    """The two sides of a conflict, to be resolved."""
    local = {"version": 1, **person(1, "local", at=local_at, origin=local_origin)}
    remote = {"version": 1, **person(1, "remote", at=remote_at, origin=remote_origin)}
    return json.dumps(local), json.dumps(remote)


INSTANTS = [
    ("2025-01-15T10:30:00.123Z", "2025-01-15T10:30:00.1239999Z"),
    ("2025-01-15T10:30:00Z", "2025-01-15T10:30:00.999Z"),
    ("2025-01-15T10:30:00.9Z", "2025-01-15T10:30:00.95Z"),
    ("2025-01-15T10:30:00.000Z", "2025-01-15T10:30:00.001Z"),
    ("0999-01-15T10:30:00.000Z", "2025-01-15T10:30:00.000Z"),
]


@pytest.mark.parametrize(("earlier", "later"), INSTANTS)
def test_the_greater_instant_wins_not_the_greater_text(client, earlier, later):
    for local_at, remote_at, winner in ((earlier, later, "remote"), (later, earlier, "local")):
        answer = client.json("SELECT sync_resolve_conflict(?, ?)", *resolved(local_at, remote_at))
        assert json.loads(answer["winner"]["payload"])["Name"] == winner


def test_equal_stamps_are_decided_by_origin_whichever_side_asks(client):
    at = stamp()
    local, remote = resolved(at, at)
    here = client.json("SELECT sync_resolve_conflict(?, ?)", local, remote)["winner"]
    there = client.json("SELECT sync_resolve_conflict(?, ?)", remote, local)["winner"]
    assert here["origin"] == there["origin"] == max(ALICE, BOB)


@pytest.mark.parametrize("at", ["2025-13-01T00:00:00.000Z", "2025-02-30T00:00:00.000Z", "now", "", 0])
def test_a_stamp_that_is_no_utc_instant_is_refused(server, at):
    change = {**person(1, "Alice"), "timestamp": at}
    with sync_error("InvalidBatch"):
        server.apply(push(change))


def test_a_stamp_of_another_precision_is_taken(server):
    result = server.apply(push(person(1, "Alice", at="2025-01-15T10:30:00Z"), person(2, "Bob", at="2025-01-15T10:30:00.1234567Z")))
    assert result["applied"] == 2
    assert [len(entry["timestamp"]) for entry in server.log()] == [len("2025-01-15T10:30:00.000Z")] * 2
