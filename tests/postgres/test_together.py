"""Rows that are written together: the same tables, logs, answers and rejections as row by row, whatever a batch holds.

A table with a trigger of the user's takes its rows one by one, also if the trigger does nothing: that is what is compared with.
"""

import itertools
import json
import uuid

import hypothesis
import pytest
from hypothesis import strategies as some

from crafted import compact
from test_apply import Background, waits

TABLES = """
CREATE TABLE pair(a int, b int, note text, PRIMARY KEY (a, b));
CREATE TABLE parent(id bigint PRIMARY KEY, name varchar(8));
CREATE TABLE child(id int PRIMARY KEY, parent bigint REFERENCES parent, boss int REFERENCES child, pa int, pb int, mark text UNIQUE,
 size int CHECK (size < 100), amount numeric(6,2), FOREIGN KEY (pa, pb) REFERENCES pair);
CREATE TABLE late(id int PRIMARY KEY, parent bigint REFERENCES parent DEFERRABLE, mark text DEFAULT 'none');
"""
NOTHING = "CREATE FUNCTION nothing() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$"
ONE_BY_ONE = """
CREATE TRIGGER z AFTER INSERT OR UPDATE OR DELETE ON {table} FOR EACH STATEMENT EXECUTE FUNCTION nothing();
"""
# Those that refer come before those that they refer to, so that all can be emptied in this order.
NAMES = ["late", "child", "parent", "pair"]
SENDER = str(uuid.UUID(int=9))
senders = itertools.count(1000)


def rarely(value, usually):
    return some.integers(0, 9).flatmap(lambda n: value if n == 0 else usually)


def rows(table):
    small, maybe = some.integers(1, 12), lambda values: some.one_of(some.none(), values)
    columns = {
        "pair": {"a": some.integers(1, 6), "b": some.integers(1, 6), "note": maybe(some.sampled_from(["x", "y"]))},
        "parent": {"id": some.integers(1, 40), "name": maybe(some.sampled_from(["a", "b", "longer than it"]))},
        "child": {
            "id": some.integers(1, 90), "parent": maybe(small), "boss": rarely(some.integers(1, 90), some.none()),
            "pa": rarely(some.integers(1, 6), some.none()), "pb": maybe(some.integers(1, 6)), "mark": rarely(some.sampled_from("pqr"), some.none()),
            "size": rarely(some.sampled_from([1, 100]), some.integers(0, 99)),
            "amount": rarely(some.sampled_from([1, 10000]), some.sampled_from([1, 2.5, None])),
        },
        "late": {"id": some.integers(1, 90), "parent": maybe(small), "mark": maybe(some.sampled_from(["m", "n"]))},
    }[table]
    return some.fixed_dictionaries(columns)


@some.composite
def segments(draw):
    """Some changes of one table: mostly to put rows, sometimes only some columns of theirs."""
    table = draw(some.sampled_from(["child", "child", "parent", "pair", "late"]))
    key = ("a", "b") if table == "pair" else ("id",)
    left_out = draw(rarely(some.sampled_from(["parent", "mark", "note", "name"]), some.just("")))
    changes = []
    has_key_once = draw(some.booleans())
    unique = (lambda row: tuple(row[name] for name in key)) if has_key_once else None
    least, has_deletes = draw(some.sampled_from([1, 20])), draw(some.integers(0, 3)) == 0
    for row in draw(some.lists(rows(table), min_size=least, max_size=40, unique_by=unique)):
        deletes = has_deletes and draw(some.integers(0, 5)) == 0
        payload = None if deletes else compact({name: value for name, value in row.items() if name != left_out})
        changes.append({
            "tableName": table, "pkValue": compact({name: row[name] for name in key}), "payload": payload,
            "operation": "Delete" if deletes else draw(some.sampled_from(["Insert", "Update"])),
            "timestamp": f"2001-01-01T00:00:00.{draw(some.integers(0, 999)):03d}Z",
        })
    return changes


