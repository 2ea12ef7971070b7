"""No commit is lost: a fetch never passes a change that commits later, and nothing else holds it back."""

import json
import threading
import time

import psycopg
import pytest

INSERT = "INSERT INTO person(id, name) VALUES (?, ?)"


def put(session, key):
    session.sql(INSERT, key, f"row {key}")


def served(session, after=0):
    """The keys of the changes after a version, and how far the fetch came."""
    batch = session.fetch(after)
    return [json.loads(change["pkValue"])["id"] for change in batch["changes"]], batch["toVersion"]


def test_a_change_of_a_slower_transaction_is_waited_for(session):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    put(slow, 1)
    put(fast, 2)
    keys, to = served(reader)
    assert keys == [] and to == 0
    slow.sql("COMMIT")
    assert served(reader, to)[0] == [1, 2]


def test_the_older_transaction_may_take_the_higher_version(session):
    older, younger, reader = session(), session(), session()
    older.sql("BEGIN")
    older.sql("SELECT txid_current()")
    younger.sql("BEGIN")
    put(younger, 1)
    put(older, 2)
    younger.sql("COMMIT")
    keys, to = served(reader)
    assert keys == [1]
    older.sql("COMMIT")
    assert served(reader, to)[0] == [2]


def test_three_sessions_whose_commits_come_in_the_reverse_order(session):
    writers, reader = [session() for _ in range(3)], session()
    for key, writer in enumerate(writers):
        writer.sql("BEGIN")
        put(writer, key)
    seen, cursor = [], 0
    for writer in reversed(writers):
        writer.sql("COMMIT")
        keys, cursor = served(reader, cursor)
        seen += keys
    assert seen == [0, 1, 2]


def test_a_gap_that_was_rolled_back_holds_nothing_back(session):
    writer, reader = session(), session()
    writer.sql("BEGIN")
    put(writer, 1)
    writer.sql("ROLLBACK")
    put(writer, 2)
    assert served(reader)[0] == [2]


def test_a_transaction_that_logged_nothing_holds_nothing_back(session):
    idle, writer, reader = session(), session(), session()
    idle.sql("BEGIN")
    idle.sql("CREATE TABLE untracked(x int)")
    idle.sql("INSERT INTO untracked VALUES (1)")
    put(writer, 1)
    assert served(reader)[0] == [1]
    idle.sql("ROLLBACK")


def test_a_transaction_in_another_database_holds_nothing_back(database, session, make_database):
    other = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text)", track=["person"])
    other.sql("BEGIN")
    put(other, 1)
    put(database, 2)
    assert served(session())[0] == [2]
    other.sql("ROLLBACK")


@pytest.mark.parametrize("first", [True, False], ids=["before", "after"])
def test_a_savepoint_that_is_rolled_back_keeps_the_fence(session, first):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    if not first:
        put(slow, 1)
    slow.sql("SAVEPOINT s")
    put(slow, 2)
    slow.sql("ROLLBACK TO s")
    put(fast, 3)
    put(slow, 4)
    assert served(reader)[0] == []
    slow.sql("COMMIT")
    assert served(reader)[0] == ([3, 4] if first else [1, 3, 4])


def test_a_block_that_fails_inside_a_function_keeps_the_fence(session):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    slow.sql(
        "DO $$ BEGIN BEGIN INSERT INTO person(id) VALUES (1); RAISE 'no'; EXCEPTION WHEN others THEN NULL; END;"
        " INSERT INTO person(id) VALUES (2); END $$"
    )
    put(fast, 3)
    assert served(reader)[0] == []
    slow.sql("COMMIT")
    assert served(reader)[0] == [2, 3]


@pytest.mark.parametrize("ending", ["COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"])
def test_a_prepared_transaction_keeps_the_fence(session, ending):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    put(slow, 1)
    slow.sql("PREPARE TRANSACTION 'x'")
    put(fast, 2)
    put(slow, 3)
    slow.close()
    assert served(reader)[0] == []
    fast.sql(ending)
    assert served(reader)[0] == ([1, 2, 3] if ending.startswith("COMMIT") else [2, 3])


