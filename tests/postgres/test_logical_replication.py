"""Logical replication into a tracked table, and out of one: what a subscription writes is logged as any other write, once, whatever becomes of
its workers; and what a client pushes reaches the subscribers of a tracked table.
"""

import contextlib
import json
import os
import signal
import time
import uuid

import psycopg
import pytest

from cluster import Cluster
from crafted import stamp
from pg_replica import PgReplica
from replay import assert_replays, table_rows

# A transaction of more than a few rows is streamed before it has ended, and a worker that ended is started again at once.
SETTINGS = "wal_level = logical\nlogical_decoding_work_mem = 64kB\nwal_retrieve_retry_interval = 20ms\n"
T = "CREATE TABLE t(id bigint PRIMARY KEY, v int, note text)"
CLIENT = "CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER, note TEXT)"
LONG = 5_000  # characters, which the server keeps out of line


def until(condition, what, seconds=30):
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(psycopg.OperationalError):
            found = condition()
            if found:
                return found
        time.sleep(0.01)
    raise AssertionError(f"this did not come about: {what}")


@pytest.fixture(scope="module")
def clusters():
    """The publisher's, and the subscriber's."""
    pair = Cluster(SETTINGS), Cluster(SETTINGS)
    yield pair
    for cluster in pair:
        cluster.close()


class Link:
    """A database whose tables `source` publishes, and one, `target`, that subscribes to them."""

    def __init__(self, source, target, name, tables, options):
        self.source, self.target, self.name = source, target, name
        source.sql(f"CREATE PUBLICATION {name} FOR {tables}")
        target.sql(
            f"CREATE SUBSCRIPTION {name} CONNECTION 'host={source.cluster.folder} dbname={source.database} user=postgres'"
            f" PUBLICATION {name}" + (f" WITH ({options})" if options else "")
        )

    def worker(self):
        """The process that applies changes; None if there is none just now."""
        found = self.target.sql("SELECT pid FROM pg_stat_subscription WHERE subname = ? AND relid IS NULL AND pid IS NOT NULL", self.name)
        return found[0][0] if found else None

    def waits_for_a_lock(self):
        """The subscription's process that does."""
        found = self.target.sql(
            "SELECT s.pid FROM pg_stat_subscription s JOIN pg_locks l ON l.pid = s.pid WHERE s.subname = ? AND NOT l.granted", self.name
        )
        return found[0][0] if found else None

    def has_copied(self):
        return self.target.value(
            "SELECT coalesce(bool_and(srsubstate = 'r'), false) FROM pg_subscription_rel"
            " WHERE srsubid = (SELECT oid FROM pg_subscription WHERE subname = ?)", self.name,
        )

    def catch_up(self):
        """Until all that was committed at the source so far is in the target."""
        until(self.has_copied, "the initial copy")
        end = self.source.value("SELECT pg_current_wal_lsn()::text")
        until(
            lambda: self.source.value(
                "SELECT coalesce(bool_or(replay_lsn >= ?::pg_lsn), false) FROM pg_stat_replication WHERE application_name = ?", end, self.name
            ),
            "the subscriber has caught up",
        )


@pytest.fixture
def make_link(clusters):
    """Two databases with these statements run, the target's tables tracked, and a subscription."""
    links, opened = [], []

    def make(*statements, rows=(), track=("t",), target=(), tables="TABLE t", options="", tracked_source=False):
        source = PgReplica(clusters[0], None if tracked_source else clusters[0].create_database())
        opened.append(source)
        sink = PgReplica(clusters[1])
        opened.append(sink)
        for statement in statements:
            source.sql(statement)
        for statement in target or statements:
            sink.sql(statement)
        for table in track:
            sink.track(table)
            if tracked_source:
                source.track(table)
        for statement in rows:
            source.sql(statement)
        links.append(Link(source, sink, f"link_{source.database}", tables, options))
        return links[-1]

    yield make
    for link in links:
        with link.target.again() as session:
            session.sql(f"DROP SUBSCRIPTION {link.name}")
    for replica in opened:
        replica.close()


@pytest.fixture
def client(make_replica):
    return make_replica("client", CLIENT, track=["t"])


def assert_arrived(link, *tables):
    """Both databases have the same rows, and the log's replay is the table."""
    link.catch_up()
    for table in tables or ("t",):
        assert table_rows(link.target, table) == table_rows(link.source, table)
        assert_replays(link.target, table)


def assert_is_local(target, since):
    """All was logged as written here, after that moment, and no stamp goes back."""
    entries = target.log()
    stamps = [entry["timestamp"] for entry in entries]
    assert {entry["origin"] for entry in entries} == {target.origin}
    assert stamps == sorted(stamps) and since <= stamps[0] and stamps[-1] <= stamp()