LOCAL = some.sampled_from([
    "INSERT INTO parent SELECT g, 'local' FROM generate_series(1, 12, 2) g ON CONFLICT DO NOTHING",
    "INSERT INTO pair SELECT a, b, 'local' FROM generate_series(1, 3) a, generate_series(1, 3) b ON CONFLICT DO NOTHING",
    "UPDATE child SET size = 1 WHERE id < 5", "UPDATE parent SET name = 'mine' WHERE id < 4",
    "DELETE FROM child WHERE id BETWEEN 5 AND 9 AND id NOT IN (SELECT boss FROM child WHERE boss IS NOT NULL)",
])
STEPS = some.lists(some.one_of(LOCAL, some.lists(segments(), min_size=1, max_size=4)), min_size=1, max_size=4)


@pytest.fixture(scope="module")
def both(request):
    from pg_replica import PgReplica

    cluster = request.getfixturevalue("cluster")
    together, singly = PgReplica(cluster), PgReplica(cluster)
    for replica in (together, singly):
        replica.script(TABLES)
        for table in reversed(NAMES):
            replica.track(table)
    singly.script(NOTHING)
    for table in NAMES:
        singly.script(ONE_BY_ONE.format(table=table))
    yield together, singly
    together.close(), singly.close()


def run(replica, steps, sender, seen_all):
    """Empties the tables, takes the steps, and returns all that can be seen of them."""
    for name in NAMES:
        replica.sql(f"DELETE FROM {name}")
    replica.sql("SELECT sync_discard(id) FROM sync_rejections()")
    start, version, seen, answers = replica.value("SELECT coalesce(max(version), 0) FROM _sync_log"), 0, None, []
    # The last batch wakes what waits for something that the test's own statements brought.
    last = {"tableName": "parent", "pkValue": '{"id":99}', "payload": '{"id":99}', "operation": "Insert", "timestamp": "2001-01-01T00:00:01.000Z"}
    for step in [*steps, [[last]]]:
        if isinstance(step, str):
            replica.sql(step)
            continue
        if seen is None or seen_all:
            seen = replica.value("SELECT coalesce(max(version), 0) FROM _sync_log")
        changes = [change | {"origin": sender, "version": version + n + 1} for n, change in enumerate(itertools.chain(*step))]
        batch = {
            "kind": "push", "originId": sender, "epoch": "e", "fromVersion": version, "toVersion": version + len(changes),
            "lastServerVersion": seen, "changes": changes,
        }
        version += len(changes)
        answer = replica.apply(batch)
        answers.append({name: value for name, value in answer.items() if name not in ("fromVersion", "toVersion")})
    # What waits for a row that has not come is not tried again meanwhile, and may have had more than one reason to wait: they are
    # compared when all is tried once more. By then nothing is left that could be applied.
    left = replica.sql("SELECT table_name, pk_value, operation, payload, timestamp FROM sync_rejections() ORDER BY id")
    tables = {name: replica.rows(name) for name in NAMES}
    assert json.loads(replica.value("SELECT sync_retry()"))["applied"] == 0
    rejections = replica.sql("SELECT table_name, pk_value, operation, payload, timestamp, kind, code, message FROM sync_rejections() ORDER BY id")
    conflicts = replica.sql("SELECT table_name, pk_value, winner FROM sync_conflicts() ORDER BY id")
    replica.sql("DELETE FROM _sync_conflicts")
    return {"answers": answers, "log": log_since(replica, start, sender), "left": left, "rejections": rejections, "conflicts": conflicts, **tables}


def log_since(replica, start, sender):
    """The entries in their order. A statement of the test's own takes its rows in whatever order they lie on disk: those are sorted."""
    log = []
    for is_ours, entries in itertools.groupby((e for e in replica.log() if e["version"] > start), lambda e: e["origin"] != sender):
        told = [tuple(e[name] for name in ("table_name", "pk_value", "operation", "payload") + (() if is_ours else ("timestamp",))) for e in entries]
        log.append((is_ours, sorted(told, key=str) if is_ours else told))
    return log


