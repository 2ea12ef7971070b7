"""A table that others inherit from is its own rows: those of the children are neither recorded, hashed nor changed with it."""

import pytest

from test_apply import FUTURE, change, push

CHILD = "CREATE TABLE visitor(badge int, PRIMARY KEY (id)) INHERITS (person)"
ROWS = "INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)"


@pytest.fixture
def family(make_database):
    """A parent with two rows; a child with the same keys, and one more."""
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", CHILD)
    database.sql(ROWS)
    database.sql("INSERT INTO visitor VALUES (1, 'child', NULL, 7), (2, 'child', NULL, 8), (3, 'child', NULL, 9)")
    return database


@pytest.fixture
def alone(make_database):
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", ROWS, track=["person"])
    return database


def children(database):
    return database.sql("SELECT id, name, badge FROM visitor ORDER BY id")


def test_it_is_said_before_and_when_it_is_tracked(family):
    [finding] = family.records("SELECT * FROM sync_check_table('person')")
    assert (finding["severity"], finding["code"]) == ("warning", "InheritanceChildren") and "visitor" in finding["message"]
    [warning] = family.track("person")["warnings"]
    assert "visitor" in warning
    assert family.sql("SELECT * FROM sync_check_table('visitor')") == []


def test_hash_backfill_counts_and_reconciliation_are_of_the_own_rows(family, alone):
    assert family.track("person")["backfilled"] == 2
    assert family.hash("person") == alone.hash("person")
    assert family.value("SELECT sync_reconcile('person')") == 0
    [table] = family.status["tables"]
    assert table["rows"] == 2
    family.sql("UPDATE person SET email = 'x'")
    assert [entry["pk_value"] for entry in family.log()][2:] == ['{"id":1}', '{"id":2}'], "the children's rows are changed too, and not logged"
    assert family.sql("SELECT DISTINCT email FROM visitor") == [("x",)]
    family.sql("DELETE FROM person WHERE id = 2")
    assert family.value("SELECT sync_purge_tombstones()") == 0 and family.value("SELECT sync_compact()") > 0
    family.sql("SELECT sync_untrack_table('person')")
    assert family.track("person")["backfilled"] == 0, "the log is the table's"


def test_what_is_applied_changes_no_row_of_a_child(family):
    family.track("person")
    answer = family.apply(push(
        change(1, 1, "changed", stamp=FUTURE), change(2, 2, None, "Delete", stamp=FUTURE), change(3, 3, "own", "Insert"),
        seen=2,
    ))
    assert answer["applied"] == 3, answer
    assert family.sql("SELECT id, name FROM ONLY person ORDER BY id") == [(1, "changed"), (3, "own")]
    assert children(family) == [(1, "child", 7), (2, "child", 8), (3, "child", 9)]
    answer = family.apply(push(change(4, 3, None, "Delete", stamp=FUTURE), change(5, 2, None, "Delete", stamp=FUTURE), seen=5))
    assert answer["rejected"] == 0
    assert family.sql("SELECT id FROM ONLY person") == [(1,)]
    assert len(children(family)) == 3


def test_a_resync_removes_no_row_of_a_child(family, alone):
    family.track("person", backfill=False)
    family.sql("SELECT sync_begin_resync()")
    alone.sql("DELETE FROM person WHERE id = 2")
    family.pull(alone)
    assert family.hash("person") == alone.hash("person")
    assert len(children(family)) == 3


def test_a_foreign_key_is_met_by_own_rows_only(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", CHILD,
        "CREATE TABLE visit(id bigint PRIMARY KEY, name text, email text, person bigint REFERENCES person(id) DEFERRABLE)", track=["person", "visit"],
    )
    database.sql("INSERT INTO visitor VALUES (1, 'child', NULL, 7)")
    payload = '{"id":1,"name":null,"email":null,"person":1}'
    assert database.apply(push({**change(1, 1, None, table="visit"), "payload": payload}))["deferred"] == 1
    assert database.apply(push(change(2, 1, "own")))["applied"] == 2


def test_a_child_is_a_table_of_its_own(family):
    family.track("person")
    family.track("visitor")
    family.sql("UPDATE person SET email = 'x' WHERE id = 1")
    assert [(e["table_name"], e["pk_value"]) for e in family.log()][5:] == [("person", '{"id":1}'), ("visitor", '{"id":1}')]
