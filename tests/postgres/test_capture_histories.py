"""Random transactions: whatever statements, savepoints and failures they are made of, the log's replay is the table, and the table is what
an untracked one is after the same statements. `SYNC_EXAMPLES` histories (default 100), `SYNC_SEED` for the same ones again.
"""

import os
import random

import psycopg
import pytest
from hypothesis import HealthCheck, given, seed, settings
from hypothesis import strategies as st

from replay import assert_replays, table_rows

SEED = int(os.environ.get("SYNC_SEED") or random.randrange(1_000_000))
EXAMPLES = int(os.environ.get("SYNC_EXAMPLES", "100"))
# Often the same ones, so that statements meet each other's rows.
KEYS = st.one_of(st.sampled_from((0, 1, 30)), st.integers(0, 1500))
SIZES = st.sampled_from((1, 2, 5, 40, 700))
# A trigger that writes another tracked table in a block which fails for every third row, and reads the log in some.
SCHEMA = (
    "CREATE TABLE t(id bigint PRIMARY KEY {late}, v int CHECK (v < 1000000), note text)",
    "CREATE TABLE u(LIKE t INCLUDING ALL)",
    "CREATE TABLE side(id bigint PRIMARY KEY, v int)",
    "CREATE SEQUENCE side_ids",
    "CREATE FUNCTION echo() RETURNS trigger LANGUAGE plpgsql AS $$ DECLARE r record; BEGIN r := coalesce(NEW, OLD);"
    " IF r.id % 7 = 0 THEN BEGIN INSERT INTO side VALUES (nextval('side_ids'), r.v); IF r.id % 5 = 0 THEN PERFORM count(*) FROM _sync_log; END IF;"
    " IF r.id % 3 = 0 THEN RAISE 'no'; END IF; EXCEPTION WHEN raise_exception THEN NULL; END; END IF; RETURN NULL; END $$",
    "CREATE TRIGGER echo AFTER INSERT OR UPDATE OR DELETE ON t FOR EACH ROW EXECUTE FUNCTION echo()",
)
# A trigger that fires before capture and puts a row back under the key that it has left.
KEEP = (
    "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN IF OLD.id % 3 = 0 AND OLD.note NOT LIKE 'kept%' THEN"
    " EXECUTE format('INSERT INTO %I VALUES ($1, $2, ''kept'')', TG_TABLE_NAME) USING OLD.id, OLD.v; END IF; RETURN NULL; END $$",
    "CREATE TRIGGER a_keep AFTER DELETE OR UPDATE OF id ON t FOR EACH ROW EXECUTE FUNCTION keep()",
    "CREATE TRIGGER a_keep AFTER DELETE OR UPDATE OF id ON u FOR EACH ROW EXECUTE FUNCTION keep()",
)

statements = st.one_of(
    st.tuples(st.just("INSERT INTO {t} SELECT g, g, repeat('x', (g % 300)::int) FROM generate_series(%(k)s, %(k)s + %(n)s) g"
                      " ON CONFLICT (id) DO UPDATE SET v = {t}.v + 1"), KEYS, SIZES),
    st.tuples(st.just("INSERT INTO {t} SELECT g, g, 'new' FROM generate_series(%(k)s, %(k)s + %(n)s) g"), KEYS, SIZES),
    st.tuples(st.just("UPDATE {t} SET v = v + 1 WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("UPDATE {t} SET v = v * 100 WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("UPDATE {t} SET id = id + 3000 WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("UPDATE {t} SET id = id + 1 WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("UPDATE {t} SET id = 2 * %(k)s + %(n)s - id WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("DELETE FROM {t} WHERE id BETWEEN %(k)s AND %(k)s + %(n)s"), KEYS, SIZES),
    st.tuples(st.just("WITH gone AS (DELETE FROM {t} WHERE id BETWEEN %(k)s AND %(k)s + %(n)s RETURNING *)"
                      " INSERT INTO {t} SELECT -1 - id, v, note FROM gone ON CONFLICT DO NOTHING"), KEYS, SIZES),
    st.tuples(st.just("COPY {t} FROM STDIN"), KEYS, SIZES),
    st.tuples(st.just("TRUNCATE {t}"), KEYS, SIZES),
)
steps = st.one_of(
    statements, statements, statements, statements,
    st.sampled_from([("SAVEPOINT s", 0, 0), ("ROLLBACK TO s", 0, 0), ("RELEASE s", 0, 0), ("BLOCK", 0, 0)]),
)
transactions = st.lists(st.tuples(st.lists(steps, max_size=6), st.sampled_from(("COMMIT", "COMMIT", "ROLLBACK", "PREPARE"))), min_size=1, max_size=4)


class History:
    """Runs the same steps for the tracked table and for the other one, each in its own session."""

    def __init__(self, database, table):
        self.database, self.table, self.savepoints = database, table, 0

    def run(self, history):
        outcomes = []
        for body, ending in history:
            self.savepoints = 0
            self.database.sql("BEGIN")
            outcomes += [self.step(*step) for step in body]
            if ending == "PREPARE":
                self.database.sql(f"PREPARE TRANSACTION '{self.database.database} {self.table}'")
                self.database.sql(f"COMMIT PREPARED '{self.database.database} {self.table}'")
            else:
                self.database.sql(ending)
        return outcomes

    def step(self, text, key, size):
        if text == "SAVEPOINT s":
            self.savepoints += 1
            return self.database.sql(text)
        if text in ("ROLLBACK TO s", "RELEASE s"):
            if self.savepoints:
                self.savepoints -= text == "RELEASE s"
                self.database.sql(text)
            return None
        self.database.sql("SAVEPOINT step")
        try:
            self.statement(text, key, size)
            self.database.sql("RELEASE step")
            return "done"
        except psycopg.Error as error:
            self.database.sql("ROLLBACK TO step")
            self.database.sql("RELEASE step")
            return error.sqlstate

    def statement(self, text, key, size):
        if text == "BLOCK":
            self.database.sql(
                f"DO $$ BEGIN INSERT INTO {self.table} SELECT g, 0, 'block' FROM generate_series(10000, 10020) g; PERFORM 1 / 0;"
                " EXCEPTION WHEN division_by_zero THEN NULL; END $$"
            )
        elif text.startswith("COPY"):
            with self.database.connection.cursor() as cursor, cursor.copy(text.format(t=self.table)) as copy:
                for number in range(key, key + size):
                    copy.write_row((number, number, "copied"))
        else:
            self.database.connection.execute(text.format(t=self.table), {"k": key, "n": size})


@pytest.mark.timeout(3600)
@pytest.mark.parametrize("late", ["", "DEFERRABLE"])
@pytest.mark.parametrize("keep", [(), KEEP], ids=["", "keep"])
def test_the_log_is_the_table_after_any_history(make_database, late, keep):
    database = make_database(SCHEMA[0].format(late=late), *SCHEMA[1:], *keep, track=["t", "side"])
    other = database.again()

    print(f"\nseed {SEED}, {EXAMPLES} histories")

    @seed(SEED)
    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(transactions)
    def check(history):
        tracked, plain = History(database, "t").run(history), History(other, "u").run(history)
        assert tracked == plain
        assert table_rows(database, "t") == table_rows(database, "u")
        assert_replays(database, "t", "side")
        database.sql("TRUNCATE t, u, side")

    check()
    other.close()