def operations(target, after=0):
    return [(entry["operation"], json.loads(entry["pk_value"])["id"]) for entry in target.log() if entry["version"] > after]


def last(target):
    return target.value("SELECT coalesce(max(version), 0) FROM _sync_log")


def test_every_kind_of_change_is_logged_once(make_link, client):
    begun = stamp()
    link = make_link(T, rows=[f"INSERT INTO t SELECT g, g, repeat(chr(97 + g % 20), {LONG}) FROM generate_series(1, 50) g"])
    source, target = link.source, link.target
    assert_arrived(link)
    assert operations(target) == [("insert", n) for n in range(1, 51)]
    steps = [
        (["INSERT INTO t VALUES (100, 1, 'a'), (101, 2, NULL)"], [("insert", 100), ("insert", 101)]),
        # What is out of line is not sent again with another column.
        (["UPDATE t SET v = v + 1 WHERE id IN (1, 2)"], [("update", 1), ("update", 2)]),
        (["UPDATE t SET v = v WHERE id = 1"], []),
        (["UPDATE t SET id = id + 1000 WHERE id IN (3, 4)"], [("delete", 3), ("insert", 1003), ("delete", 4), ("insert", 1004)]),
        (["DELETE FROM t WHERE id < 3"], [("delete", 1), ("delete", 2)]),
        (
            ["BEGIN", "INSERT INTO t VALUES (1, 1, 'again')", "SAVEPOINT s", "DELETE FROM t", "ROLLBACK TO s", "UPDATE t SET v = 2 WHERE id = 1",
             "DELETE FROM t WHERE id = 100", "COMMIT"],
            [("insert", 1), ("update", 1), ("delete", 100)],
        ),
        (["BEGIN", "INSERT INTO t VALUES (5000)", "ROLLBACK"], []),
    ]
    for statements, expected in steps:
        before = last(target)
        for statement in statements:
            source.sql(statement)
        assert_arrived(link)
        assert operations(target, before) == expected
        client.pull(target)
        assert client.hash() == target.hash()
    before, kept = last(target), target.value("SELECT count(*) FROM t")
    source.sql("TRUNCATE t")
    assert_arrived(link)
    assert [operation for operation, _ in operations(target, before)] == ["delete"] * kept
    client.pull(target)
    assert client.rows("t") == [] and client.hash() == target.hash()
    assert_is_local(target, begun)


def test_a_transaction_that_is_streamed_is_logged_when_it_has_committed(make_link, client):
    link = make_link(T, options="streaming = on")
    link.catch_up()
    source, target = link.source, link.target
    source.sql("BEGIN")
    source.sql("INSERT INTO t SELECT g, g, repeat('x', 100) FROM generate_series(1, 2000) g")
    source.sql("SAVEPOINT s")
    source.sql("UPDATE t SET v = -1")
    source.sql("ROLLBACK TO s")
    source.sql("UPDATE t SET v = v + 1 WHERE id % 2 = 0")
    with source.again() as other:
        other.sql("INSERT INTO t VALUES (9999, 0, 'meanwhile')")
        until(lambda: target.fetch()["toVersion"] > 0, "what has committed meanwhile is fetched")
        assert operations(target) == [("insert", 9999)]
        source.sql("COMMIT")
    assert_arrived(link)
    assert source.value("SELECT stream_txns FROM pg_stat_replication_slots WHERE slot_name = ?", link.name) > 0
    assert operations(target, 1) == [("insert", n) for n in range(1, 2001)] + [("update", n) for n in range(2, 2001, 2)]
    client.pull(target)
    assert client.hash() == target.hash()


def test_a_fetch_waits_for_the_worker_and_a_listener_hears_of_it(make_link):
    link = make_link(T, rows=["INSERT INTO t VALUES (1)"])
    link.catch_up()
    source, target = link.source, link.target
    with target.again() as blocker, target.again() as listener:
        blocker.sql("BEGIN")
        blocker.sql("SELECT FROM t WHERE id = 1 FOR UPDATE")
        source.sql("INSERT INTO t VALUES (2)")
        link.catch_up()
        listener.sql("LISTEN pg_sync")
        with source.transaction():
            source.sql("INSERT INTO t VALUES (3), (4)")
            source.sql("UPDATE t SET v = 1 WHERE id = 1")
        until(link.waits_for_a_lock, "the worker waits for the row")
        target.sql("INSERT INTO t VALUES (1000)")
        assert (target.fetch(2)["changes"], target.fetch(2)["toVersion"]) == ([], 2)
        blocker.sql("COMMIT")
        link.catch_up()
        batch = target.fetch(2)
        assert [json.loads(change["pkValue"])["id"] for change in batch["changes"]] == [3, 4, 1000, 1]
        notes = [int(note.payload) for note in listener.connection.notifies(timeout=0.5)]
        assert max(notes) == batch["toVersion"] and len(notes) == 2