def test_a_backend_takes_the_fence_again_after_it_prepared(session):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    put(slow, 1)
    slow.sql("PREPARE TRANSACTION 'y'")
    slow.sql("BEGIN")
    put(slow, 2)
    fast.sql("COMMIT PREPARED 'y'")
    put(fast, 3)
    assert served(reader)[0] == [1]
    slow.sql("COMMIT")
    assert served(reader)[0] == [1, 2, 3]


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_reader_with_an_old_snapshot_loses_nothing(session, isolation):
    writer, reader = session(), session()
    put(writer, 1)
    reader.sql(f"BEGIN ISOLATION LEVEL {isolation}")
    reader.sql("SELECT count(*) FROM person")
    put(writer, 2)
    assert served(reader)[0] == [1, 2]
    put(writer, 3)
    keys, to = served(reader)
    reader.sql("COMMIT")
    assert keys == [1, 2, 3] and to == 3


@pytest.mark.parametrize("security", ["INVOKER", "DEFINER"])
def test_a_reader_inside_a_function_loses_nothing(session, security):
    slow, fast, reader = session(), session(), session()
    reader.sql(
        f"CREATE FUNCTION fetched(after bigint) RETURNS text STABLE SECURITY {security} LANGUAGE sql"
        " AS 'SELECT sync_fetch_changes(after)'"
    )
    slow.sql("BEGIN")
    put(slow, 1)
    put(fast, 2)
    batch = json.loads(reader.value("SELECT fetched(0)"))
    assert batch["changes"] == [] and batch["toVersion"] == 0
    slow.sql("COMMIT")
    assert len(json.loads(reader.value("SELECT fetched(0)"))["changes"]) == 2


def test_a_transaction_does_not_serve_what_it_may_still_roll_back(session):
    writer = session()
    writer.sql("BEGIN")
    put(writer, 1)
    assert served(writer) == ([], 0)
    writer.sql("COMMIT")
    assert served(writer)[0] == [1]


def test_the_status_says_since_when_and_how_much_is_held_back(session):
    slow, fast, reader = session(), session(), session()
    assert "heldBack" not in reader.status
    slow.sql("BEGIN")
    put(slow, 1)
    put(fast, 2)
    began = slow.value("SELECT to_char(xact_start AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.MS\"Z\"') FROM pg_stat_activity WHERE pid = pg_backend_pid()")
    assert reader.status["heldBack"] == {"versions": 2, "since": began}
    slow.sql("ROLLBACK")
    assert "heldBack" not in reader.status
    slow.sql("BEGIN")
    put(slow, 3)
    slow.sql("PREPARE TRANSACTION 'held'")
    prepared = reader.status["heldBack"]
    assert prepared["versions"] == 1 and prepared["since"] > began
    slow.sql("ROLLBACK PREPARED 'held'")
    assert "heldBack" not in reader.status


def test_no_sql_can_take_the_fence_away(session):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    put(slow, 1)
    slow.sql("SELECT pg_advisory_unlock_all()")
    put(fast, 2)
    assert served(reader)[0] == []
    slow.sql("COMMIT")


def test_the_extension_in_a_schema_of_its_own(make_database):
    database = make_database("CREATE TABLE t(id bigint PRIMARY KEY)", schema="Sync me")
    database.sql('SELECT "Sync me".sync_track_table(?)', "t")
    slow = database.again()
    slow.sql("BEGIN")
    slow.sql("INSERT INTO t VALUES (1)")
    database.sql("INSERT INTO t VALUES (2)")
    assert database.json('SELECT "Sync me".sync_fetch_changes()')["changes"] == []
    slow.sql("COMMIT")
    slow.close()
    assert len(database.json('SELECT "Sync me".sync_fetch_changes()')["changes"]) == 2


@pytest.mark.parametrize("how", ["statement", "copy"])
def test_a_statement_of_many_rows_holds_back_what_commits_before_it(session, how):
    slow, fast, reader = session(), session(), session()
    slow.sql("BEGIN")
    if how == "statement":
        slow.sql("INSERT INTO person(id) SELECT generate_series(1, 1000)")
    else:
        with slow.connection.cursor() as cursor, cursor.copy("COPY person(id) FROM STDIN") as copy:
            for key in range(1, 1001):
                copy.write_row((key,))
    fast.sql("INSERT INTO person(id) SELECT generate_series(2001, 3000)")
    assert served(reader) == ([], 0)
    slow.sql("SAVEPOINT s")
    slow.sql("UPDATE person SET name = 'x' WHERE id <= 500")
    slow.sql("ROLLBACK TO s")
    assert served(reader) == ([], 0)
    slow.sql("COMMIT")
    batch = reader.fetch(0, 10_000)
    assert len(batch["changes"]) == 2000 and not batch["hasMore"]