@hypothesis.settings(max_examples=150, deadline=None, suppress_health_check=list(hypothesis.HealthCheck),
                     phases=set(hypothesis.Phase) - {hypothesis.Phase.explain, hypothesis.Phase.shrink})
@hypothesis.given(steps=STEPS, seen_all=some.booleans())
def test_together_comes_to_what_one_by_one_comes_to(both, steps, seen_all):
    sender = str(uuid.UUID(int=next(senders)))
    together, singly = (run(replica, steps, sender, seen_all) for replica in both)
    assert together == singly


def put(version, table, row, stamp="2001-01-01T00:00:00.000Z"):
    return {
        "tableName": table, "pkValue": compact({"id": row["id"]}), "payload": compact(row), "operation": "Insert", "timestamp": stamp,
        "origin": SENDER, "version": version,
    }


def push(*changes, seen=0):
    first, last = changes[0]["version"], changes[-1]["version"]
    return {
        "kind": "push", "originId": SENDER, "epoch": "e", "fromVersion": first - 1, "toVersion": last, "lastServerVersion": seen,
        "changes": list(changes),
    }


def keys(entries):
    return [json.loads(entry["pk_value"])["id"] for entry in entries]


@pytest.fixture
def family(make_database):
    return make_database(*TABLES.strip().rstrip(";").split(";\n"), track=list(reversed(NAMES)))


def test_rows_that_are_refused_take_no_other_with_them_and_the_log_keeps_the_order(family):
    bad = {n for n in range(1, 301) if n % 50 == 7}
    changes = [put(n, "child", {"id": 1000 - n, "size": 100 if n in bad else 1}) for n in range(1, 301)]
    answer = family.apply(push(*changes))
    assert (answer["applied"], answer["rejected"]) == (300 - len(bad), len(bad))
    assert {rejection["code"] for rejection in answer["rejections"]} == {"23514"}
    assert keys(family.log("child")) == [1000 - n for n in range(1, 301) if n not in bad]
    assert {entry["origin"] for entry in family.log("child")} == {SENDER}


def test_rows_whose_parent_comes_later_in_the_batch_are_written_and_what_has_none_waits(family):
    children = [put(n, "child", {"id": n, "parent": n % 10}) for n in range(1, 101)]
    parents = [put(100 + n, "parent", {"id": n, "name": "p"}) for n in range(1, 10)]
    answer = family.apply(push(*children, *parents))
    assert (answer["applied"], answer["deferred"]) == (90 + 9, 10)
    assert keys(family.log("child")) == [n for n in range(1, 101) if n % 10]
    assert {rejection["code"] for rejection in answer["rejections"]} == {"23503"}


def test_what_waits_for_a_row_is_tried_again_when_that_comes_and_not_before(family):
    family.apply(push(*(put(n, "child", {"id": n, "parent": 5}) for n in range(1, 21))))
    for n in range(21, 24):
        family.apply(push(put(n, "parent", {"id": n, "name": "p"})))
    assert family.sql("SELECT DISTINCT attempts, code FROM sync_rejections()") == [(1, "23503")]
    family.sql("INSERT INTO parent VALUES (5, 'here')")
    assert family.apply(push(put(24, "parent", {"id": 24, "name": "p"})))["applied"] == 21
    assert family.rejections() == []


def test_what_waits_is_tried_again_when_its_row_may_have_come_past_the_log(family):
    family.apply(push(*(put(n, "child", {"id": n, "parent": 5}) for n in range(1, 21))))
    family.sql("SELECT sync_execute_untracked('INSERT INTO parent VALUES (5)')")
    assert family.apply(push(put(21, "parent", {"id": 14, "name": "p"})))["applied"] == 21