def test_a_transaction_that_is_prepared_holds_fetches_back(make_link):
    link = make_link(T, options="two_phase = on")
    link.catch_up()
    source, target = link.source, link.target
    until(lambda: target.value("SELECT subtwophasestate = 'e' FROM pg_subscription WHERE subname = ?", link.name), "two phases")
    source.sql("BEGIN")
    source.sql("INSERT INTO t VALUES (1), (2)")
    source.sql("PREPARE TRANSACTION 'two'")
    until(lambda: target.sql("SELECT 1 FROM pg_prepared_xacts WHERE database = current_database()"), "it is prepared at the subscriber")
    target.sql("INSERT INTO t VALUES (3)")
    assert target.fetch()["changes"] == []
    source.sql("COMMIT PREPARED 'two'")
    until(lambda: len(target.fetch()["changes"]) == 3, "it is fetched")
    assert_replays(target, "t")


def end(link, how, pid):
    """Ends a process of the subscriber's. The server restarts when one is killed."""
    target = link.target
    if how == "kill":
        with target.cluster.connect() as witness:
            os.kill(pid, signal.SIGKILL)
            target.cluster.wait_for_crash(witness)
        target.cluster.start_again()
        link.target = target.again()
    elif how == "terminate":
        target.sql("SELECT pg_terminate_backend(?)", pid)
    else:
        target.sql(f"ALTER SUBSCRIPTION {link.name} DISABLE")
        target.sql(f"ALTER SUBSCRIPTION {link.name} ENABLE")


@pytest.mark.parametrize("how", ["terminate", "disable", "kill"])
def test_what_a_worker_that_ended_had_written_is_logged_once(make_link, client, how):
    link = make_link(T, rows=["INSERT INTO t VALUES (1)"])
    link.catch_up()
    blocker = link.target.again()
    blocker.sql("BEGIN")
    blocker.sql("SELECT FROM t WHERE id = 1 FOR UPDATE")
    with link.source.transaction():
        link.source.sql("INSERT INTO t SELECT generate_series(2, 300)")
        link.source.sql("UPDATE t SET v = 1 WHERE id = 1")
    pid = until(link.waits_for_a_lock, "the worker waits for the row")
    link.target.sql("INSERT INTO t VALUES (1000)")
    client.pull(link.target)
    end(link, how, pid)
    with contextlib.suppress(psycopg.OperationalError):
        blocker.sql("ROLLBACK")
    blocker.close()
    link.source.sql("UPDATE t SET v = 2 WHERE id = 300")
    link.catch_up()
    assert_replays(link.target, "t")
    assert sorted(operations(link.target)) == sorted(
        [("insert", n) for n in (*range(1, 301), 1000)] + [("update", 1), ("update", 300)]
    )
    client.pull(link.target)
    assert client.hash() == link.target.hash()


@pytest.mark.parametrize("how", ["terminate", "kill"])
def test_a_copy_that_was_cut_off_is_logged_once(make_link, client, how):
    """A row that somebody is about to write keeps the copy waiting."""
    link = make_link(T, rows=["INSERT INTO t SELECT generate_series(1, 2000)"], options="enabled = false")
    blocker = link.target.again()
    blocker.sql("BEGIN")
    blocker.sql("INSERT INTO t VALUES (1500)")
    link.target.sql(f"ALTER SUBSCRIPTION {link.name} ENABLE")
    pid = until(link.waits_for_a_lock, "the copy waits for the row")
    end(link, how, pid)
    with contextlib.suppress(psycopg.OperationalError):
        blocker.sql("ROLLBACK")
    blocker.close()
    assert_arrived(link)
    assert operations(link.target) == [("insert", n) for n in range(1, 2001)]
    client.pull(link.target)
    assert client.hash() == link.target.hash()


