"""The strategies that make a row of both sides: `merge`, field by field, and `custom`, by the application's expression."""

import json

import pytest

from conftest import PERSON
from crafted import let_the_clock_tick, person, push, stamp
from replica import settle, sync_error

LARGER_NAME = (
    "json_object('Id', json_extract(:local, '$.Id'),"
    " 'Name', max(json_extract(:local, '$.Name'), json_extract(:remote, '$.Name')),"
    " 'Email', coalesce(json_extract(:local, '$.Email'), json_extract(:remote, '$.Email')))"
)


@pytest.fixture
def merging(server, client, other):
    """A hub and two clients that merge, and all know Alice."""
    for replica in (server, client, other):
        replica.sql("SELECT sync_set_conflict_strategy('Person', 'merge')")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'alice@example.com')")
    settle(server, client, other, rounds=1)
    return server, client, other


@pytest.fixture
def custom(server, client, other):
    """A hub and two clients where the larger name wins."""
    for replica in (server, client, other):
        use_resolver(replica, LARGER_NAME)
    return server, client, other


def use_resolver(replica, expression):
    replica.sql("SELECT sync_set_conflict_strategy('Person', 'custom', ?)", expression)


def edit(*edits):
    for replica, assignment in edits:
        replica.sql(f"UPDATE Person SET {assignment} WHERE Id = 1")
        let_the_clock_tick()


def everywhere(*replicas):
    """The rows all replicas agree on."""
    [rows] = {tuple(replica.rows("Person")) for replica in replicas}
    assert len({replica.hash() for replica in replicas}) == 1
    return list(rows)


@pytest.mark.parametrize("first", ["pull", "push"])
def test_different_fields_changed_on_both_sides_are_both_kept(merging, first):
    server, client, _ = merging
    edit((server, "Name = 'Alicia'"), (client, "Email = 'new@example.com'"))
    client.pull(server) if first == "pull" else client.push(server)
    settle(server, client, rounds=2)
    assert everywhere(server, client) == [(1, "Alicia", "new@example.com")]


@pytest.mark.parametrize("first", ["pull", "push"])
def test_of_the_same_field_changed_on_both_sides_the_last_write_wins(merging, first):
    server, client, _ = merging
    edit((client, "Name = 'earlier', Email = 'client'"), (server, "Name = 'later'"))
    client.pull(server) if first == "pull" else client.push(server)
    settle(server, client, rounds=2)
    assert everywhere(server, client) == [(1, "later", "client")]


def test_three_replicas_merge_through_the_hub(make_replica):
    table = "CREATE TABLE t(id INTEGER PRIMARY KEY, a, b, c)"
    replicas = [make_replica(name, table) for name in ("server", "left", "right")]
    for replica in replicas:
        replica.track("t", conflict="merge")
    replicas[0].sql("INSERT INTO t VALUES (1, 0, 0, 0)")
    settle(*replicas, rounds=1)
    for replica, column in zip(replicas, "abc"):
        replica.sql(f"UPDATE t SET {column} = 1")
        let_the_clock_tick()
    settle(*replicas)
    assert [replica.rows("t") for replica in replicas] == [[(1, 1, 1, 1)]] * 3


def test_a_field_set_to_null_is_a_change_of_that_field(merging):
    server, client, _ = merging
    edit((server, "Name = 'Alicia'"), (client, "Email = NULL"))
    settle(server, client, rounds=2)
    assert everywhere(server, client) == [(1, "Alicia", None)]


def test_several_edits_of_one_side_merge_as_one(merging):
    server, client, _ = merging
    edit((client, "Name = 'x'"), (client, "Email = 'client'"), (client, "Name = 'Alice'"), (server, "Name = 'Alicia'"))
    settle(server, client, rounds=2)
    assert everywhere(server, client) == [(1, "Alicia", "client")]


def test_merging_goes_on_from_what_was_merged(merging):
    server, client, other = merging
    edit((server, "Name = 'one'"), (client, "Email = 'one'"))
    settle(server, client, other, rounds=2)
    edit((other, "Name = 'two'"), (client, "Email = 'two'"))
    settle(server, client, other, rounds=3)
    assert everywhere(server, client, other) == [(1, "two", "two")]


def test_a_merge_is_recorded_as_a_conflict(merging):
    server, client, _ = merging
    edit((server, "Name = 'Alicia'"), (client, "Email = 'new'"))
    client.sync(server)
    assert [conflict["strategy"] for conflict in client.conflicts()] == ["merge"]


