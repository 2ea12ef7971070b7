"""The extension in real processes: many connections and threads, any journal mode, users' transactions, and clean closing."""

import json
import os
import subprocess
import sys
import threading

import apsw
import pytest

from conftest import PERSON
from crafted import person, pull, push
from replica import DRIVER_ERRORS, REPOSITORY, Replica, settle

JOURNALS = ["DELETE", "TRUNCATE", "PERSIST", "WAL"]


def exercise(replica, server):
    """Call every function that prepares statements."""
    replica.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    replica.sync(server)
    replica.apply(push(person(2, "b")))
    replica.sql("SELECT sync_hash(), sync_state(), sync_status(), sync_compact(), sync_reconcile('Person'), sync_retry()")
    for name in ("tables", "changes", "conflicts", "rejections", "clients", "stale_clients", "subscriptions"):
        replica.sql(f"SELECT * FROM sync_{name}()")
    replica.sql("SELECT * FROM sync_check_table('Person')")
    subscription = replica.value("SELECT sync_subscribe('Person')")
    replica.sql("SELECT sync_poll(?)", subscription)
    with pytest.raises(DRIVER_ERRORS):
        replica.apply("nonsense")


def open_files():
    """What this process has open."""
    links = []
    for descriptor in os.listdir("/proc/self/fd"):
        try:
            links.append(os.readlink(f"/proc/self/fd/{descriptor}"))
        except OSError:
            continue
    return links


def in_threads(count, work):
    """Run `work(number)` in that many threads and raise what any of them raised."""
    failures = []

    def guarded(number):
        try:
            work(number)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=guarded, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]


def test_closing_right_after_the_calls_releases_the_file(server, client):
    exercise(client, server)
    assert str(client.path) in open_files()
    client.close()
    assert str(client.path) not in open_files(), "a statement that is still prepared keeps the file open"


def test_no_statement_stays_prepared(server, client):
    if not client.value("SELECT count(*) FROM pragma_module_list WHERE name = 'sqlite_stmt'"):
        pytest.skip("this SQLite does not list prepared statements")
    exercise(client, server)
    ours = client.sql("SELECT sql FROM sqlite_stmt WHERE sql LIKE '%\\_sync\\_%' ESCAPE '\\'")
    assert ours == []


@pytest.mark.parametrize("journal", JOURNALS)
def test_every_journal_mode_is_fine(server, client, journal):
    for replica in (server, client):
        replica.sql(f"PRAGMA journal_mode = {journal}")
    exercise(client, server)
    server.sql("UPDATE Person SET Name = 'server' WHERE Id = 1")
    settle(server, client, rounds=2)
    assert client.hash() == server.hash()
    assert client.value("PRAGMA integrity_check") == "ok"


def test_several_connections_of_one_process_see_the_same(server, open_replica):
    second = open_replica("server")
    second.sql("INSERT INTO Person VALUES (1, 'second', NULL)")
    server.sql("INSERT INTO Person VALUES (2, 'first', NULL)")
    assert second.hash() == server.hash()
    assert second.state == server.state
    second.sql("CREATE TABLE t(id INTEGER PRIMARY KEY)")
    second.track("t")
    server.sql("INSERT INTO t VALUES (7)")
    assert [entry["table_name"] for entry in second.log()] == ["Person", "Person", "t"]


def test_connections_to_different_databases_do_not_mix(server, client, other):
    for number, replica in enumerate((server, client, other)):
        replica.sql("INSERT INTO Person VALUES (?, 'x', NULL)", number)
    assert len({replica.origin for replica in (server, client, other)}) == 3
    assert [len(replica.log()) for replica in (server, client, other)] == [1, 1, 1]


def test_a_write_of_another_connection_during_an_apply_is_captured(server, open_replica):
    writer = open_replica("server", extension=False)
    with server.transaction():
        server.apply(push(person(1, "applied")))
        writer.sql("PRAGMA busy_timeout = 0")
        with pytest.raises(DRIVER_ERRORS):
            writer.sql("INSERT INTO Person VALUES (2, 'too early', NULL)")
    writer.sql("INSERT INTO Person VALUES (2, 'written', NULL)")
    assert [entry["origin"] == server.origin for entry in server.log()] == [False, True]