def test_rows_of_partitions_and_of_tables_that_refer_to_each_other(make_link, make_replica):
    parts = (
        "CREATE TABLE p(id bigint, v int, PRIMARY KEY (id, v)) PARTITION BY RANGE (v)",
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)",
        # Its columns are in another order.
        "CREATE TABLE p2(v int NOT NULL, id bigint NOT NULL)",
        "ALTER TABLE p ATTACH PARTITION p2 FOR VALUES FROM (10) TO (20)",
        "CREATE TABLE parent(id bigint PRIMARY KEY)",
        "CREATE TABLE child(id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE)",
    )
    rows = ["INSERT INTO p SELECT g, g FROM generate_series(1, 15) g"]
    link = make_link(*parts, rows=rows, track=("p", "parent", "child"), tables="TABLE p, parent, child")
    source, target = link.source, link.target
    client = make_replica(
        "client", "CREATE TABLE p(id INTEGER, v INTEGER, PRIMARY KEY (id, v))", "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent)", track=["p", "parent", "child"],
    )
    for statement in (
        "UPDATE p SET v = v + 8 WHERE v < 5", "INSERT INTO parent SELECT generate_series(1, 3)",
        "INSERT INTO child SELECT g, 1 + g % 3 FROM generate_series(1, 9) g", "DELETE FROM parent WHERE id = 1", "UPDATE child SET parent = 2",
    ):
        source.sql(statement)
    link.catch_up()
    client.pull(target)
    assert client.hash() == target.hash() and client.rows("child") == source.rows("child") and client.rows("p") == source.rows("p")
    assert_replays(target, "parent", "child")
    source.sql("TRUNCATE parent CASCADE")
    source.sql("TRUNCATE p")
    link.catch_up()
    client.pull(target)
    assert client.hash() == target.hash() and client.rows("child") == client.rows("p") == []


def test_a_table_of_somebody_who_has_no_right_on_the_log(make_link):
    """Newer servers write as the table's owner."""
    link = make_link(T, target=[T, "CREATE ROLE replicated_owner", "ALTER TABLE t OWNER TO replicated_owner"], rows=["INSERT INTO t VALUES (1)"])
    link.catch_up()
    link.source.sql("UPDATE t SET v = 1")
    link.source.sql("TRUNCATE t")
    link.catch_up()
    assert operations(link.target) == [("insert", 1), ("update", 1), ("delete", 1)]


def test_a_client_writes_what_is_replicated_too(make_link, client):
    link = make_link(T, rows=["INSERT INTO t SELECT g, 0, NULL FROM generate_series(1, 40) g"])
    link.catch_up()
    client.pull(link.target)
    for turn in range(8):
        client.sql("UPDATE t SET note = ? WHERE id % 8 = ?", f"client {turn}", turn)
        link.source.sql("UPDATE t SET v = v + 1")
        client.sync(link.target)
    link.catch_up()
    client.sync(link.target)
    assert client.hash() == link.target.hash()
    assert_replays(link.target, "t")
    assert link.target.value("SELECT count(*) FROM t WHERE v = 8") == 40, "a replicated change that came last is the row"


def test_what_a_client_pushes_reaches_the_subscribers_of_its_server(make_link, make_replica, client):
    link = make_link(T, tracked_source=True, rows=["INSERT INTO t VALUES (1, 1, 'there')"])
    link.catch_up()
    source, target = link.source, link.target
    client.pull(source)
    client.many("INSERT INTO t VALUES (?, ?, ?)", [(n, n, "client") for n in range(2, 400)])
    client.sql("UPDATE t SET note = 'changed' WHERE id = 1")
    client.sync(source)
    client.sql("DELETE FROM t WHERE id = 2")
    client.sql("UPDATE t SET v = 0 WHERE id = 3")
    client.sync(source)
    assert_arrived(link)
    assert client.hash() == source.hash() == target.hash()
    second = make_replica("second", CLIENT, track=["t"])
    second.pull(target)
    assert second.hash() == source.hash()
    assert source.origin != target.origin


def test_a_publication_of_all_tables_does_not_carry_what_is_the_extensions_own(make_link, make_replica, client):
    link = make_link(T, tracked_source=True, rows=["INSERT INTO t VALUES (1)"], tables="ALL TABLES")
    source, target = link.source, link.target
    link.catch_up()
    origins = source.origin, target.origin
    client.pull(source)
    client.sql("INSERT INTO t VALUES (2, 2, 'client')")
    client.sync(source)
    source.sql("UPDATE t SET v = 1")
    source.sql("SELECT sync_regenerate_origin()")
    assert_arrived(link)
    assert operations(target) == [("insert", 1), ("insert", 2), ("update", 1), ("update", 2)]
    assert_is_local(target, "2000")
    assert source.origin != origins[0] and target.origin == origins[1] and target.sql("SELECT * FROM sync_clients()") == []
    second = make_replica("second", CLIENT, track=["t"])
    second.pull(target)
    second.sql("UPDATE t SET v = 7")
    second.sync(target)
    assert second.hash() == target.hash()


def test_what_one_of_our_functions_writes_within_a_workers_trigger_stays(make_link):
    other = str(uuid.UUID(int=7))
    link = make_link(T)
    link.catch_up()
    link.target.script(f"""
        CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.sync_register_client('{other}', 0); RETURN NULL; END $$;
        CREATE TRIGGER f AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f();
        ALTER TABLE t ENABLE ALWAYS TRIGGER f;
    """)
    link.source.sql("INSERT INTO t VALUES (1)")
    link.catch_up()
    assert [client for client, *_ in link.target.sql("SELECT * FROM sync_clients()")] == [other]
