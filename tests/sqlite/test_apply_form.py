"""`sync_apply_batch` is lenient in form, answers in one form, and obeys its options."""

import json

import pytest

from crafted import ALICE, BOB, delete, insert, person, pull, push, stamp, update
from replica import COUNTS, sync_error


def renamed(value, rename):
    """The same JSON with every member of the batch and its changes renamed."""
    if isinstance(value, list):
        return [renamed(element, rename) for element in value]
    if isinstance(value, dict):
        return {rename(name): renamed(member, rename) for name, member in value.items()}
    return value


def snake(name):
    return "".join("_" + letter.lower() if letter.isupper() else letter for letter in name)


def pascal(name):
    return name[0].upper() + name[1:]


def three_changes():
    at = [stamp(minutes=minutes) for minutes in (-2, -1, 1)]
    return [
        person(1, "Alice", at=at[0]),
        update("Person", {"Id": 1, "Name": "Alicia", "Email": "a"}, at=at[1]),
        delete("Person", {"Id": 2}, at=at[2]),
    ]


def with_operations(batch, operations):
    changes = [{**change, "operation": operation} for change, operation in zip(batch["changes"], operations)]
    return {**batch, "changes": changes}


def with_objects(batch):
    def nested(change):
        payload = change["payload"] and json.loads(change["payload"])
        return {**change, "pkValue": json.loads(change["pkValue"]), "payload": payload}

    return {**batch, "changes": [nested(change) for change in batch["changes"]]}


FORMS = {
    "as the contract shows it": lambda batch: batch,
    "PascalCase": lambda batch: renamed(batch, pascal),
    "snake_case": lambda batch: renamed(batch, snake),
    "UPPER CASE": lambda batch: renamed(batch, str.upper),
    "lower case": lambda batch: renamed(batch, str.lower),
    "operations in lower case": lambda batch: with_operations(batch, ["insert", "update", "delete"]),
    "operations in upper case": lambda batch: with_operations(batch, ["INSERT", "UPDATE", "DELETE"]),
    "operations as numbers": lambda batch: with_operations(batch, [0, 1, 2]),
    "nested objects": with_objects,
    "a bare array": lambda batch: batch["changes"],
    "only what is needed": lambda batch: {name: batch[name] for name in ("originId", "fromVersion", "toVersion", "changes")},
    "unknown members": lambda batch: {**batch, "colour": "blue", "changes": [{**change, "x": [1]} for change in batch["changes"]]},
    "payload left out of a delete": lambda batch: {
        **batch,
        "changes": [{name: value for name, value in change.items() if value is not None} for change in batch["changes"]],
    },
}


@pytest.mark.parametrize("form", FORMS)
def test_a_batch_is_taken_in_this_form(server, form):
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    result = server.apply(FORMS[form](push(*three_changes(), seen=1)))
    assert (result["rejected"], result["deferred"]) == (0, 0)
    assert server.rows("Person") == [(1, "Alicia", "a")]


@pytest.mark.parametrize("white_space", [0, 2])
def test_white_space_does_not_matter(server, white_space):
    text = json.dumps(push(person(1, "Alice")), indent=white_space)
    assert server.apply("\n\t " + text + " \r\n")["applied"] == 1


def test_names_may_be_escaped_and_text_raw(server):
    text = json.dumps(push(person(1, "Größe 😀")), ensure_ascii=True).replace('"Insert"', '"\\u0049nsert"')
    assert server.apply(text)["applied"] == 1
    assert server.rows("Person") == [(1, "Größe 😀", None)]


def test_an_empty_batch_is_no_error(server):
    for batch in ("[]", push(), pull()):
        assert server.apply(batch)["applied"] == 0


def test_an_empty_pull_still_moves_the_cursor(client):
    client.apply({**pull(), "toVersion": 41})
    assert client.cursor == 41


def test_columns_in_a_payload_may_come_in_any_order(server):
    change = {**person(1), "payload": '{"Email":"e","Name":"Alice","Id":1}'}
    server.apply(push(change))
    assert server.rows("Person") == [(1, "Alice", "e")]


@pytest.mark.parametrize(("sent", "stored"), [({"a": [1.50]}, '{"a":[1.5]}'), ([1, {}], "[1,{}]"), ("{ }", "{ }"), ({}, "{}")])
@pytest.mark.parametrize("declared", ["JSON", "jsonb"])
def test_a_json_value_may_come_nested(make_replica, declared, sent, stored):
    server = make_replica("server", f"CREATE TABLE Note(Id INTEGER PRIMARY KEY, Doc {declared})", track=["Note"])
    assert server.apply(push(insert("Note", {"Id": 1, "Doc": sent})))["applied"] == 1
    assert server.rows("Note") == [(1, stored)]


