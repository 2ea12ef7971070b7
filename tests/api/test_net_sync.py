"""`sync_with(url)`: pull and push over HTTP and against PostgreSQL in one call."""

import threading
import time

import pytest

from calls import add, sync_with
from crafted import let_the_clock_tick
from replica import DRIVER_ERRORS, sync_error

MEMBERS = {"pulled", "pushed", "applied", "conflicts", "rejected", "batches", "lastServerVersion", "lastPushVersion"}


def test_one_call_pulls_and_pushes(remote, client):
    add(remote, 1, 2)
    add(client, 10)
    answer = sync_with(client, remote.url)
    assert set(answer) == MEMBERS
    assert (answer["pulled"], answer["pushed"], answer["conflicts"], answer["rejected"]) == (2, 1, 0, 0)
    assert answer["lastServerVersion"] == client.cursor
    assert answer["lastPushVersion"] == client.value("SELECT sync_last_push_version()")
    assert client.hash() == remote.hash()
    assert [tuple(client_)[:1] for client_ in remote.sql("SELECT origin_id, last_sync_version FROM sync_clients()")] == [(client.origin,)]


def test_each_way_alone(remote, client):
    add(remote, 1)
    add(client, 10)
    assert sync_with(client, remote.url, "sync_pull")["pulled"] == 1
    assert len(remote.rows("person")) == 1
    assert sync_with(client, remote.url, "sync_push")["pushed"] == 1
    assert client.hash() == remote.hash()


def test_many_batches_are_one_call(remote, client):
    add(remote, *range(1, 3001))
    add(client, *range(5001, 7501))
    answer = sync_with(client, remote.url)
    assert (answer["pulled"], answer["pushed"]) == (3000, 2500)
    assert client.hash() == remote.hash()
    answer = sync_with(client, remote.url)
    assert (answer["pulled"], answer["pushed"], answer["applied"]) == (0, 0, 0)


def test_small_batches(remote, client):
    add(remote, *range(1, 26))
    add(client, *range(101, 126))
    answer = sync_with(client, remote.url, batchSize=4)
    assert (answer["pulled"], answer["pushed"]) == (25, 25) and answer["batches"] >= 14
    assert client.hash() == remote.hash()


def test_larger_batches_than_a_gateway_gives(remote, client):
    add(remote, *range(1, 12_001))
    add(client, *range(20_001, 32_001))
    sync_with(client, remote.url, batchSize=10_000)
    assert client.hash() == remote.hash()


def test_conflicts_end_the_same_on_both_sides(remote, client):
    add(remote, 1)
    sync_with(client, remote.url)
    remote.sql("UPDATE Person SET Name = 'server'")
    let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'client'")
    assert sync_with(client, remote.url)["conflicts"] >= 1
    sync_with(client, remote.url)
    assert remote.rows("person") == client.rows("Person") == [(1, "client", None)]


def test_a_relay_passes_changes_on(remote, client, other, make_gateway):
    """other -> the gateway of client -> remote, and back."""
    client.sql("PRAGMA journal_mode = WAL")
    relay = make_gateway(client.path)
    add(remote, 1)
    add(other, 2)
    for _ in range(2):
        sync_with(other, relay.url)
        sync_with(client, remote.url)
    sync_with(other, relay.url)
    assert remote.hash() == client.hash() == other.hash()


def test_a_unix_socket(postgres, client):
    add(postgres, 1)
    assert sync_with(client, postgres.socket_url)["pulled"] == 1


def test_an_extension_in_a_schema_of_its_own(cluster, client):
    from pg_replica import PgReplica

    with PgReplica(cluster, schema="My sync") as server:
        server.sql("CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)")
        server.sql("""SELECT "My sync".sync_track_table('person')""")
        add(client, 1)
        sync_with(client, f"postgres://postgres@127.0.0.1:{cluster.port}/{server.database}")
        assert server.rows("person") == [(1, "x", None)]


# --- transactions

