"""A streaming replica: it answers what it can know and refuses the rest; promoted it goes on, in another epoch."""

import pytest

from cluster import Cluster, Standby
from pg_replica import PgReplica, pg_error
from replica import sync_error

SERVER = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"
CLIENT = "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)"
SOMEBODY = "00000000-0000-4000-8000-000000000001"


@pytest.fixture
def primary():
    """A cluster of its own, for it is lost on the way, and a server in it."""
    cluster = Cluster()
    server = PgReplica(cluster)
    server.sql(SERVER)
    server.track("person")
    server.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    yield server
    cluster.close()


@pytest.fixture
def standby(primary):
    cluster = Standby(primary.cluster)
    cluster.catch_up(primary.cluster)
    yield PgReplica(cluster, primary.database)
    cluster.close()


@pytest.fixture
def make_client(make_replica):
    return lambda name: make_replica(name, CLIENT, track=["Person"])


def fail_over(primary, standby, *lost):
    """The primary goes on without its standby for a while, and dies; the standby takes over. Returns the new server."""
    standby.close()
    standby.cluster.stop()
    for step in lost:
        step()
    primary.close()
    primary.cluster.stop("immediate")
    standby.cluster.start()
    standby.cluster.promote()
    return standby.again()


REFUSED = [
    "SELECT sync_fetch_changes(0)", "SELECT * FROM sync_changes(0)", "SELECT sync_fetch_local_changes()", "SELECT sync_apply_batch('[]')",
    "SELECT sync_acknowledge_push(1)", "SELECT sync_state()", "SELECT sync_status()", "SELECT sync_init()", "SELECT sync_retry()",
    "SELECT sync_regenerate_origin()", "SELECT sync_track_table('person')", "SELECT sync_untrack_table('person')", "SELECT sync_compact()",
    "SELECT sync_purge_tombstones()", "SELECT sync_reconcile('person')", "SELECT sync_begin_resync()", "SELECT sync_discard(1)",
    "SELECT sync_set_conflict_strategy('person', 'merge')", "SELECT sync_execute_untracked('SELECT 1')", "SELECT sync_subscribe('person')",
    f"SELECT sync_register_client('{SOMEBODY}', 1)", f"SELECT sync_remove_client('{SOMEBODY}')", f"SELECT sync_unsubscribe('{SOMEBODY}')",
]


def test_a_standby_refuses_what_only_the_primary_can_tell_or_change(primary, standby):
    for query in REFUSED:
        with pg_error("InvalidArgument") as raised:
            standby.sql(query)
        assert "standby" in str(raised.value) and "primary" in str(raised.value), query


def test_a_standby_answers_what_it_can_know(primary, standby):
    primary.sql("SELECT sync_register_client(?, 1)", SOMEBODY)
    standby.cluster.catch_up(primary.cluster)
    assert standby.hash() == primary.hash() and standby.log() == primary.log()
    queries = ["sync_tables()", "sync_clients()", "sync_conflicts()", "sync_rejections()", "sync_subscriptions()", "sync_version()",
               "sync_check_table('person')", "sync_last_server_version()", "sync_safe_purge_version()"]
    for query in queries:
        assert standby.sql(f"SELECT * FROM {query}") == primary.sql(f"SELECT * FROM {query}"), query


def test_a_promoted_standby_has_another_epoch_and_the_clients_of_before_find_the_way(primary, standby, make_client):
    behind, ahead = make_client("behind"), make_client("ahead")
    behind.sync(primary)
    ahead.sync(primary)
    standby.cluster.catch_up(primary.cluster)
    epoch, version = primary.state["epoch"], primary.state["maxVersion"]

    def lost():
        primary.sql("INSERT INTO person VALUES (3, 'lost', NULL)")
        ahead.sql("INSERT INTO Person VALUES (4, 'pushed and lost', NULL)")
        ahead.sync(primary)

    server = fail_over(primary, standby, lost)
    behind.sql("INSERT INTO Person VALUES (5, 'not pushed', NULL)")
    server.sql("INSERT INTO person VALUES (6, 'after', NULL)")
    assert server.state["epoch"] != epoch and server.state["epoch"] == server.state["epoch"]
    assert server.log()[-1]["version"] > version
    for client in (behind, ahead):
        with sync_error("EpochMismatch"):
            client.pull(server)
        client.sql("INSERT INTO Person VALUES (?, 'edit', NULL)", 100 + client.state["maxVersion"])
        with pg_error("EpochMismatch"):
            client.push(server)
        client.sql("SELECT sync_begin_resync()")
        client.sync(server)
    behind.sync(server)
    names = [name for _, name, _ in server.rows("person")]
    assert {"a", "b", "pushed and lost", "not pushed", "after", "edit"} == set(names) and names.count("edit") == 2
    assert server.hash() == behind.hash() == ahead.hash()
    server.close()


def test_a_session_that_lives_through_the_promotion_sees_the_new_epoch(primary, standby):
    epoch = primary.state["epoch"]
    with pg_error("InvalidArgument"):
        standby.fetch()
    primary.cluster.stop("immediate")
    standby.cluster.promote()
    assert len(standby.fetch()["changes"]) == 2
    assert standby.fetch()["epoch"] == standby.state["epoch"] != epoch
    standby.close()


def test_ddl_on_a_promoted_standby_is_followed_before_anything_is_called(primary, standby):
    server = fail_over(primary, standby)
    server.sql("ALTER TABLE person RENAME COLUMN name TO title")
    server.sql("INSERT INTO person VALUES (3, 'c', NULL)")
    assert [change["payload"] for change in server.fetch()["changes"]] == [
        f'{{"id":{key},"title":"{title}","email":null}}' for key, title in ((1, "a"), (2, "b"), (3, "c"))
    ]
    server.close()


def test_a_prepared_transaction_keeps_the_fence_on_the_promoted_standby(primary, standby):
    other = primary.again()
    other.sql("BEGIN")
    other.sql("INSERT INTO person VALUES (3, 'prepared', NULL)")
    other.sql("PREPARE TRANSACTION 'x'")
    other.close()
    primary.sql("INSERT INTO person VALUES (4, 'later', NULL)")
    standby.cluster.catch_up(primary.cluster)
    server = fail_over(primary, standby)
    assert len(server.fetch()["changes"]) == 2
    server.sql("COMMIT PREPARED 'x'")
    assert [change["version"] for change in server.fetch()["changes"]] == [1, 2, 3, 4]
    server.close()
