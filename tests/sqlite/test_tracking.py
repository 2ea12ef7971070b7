"""Set-up: initialising a replica, tracking and untracking a table, and what is refused."""

import json
import uuid

import pytest

from conftest import PERSON
from crafted import ALICE, BOB, person, push
from replica import DRIVER_ERRORS, sync_error


def test_functions_before_initialisation_say_so(open_replica):
    with sync_error("NotInitialized"):
        open_replica("new").sql("SELECT sync_fetch_changes()")


def test_initialising_makes_a_uuid_and_keeps_it(open_replica):
    replica = open_replica("new")
    origin = replica.value("SELECT sync_init()")
    assert uuid.UUID(origin).version == 4 and origin == str(uuid.UUID(origin))
    assert replica.value("SELECT sync_init()") == origin
    assert open_replica("new").value("SELECT sync_init()") == origin


def test_initialising_takes_a_given_uuid(open_replica):
    replica = open_replica("new")
    assert replica.value("SELECT sync_init(?)", ALICE) == ALICE
    assert replica.value("SELECT sync_init(?)", ALICE) == ALICE


@pytest.mark.parametrize("origin", ["", "alice", ALICE + "0", ALICE[:-1], "g" * 36])
def test_an_origin_that_is_no_uuid_is_refused(open_replica, origin):
    with sync_error("InvalidArgument"):
        open_replica("new").sql("SELECT sync_init(?)", origin)


def test_another_origin_than_the_one_set_is_refused(open_replica):
    replica = open_replica("new")
    replica.sql("SELECT sync_init(?)", ALICE)
    with sync_error("InvalidArgument"):
        replica.sql("SELECT sync_init(?)", BOB)
    assert replica.origin == ALICE


def test_tracking_initialises_the_replica(open_replica):
    replica = open_replica("new")
    replica.sql(PERSON)
    replica.track("Person")
    assert uuid.UUID(replica.origin).version == 4


def test_tracking_answers_what_it_tracks(open_replica):
    replica = open_replica("new")
    replica.sql("CREATE TABLE line(invoice INT NOT NULL, position INT NOT NULL, text TEXT, PRIMARY KEY (position, invoice))")
    replica.sql("INSERT INTO line VALUES (1, 1, 'a'), (1, 2, 'b')")
    answer = replica.track("line")
    assert answer["table"] == answer["name"] == "line"
    assert answer["primaryKey"] == ["position", "invoice"]
    assert answer["columns"] == ["invoice", "position", "text"]
    assert answer["backfilled"] == 2
    assert answer["warnings"] == []