def test_a_parent_that_another_session_commits_while_the_child_is_refused_wakes_it(family):
    """The child is refused while the parent is not committed, and the batch ends after that was: the next apply has to notice."""
    writer, server = family.again(), family.again()
    family.sql("INSERT INTO pair VALUES (1, 1, 'theirs')")
    server.sql("BEGIN")
    writer.sql("BEGIN")
    writer.sql("INSERT INTO parent VALUES (5, 'not yet')")
    assert server.apply(push(*(put(n, "child", {"id": n, "parent": 5}) for n in range(1, 21))))["deferred"] == 20
    writer.sql("COMMIT")
    server.sql("COMMIT")
    assert server.apply(push(put(21, "parent", {"id": 6, "name": "p"})))["applied"] == 21
    writer.close(), server.close()


def test_a_row_does_not_wait_for_a_parent_that_could_not_be_deleted(family):
    """Their key is checked at the end: by then both the delete and the row violate it."""
    family.sql("INSERT INTO parent VALUES (5, 'here')")
    family.sql("INSERT INTO late VALUES (1, 5)")
    seen = family.value("SELECT max(version) FROM _sync_log")
    gone = put(1, "parent", {"id": 5}) | {"operation": "Delete", "payload": None}
    answer = family.apply(push(gone, *(put(n, "late", {"id": n, "parent": 5, "mark": None}) for n in range(2, 40)), seen=seen))
    assert (answer["applied"], answer["deferred"] + answer["rejected"]) == (38, 1)
    assert [rejection["operation"] for rejection in family.rejections()] == ["delete"]
    family.sql("DELETE FROM late")
    family.sql("SELECT sync_retry()")
    assert family.rows("parent") == [] and family.rejections() == []


def test_a_change_of_a_row_does_not_wait_with_the_next_one_whose_parent_is_missing(family):
    family.sql("INSERT INTO parent VALUES (5, 'here')")
    changes = [put(n, "late", {"id": n, "parent": 5, "mark": "first"}) for n in range(1, 31)]
    changes += [put(30 + n, "late", {"id": n, "parent": 6, "mark": "second"}) for n in range(1, 31)]
    answer = family.apply(push(*changes))
    assert (answer["applied"], answer["deferred"]) == (30, 30)
    assert family.sql("SELECT mark, count(*) FROM late GROUP BY mark") == [("first", 30)]
    family.apply(push(put(61, "parent", {"id": 6, "name": "p"})))
    assert family.sql("SELECT mark, count(*) FROM late GROUP BY mark") == [("second", 30)] and family.rejections() == []


def test_a_row_that_another_session_inserts_meanwhile_is_judged_again(family):
    writer, server = family.again(), family.again()
    writer.sql("BEGIN")
    writer.sql("INSERT INTO parent VALUES (50, 'newer')")
    apply = Background(lambda: server.apply(push(*(put(n, "parent", {"id": n, "name": "older"}) for n in range(1, 101)))))
    assert waits(family)
    writer.sql("COMMIT")
    answer = apply.result()
    assert (answer["applied"], answer["conflicts"]) == (99, 1)
    assert family.sql("SELECT name, count(*) FROM parent GROUP BY name ORDER BY name") == [("newer", 1), ("older", 99)]
    assert keys(family.log("parent")) == [50, *(n for n in range(1, 101) if n != 50)]
    writer.close(), server.close()


def test_rows_that_are_there_and_new_ones_in_turn(family):
    family.sql("INSERT INTO parent SELECT g, 'old' FROM generate_series(1, 40) g WHERE g % 7 < 3")
    changes = [put(n, "parent", {"id": n, "name": "new"}, stamp="2999-01-01T00:00:00.000Z") for n in range(1, 41)]
    assert family.apply(push(*changes, seen=family.value("SELECT max(version) FROM _sync_log")))["applied"] == 40
    assert [entry["pk_value"] for entry in family.log("parent")[-40:]] == [change["pkValue"] for change in changes]
    assert family.sql("SELECT DISTINCT name FROM parent") == [("new",)]