def test_a_reader_that_waits_for_a_row_of_a_statement_logs_after_it(session):
    """Two statements change the same rows in one order, and the log has them in the same."""
    first, second, reader = session(), session(), session()
    first.sql("INSERT INTO person(id) SELECT generate_series(1, 300)")
    first.sql("BEGIN")
    first.sql("UPDATE person SET name = 'first'")
    waiter = threading.Thread(target=lambda: second.sql("UPDATE person SET name = name || ' second'"))
    waiter.start()
    time.sleep(0.2)
    first.sql("UPDATE person SET email = 'e' WHERE id > 290")
    first.sql("COMMIT")
    waiter.join()
    newest = {change["pkValue"]: json.loads(change["payload"]) for change in reader.fetch(0, 10_000)["changes"]}
    assert {row["name"] for row in newest.values()} == {"first second"}
    assert sum(row["email"] == "e" for row in newest.values()) == 10


def test_a_notification_names_the_last_version_of_a_statement(session):
    writer, listener = session(), session()
    listener.sql("LISTEN pg_sync")
    writer.sql("INSERT INTO person(id) SELECT generate_series(1, 1000)")
    [note] = listener.connection.notifies(timeout=1)
    assert int(note.payload) == max(entry["version"] for entry in writer.log())


def test_a_notification_for_every_transaction_that_logs(session):
    writer, listener = session(), session()
    listener.sql("LISTEN pg_sync")
    put(writer, 1)
    writer.sql("BEGIN")
    put(writer, 2)
    put(writer, 3)
    writer.sql("COMMIT")
    writer.sql("CREATE TABLE untracked(x int)")
    notes = [(note.channel, note.payload) for note in listener.connection.notifies(timeout=1)]
    assert notes == [("pg_sync", "1"), ("pg_sync", "3")]


def test_notifications_can_be_spared_by_a_superuser_only(session):
    writer, listener = session(), session()
    listener.sql("LISTEN pg_sync")
    writer.sql("SET pg_sync.notify = off")
    put(writer, 1)
    writer.sql("RESET pg_sync.notify")
    put(writer, 2)
    assert [note.payload for note in listener.connection.notifies(timeout=1)] == ["2"]
    writer.sql("CREATE ROLE quiet_user")
    try:
        writer.sql("SET ROLE quiet_user")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.sql("SET pg_sync.notify = off")
    finally:
        writer.sql("RESET ROLE")
        writer.sql("DROP ROLE quiet_user")


def test_versions_are_not_given_out_again_after_a_crash(make_database, cluster):
    database = make_database("CREATE TABLE t(id bigint PRIMARY KEY)", track=["t"])
    database.sql("SET synchronous_commit = off")
    database.sql("INSERT INTO t SELECT generate_series(1, 100)")
    seen = database.fetch()
    cluster.stop("immediate")
    cluster.start()
    after = database.again()
    assert after.fetch()["changes"] == seen["changes"]
    with pytest.raises(psycopg.Error):
        database.sql("SELECT 1")
    after.sql("INSERT INTO t VALUES (101)")
    [new] = after.fetch(seen["toVersion"])["changes"]
    assert new["version"] > seen["toVersion"] and new["timestamp"] >= seen["changes"][-1]["timestamp"]
    after.close()


def test_a_prepared_transaction_keeps_the_fence_over_a_crash(make_database, cluster):
    database = make_database("CREATE TABLE t(id bigint PRIMARY KEY)", track=["t"])
    database.sql("BEGIN")
    database.sql("INSERT INTO t VALUES (1)")
    database.sql("PREPARE TRANSACTION 'crash'")
    database.sql("INSERT INTO t VALUES (2)")
    assert database.fetch()["changes"] == []
    cluster.stop("immediate")
    cluster.start()
    after = database.again()
    after.sql("INSERT INTO t VALUES (3)")
    batch = after.fetch()
    assert batch["changes"] == [] and batch["toVersion"] == 0
    after.sql("COMMIT PREPARED 'crash'")
    assert [json.loads(change["pkValue"])["id"] for change in after.fetch()["changes"]] == [1, 2, 3]
    after.close()