def test_it_is_refused_within_a_transaction(remote, client):
    with pytest.raises(DRIVER_ERRORS, match="sync: InvalidArgument"), client.transaction("BEGIN"):
        sync_with(client, remote.url)
    client.sql("CREATE TABLE one(x)")
    client.sql("INSERT INTO one VALUES (1)")
    with sync_error("InvalidArgument"):
        client.sql("SELECT sync_with(?) FROM one", remote.url)
    with sync_error("InvalidArgument"):
        client.sql("INSERT INTO one SELECT sync_with(?)", remote.url)
    sync_with(client, remote.url)


@pytest.mark.parametrize("journal", ["DELETE", "WAL"])
def test_others_write_while_the_network_is_waited_for(client, open_replica, server, make_gateway, proxy, journal):
    """Nothing is locked for longer than a batch takes: another connection with no patience of its own writes all the time."""
    client.sql(f"PRAGMA journal_mode = {journal}")
    add(server, *range(1, 2001))
    slow = proxy(make_gateway(server.path).port, delay=0.15)
    add(client, *range(5001, 6001))
    writer = open_replica("client")
    answer = {}
    thread = threading.Thread(target=lambda: answer.update(sync_with(client, f"http://127.0.0.1:{slow.port}", batchSize=200)))
    thread.start()
    waits, seen, id = [], set(), 10_000
    while thread.is_alive():
        started = time.monotonic()
        writer.sql("INSERT INTO Person VALUES (?, 'w', NULL)", id)
        waits.append(time.monotonic() - started)
        id += 1
        note = writer.status.get("sync", {})
        seen.add((note.get("phase"), note.get("batches")))
        time.sleep(0.02)
    thread.join()
    assert answer["pulled"] == 2000
    assert len(waits) > 20
    # The network is waited for at least 150 ms at a time.
    assert sorted(waits)[len(waits) * 9 // 10] < 0.12, sorted(waits)[-5:]
    assert len(seen) > 2, "the progress is visible to others while it runs"
    sync_with(client, f"http://127.0.0.1:{slow.port}")
    assert client.hash() == server.hash()


def test_it_can_be_interrupted(client, server, make_gateway, proxy, driver):
    add(server, *range(1, 100))
    silent = proxy(make_gateway(server.path).port, delay=30)
    timer = threading.Timer(0.5, client.connection.interrupt)
    timer.start()
    started = time.monotonic()
    with pytest.raises(DRIVER_ERRORS, match="(?i)interrupt"):
        sync_with(client, f"http://127.0.0.1:{silent.port}")
    assert time.monotonic() - started < 5
    silent.delay = 0
    sync_with(client, f"http://127.0.0.1:{silent.port}")
    assert client.hash() == server.hash()


def test_a_server_that_never_answers(client, server, make_gateway, proxy):
    silent = proxy(make_gateway(server.path).port, delay=60)
    for scheme in ("http", "postgres"):
        started = time.monotonic()
        with pytest.raises(DRIVER_ERRORS, match="no answer in time|timed out"):
            sync_with(client, f"{scheme}://x@127.0.0.1:{silent.port}/x".replace("http://x@", "http://"), timeoutMs=800)
        assert time.monotonic() - started < 5


# --- several at once, and rights

def test_two_connections_of_one_client_sync_at_the_same_time(remote, client, open_replica):
    client.sql("PRAGMA journal_mode = WAL")
    add(remote, *range(1, 1001))
    add(client, *range(5001, 6001))
    failures = []

    def run():
        try:
            connection = open_replica("client")
            for _ in range(5):
                sync_with(connection, remote.url, batchSize=100)
        except DRIVER_ERRORS as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert client.hash() == remote.hash()
    assert len(client.log()) == len(remote.log()) == 2000


def test_a_role_needs_what_the_readme_grants(postgres, client):
    postgres.sql("CREATE ROLE phone LOGIN")
    url = postgres.url.replace("postgres@", "phone@")
    add(client, 1)
    try:
        for function in ("sync_register_client", "sync_apply_batch", "sync_fetch_changes"):
            with sync_error("PermissionDenied"):
                sync_with(client, url)
            postgres.sql(f"GRANT EXECUTE ON FUNCTION {function} TO phone")
        postgres.sql("GRANT SELECT, INSERT, UPDATE, DELETE ON person TO phone")
        sync_with(client, url)
        assert client.hash() == postgres.hash()
    finally:
        postgres.sql("DROP OWNED BY phone")
        postgres.sql("DROP ROLE phone")