def test_a_text_column_that_holds_json_takes_it_nested_when_the_options_say_so(make_replica):
    server = make_replica("server", "CREATE TABLE Note(Id INTEGER PRIMARY KEY, Doc TEXT)")
    server.track("Note", types={"Doc": "json"})
    assert server.apply(push(insert("Note", {"Id": 1, "Doc": {"a": 1}})))["applied"] == 1
    assert server.rows("Note") == [(1, '{"a":1}')]


def test_the_answer_has_the_contracts_members(server):
    result = server.apply(push(person(1, "Alice"), person(2, "Bob")))
    assert set(result) >= {*COUNTS, "fromVersion", "toVersion", "hasMore", "rejections"}
    assert [result[name] for name in COUNTS] == [2, 0, 0, 0, 0, 0]
    assert (result["fromVersion"], result["toVersion"], result["hasMore"], result["rejections"]) == (0, 2, False, [])


def test_the_answer_repeats_that_there_is_more(client):
    assert client.apply(pull(person(1, "Alice"), more=True))["hasMore"] is True


def test_every_change_is_counted_once(server):
    server.sql("INSERT INTO Person VALUES (1, 'Server', NULL)")
    server.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad name'); END")
    result = server.apply(push(
        person(1, "loses", at=stamp(minutes=-9)),
        person(2, "fine"),
        person(3, "bad"),
        person(4, "echo", origin=server.origin),
    ))
    assert result["applied"] + result["skipped"] + result["conflicts"] + result["deferred"] + result["rejected"] == 4
    assert (result["applied"], result["conflicts"], result["rejected"]) == (1, 1, 1)


def test_a_rejection_in_the_answer_names_the_change(server):
    server.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad name'); END")
    [rejection] = server.apply(push(person(1, "fine"), person(2, "bad")))["rejections"]
    assert (rejection["version"], rejection["tableName"], json.loads(rejection["pkValue"])) == (2, "Person", {"Id": 2})
    assert rejection["kind"] == "ConstraintViolation"
    assert rejection["code"]
    assert "bad name" in rejection["message"]


# Options


def test_a_dry_run_tries_everything_and_nothing_stays(server):
    server.sql("INSERT INTO Person VALUES (1, 'Server', NULL)")
    server.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad name'); END")
    batch = push(person(1, "conflict"), person(2, "fine"), person(3, "bad"))
    before = server.state, server.rows("Person"), server.log()
    tried = server.apply(batch, dryRun=True)
    assert (server.state, server.rows("Person"), server.log()) == before
    assert server.conflicts() == server.rejections() == []
    done = server.apply(batch)
    assert {name: tried[name] for name in COUNTS} == {name: done[name] for name in COUNTS}
    assert tried["rejections"] == done["rejections"]


def test_a_dry_run_of_a_pull_leaves_the_cursor(client):
    assert client.apply(pull(person(1, "Alice")), dryRun=True)["applied"] == 1
    assert client.cursor == 0 and client.rows("Person") == []


def test_a_wrong_hash_is_refused_with_both_hashes(server):
    batch = push(person(1, "Alice"))
    actual = server.value("SELECT sync_hash_batch(?)", json.dumps(batch))
    with sync_error("HashMismatch") as error:
        server.apply({**batch, "hash": "0" * 64})
    assert error.data == {"expected": "0" * 64, "actual": actual}
    assert server.rows("Person") == []


def test_a_wrong_hash_is_not_looked_at_when_told_so(server):
    assert server.apply({**push(person(1, "Alice")), "hash": "0" * 64}, verifyHash=False)["applied"] == 1


@pytest.mark.parametrize("spelled", [str.lower, str.upper])
def test_a_right_hash_is_taken_in_any_case(server, spelled):
    batch = push(person(1, "Alice"))
    right = server.value("SELECT sync_hash_batch(?)", json.dumps(batch))
    assert server.apply({**batch, "hash": spelled(right)})["applied"] == 1


@pytest.mark.parametrize(("strategy", "name"), [("server_wins", "Server"), ("client_wins", "Client")])
def test_a_strategy_can_be_given_for_one_batch(server, strategy, name):
    server.sql("INSERT INTO Person VALUES (1, 'Server', NULL)")
    server.apply(push(person(1, "Client", at=stamp(minutes=1))), strategy=strategy)
    assert server.rows("Person") == [(1, name, None)]
    assert server.value("SELECT conflict_strategy FROM sync_tables()") == "last_write_wins"


@pytest.mark.parametrize("options", ['{"strategy":"coin_toss"}', '{"colour":1}', '{"dryRun":"perhaps"}', "[]", "{", ""])
def test_a_wrong_option_is_refused(server, options):
    with sync_error("InvalidArgument"):
        server.sql("SELECT sync_apply_batch(?, ?)", json.dumps(push(person(1))), options)
    assert server.rows("Person") == []


def test_changes_of_several_origins_travel_in_one_push(server):
    result = server.apply(push(person(1, "Alice", origin=ALICE), person(2, "Bob", origin=BOB)))
    assert result["applied"] == 2
    assert [entry["origin"] for entry in server.log()] == [ALICE, BOB]
