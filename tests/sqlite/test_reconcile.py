"""What capture could not see is found by comparing table and log; and one statement can be run without being captured."""

import pytest

from conftest import PERSON
from replica import DRIVER_ERRORS, sync_error

ACCOUNT = "CREATE TABLE account(id INTEGER PRIMARY KEY, email TEXT UNIQUE, note TEXT)"


def reconcile(replica, table="Person"):
    return replica.value("SELECT sync_reconcile(?)", table)


def untracked(replica, statement):
    return replica.value("SELECT sync_execute_untracked(?)", statement)



def test_a_statement_that_changes_no_row_counts_none(server):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    assert untracked(server, "CREATE TABLE more(id INTEGER PRIMARY KEY)") == 0
    assert untracked(server, "UPDATE Person SET Name = 'c'") == 2
    assert untracked(server, "DROP TABLE more") == 0

def test_a_row_removed_by_a_replace_on_another_unique_column_is_found(make_pair):
    server, client = make_pair(ACCOUNT, track=["account"])
    server.sql("INSERT INTO account VALUES (1, 'same', 'old'), (2, 'other', 'kept')")
    client.pull(server)
    server.sql("REPLACE INTO account VALUES (3, 'same', 'new')")
    assert reconcile(server, "account") == 1
    client.pull(server)
    assert client.rows("account") == server.rows("account") == [(2, "other", "kept"), (3, "same", "new")]


def test_tracking_a_table_where_that_can_happen_says_so(make_replica):
    replica = make_replica("new", ACCOUNT, PERSON)
    assert any("REPLACE" in warning or "sync_reconcile" in warning for warning in map(str, replica.track("account")["warnings"]))
    assert replica.track("Person")["warnings"] == []


def test_nothing_missed_is_nothing_logged(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    server.sql("DELETE FROM Person WHERE Id = 2")
    before = len(server.log())
    assert reconcile(server) == 0
    assert len(server.log()) == before


def test_what_was_applied_is_not_missed(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', 'b')")
    client.sync(server)
    assert reconcile(server) == reconcile(client) == 0


def test_every_kind_of_missed_change_is_logged_as_a_local_change(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL), (3, 'c', NULL)")
    client.pull(server)
    logged = len(server.log())
    untracked(server, "INSERT INTO Person VALUES (4, 'd', NULL)")
    untracked(server, "UPDATE Person SET Name = 'B' WHERE Id = 2")
    untracked(server, "DELETE FROM Person WHERE Id = 3")
    assert len(server.log()) == logged
    assert reconcile(server) == 3
    assert {entry["origin"] for entry in server.log()} == {server.origin}
    client.pull(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "a", None), (2, "B", None), (4, "d", None)]
    assert reconcile(server) == 0


def test_a_change_of_the_storage_class_only_is_found(make_pair):
    server, client = make_pair("CREATE TABLE t(id INTEGER PRIMARY KEY, x)", track=["t"])
    server.sql("INSERT INTO t VALUES (1, '1'), (2, x'61')")
    client.pull(server)
    untracked(server, "UPDATE t SET x = CASE id WHEN 1 THEN 1 ELSE 'a' END")
    assert reconcile(server, "t") == 2
    client.pull(server)
    assert client.rows("t") == [(1, 1), (2, "a")]


def test_writes_while_the_triggers_were_gone_are_found(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    client.pull(server)
    for operation in ("insert", "update", "delete"):
        server.sql(f"DROP TRIGGER Person_sync_{operation}")
    server.sql("UPDATE Person SET Name = 'changed'")
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    server.track("Person")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person")
    server.sql("DELETE FROM Person WHERE Id = 1")
    client.pull(server)
    assert client.rows("Person") == [(2, "b", None)]


def test_reconciling_a_compacted_log_finds_nothing(server):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    server.sql("UPDATE Person SET Name = 'c'")
    server.sql("DELETE FROM Person WHERE Id = 2")
    server.sql("SELECT sync_compact()")
    assert reconcile(server) == 0


def test_reconciling_an_untracked_table_is_refused(make_replica):
    replica = make_replica("new", PERSON)
    with sync_error("TableNotTracked"):
        reconcile(replica)


# Without capture


def test_an_untracked_statement_answers_its_rows_and_is_not_logged(server):
    assert untracked(server, "INSERT INTO Person VALUES (1, 'a', NULL), (2, 'b', NULL)") == 2
    assert untracked(server, "UPDATE Person SET Name = 'c'") == 2
    assert untracked(server, "DELETE FROM Person WHERE Id = 1") == 1
    assert server.log() == [] and server.rows("Person") == [(2, "c", None)]


def test_the_next_statement_is_captured_again(server):
    untracked(server, "INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert [entry["pk_value"] for entry in server.log()] == ['{"Id":2}']


def test_a_failing_untracked_statement_leaves_capture_in_force(server):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    with pytest.raises(DRIVER_ERRORS):
        untracked(server, "INSERT INTO Person VALUES (1, 'again', NULL)")
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert len(server.log()) == 2


REFUSED = [
    "",
    "DELETE FROM Person; DELETE FROM Person",
    "BEGIN",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT s",
    "nonsense",
]


@pytest.mark.parametrize("statement", REFUSED)
def test_what_is_not_one_plain_statement_is_refused(server, statement):
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    with pytest.raises(DRIVER_ERRORS):
        untracked(server, statement)
    assert server.rows("Person") == [(1, "a", None)]
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert len(server.log()) == 2


def test_an_untracked_statement_in_a_rolled_back_transaction_is_undone(server):
    server.sql("BEGIN")
    untracked(server, "INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("ROLLBACK")
    server.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert server.rows("Person") == [(2, "b", None)]
    assert len(server.log()) == 1


def test_another_connection_is_captured_meanwhile(server, open_replica):
    stranger = open_replica("server", extension=False)
    untracked(server, "INSERT INTO Person VALUES (1, 'a', NULL)")
    stranger.sql("INSERT INTO Person VALUES (2, 'b', NULL)")
    assert [entry["pk_value"] for entry in stranger.log()] == ['{"Id":2}']