def test_threads_with_a_connection_each_write_and_read_one_database(tmp_path, driver):
    with Replica(tmp_path / "shared.db", driver) as first:
        first.sql("PRAGMA journal_mode = WAL")
        first.sql(PERSON)
        first.track("Person")

        def work(number):
            with Replica(tmp_path / "shared.db", driver) as mine:
                for step in range(20):
                    mine.sql("INSERT INTO Person VALUES (?, 'x', NULL)", 100 * number + step)
                    mine.fetch(0, 10)
                    mine.hash()

        in_threads(4, work)
        assert len(first.log()) == len(first.rows("Person")) == 80
        assert [entry["version"] for entry in first.log()] == sorted(entry["version"] for entry in first.log())


def test_threads_sync_databases_of_their_own_at_the_same_time(tmp_path, driver):
    def work(number):
        replicas = [Replica(tmp_path / f"{role}{number}.db", driver) for role in ("server", "client")]
        for replica in replicas:
            replica.sql(PERSON)
            replica.track("Person")
        server, client = replicas
        for step in range(10):
            server.sql("INSERT INTO Person VALUES (?, 's', NULL)", 2 * step)
            client.sql("INSERT INTO Person VALUES (?, 'c', NULL)", 2 * step + 1)
            client.sync(server)
        settle(server, client, rounds=1)
        assert client.hash() == server.hash()
        for replica in replicas:
            replica.close()

    in_threads(4, work)


def test_threads_apply_to_one_server_at_the_same_time(tmp_path, driver):
    with Replica(tmp_path / "server.db", driver) as server:
        server.sql("PRAGMA journal_mode = WAL")
        server.sql(PERSON)
        server.track("Person")

        def work(number):
            with Replica(tmp_path / "server.db", driver) as mine, Replica(tmp_path / f"client{number}.db", driver) as client:
                client.sql(PERSON)
                client.track("Person")
                for step in range(10):
                    client.sql("INSERT INTO Person VALUES (?, 'x', NULL)", 100 * number + step)
                    client.push(mine)

        in_threads(4, work)
        assert len(server.rows("Person")) == 40


# Inside a user's transaction


def test_a_batch_in_a_transaction_that_is_rolled_back_leaves_nothing(client):
    client.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad'); END")
    client.sql("INSERT INTO Person VALUES (1, 'mine', NULL)")
    before = client.state, client.rows("Person"), client.log()
    client.sql("BEGIN")
    result = client.apply(pull(person(1, "conflict"), person(2, "fine"), person(3, "bad")))
    assert (result["applied"] >= 1, result["rejected"]) == (True, 1)
    client.sql("ROLLBACK")
    assert (client.state, client.rows("Person"), client.log()) == before
    assert client.conflicts() == client.rejections() == []


def test_a_batch_in_a_savepoint_that_is_rolled_back_leaves_nothing(client):
    client.sql("BEGIN")
    client.sql("INSERT INTO Person VALUES (1, 'mine', NULL)")
    client.sql("SAVEPOINT s")
    client.apply(pull(person(2, "fine")))
    client.sql("ROLLBACK TO s")
    client.sql("COMMIT")
    assert client.rows("Person") == [(1, "mine", None)] and client.cursor == 0


def test_a_batch_in_a_transaction_that_commits_stays(client):
    with client.transaction():
        client.apply(pull(person(1, "a")))
        client.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
        client.apply(pull(person(3, "c"), after=1))
    assert [row[0] for row in client.rows("Person")] == [1, 2, 3]
    assert client.cursor == 2
    assert [entry["origin"] == client.origin for entry in client.log()] == [False, True, False]


def test_a_failing_batch_leaves_the_users_transaction_as_it_was(client):
    client.sql("BEGIN")
    client.sql("INSERT INTO Person VALUES (1, 'mine', NULL)")
    with pytest.raises(DRIVER_ERRORS):
        client.apply(pull(person(2, "a"), {**person(3, "b"), "operation": "Explode"}))
    client.sql("COMMIT")
    assert client.rows("Person") == [(1, "mine", None)]
    assert len(client.log()) == 1


def test_autocommit_is_on_again_after_every_call(server, client):
    exercise(client, server)
    for replica in (server, client):
        replica.sql("BEGIN IMMEDIATE")
        replica.sql("ROLLBACK")


# Transient failures


def test_a_busy_database_fails_the_batch_and_moves_nothing(client, open_replica):
    client.sql("INSERT INTO Person VALUES (1, 'mine', NULL)")
    before = client.state
    blocker = open_replica("client", extension=False)
    client.sql("PRAGMA busy_timeout = 0")
    batch = pull(person(2, "a"))
    blocker.sql("BEGIN IMMEDIATE")
    with pytest.raises(DRIVER_ERRORS, match="locked|busy"):
        client.apply(batch)
    blocker.sql("ROLLBACK")
    assert client.state == before and client.rejections() == []
    assert client.apply(batch)["applied"] == 1


