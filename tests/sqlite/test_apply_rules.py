"""The numbered rules by which a change is applied, and that applying is an upsert of what was sent and nothing else."""

import json

import pytest

from conftest import PERSON
from crafted import ALICE, BOB, HUB, delete, insert, person, pull, push, stamp, update
from replica import sync_error


def name_of(replica, id=1):
    return replica.value("SELECT Name FROM Person WHERE Id = ?", id)


def counts(result):
    return result["applied"], result["skipped"], result["conflicts"]


# Rule 1


def test_a_replicas_own_change_is_skipped(server):
    server.sql("INSERT INTO Person VALUES (1, 'Mine', NULL)")
    echo = person(1, "Forged", origin=server.origin, at=stamp(minutes=1))
    assert counts(server.apply(push(echo))) == (0, 1, 0)
    assert name_of(server) == "Mine"


# Rule 2


def test_a_change_of_a_row_nobody_here_knows_is_applied(server):
    assert counts(server.apply(push(person(1, "Alice"), update("Person", {"Id": 2, "Name": "Bob"})))) == (2, 0, 0)
    assert server.rows("Person") == [(1, "Alice", None), (2, "Bob", None)]


def test_a_delete_of_a_row_nobody_here_knows_changes_nothing_and_is_passed_on(server):
    server.apply(push(delete("Person", {"Id": 1})))
    assert server.rows("Person") == []
    assert [entry["operation"] for entry in server.log()] == ["delete"]


# Rule 3


def test_a_newer_change_of_the_same_origin_is_applied(server):
    server.apply(push(person(1, "First", at=stamp(minutes=-2))))
    assert counts(server.apply(push(person(1, "Second", at=stamp(minutes=-1)), after=1))) == (1, 0, 0)
    assert name_of(server) == "Second"


def test_an_older_change_of_the_same_origin_is_skipped(server):
    server.apply(push(person(1, "Newer", at=stamp(minutes=-1))))
    assert counts(server.apply(push(person(1, "Older", at=stamp(minutes=-2)), sender=BOB))) == (0, 1, 0)
    assert name_of(server) == "Newer"


def test_a_change_that_arrives_on_two_ways_is_applied_once(server):
    change = person(1, "Alice", at=stamp(minutes=-1))
    assert counts(server.apply(push(change, sender=ALICE))) == (1, 0, 0)
    assert counts(server.apply(push(change, sender=BOB))) == (0, 1, 0)
    assert len(server.log()) == 1


# Rule 4


def test_a_push_by_a_sender_that_had_seen_the_row_is_no_conflict(server):
    server.sql("INSERT INTO Person VALUES (1, 'Server', NULL)")
    seen = server.state["maxVersion"]
    result = server.apply(push(update("Person", {"Id": 1, "Name": "Client"}, at=stamp()), seen=seen))
    assert counts(result) == (1, 0, 0)
    assert name_of(server) == "Client" and server.conflicts() == []


def test_a_pull_over_what_came_from_that_server_is_no_conflict(client):
    client.apply(pull(person(1, "Old", origin=ALICE)))
    result = client.apply(pull(person(1, "New", origin=BOB), after=1))
    assert counts(result) == (1, 0, 0)
    assert name_of(client) == "New"


def test_a_pull_over_what_has_been_pushed_to_that_server_is_no_conflict(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'Client', NULL)")
    client.sync(server)
    server.sql("UPDATE Person SET Name = 'Server'")
    assert counts(client.pull(server)) == (1, 0, 0)
    assert name_of(client) == "Server" and client.conflicts() == []


# Rule 5


def test_a_push_by_a_sender_that_had_not_seen_the_row_is_a_conflict(server):
    server.sql("INSERT INTO Person VALUES (1, 'Server', NULL)")
    result = server.apply(push(person(1, "Older", at=stamp(minutes=-1))))
    assert result["conflicts"] == 1
    assert name_of(server) == "Server"
    assert len(server.conflicts()) == 1


def test_a_pull_over_a_change_the_server_has_not_seen_is_a_conflict(client):
    client.sql("INSERT INTO Person VALUES (1, 'Client', NULL)")
    result = client.apply(pull(person(1, "Newer", at=stamp(minutes=1))))
    assert result["conflicts"] == 1
    assert name_of(client) == "Newer"
    assert len(client.conflicts()) == 1


def test_a_local_change_that_lost_is_not_pushed(client):
    client.sql("INSERT INTO Person VALUES (1, 'Lost', NULL)")
    client.apply(pull(person(1, "Won", at=stamp(minutes=1))))
    assert client.fetch_local()["changes"] == []


def test_a_local_change_that_won_is_pushed(client):
    client.sql("INSERT INTO Person VALUES (1, 'Won', NULL)")
    client.apply(pull(person(1, "Lost", at=stamp(minutes=-1))))
    assert name_of(client) == "Won"
    assert [json.loads(change["payload"])["Name"] for change in client.fetch_local()["changes"]] == ["Won"]