def test_a_column_that_numbers_itself_goes_on_above_rows_that_came_together(make_database):
    database = make_database("CREATE TABLE person(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)", track=["person"])
    assert database.apply(push(*(put(n, "person", {"id": 10 * n, "name": "a"}) for n in range(1, 21))))["applied"] == 20
    assert database.value("INSERT INTO person(name) VALUES ('b') RETURNING id") == 201


@pytest.mark.parametrize("disturbance", [
    "CREATE FUNCTION free() RETURNS boolean LANGUAGE sql AS 'SELECT count(*) < 3 FROM parent'; ALTER TABLE parent ADD CHECK (free())",
    "CREATE FUNCTION b() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.name := (SELECT count(*) FROM parent)::text; RETURN NEW; END $$;"
    "CREATE TRIGGER b BEFORE INSERT ON parent FOR EACH ROW EXECUTE FUNCTION b()",
    "CREATE FUNCTION next() RETURNS text LANGUAGE sql AS 'SELECT count(*)::text FROM parent';"
    "ALTER TABLE parent ADD number text NOT NULL DEFAULT next()",
])
def test_code_that_looks_at_the_table_sees_the_rows_one_by_one(make_database, disturbance):
    """Whoever counts rows finds one more for each, as if another program had written them."""
    database = make_database("CREATE TABLE parent(id bigint PRIMARY KEY, name text)")
    database.script(disturbance)
    database.track("parent", exclude=["number"]) if "number" in disturbance else database.track("parent")
    database.apply(push(*(put(n, "parent", {"id": n, "name": "x"}) for n in range(1, 21))))
    counted = [row[1:] for row in database.rows("parent")]
    expected = {"free": [("x",)] * 3, "NEW": [(str(n),) for n in range(20)], "next": [("x", str(n)) for n in range(20)]}
    assert counted == next(value for word, value in expected.items() if word in disturbance)


def test_partitions_take_rows_that_came_together(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint, name text, twice text GENERATED ALWAYS AS (name || name) STORED, gone int, PRIMARY KEY (id))"
        " PARTITION BY RANGE (id)",
        "ALTER TABLE person DROP gone",
        "CREATE TABLE low(name text, twice text GENERATED ALWAYS AS (name || name) STORED, id bigint NOT NULL)",
        "ALTER TABLE person ATTACH PARTITION low FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE high PARTITION OF person FOR VALUES FROM (10) TO (30)",
        track=["person"],
    )
    answer = database.apply(push(*(put(n, "person", {"id": n, "name": f"n{n}"}) for n in range(1, 41))))
    assert (answer["applied"], answer["rejected"]) == (29, 11)
    assert keys(database.log("person")) == list(range(1, 30))
    assert {entry["origin"] for entry in database.log("person")} == {SENDER}
    assert database.sql("SELECT count(*) FROM low WHERE twice = name || name") == [(9,)]


def test_values_of_every_kind_keep_the_label_of_their_change(make_database):
    """Also those that are stored in another form than they came in: shortened, padded, out of line."""
    database = make_database(
        "CREATE DOMAIN small AS int CHECK (VALUE < 1000)",
        "CREATE TABLE kinds(id int PRIMARY KEY, padded char(5), number numeric(12,3), at timestamptz, tags text[], data jsonb, long text, raw bytea,"
        " small small, truth boolean, real float8, unique_id uuid)",
        track=["kinds"],
    )
    rows = [
        {
            "id": n, "padded": "ab", "number": n + 0.5, "at": "2024-02-29T12:00:00.000Z", "tags": ["a", None, "c"], "data": {"k": [n, None]},
            "long": "x" * (5000 * (n % 3)), "raw": {"$blob": "00ff"}, "small": n, "truth": n % 2, "real": n / 3, "unique_id": str(uuid.UUID(int=n)),
        }
        for n in range(1, 31)
    ]
    answer = database.apply(push(*(put(n, "kinds", row) for n, row in enumerate(rows, 1))))
    assert answer["applied"] == 30, answer["rejections"][:1]
    assert [entry["origin"] for entry in database.log("kinds")] == [SENDER] * 30
    assert keys(database.log("kinds")) == list(range(1, 31))