def test_a_full_database_fails_the_batch_and_moves_nothing(client):
    before = client.state
    pages = client.value("PRAGMA page_count")
    batch = pull(*(person(id, "x" * 2000) for id in range(1, 200)))
    client.sql(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(DRIVER_ERRORS, match="full"):
        client.apply(batch)
    assert client.state == before and client.rows("Person") == [] and client.rejections() == []
    client.sql("PRAGMA max_page_count = 100000")
    assert client.apply(batch)["applied"] == 199


def code_of(error):
    """The primary result code of a driver's error."""
    return getattr(error, "sqlite_errorcode", None) or error.result


def test_an_error_of_the_engine_keeps_its_result_code(client, open_replica):
    blocker = open_replica("client", extension=False)
    client.sql("PRAGMA busy_timeout = 0")
    batch = json.dumps(pull(person(1, "a")))
    blocker.sql("BEGIN IMMEDIATE")
    with pytest.raises(DRIVER_ERRORS) as busy:
        client.apply(batch)
    blocker.sql("ROLLBACK")
    client.sql("PRAGMA query_only = 1")
    with pytest.raises(DRIVER_ERRORS) as read_only:
        client.apply(batch)
    client.sql("PRAGMA query_only = 0")
    client.sql(f"PRAGMA max_page_count = {client.value('PRAGMA page_count')}")
    with pytest.raises(DRIVER_ERRORS) as full:
        client.apply(pull(*(person(id, "x" * 2000) for id in range(1, 200))))
    client.sql("PRAGMA max_page_count = 100000")
    with pytest.raises(DRIVER_ERRORS) as own:
        client.apply("nonsense")
    codes = [code_of(error.value) & 0xFF for error in (busy, read_only, full, own)]
    assert codes == [apsw.SQLITE_BUSY, apsw.SQLITE_READONLY, apsw.SQLITE_FULL, apsw.SQLITE_ERROR]
    assert str(own.value).startswith("sync: InvalidBatch: ")


def test_readers_do_not_stop_an_apply_in_wal_mode(client, open_replica):
    client.sql("PRAGMA journal_mode = WAL")
    reader = open_replica("client")
    reader.sql("BEGIN")
    assert reader.rows("Person") == []
    client.apply(pull(person(1, "a")))
    assert reader.rows("Person") == [] and reader.fetch()["changes"] == []
    reader.sql("COMMIT")
    assert reader.rows("Person") == [(1, "a", None)]


@pytest.mark.parametrize("columns", ["Id, Name", "Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT"])
def test_a_temporary_table_of_the_same_name_does_not_take_what_is_synced(server, client, columns):
    client.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    client.sync(server)
    client.sql(f"CREATE TEMP TABLE Person({columns})")
    client.sql("ALTER TABLE main.Person ADD COLUMN Age INT")
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    client.sql("UPDATE main.Person SET Age = 41")
    server.many("INSERT INTO Person VALUES (?, 'x', NULL, 0)", [(id,) for id in range(2, 300)])
    client.sync(server)
    server.sql("UPDATE Person SET Name = 'y' WHERE Id = 2")
    server.sql("DELETE FROM Person WHERE Id = 3")
    client.sync(server)
    assert client.track("Person")["columns"] == ["Id", "Name", "Email", "Age"]
    assert client.sql("SELECT * FROM temp.Person") == [] and client.rejections() == []
    assert client.sql("SELECT * FROM main.Person ORDER BY Id") == server.rows("Person") and len(server.rows("Person")) == 298
    assert client.hash("Person") == server.hash("Person")


TWO_LIBRARIES = """
import sys, replica
first, second = replica.connect(sys.argv[1], "apsw"), replica.connect(sys.argv[1], "sqlite3")
replica.load_extension(first)
try:
    replica.load_extension(second)
except replica.DRIVER_ERRORS as error:
    print(error)
first.execute("SELECT sync_init()").fetchall()
first.close()
replica.load_extension(second)
print(second.execute("SELECT sync_hash()").fetchone())
"""


def test_two_sqlite_libraries_in_one_process_take_turns(tmp_path):
    command = [sys.executable, "-c", TWO_LIBRARIES, tmp_path / "new.db"]
    ran = subprocess.run(command, cwd=REPOSITORY / "tests", capture_output=True, text=True, timeout=60)
    assert ran.returncode == 0, ran.stderr
    refused, hash_ = ran.stdout.splitlines()
    assert "another SQLite library of this process" in refused and len(hash_) > 64