# What is logged


def test_an_applied_change_is_logged_with_its_origin_and_stamp_and_a_version_of_our_own(server):
    server.sql("INSERT INTO Person VALUES (9, 'Own', NULL)")
    at = stamp(minutes=-5)
    server.apply(push(person(1, "Alice", at=at)))
    entry = server.log()[-1]
    assert (entry["origin"], entry["timestamp"], entry["operation"]) == (ALICE, at, "insert")
    assert entry["version"] > 1


def test_a_skipped_change_is_not_logged(server):
    server.apply(push(person(1, "Newer", at=stamp(minutes=-1))))
    before = server.state
    server.apply(push(person(1, "Older", at=stamp(minutes=-2)), sender=BOB))
    assert server.state["maxVersion"] == before["maxVersion"] and server.state["entries"] == before["entries"]


def test_what_an_applied_change_causes_is_a_local_change(make_replica):
    audit = "CREATE TABLE audit(id INTEGER PRIMARY KEY, what)"
    server = make_replica("server", PERSON, audit, track=["Person", "audit"])
    server.sql("CREATE TRIGGER note AFTER INSERT ON Person BEGIN INSERT INTO audit(what) VALUES ('new ' || NEW.Name); END")
    server.apply(push(person(1, "Alice")))
    origins = {entry["table_name"]: entry["origin"] for entry in server.log()}
    assert origins == {"Person": ALICE, "audit": server.origin}


def test_an_applied_row_that_a_users_trigger_changes_is_passed_on_as_changed(make_pair):
    server, client = make_pair(PERSON, track=["Person"])
    server.sql("CREATE TRIGGER shout AFTER INSERT ON Person BEGIN UPDATE Person SET Name = upper(Name) WHERE Id = NEW.Id; END")
    client.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    client.push(server)
    client.sync(server)
    assert server.rows("Person") == client.rows("Person") == [(1, "ALICE", None)]


# An upsert of what was sent


def test_columns_that_were_not_sent_keep_their_value(server):
    server.apply(push(person(1, "Alice", "kept@example.com")))
    server.apply(push(update("Person", {"Id": 1, "Name": "Alicia"}, at=stamp(minutes=1)), after=1))
    assert server.rows("Person") == [(1, "Alicia", "kept@example.com")]


def test_columns_that_were_not_sent_get_their_default_in_a_new_row(make_replica):
    server = make_replica("server", "CREATE TABLE t(id INTEGER PRIMARY KEY, a DEFAULT 'x', b DEFAULT 7)", track=["t"])
    server.apply(push(insert("t", {"id": 1, "b": None}, ["id"])))
    assert server.rows("t") == [(1, "x", None)]


def test_what_is_passed_on_is_the_whole_row(server, client):
    server.apply(push(person(1, "Alice", "kept@example.com")))
    server.apply(push(update("Person", {"Id": 1, "Name": "Alicia"}, at=stamp(minutes=1)), after=1))
    client.pull(server)
    assert client.rows("Person") == server.rows("Person")


def test_a_payload_of_only_the_key_makes_the_row(server):
    result = server.apply(push(update("Person", {"Id": 1})))
    assert result["applied"] == 1
    assert server.rows("Person") == [(1, None, None)]


def test_an_update_of_a_parent_does_not_cascade_to_its_children(make_replica):
    child = "CREATE TABLE child(id INTEGER PRIMARY KEY, parent REFERENCES parent ON DELETE CASCADE)"
    server = make_replica("server", "CREATE TABLE parent(id INTEGER PRIMARY KEY, name)", child, track=["parent", "child"])
    server.sql("PRAGMA foreign_keys = ON")
    server.apply(push(insert("parent", {"id": 1, "name": "a"}, ["id"]), insert("child", {"id": 1, "parent": 1}, ["id"])))
    server.apply(push(insert("parent", {"id": 1, "name": "b"}, ["id"], at=stamp(minutes=1)), after=2))
    assert server.rows("parent") == [(1, "b")]
    assert server.rows("child") == [(1, 1)]


@pytest.mark.parametrize("resolution", ["", "ON CONFLICT REPLACE", "ON CONFLICT IGNORE", "ON CONFLICT ROLLBACK"])
def test_a_unique_collision_never_deletes_the_other_row(make_replica, resolution):
    table = f"CREATE TABLE account(id INTEGER PRIMARY KEY, email TEXT UNIQUE {resolution})"
    server = make_replica("server", table, track=["account"])
    server.sql("INSERT INTO account VALUES (1, 'a@example.com')")
    result = server.apply(push(insert("account", {"id": 2, "email": "a@example.com"}, ["id"])))
    assert server.rows("account") == [(1, "a@example.com")]
    assert result["applied"] == 0
    assert [rejection["kind"] for rejection in result["rejections"]] == ["UniqueViolation"]


