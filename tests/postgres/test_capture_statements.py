"""Statements that log many rows, whose entries are written many at a time: none is lost, none too many, and all are there as soon as the
statement is over, whatever runs within it.
"""

import json
import threading
import time

import pytest

from replay import INSERT, MANY, T, assert_replays, copy_into, logged, trigger


@pytest.fixture
def t(make_database):
    return make_database(T, track=["t"])


def test_every_kind_of_statement_is_in_the_log_as_soon_as_it_is_over(t):
    t.sql("BEGIN")
    total = 0

    def now(added):
        nonlocal total
        total += added
        assert logged(t) == total
        assert t.value("SELECT count(*) FROM _sync_log") == total

    t.sql(INSERT)
    now(MANY)
    t.sql("UPDATE t SET v = v + 1")
    now(MANY)
    copy_into(t, [(MANY + n, n, "copied") for n in range(1, 601)])
    now(600)
    t.sql("DELETE FROM t WHERE id <= 10")
    now(10)
    t.sql("WITH gone AS (DELETE FROM t WHERE id <= 20 RETURNING *) INSERT INTO t SELECT id + 10000, v, note FROM gone")
    now(20)
    t.sql("WITH gone AS (DELETE FROM t WHERE id <= 30 RETURNING *) SELECT count(*) FROM gone")
    now(10)
    t.sql("INSERT INTO t VALUES (31, 0), (-1, 0) ON CONFLICT (id) DO UPDATE SET v = 77")
    now(2)
    t.sql("MERGE INTO t USING (VALUES (32), (-2)) n(id) ON t.id = n.id WHEN MATCHED THEN DELETE WHEN NOT MATCHED THEN INSERT VALUES (n.id)")
    now(2)
    t.sql("UPDATE t SET id = id + 100000 WHERE id BETWEEN 40 AND 49")
    now(20)
    assert len(t.sql("INSERT INTO t SELECT g FROM generate_series(-500, -400) g RETURNING id")) == 101
    now(101)
    left = t.value("SELECT count(*) FROM t")
    t.sql("TRUNCATE t")
    now(left)
    t.sql("INSERT INTO t VALUES (1)")
    now(1)
    t.sql("COMMIT")
    assert_replays(t)
    assert len(t.fetch(0, 10_000)["changes"]) == total


def test_a_cursor_that_is_not_read_to_its_end(t):
    with t.connection.transaction():
        with t.connection.cursor() as cursor:
            cursor.execute(
                "DO $$ DECLARE r record; n int := 0; BEGIN FOR r IN INSERT INTO t SELECT g FROM generate_series(1, 700) g RETURNING id LOOP"
                " n := n + 1; EXIT WHEN n = 3; END LOOP; END $$"
            )
        assert logged(t) == 700
    assert_replays(t)


EXCEPTION = (
    "BEGIN INSERT INTO t SELECT NEW.id * 1000 + g, -1 FROM generate_series(1, 3) g;"
    " IF NEW.id % 2 = 0 THEN RAISE 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END;"
)


@pytest.mark.parametrize("name", ["a_first", "z_last"])
@pytest.mark.parametrize("how", ["insert", "copy"])
def test_blocks_that_fail_within_triggers_of_a_statement(make_database, name, how):
    database = make_database(T, trigger(f"IF NEW.v >= 0 THEN {EXCEPTION} END IF;", name), track=["t"])
    rows = [(n, n, "x") for n in range(1, 601)]
    if how == "copy":
        copy_into(database, rows)
    else:
        database.sql("INSERT INTO t SELECT g, g, 'x' FROM generate_series(1, 600) g")
    assert database.value("SELECT count(*) FROM t") == 600 + 300 * 3
    assert logged(database) == 600 + 300 * 3
    assert_replays(database)


