"""Clients are registered with how far they have come, which decides what may be purged."""

import json

import pytest

from crafted import ALICE, BOB, instant, stamp
from replica import sync_error

CAROL = "ca501000-0000-4000-8000-000000000007"


@pytest.fixture
def hub(server):
    """A server whose log has ten entries."""
    server.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in range(1, 11)])
    return server


def register(replica, origin, *version):
    places = ", ".join(["?"] * (1 + len(version)))
    return replica.json(f"SELECT sync_register_client({places})", origin, *version)


def registered(replica):
    return replica.sql("SELECT origin_id, last_sync_version FROM sync_clients()")


def test_registering_answers_what_is_known_of_the_client(hub):
    answer = register(hub, ALICE, 5)
    assert (answer["originId"], answer["lastSyncVersion"]) == (ALICE, 5)
    for name in ("lastSyncTimestamp", "createdAt"):
        assert abs((instant(answer[name]) - instant(stamp())).total_seconds()) < 60


def test_a_new_client_starts_at_zero(hub):
    assert register(hub, ALICE)["lastSyncVersion"] == 0
    assert register(hub, BOB, None)["lastSyncVersion"] == 0


def test_registering_again_updates(hub):
    created = register(hub, ALICE, 5)["createdAt"]
    again = register(hub, ALICE, 8)
    assert (again["lastSyncVersion"], again["createdAt"]) == (8, created)
    assert registered(hub) == [(ALICE, 8)]


def test_a_client_never_goes_back(hub):
    register(hub, ALICE, 8)
    assert register(hub, ALICE, 3)["lastSyncVersion"] == 8
    assert registered(hub) == [(ALICE, 8)]


@pytest.mark.parametrize("version", [-1, 11, 2**63 - 1])
def test_a_version_the_log_does_not_have_is_refused(hub, version):
    with sync_error("InvalidArgument"):
        register(hub, ALICE, version)
    assert registered(hub) == []


@pytest.mark.parametrize("origin", ["", "alice", None, ALICE + "0"])
def test_an_origin_that_is_no_uuid_is_refused(hub, origin):
    with sync_error("InvalidArgument"):
        register(hub, origin, 1)


def test_an_origin_is_the_same_in_upper_case(hub):
    register(hub, ALICE, 1)
    register(hub, ALICE.upper(), 2)
    assert registered(hub) == [(ALICE, 2)]


def test_clients_come_by_version(hub):
    for origin, version in ((ALICE, 7), (BOB, 2), (CAROL, 5)):
        register(hub, origin, version)
    assert registered(hub) == [(BOB, 2), (CAROL, 5), (ALICE, 7)]


def test_a_client_is_removed_once(hub):
    register(hub, ALICE, 7)
    assert hub.value("SELECT sync_remove_client(?)", ALICE) == 1
    assert hub.value("SELECT sync_remove_client(?)", ALICE) == 0
    assert registered(hub) == []


def test_the_slowest_client_decides_what_may_be_purged(hub):
    assert hub.value("SELECT sync_safe_purge_version()") == 0
    register(hub, ALICE, 7)
    assert hub.value("SELECT sync_safe_purge_version()") == 7
    register(hub, BOB, 2)
    assert hub.value("SELECT sync_safe_purge_version()") == 2
    hub.sql("SELECT sync_remove_client(?)", BOB)
    assert hub.value("SELECT sync_safe_purge_version()") == 7


def test_a_client_that_was_not_seen_for_long_is_stale(hub):
    register(hub, ALICE, 7)
    register(hub, BOB, 2)
    hub.sql("UPDATE _sync_clients SET last_sync_timestamp = ? WHERE origin_id = ?", stamp(days=-91), ALICE)
    assert hub.sql("SELECT origin_id FROM sync_stale_clients()") == [(ALICE,)]
    assert hub.sql("SELECT origin_id FROM sync_stale_clients(90)") == [(ALICE,)]
    assert hub.sql("SELECT origin_id FROM sync_stale_clients(92)") == []
    register(hub, ALICE, 7)
    assert hub.sql("SELECT origin_id FROM sync_stale_clients()") == []


@pytest.mark.parametrize("days", [-1, "many"])
def test_a_wrong_number_of_days_is_refused(hub, days):
    with sync_error("InvalidArgument"):
        hub.sql("SELECT * FROM sync_stale_clients(?)", days)


def test_pulling_registers_how_far_one_has_come(hub, client):
    client.pull(hub)
    assert registered(hub) == [(client.origin, 10)]


def test_the_status_shows_how_far_each_client_lags(hub):
    register(hub, ALICE, 7)
    [entry] = hub.status["clients"]
    assert ALICE in json.dumps(entry)
    assert 3 in entry.values(), "ten entries, of which seven are known"