@pytest.mark.parametrize("resolution", ["REPLACE", "IGNORE", "FAIL", "ROLLBACK"])
def test_the_tables_own_conflict_clause_on_the_key_does_no_harm(make_replica, resolution):
    table = f"CREATE TABLE t(id INTEGER PRIMARY KEY ON CONFLICT {resolution}, a, b)"
    server = make_replica("server", table, track=["t"])
    server.sql("INSERT INTO t VALUES (1, 'old', 'kept')")
    result = server.apply(push(update("t", {"id": 1, "a": "new"}, ["id"]), seen=1))
    assert result["applied"] == 1
    assert server.rows("t") == [(1, "new", "kept")]


# The cursor of a pull, and what a push is remembered by


def test_a_pull_moves_the_cursor_with_the_data(client):
    client.apply(pull(person(1, "a"), person(2, "b")))
    assert client.cursor == 2


def test_a_pull_that_starts_above_the_cursor_is_a_gap(client):
    client.apply(pull(person(1, "a")))
    with sync_error("InvalidBatch"):
        client.apply(pull(person(3, "c"), after=2))
    assert (client.cursor, client.rows("Person")) == (1, [(1, "a", None)])


def test_entries_at_or_below_the_cursor_are_skipped(client):
    client.apply(pull(person(1, "a"), person(2, "b")))
    client.sql("UPDATE Person SET Name = 'mine' WHERE Id = 1")
    result = client.apply(pull(person(1, "a", at=stamp(minutes=1)), person(2, "b"), person(3, "c")))
    assert counts(result) == (1, 2, 0)
    assert client.cursor == 3 and name_of(client, 1) == "mine"


def test_a_pull_never_moves_the_cursor_back(client):
    client.apply(pull(person(1, "a"), person(2, "b"), person(3, "c")))
    client.apply(pull(person(1, "a"), more=True))
    assert client.cursor == 3


def test_a_pull_applied_twice_changes_nothing(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    batch = server.fetch_text(0, 1000, client.origin)
    client.apply(batch)
    before = client.state
    assert counts(client.apply(batch)) == (0, 2, 0)
    assert client.state == before


def test_a_push_applied_twice_changes_nothing(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    batch = client.fetch_local_text()
    server.apply(batch)
    server.sql("UPDATE Person SET Name = 'later'")
    before = server.state
    assert counts(server.apply(batch)) == (0, 2, 0)
    assert server.state == before
    assert server.conflicts() == []


def test_pushes_are_deduplicated_per_sender(server):
    first = push(person(1, "a"), sender=ALICE)
    assert counts(server.apply(first)) == (1, 0, 0)
    assert counts(server.apply(push(person(2, "b", origin=BOB), sender=BOB))) == (1, 0, 0)
    server.sql("DELETE FROM Person WHERE Id = 1")
    assert counts(server.apply(first)) == (0, 1, 0)
    assert server.rows("Person") == [(2, "b", None)]


def test_a_version_used_again_with_a_newer_stamp_is_no_duplicate(server):
    server.apply(push(person(1, "a", at=stamp(minutes=-1)), sender=ALICE))
    server.apply(push(person(1, "written after a restore"), sender=ALICE))
    assert name_of(server) == "written after a restore"


def test_batches_of_a_push_that_arrive_in_the_wrong_order_both_count(server):
    at = stamp(minutes=-1)
    assert server.apply(push(person(1, "second", at=stamp()), after=2))["applied"] == 1
    assert server.apply(push(person(1, "first", at=at), person(9, "x"), after=0))["applied"] == 1
    assert name_of(server) == "second"


def test_without_a_kind_a_batch_is_a_push(server):
    batch = push(person(1, "Alice"))
    del batch["kind"]
    assert server.apply(batch)["applied"] == 1
    assert server.cursor == 0


def test_all_or_nothing(server):
    before = server.state
    with sync_error("InvalidBatch"):
        server.apply(push(person(1, "good"), {**person(2, "bad"), "operation": "Explode"}))
    assert server.rows("Person") == [] and server.state == before


def test_pulls_from_two_senders_do_not_mix(client):
    client.apply(pull(person(1, "a"), sender=HUB))
    with sync_error("EpochMismatch"):
        client.apply(pull(person(2, "b"), sender=BOB, after=1))
    assert client.rows("Person") == [(1, "a", None)]


@pytest.mark.parametrize("rows", [1, 150])
def test_an_update_of_a_row_with_an_excluded_column_that_may_not_be_null_is_applied(make_replica, rows):
    replica = make_replica("r", "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Secret TEXT NOT NULL)")
    replica.track("Person", exclude=["Secret"])
    replica.many("INSERT INTO Person VALUES (?, 'old', 'kept')", [(id,) for id in range(1, rows + 1)])
    changes = [update("Person", {"Id": id, "Name": "new"}) for id in range(1, rows + 1)]
    assert counts(replica.apply(push(*changes, seen=replica.state["maxVersion"]))) == (rows, 0, 0)
    assert set(replica.sql("SELECT Name, Secret FROM Person")) == {("new", "kept")}