def test_tables_lists_what_is_tracked(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    [table] = server.records("SELECT * FROM sync_tables()")
    assert (table["table_name"], table["name"], table["conflict_strategy"]) == ("Person", "Person", "last_write_wins")
    assert json.loads(table["primary_key"]) == ["Id"]
    assert json.loads(table["columns"]) == ["Id", "Name", "Email"]
    assert table["entries"] == 1


def test_tables_are_listed_without_a_look_at_the_log_when_nothing_is_to_be_counted(server):
    server.sql(f"CREATE TABLE wide (id INTEGER PRIMARY KEY, {', '.join(f'c{number}' for number in range(70))})")
    server.track("wide")
    server.sql("INSERT INTO wide (id) VALUES (1)")
    listed = "SELECT name, entries FROM sync_tables(?)"
    assert server.sql(listed, True) == server.sql(listed, None) == [("Person", 0), ("wide", 1)]
    server.sql("DELETE FROM _sync_log_data WHERE operation = 3")
    with sync_error("SchemaMismatch"):
        server.sql(listed, True)
    assert server.sql(listed, False) == [("Person", None), ("wide", None)]


def test_rows_from_before_tracking_are_logged_as_inserts(open_replica):
    replica = open_replica("new")
    replica.sql(PERSON)
    replica.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    assert replica.track("Person")["backfilled"] == 2
    assert [(entry["operation"], entry["pk_value"]) for entry in replica.log()] == [
        ("insert", '{"Id":1}'),
        ("insert", '{"Id":2}'),
    ]


def test_backfill_can_be_left_out(open_replica):
    replica = open_replica("new")
    replica.sql(PERSON)
    replica.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert replica.track("Person", backfill=False)["backfilled"] == 0
    assert replica.log() == []


def test_tracking_again_logs_nothing_again(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert server.track("Person")["backfilled"] == 0
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    assert len(server.log()) == 2


def test_a_table_is_found_whatever_the_case_of_its_name(open_replica):
    replica = open_replica("new")
    replica.sql(PERSON)
    assert replica.track("PERSON")["table"] == "Person"
    assert replica.value("SELECT sync_hash('person')") == replica.value("SELECT sync_hash('Person')")


def test_triggers_carry_the_contracts_names(server):
    triggers = server.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger' AND tbl_name = 'Person' ORDER BY name")
    assert triggers == [("Person_sync_delete",), ("Person_sync_insert",), ("Person_sync_update",)]


def test_untracking_removes_the_triggers_and_keeps_the_log(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert server.value("SELECT sync_untrack_table('Person')") == 1
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    assert server.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == []
    assert [entry["pk_value"] for entry in server.log()] == ['{"Id":1}']
    assert server.value("SELECT sync_untrack_table('Person')") == 0
    with sync_error("TableNotTracked"):
        server.sql("SELECT sync_hash('Person')")


def test_tracking_after_untracking_logs_what_was_missed(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    server.sql("SELECT sync_untrack_table('Person')")
    server.sql("UPDATE Person SET Name = 'Robert' WHERE Id = 2")
    server.sql("INSERT INTO Person VALUES (3, 'Carol', NULL)")
    server.track("Person")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person")


@pytest.mark.parametrize("end", ["SELECT sync_untrack_table('blue')", "DROP TABLE blue"])
def test_a_table_takes_the_place_of_one_that_was_renamed(server, client, end):
    """It goes on with its log under its name, so whoever has the rows gets the differences."""
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    client.sync(server)
    server.sql("CREATE TABLE green(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)")
    server.sql("INSERT INTO green SELECT * FROM Person WHERE Id = 1")
    server.sql("ALTER TABLE Person RENAME TO blue")
    server.sql("ALTER TABLE green RENAME TO Person")
    with sync_error("InvalidArgument"):
        server.track("Person")
    server.sql(end)
    server.track("Person")
    server.sql("INSERT INTO Person VALUES (3, 'Carol', NULL)")
    client.sql("INSERT INTO Person VALUES (4, 'Dan', NULL)")
    client.sync(server)
    assert [row[0] for row in server.rows("Person")] == [1, 3, 4]
    assert client.rows("Person") == server.rows("Person") and client.hash() == server.hash()


UNSUPPORTED = {
    "no primary key": ("CREATE TABLE t(a, b)", "t"),
    "a view": ("CREATE VIEW t AS SELECT 1 AS a", "t"),
    "a virtual table": ("CREATE VIRTUAL TABLE t USING fts5(a)", "t"),
    "a temporary table": ("CREATE TEMP TABLE t(a INTEGER PRIMARY KEY)", "t"),
    "a table of ours": ("SELECT 1", "_sync_state"),
    "our log": ("SELECT 1", "_sync_log"),
}


@pytest.mark.parametrize("reason", UNSUPPORTED)
def test_a_table_that_cannot_sync_is_refused(make_replica, reason):
    statement, table = UNSUPPORTED[reason]
    replica = make_replica("new", statement)
    with sync_error("UnsupportedTable"):
        replica.track(table)
    assert replica.sql("SELECT * FROM sync_tables()") == []


def test_a_trigger_of_the_users_with_a_name_of_ours_is_left_alone(make_replica):
    replica = make_replica("new", PERSON, "CREATE TABLE other(id INTEGER)")
    replica.sql("CREATE TRIGGER person_SYNC_delete AFTER INSERT ON other BEGIN SELECT 1; END")
    with sync_error("UnsupportedTable") as error:
        replica.track("Person")
    assert '"other"' in error.message
    assert replica.sql("SELECT * FROM sync_tables()") == []
    assert replica.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == [("person_SYNC_delete",)]


@pytest.mark.parametrize("function", ["sync_track_table", "sync_untrack_table", "sync_reconcile", "sync_hash"])
def test_a_table_that_does_not_exist_is_not_found(server, function):
    with sync_error("TableNotFound"):
        server.sql(f"SELECT {function}('Nobody')")


WRONG_OPTIONS = [
    '{"sideways": true}',
    '{"conflict": "coin_toss"}',
    '{"exclude": ["Nobody"]}',
    '{"exclude": ["Id"]}',
    '{"exclude": "Name"}',
    '{"backfill": "perhaps"}',
    '{"name": ""}',
    '{"types": {"Nobody": "int"}}',
    '{"types": {"Name": "colour"}}',
    '{"conflict": "custom"}',
    '{"userTriggers": 1}',
    '{"userTriggers": false}',
    "[]",
    "{",
    "",
]


def test_the_users_triggers_cannot_be_spared_and_the_reason_is_said(make_replica):
    replica = make_replica("new", PERSON)
    with sync_error("InvalidArgument") as raised:
        replica.track("Person", userTriggers=False)
    assert "in PostgreSQL only" in raised.message
    assert replica.track("Person", userTriggers=True)["userTriggers"] is True


@pytest.mark.parametrize("options", WRONG_OPTIONS)
def test_a_wrong_option_is_refused_and_tracks_nothing(make_replica, options):
    replica = make_replica("new", PERSON)
    with sync_error("InvalidArgument"):
        replica.sql("SELECT sync_track_table('Person', ?)", options)
    assert replica.sql("SELECT * FROM sync_tables()") == []
    assert replica.sql("SELECT name FROM sqlite_schema WHERE type = 'trigger'") == []


def test_a_failing_second_tracking_leaves_the_first_in_force(server):
    with sync_error("InvalidArgument"):
        server.track("Person", exclude=["Nobody"])
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert len(server.log()) == 1


def test_a_table_travels_under_its_name_on_the_wire(make_replica):
    server = make_replica("server", PERSON)
    client = make_replica("client", "CREATE TABLE people(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)")
    server.track("Person", name="human")
    client.track("people", name="human")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert [change["tableName"] for change in server.fetch()["changes"]] == ["human"]
    client.pull(server)
    assert client.rows("people") == [(1, "Alice", None)]
    assert client.hash() == server.hash()


def test_an_excluded_column_is_nowhere_in_the_log_nor_on_the_wire(make_replica):
    server = make_replica("server", PERSON)
    server.track("Person", exclude=["Email"])
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'top-secret')")
    server.sql("UPDATE Person SET Email = 'still-secret'")
    assert len(server.log()) == 1, "an update of excluded columns only is no change"
    server.close()
    with open(server.path, "rb") as file:
        assert file.read().count(b"still-secret") == 1, "the row holds it, and nothing else does"


def test_an_excluded_column_is_not_applied(make_replica):
    server = make_replica("server", PERSON)
    server.track("Person", exclude=["Email"])
    result = server.apply(push(person(1, "Alice", "sent@anyway")))
    assert result["applied"] == 1
    assert server.rows("Person") == [(1, "Alice", None)]


def test_an_excluded_column_does_not_count_for_the_hash(make_replica):
    server, client = (make_replica(name, PERSON) for name in ("server", "client"))
    for replica, secret in ((server, "a"), (client, "b")):
        replica.track("Person", exclude=["Email"])
        replica.sql("INSERT INTO Person VALUES (1, 'Alice', ?)", secret)
    assert server.hash("Person") == client.hash("Person")


def test_check_table_finds_text_that_is_not_utf8(make_replica):
    replica = make_replica("new", PERSON)
    assert replica.sql("SELECT * FROM sync_check_table('Person') WHERE severity = 'error'") == []
    replica.sql("INSERT INTO Person VALUES (1, CAST(x'ff' AS TEXT), NULL)")
    findings = replica.records("SELECT * FROM sync_check_table('Person')")
    assert any("UTF-8" in finding["message"] and finding["fix"] for finding in findings)


def test_check_table_finds_a_temporary_trigger_that_changes_what_is_recorded(server):
    server.sql("CREATE TEMP TRIGGER noted AFTER INSERT ON Person BEGIN UPDATE other SET n = n + 1; END")
    assert server.sql("SELECT * FROM sync_check_table('Person')") == []
    server.sql("CREATE TEMP TRIGGER shouts AFTER INSERT ON Person BEGIN UPDATE Person SET Name = upper(Name) WHERE Id = NEW.Id; END")
    assert [finding["code"] for finding in server.records("SELECT * FROM sync_check_table('Person')")] == ["TemporaryTrigger"]
    assert "sync_reconcile" in server.track("Person")["warnings"][0]


def test_an_argument_that_is_not_utf8_is_refused(server):
    for call in ("SELECT * FROM sync_check_table(CAST(x'ff' AS TEXT))", "SELECT sync_hash(CAST(x'ff' AS TEXT))"):
        with sync_error("InvalidArgument"):
            server.sql(call)


def test_check_table_says_why_a_table_cannot_be_tracked(make_replica):
    replica = make_replica("new", "CREATE TABLE keyless(a)")
    findings = replica.records("SELECT * FROM sync_check_table('keyless')")
    assert any("primary key" in finding["message"].lower() and finding["fix"] for finding in findings)


def test_a_row_with_a_null_key_is_refused_with_a_clear_error(make_replica):
    replica = make_replica("new", "CREATE TABLE t(k TEXT PRIMARY KEY, v)", track=["t"])
    with pytest.raises(DRIVER_ERRORS, match="sync|NULL"):
        replica.sql("INSERT INTO t VALUES (NULL, 1)")
    assert replica.rows("t") == []


def test_tracking_is_undone_by_the_transactions_rollback(make_replica):
    replica = make_replica("new", PERSON)
    replica.sql("BEGIN")
    replica.track("Person")
    replica.sql("ROLLBACK")
    assert replica.sql("SELECT * FROM sync_tables()") == []
    replica.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    assert replica.log() == []