@pytest.mark.parametrize("first", ["pull", "push"])
def test_the_resolvers_row_is_taken_on_all_replicas(custom, first):
    server, client, other = custom
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    client.sql("INSERT INTO Person VALUES (1, 'zzz', NULL)")
    let_the_clock_tick()
    other.sql("INSERT INTO Person VALUES (1, 'mmm', 'm@example.com')")
    client.pull(server) if first == "pull" else client.push(server)
    settle(server, client, other, rounds=4)
    assert everywhere(server, client, other) == [(1, "zzz", "m@example.com")]


def test_the_resolvers_row_is_a_new_local_change(server):
    use_resolver(server, LARGER_NAME)
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    server.apply(push(person(1, "zzz", at=stamp(minutes=-1))))
    newest = server.log()[-1]
    assert json.loads(newest["payload"])["Name"] == "zzz"
    assert newest["origin"] == server.origin
    assert server.conflicts()[0]["strategy"] == "custom"


def test_a_resolver_can_be_set_when_tracking(make_replica):
    server = make_replica("server", PERSON)
    server.track("Person", conflict="custom", resolver=LARGER_NAME)
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    server.apply(push(person(1, "zzz", at=stamp(minutes=-1))))
    assert server.rows("Person") == [(1, "zzz", None)]


FAILING = {
    "raises": "json_set('not json', '$.a', :local, '$.b', :remote)",
    "is no object": "json_array(:local, :remote)",
    "is no JSON": "'nonsense' || substr(:local, 1, 0) || substr(:remote, 1, 0)",
    "has another key": "json_object('Id', 2, 'Name', json_extract(:local, '$.Name'), 'Email', json_extract(:remote, '$.Email'))",
    "has an unknown column": "json_object('Id', 1, 'Colour', json_extract(:local, '$.Name'), 'x', json_extract(:remote, '$.Email'))",
}


@pytest.mark.parametrize("case", FAILING)
def test_a_failing_resolver_fails_the_batch_and_changes_nothing(server, case):
    use_resolver(server, FAILING[case])
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    before = server.state
    with sync_error("UnresolvedConflict"):
        server.apply(push(person(9, "fine"), person(1, "zzz")))
    assert server.rows("Person") == [(1, "aaa", None)]
    assert server.state == before and server.conflicts() == []


def test_a_failing_resolver_can_be_replaced_and_the_batch_sent_again(server):
    use_resolver(server, FAILING["raises"])
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    batch = push(person(1, "zzz"))
    with sync_error("UnresolvedConflict"):
        server.apply(batch)
    use_resolver(server, LARGER_NAME)
    server.apply(batch)
    assert server.rows("Person") == [(1, "zzz", None)]


@pytest.mark.parametrize("resolver", [None, "", "this is (no SQL", ":local; DROP TABLE Person", "(SELECT 1) FROM Person --"])
def test_a_resolver_that_is_no_expression_is_refused(server, resolver):
    with sync_error("InvalidArgument"):
        use_resolver(server, resolver)
    assert server.sql("SELECT conflict_strategy FROM sync_tables()") == [("last_write_wins",)]


def test_a_delete_takes_part_in_a_custom_conflict(custom):
    server, client, _ = custom
    server.sql("INSERT INTO Person VALUES (1, 'aaa', NULL)")
    client.sync(server)
    for replica in (server, client):
        use_resolver(replica, "coalesce(:local, :remote)")
    server.sql("DELETE FROM Person")
    client.sql("UPDATE Person SET Name = 'kept'")
    settle(server, client, rounds=2)
    assert everywhere(server, client) == [(1, "kept", None)]


@pytest.mark.parametrize("first", ["pull", "push"])
def test_a_column_that_is_newer_than_the_last_common_version_is_merged(merging, first):
    server, client, _ = merging
    for replica in (server, client):
        replica.sql("ALTER TABLE Person ADD COLUMN Note TEXT DEFAULT 'none'")
    edit((server, "Note = 'set on the server'"), (client, "Email = 'new@example.com'"))
    client.pull(server) if first == "pull" else client.push(server)
    settle(server, client, rounds=2)
    assert server.sql("SELECT Email, Note FROM Person") == [("new@example.com", "set on the server")]
    assert server.hash() == client.hash()