@pytest.mark.parametrize("fails", [False, True], ids=["kept", "undone"])
def test_a_block_within_a_trigger_that_reads_the_log(make_database, fails):
    """What the statement has logged so far is seen; read within a block that is undone, it is written again."""
    database = make_database(
        T,
        "CREATE TABLE seen(entries bigint)",
        trigger(
            "BEGIN IF NEW.id > 0 AND NEW.id % 100 = 0 THEN PERFORM count(*) FROM _sync_log; INSERT INTO t VALUES (-NEW.id, (SELECT count(*) FROM _sync_log));"
            + (" RAISE 'no';" if fails else "")
            + " END IF; EXCEPTION WHEN raise_exception THEN NULL; END; IF NEW.id > 0 AND NEW.id % 50 = 0 THEN INSERT INTO seen SELECT count(*) FROM _sync_log; END IF;",
            "z_last",
        ),
        track=["t"],
    )
    database.sql("INSERT INTO t SELECT generate_series(1, 300)")
    nested = 0 if fails else 3
    assert logged(database) == 300 + nested
    assert_replays(database)
    own = [50, 100, 150, 200, 250, 300]
    assert sorted(n for (n,) in database.sql("SELECT entries FROM seen")) == [n + (0 if fails else n // 100) for n in own]


def test_a_statement_within_blocks_within_blocks(make_database):
    database = make_database(T, track=["t"])
    database.sql(
        "DO $$ BEGIN INSERT INTO t SELECT generate_series(1, 100);"
        " BEGIN INSERT INTO t SELECT generate_series(101, 200);"
        "  BEGIN INSERT INTO t SELECT generate_series(201, 300); PERFORM 1 / 0; EXCEPTION WHEN division_by_zero THEN NULL; END;"
        "  INSERT INTO t SELECT generate_series(301, 400);"
        " EXCEPTION WHEN others THEN RAISE; END; END $$"
    )
    assert logged(database) == 300
    assert_replays(database)


@pytest.mark.parametrize("function", ["sync_fetch_changes()", "sync_hash()", "sync_status()", "sync_compact()"])
def test_a_function_of_ours_within_a_trigger(make_database, function):
    database = make_database(
        T, trigger(f"IF NEW.id % 100 = 0 THEN BEGIN PERFORM {function}; IF NEW.id = 200 THEN RAISE 'no'; END IF;"
                   " EXCEPTION WHEN raise_exception THEN NULL; END; END IF;"), track=["t"],
    )
    database.sql("INSERT INTO t SELECT generate_series(1, 300)")
    assert logged(database) == 300
    assert_replays(database)
    assert len(database.fetch()["changes"]) == 300


def test_a_batch_that_a_trigger_applies(make_database):
    """Its conflicts with what the statement has logged so far are found; what comes after it in the statement it has overwritten."""
    source = make_database(T, track=["t"])
    source.sql("INSERT INTO t SELECT g, -1, 'theirs' FROM generate_series(1, 300) g")
    batch = json.dumps(source.fetch_local())
    database = make_database(
        T, "CREATE TABLE batches(batch text)",
        trigger("IF NEW.id = 100 THEN PERFORM sync_apply_batch(batch) FROM batches; END IF;", "z_last"), track=["t"],
    )
    database.sql("INSERT INTO batches VALUES (?)", batch)
    database.sql("INSERT INTO t SELECT g, g, 'ours' FROM generate_series(1, 200) g")
    assert_replays(database)
    assert database.value("SELECT count(*) FROM sync_conflicts()") == 100
    assert database.value("SELECT count(*) FROM t") == 300


def test_cascades_of_many_rows(make_database):
    database = make_database(
        "CREATE TABLE parent(id int PRIMARY KEY)",
        "CREATE TABLE child(id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE CASCADE)",
        "CREATE TABLE grandchild(id int PRIMARY KEY, child int REFERENCES child ON DELETE SET NULL)",
        track=["parent", "child", "grandchild"],
    )
    database.sql("INSERT INTO parent SELECT generate_series(1, 100)")
    database.sql("INSERT INTO child SELECT g, 1 + g % 100 FROM generate_series(1, 700) g")
    database.sql("INSERT INTO grandchild SELECT g, 1 + g % 700 FROM generate_series(1, 1400) g")
    database.sql("UPDATE parent SET id = id + 1000 WHERE id <= 50")
    database.sql("DELETE FROM parent WHERE id % 2 = 0")
    assert_replays(database, "parent", "child", "grandchild")


def test_rows_of_one_statement_that_its_triggers_change_again(make_database):
    database = make_database(
        T, trigger("IF NEW.v < 3 THEN UPDATE t SET v = v + 1 WHERE id = NEW.id; END IF;", "z_last", "AFTER INSERT OR UPDATE"), track=["t"],
    )
    database.sql("INSERT INTO t SELECT g, g % 3, 'x' FROM generate_series(1, 300) g")
    database.sql("UPDATE t SET v = 0 WHERE id % 3 = 0")
    assert_replays(database)
    assert database.value("SELECT min(v) FROM t") == 3


def test_partitions_whose_rows_move(make_database):
    database = make_database(
        "CREATE TABLE t(id bigint PRIMARY KEY, v int) PARTITION BY RANGE (id)",
        "CREATE TABLE t1 PARTITION OF t FOR VALUES FROM (0) TO (500)",
        "CREATE TABLE t2 PARTITION OF t FOR VALUES FROM (500) TO (100000)",
        track=["t"],
    )
    database.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 700) g")
    database.sql("UPDATE t SET id = id + 1000 WHERE id % 3 = 0")
    database.sql("UPDATE t2 SET v = 0")
    database.sql("BEGIN")
    database.sql("INSERT INTO t SELECT g, g FROM generate_series(2000, 2600) g")
    database.sql("TRUNCATE t2")
    database.sql("COMMIT")
    assert_replays(database)


def test_very_large_rows(t):
    t.sql("INSERT INTO t SELECT g, g, (SELECT string_agg(md5((g * 1000 + n)::text), '') FROM generate_series(1, 3000) n) FROM generate_series(1, 12) g")
    t.sql("UPDATE t SET note = note || 'x' WHERE id % 2 = 0")
    t.sql("INSERT INTO t SELECT g, g, repeat('long ', 100000) FROM generate_series(100, 140) g")
    assert logged(t) == 12 + 6 + 41
    assert_replays(t)


def test_memory_does_not_grow_with_the_rows_of_a_statement(t):
    t.sql("BEGIN")
    t.sql("INSERT INTO t SELECT g, g, repeat('x', 1000) FROM generate_series(1, 20000) g")
    [(most,)] = t.sql("SELECT coalesce(max(total_bytes), 0) FROM pg_backend_memory_contexts WHERE name = 'entries of pg_sync'")
    t.sql("COMMIT")
    assert most < 1_000_000
    assert logged(t) == 20000


def test_rows_that_others_change_while_a_statement_fires_its_triggers(make_database):
    """Versions that a statement has in hand are not given to rows that it changes later on: another's change may be in between."""
    database = make_database(
        T, "CREATE TABLE other(id int PRIMARY KEY, v int)", "INSERT INTO other VALUES (1, 0)",
        trigger("IF NEW.id = 150 THEN PERFORM pg_sleep(0.6); UPDATE other SET v = v + 1; END IF;", "a_first"),
        track=["t", "other"],
    )
    second = database.again()
    writer = threading.Thread(target=lambda: database.sql("INSERT INTO t SELECT generate_series(1, 200)"))
    writer.start()
    time.sleep(0.3)
    second.sql("UPDATE other SET v = 10")
    writer.join()
    second.close()
    assert database.value("SELECT v FROM other") == 11
    assert_replays(database, "t", "other")


def test_small_statements_leave_no_gaps_and_large_ones_small_ones(t):
    for n in range(5):
        t.sql("INSERT INTO t SELECT ? + generate_series(1, 10)", n * 100)
    assert [entry["version"] for entry in t.log()] == list(range(1, 51))
    t.sql("INSERT INTO t SELECT generate_series(1000, 1999)")
    assert max(entry["version"] for entry in t.log()) < 1050 + 256


def test_what_a_statement_logs_is_stamped_in_the_order_of_its_versions(make_database):
    database = make_database(T, trigger("PERFORM pg_sleep(0.0005);"), track=["t"])
    threads, sessions = [], [database.again() for _ in range(3)]
    for number, session in enumerate(sessions):
        sql = f"INSERT INTO t SELECT {number} * 1000 + g FROM generate_series(1, 200) g"
        threads.append(threading.Thread(target=session.sql, args=(sql,)))
        threads[-1].start()
    for thread in threads:
        thread.join()
    stamps = [entry["timestamp"] for entry in database.log()]
    assert len(stamps) == 600 and stamps == sorted(stamps)
    for session in sessions:
        session.close()
