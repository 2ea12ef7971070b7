"""Statements of many rows that fail, are cancelled or undone, and transactions that end in other ways than COMMIT: the log has what the table
has, and errors are those of the server.
"""

import threading

import psycopg
import pytest

from replay import INSERT, MANY, T, assert_replays, copy_into, logged, trigger


@pytest.fixture
def t(make_database):
    return make_database(T, track=["t"])


def test_a_savepoint_that_is_rolled_back_takes_its_own_statements_only(t):
    t.sql("BEGIN")
    t.sql("INSERT INTO t SELECT generate_series(1, 20)")
    t.sql("SAVEPOINT a")
    t.sql("INSERT INTO t SELECT generate_series(21, 40)")
    t.sql("SAVEPOINT b")
    t.sql("DELETE FROM t WHERE id % 2 = 0")
    t.sql("RELEASE b")
    t.sql("ROLLBACK TO a")
    t.sql("UPDATE t SET v = 1 WHERE id < 5")
    t.sql("COMMIT")
    assert logged(t) == 24
    assert_replays(t)


def test_a_copy_with_an_error_in_its_middle(t):
    t.sql("BEGIN")
    t.sql("INSERT INTO t VALUES (600, 0, 'there')")
    t.sql("SAVEPOINT s")
    with pytest.raises(psycopg.errors.UniqueViolation):
        copy_into(t, [(n, n, "x") for n in range(1, 1001)])
    t.sql("ROLLBACK TO s")
    copy_into(t, [(n, n, "x") for n in range(1, 501)])
    t.sql("COMMIT")
    assert logged(t) == 501
    assert_replays(t)


def test_a_statement_whose_trigger_fails_in_the_middle(make_database):
    database = make_database(T, trigger("IF NEW.id = 700 THEN RAISE 'no'; END IF;"), track=["t"])
    with pytest.raises(psycopg.errors.RaiseException):
        database.sql(INSERT)
    assert logged(database) == 0
    database.sql("BEGIN")
    database.sql("INSERT INTO t VALUES (1)")
    database.sql("SAVEPOINT s")
    with pytest.raises(psycopg.errors.RaiseException):
        database.sql("INSERT INTO t SELECT generate_series(2, 1000)")
    database.sql("ROLLBACK TO s")
    database.sql("INSERT INTO t SELECT generate_series(2, 100)")
    database.sql("COMMIT")
    assert logged(database) == 100
    assert_replays(database)


def test_a_statement_that_fails_in_its_middle_within_a_block(make_database):
    database = make_database(T, trigger("IF NEW.id = 700 THEN RAISE 'no'; END IF;"), track=["t"])
    database.sql(
        "DO $$ BEGIN INSERT INTO t SELECT generate_series(-10, -1);"
        " BEGIN INSERT INTO t SELECT generate_series(1, 1000); EXCEPTION WHEN raise_exception THEN NULL; END;"
        " INSERT INTO t SELECT generate_series(1, 50); END $$"
    )
    assert logged(database) == 60
    assert_replays(database)


def test_an_error_keeps_all_its_fields(make_database):
    database = make_database(
        "CREATE TABLE parent(id int PRIMARY KEY)",
        "CREATE TABLE t(id int PRIMARY KEY, parent int CONSTRAINT of_parent REFERENCES parent, v int CONSTRAINT positive CHECK (v > 0))",
        track=["t"],
    )
    database.sql("INSERT INTO t VALUES (1)")
    with pytest.raises(psycopg.errors.ForeignKeyViolation) as raised:
        database.sql("INSERT INTO t VALUES (2, 1)")
    diag = raised.value.diag
    assert (diag.constraint_name, diag.table_name, diag.schema_name) == ("of_parent", "t", "public")
    assert diag.message_detail == 'Key (parent)=(1) is not present in table "parent".'
    with pytest.raises(psycopg.errors.CheckViolation) as raised:
        copy_into(database, [(3, None, 0)], "id, parent, v")
    assert raised.value.diag.constraint_name == "positive"
    assert raised.value.diag.context.startswith("COPY t, line 1")


@pytest.mark.parametrize("how", ["timeout", "cancel"])
def test_a_statement_that_is_cancelled_in_its_middle(make_database, how):
    database = make_database(T, trigger("PERFORM pg_sleep(0.001);", "z_last"), track=["t"])
    database.sql("BEGIN")
    database.sql("INSERT INTO t SELECT generate_series(-20, -1)")
    database.sql("SAVEPOINT s")
    canceller = threading.Timer(0.2, database.connection.cancel)
    if how == "timeout":
        database.sql("SET LOCAL statement_timeout = 200")
    else:
        canceller.start()
    with pytest.raises(psycopg.errors.QueryCanceled):
        database.sql("INSERT INTO t SELECT generate_series(1, 5000)")
    canceller.cancel()
    database.sql("ROLLBACK TO s")
    database.sql("INSERT INTO t SELECT generate_series(1, 20)")
    database.sql("COMMIT")
    assert logged(database) == 40
    assert_replays(database)


def test_constraints_that_are_checked_at_the_end_of_the_transaction(make_database):
    database = make_database(
        "CREATE TABLE parent(id int PRIMARY KEY)",
        "CREATE TABLE t(id int PRIMARY KEY, parent int REFERENCES parent DEFERRABLE INITIALLY DEFERRED)",
        "CREATE TABLE echo(id int PRIMARY KEY)",
        "CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO echo VALUES (NEW.id); RETURN NULL; END $$",
        "CREATE CONSTRAINT TRIGGER echo AFTER INSERT ON t DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION echo()",
        track=["t", "echo"],
    )
    database.sql("BEGIN")
    database.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 100) g")
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        database.sql("COMMIT")
    assert logged(database) == 0
    database.sql("BEGIN")
    database.sql("INSERT INTO t SELECT g, g FROM generate_series(1, 100) g")
    database.sql("INSERT INTO parent SELECT generate_series(1, 100)")
    database.sql("COMMIT")
    assert logged(database) == 200
    assert_replays(database, "t", "echo")


@pytest.mark.parametrize("ending", ["COMMIT PREPARED 'many'", "ROLLBACK PREPARED 'many'"])
def test_a_transaction_that_is_prepared(t, session, ending):
    t.sql("BEGIN")
    t.sql(INSERT)
    t.sql("SAVEPOINT s")
    t.sql("UPDATE t SET v = 0 WHERE id < 100")
    t.sql("PREPARE TRANSACTION 'many'")
    t.sql("INSERT INTO t VALUES (0)")
    t.sql(ending)
    assert logged(t) == (MANY + 100 if ending.startswith("COMMIT") else 1)
    assert_replays(t)
