"""After any ALTER TABLE writes go on, no column is lost, and replicas of different schemas exchange what both have."""

import json

import pytest

from conftest import PERSON
from crafted import insert, let_the_clock_tick, person, push, stamp, update
from replica import settle, sync_error

REBUILD = [
    "CREATE TABLE new_person(Id INTEGER PRIMARY KEY, Email TEXT, Name TEXT NOT NULL DEFAULT '')",
    "INSERT INTO new_person(Id, Email, Name) SELECT Id, Email, coalesce(Name, '') FROM Person",
    "DROP TABLE Person",
    "ALTER TABLE new_person RENAME TO Person",
]


def alter(statement, *replicas):
    for replica in replicas:
        replica.sql(statement)


def equal(table, *replicas):
    first = replicas[0]
    return all(
        replica.rows(table) == first.rows(table) and replica.hash(table) == first.hash(table) for replica in replicas
    )


def drop_column(replica, table, column):
    """SQLite refuses to drop a column that a trigger names: capture is lifted for this one statement."""
    replica.sql("SELECT sync_execute_untracked(?)", f"ALTER TABLE {table} DROP COLUMN {column}")


@pytest.fixture
def synced(server, client):
    """A server and a client that both know Alice."""
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'alice@example.com')")
    client.sync(server)
    return server, client


def test_a_new_column_is_captured_from_the_first_write(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Age INT", server, client)
    server.sql("UPDATE Person SET Age = 41")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL, 7)")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alice", "alice@example.com", 41), (2, "Bob", None, 7)]
    assert equal("Person", server, client)


def test_a_write_of_only_the_new_column_is_captured(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Age INT", server, client)
    client.sync(server)
    server.sql("UPDATE Person SET Age = 41")
    client.sync(server)
    assert client.value("SELECT Age FROM Person") == 41


def test_a_new_columns_default_is_the_same_on_both_sides(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Role TEXT NOT NULL DEFAULT 'guest'", server, client)
    client.sync(server)
    client.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "guest")]
    assert equal("Person", server, client)


def test_a_column_the_receiver_lacks_waits_until_it_has_it(synced):
    server, client = synced
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    server.track("Person")
    server.sql("UPDATE Person SET Age = 41, Name = 'Alicia'")
    result = client.pull(server)
    assert result["rejections"][0]["kind"] == "SchemaMismatch"
    assert client.cursor == server.state["maxVersion"]
    assert client.rows("Person") == [(1, "Alice", "alice@example.com")]

    client.sql("ALTER TABLE Person ADD COLUMN Age INT")
    client.pull(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com", 41)]
    assert client.rejections() == [] and equal("Person", server, client)


def test_a_column_the_sender_lacks_keeps_its_value(synced):
    server, client = synced
    server.sql("ALTER TABLE Person ADD COLUMN Age INT DEFAULT 18")
    client.sql("UPDATE Person SET Name = 'Alicia'")
    client.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    server.sql("UPDATE Person SET Age = 41 WHERE Id = 1")
    client.push(server)
    assert server.sql("SELECT Id, Age FROM Person ORDER BY Id")[1] == (2, 18)
    assert server.value("SELECT Age FROM Person WHERE Id = 1") == 41


def test_a_change_logged_before_the_column_existed_is_still_good(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    before = server.fetch_text(client.cursor, 1000, client.origin)
    alter("ALTER TABLE Person ADD COLUMN Age INT DEFAULT 18", server, client)
    client.apply(before)
    assert client.rows("Person")[1] == (2, "Bob", None, 18)
    settle(server, client, rounds=1)
    assert equal("Person", server, client)


def test_a_renamed_column_goes_on(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    alter("ALTER TABLE Person RENAME COLUMN Name TO FullName", server, client)
    server.sql("UPDATE Person SET FullName = 'Alice A.' WHERE Id = 1")
    client.sync(server)
    client.sql("UPDATE Person SET FullName = 'Robert' WHERE Id = 2")
    client.sync(server)
    assert server.rows("Person") == client.rows("Person") == [(1, "Alice A.", "alice@example.com"), (2, "Robert", None)]
    assert equal("Person", server, client)
    assert "FullName" in json.loads(server.log()[-1]["payload"])


def test_columns_that_swap_their_names_swap_their_values(synced):
    server, client = synced
    for replica in synced:
        replica.sql("ALTER TABLE Person RENAME COLUMN Name TO Aside")
        replica.sql("ALTER TABLE Person RENAME COLUMN Email TO Name")
        replica.sql("ALTER TABLE Person RENAME COLUMN Aside TO Email")
    server.sql("UPDATE Person SET Name = 'new name'")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "Alice", "new name")]


def test_a_renamed_key_column_goes_on(synced):
    server, client = synced
    alter("ALTER TABLE Person RENAME COLUMN Id TO Number", server, client)
    server.sql("UPDATE Person SET Name = 'Alicia' WHERE Number = 1")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    assert equal("Person", server, client)
    client.sql("DELETE FROM Person WHERE Number = 1")
    client.sync(server)
    assert server.rows("Person") == [(2, "Bob", None)]


def test_a_renamed_table_goes_on(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    alter("ALTER TABLE Person RENAME TO Human", server, client)
    server.sql("UPDATE Human SET Name = 'Alicia' WHERE Id = 1")
    client.sql("INSERT INTO Human VALUES (3, 'Carol', NULL)")
    settle(server, client, rounds=1)
    client.sync(server)
    assert len(server.rows("Human")) == 3
    assert equal("Human", server, client)
    assert server.sql("SELECT table_name FROM sync_tables()") == [("Human",)]


TWO = ["CREATE TABLE a(id INTEGER PRIMARY KEY, v TEXT)", "CREATE TABLE b(id INTEGER PRIMARY KEY, w TEXT)"]


@pytest.mark.parametrize("names", [
    [("a", "b"), ("b", "a")],
    [("a", "b"), ("b", "c")],
    [("b", "c"), ("a", "b")],
])
def test_tables_that_take_each_others_names_go_on(make_pair, names):
    """Under the names that they have for others: a table's name is its own replica's affair."""
    server, client = make_pair(*TWO, track=["a", "b"])
    server.sql("INSERT INTO a VALUES (1, 'of a')")
    server.sql("INSERT INTO b VALUES (1, 'of b')")
    client.sync(server)
    for old, new in names:
        alter(f"ALTER TABLE {old} RENAME TO old_{new}", client)
    for _, new in names:
        alter(f"ALTER TABLE old_{new} RENAME TO {new}", client)
    now = dict(names)
    client.sql(f"UPDATE {now['a']} SET v = 'a, by the client'")
    client.sql(f"INSERT INTO {now['b']} VALUES (2, 'b, by the client')")
    client.sync(server)
    server.sql("UPDATE b SET w = 'b, by the server' WHERE id = 1")
    client.sync(server)
    assert client.rows(now["a"]) == server.rows("a") == [(1, "a, by the client")]
    assert client.rows(now["b"]) == server.rows("b") == [(1, "b, by the server"), (2, "b, by the client")]
    assert sorted(client.sql("SELECT table_name, name FROM sync_tables()")) == sorted((new, old) for old, new in names)
    triggers = dict(client.sql("SELECT name, tbl_name FROM sqlite_schema WHERE type = 'trigger' AND name LIKE '%_sync_insert'"))
    assert triggers == {f"{table}_sync_insert": table for table in now.values()}


def test_a_table_that_takes_the_name_of_one_that_was_dropped(make_pair):
    server, client = make_pair(*TWO, track=["a", "b"])
    server.sql("INSERT INTO a VALUES (1, 'of a')")
    client.sync(server)
    alter("DROP TABLE b", client)
    alter("ALTER TABLE a RENAME TO b", client)
    client.sql("UPDATE b SET v = 'by the client'")
    client.sync(server)
    assert server.rows("a") == client.rows("b") == [(1, "by the client")]
    assert server.rows("b") == []
    assert client.sql("SELECT table_name, name FROM sync_tables()") == [("b", "a")]


def test_a_dropped_column_goes_on(synced):
    server, client = synced
    for replica in synced:
        drop_column(replica, "Person", "Email")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sql("INSERT INTO Person VALUES (2, 'Bob')")
    settle(server, client, rounds=2)
    assert server.rows("Person") == client.rows("Person") == [(1, "Alicia"), (2, "Bob")]
    assert equal("Person", server, client)


def test_a_column_the_server_dropped_keeps_its_value_at_the_client(synced):
    server, client = synced
    drop_column(server, "Person", "Email")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com")]


def test_a_change_with_a_dropped_column_waits_in_the_rejections(synced):
    server, client = synced
    drop_column(server, "Person", "Email")
    client.sql("UPDATE Person SET Email = 'new@example.com'")
    client.push(server)
    assert [rejection["kind"] for rejection in server.rejections()] == ["SchemaMismatch"]
    assert server.rows("Person") == [(1, "Alice")]


def test_untracked_execution_captures_again_afterwards(server):
    drop_column(server, "Person", "Email")
    server.sql("INSERT INTO Person VALUES (1, 'Alice')")
    assert [json.loads(entry["payload"]) for entry in server.log()] == [{"Id": 1, "Name": "Alice"}]


@pytest.mark.parametrize("foreign_keys", ["ON", "OFF"])
def test_a_rebuilt_table_goes_on(synced, foreign_keys):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    for replica in synced:
        replica.sql(f"PRAGMA foreign_keys = {foreign_keys}")
        with replica.transaction():
            for statement in REBUILD:
                replica.sql(statement)
    server.sql("UPDATE Person SET Name = 'Alicia' WHERE Id = 1")
    server.sql("INSERT INTO Person(Id, Name) VALUES (3, 'Carol')")
    client.sql("INSERT INTO Person(Id, Name) VALUES (4, 'Dan')")
    settle(server, client, rounds=2)
    assert [row[0] for row in server.rows("Person")] == [1, 2, 3, 4]
    assert equal("Person", server, client)


def test_what_a_rebuild_changed_in_the_rows_is_noticed(synced):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    with server.transaction():
        server.sql("CREATE TABLE new_person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)")
        server.sql("INSERT INTO new_person SELECT Id, upper(Name), Email FROM Person WHERE Id = 1")
        server.sql("DROP TABLE Person")
        server.sql("ALTER TABLE new_person RENAME TO Person")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person") == [(1, "ALICE", "alice@example.com")]


def test_a_write_never_fails_between_the_change_and_the_next_sync(server, open_replica):
    stranger = open_replica("server", extension=False)
    for statement in (
        "ALTER TABLE Person ADD COLUMN Age INT",
        "INSERT INTO Person(Id, Name, Age) VALUES (1, 'Alice', 41)",
        "ALTER TABLE Person RENAME COLUMN Name TO FullName",
        "UPDATE Person SET FullName = 'Alicia'",
        "ALTER TABLE Person RENAME TO Human",
        "INSERT INTO Human(Id, FullName) VALUES (2, 'Bob')",
        "DELETE FROM Human WHERE Id = 1",
    ):
        stranger.sql(statement)
    assert [json.loads(entry["pk_value"])["Id"] for entry in server.log()][-2:] == [2, 1]


def test_tracking_again_follows_the_schema_at_once(server):
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    assert server.track("Person")["columns"] == ["Id", "Name", "Email", "Age"]
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL, 41)")
    assert json.loads(server.log()[-1]["payload"])["Age"] == 41


def test_a_rolled_back_change_of_the_schema_leaves_capture_as_it_was(synced):
    server, client = synced
    server.sql("BEGIN")
    server.sql("ALTER TABLE Person ADD COLUMN Age INT")
    server.track("Person")
    server.sql("ROLLBACK")
    server.sql("UPDATE Person SET Name = 'Alicia'")
    client.sync(server)
    assert client.rows("Person") == [(1, "Alicia", "alice@example.com")]


def test_a_dropped_table_does_not_stop_the_others(make_pair):
    server, client = make_pair(PERSON, "CREATE TABLE gone(id INTEGER PRIMARY KEY)", track=["Person", "gone"])
    server.sql("INSERT INTO gone VALUES (1)")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    server.sql("DROP TABLE gone")
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL)")
    client.sync(server)
    assert client.rows("Person") == server.rows("Person")


def test_a_column_gone_and_back_again_is_captured(server, client):
    drop_column(server, "Person", "Email")
    server.sql("ALTER TABLE Person ADD COLUMN Email TEXT")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'back')")
    client.pull(server)
    assert client.rows("Person") == [(1, "Alice", "back")]


def test_an_unknown_column_does_not_stop_the_rest_of_the_batch(server):
    unknown = insert("Person", {"Id": 1, "Colour": "red"})
    result = server.apply(push(unknown, person(2, "Bob"), update("Person", {"Id": 2, "Name": "B"}, at=stamp(minutes=1))))
    assert (result["applied"], result["rejected"]) == (2, 1)


def test_a_table_that_vanished_is_an_error_when_it_is_sent(server):
    server.sql("DROP TABLE Person")
    with sync_error("TableNotFound"):
        server.apply(push(person(1, "Alice")))


MAKE_AGAIN = ["DROP TABLE Person", PERSON]
WITHOUT_KEY = ["CREATE TABLE keyless AS SELECT * FROM Person", "DROP TABLE Person", "ALTER TABLE keyless RENAME TO Person"]


@pytest.fixture
def crowded(synced):
    """A server and a client that both know five people."""
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL), (3, 'Carol', NULL), (4, 'Dan', NULL), (5, 'Eve', NULL)")
    client.sync(server)
    return server, client


def run(replica, statements):
    for statement in statements:
        replica.sql(statement)


SEEDS = {"empty": [], "other rows": ["INSERT INTO Person VALUES (9, 'Zoe', NULL)"], "a few of its rows": ["INSERT INTO Person VALUES (1, 'New', NULL), (2, 'Bob', NULL)"]}


@pytest.mark.parametrize("seed", SEEDS)
def test_a_table_that_is_dropped_and_made_again_deletes_nothing(crowded, seed):
    server, client = crowded
    run(client, MAKE_AGAIN + SEEDS[seed])
    for _ in range(2):
        with sync_error("SchemaMismatch"):
            client.sync(server)
    assert "sync_begin_resync" in client.status["tables"][0]["problem"]
    assert len(server.rows("Person")) == 5
    with sync_error("SchemaMismatch"):
        client.track("Person")


@pytest.mark.parametrize("seed", SEEDS)
def test_a_resync_puts_the_rows_back_that_were_dropped_with_their_table(crowded, seed):
    server, client = crowded
    client.sql("INSERT INTO Person VALUES (6, 'not pushed yet', NULL)")
    server.sql("UPDATE Person SET Name = 'Dora' WHERE Id = 4")
    run(client, MAKE_AGAIN + SEEDS[seed])
    client.sql("SELECT sync_begin_resync()")
    assert {row[0] for row in client.rows("Person")} >= {1, 2, 3, 4, 5, 6}
    settle(server, client, rounds=2)
    assert equal("Person", server, client)
    assert {row[0]: row[1] for row in server.rows("Person")}[4] == "Dora"
    client.sql("DELETE FROM Person WHERE Id = 6")
    client.sync(server)
    assert equal("Person", server, client) and "problem" not in client.status["tables"][0]


def test_a_reconciliation_says_that_the_rows_of_a_dropped_table_are_gone(crowded):
    server, client = crowded
    run(client, MAKE_AGAIN)
    client.sql("INSERT INTO Person VALUES (9, 'Zoe', NULL)")
    assert client.value("SELECT sync_reconcile('Person')") == 6
    client.sync(server)
    assert server.rows("Person") == [(9, "Zoe", None)] and equal("Person", server, client)


def test_a_server_whose_table_was_dropped_and_made_again_deletes_nothing(crowded):
    server, client = crowded
    run(server, MAKE_AGAIN)
    with sync_error("SchemaMismatch"):
        client.sync(server)
    server.sql("SELECT sync_begin_resync()")
    client.sync(server)
    assert len(server.rows("Person")) == 5 and equal("Person", server, client)


def test_a_table_that_takes_its_rows_no_more_keeps_them_in_the_log(crowded):
    server, client = crowded
    run(client, ["DROP TABLE Person", "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT NOT NULL)"])
    with sync_error("SchemaMismatch"):
        client.sql("SELECT sync_begin_resync()")
    assert client.rows("Person") == []
    run(client, MAKE_AGAIN)
    client.sql("SELECT sync_begin_resync()")
    assert equal("Person", server, client)


def test_a_table_tracked_again_without_its_rows_deletes_nothing(crowded):
    server, client = crowded
    client.sql("SELECT sync_untrack_table('Person')")
    run(client, MAKE_AGAIN)
    assert "sync_begin_resync" in client.track("Person")["warnings"][-1]
    with sync_error("SchemaMismatch"):
        client.sync(server)
    client.sql("SELECT sync_begin_resync()")
    client.sync(server)
    assert len(server.rows("Person")) == 5 and equal("Person", server, client)


@pytest.mark.parametrize("kept", [1, 3])
def test_a_rebuilt_table_may_have_lost_most_of_its_rows(crowded, kept):
    server, client = crowded
    run(client, [REBUILD[0], f"{REBUILD[1]} WHERE Id <= {kept}", *REBUILD[2:]])
    client.sync(server)
    assert len(server.rows("Person")) == kept


def test_a_table_without_its_key_is_an_error_and_what_was_written_is_found_when_it_has_one_again(synced):
    server, client = synced
    run(client, WITHOUT_KEY)
    client.sql("UPDATE Person SET Name = 'edited'")
    server.sql("UPDATE Person SET Email = NULL")
    for call in (client.pull, client.push):
        with sync_error("UnsupportedTable"):
            call(server)
    assert "no primary key" in client.status["tables"][0]["problem"]
    server.sql("UPDATE Person SET Email = 'alice@example.com'")
    run(client, REBUILD)
    settle(server, client, rounds=2)
    assert server.value("SELECT Name FROM Person") == "edited" and client.rejections() == []
    assert len(client.rows("Person")) == len(server.rows("Person")) == 1


def test_a_table_without_its_key_can_be_given_up(synced):
    server, client = synced
    run(client, WITHOUT_KEY)
    with sync_error("UnsupportedTable"):
        client.push(server)
    assert client.value("SELECT sync_untrack_table('Person')") == 1
    client.push(server)


# A default that only one side has


@pytest.mark.parametrize("first", ["server", "client"])
def test_a_new_columns_default_on_the_server_reaches_clients_that_have_none(synced, make_replica, first):
    server, client = synced
    statements = {server: "ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'", client: "ALTER TABLE Person ADD COLUMN Status TEXT"}
    for replica in (server, client) if first == "server" else (client, server):
        replica.sql(statements[replica])
        replica.sql("SELECT sync_reconcile('Person')")
        client.sync(server)
    client.sync(server)
    new = make_replica("new", PERSON[:-1] + ", Status TEXT)", track=["Person"])
    new.sync(server)
    assert equal("Person", server, client, new)
    new.sql("UPDATE Person SET Name = 'Alicia'")
    settle(server, new, client)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "active")]
    assert equal("Person", server, client, new)
    assert server.conflicts() == client.conflicts() == new.conflicts() == []


def test_a_new_columns_default_wins_over_no_edit(synced):
    server, client = synced
    client.sql("UPDATE Person SET Name = 'Alicia'")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'")
    server.sql("SELECT sync_reconcile('Person')")
    settle(server, client)
    assert server.rows("Person") == [(1, "Alicia", "alice@example.com", "active")]
    client.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    settle(server, client)
    assert equal("Person", server, client)


def test_a_new_columns_default_is_logged_when_that_is_asked_for_and_once(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'")
    server.track("Person")
    assert server.fetch()["toVersion"] == 2
    assert server.value("SELECT sync_reconcile('Person')") == 2
    server.sql("ALTER TABLE Person ADD COLUMN Note TEXT")
    assert server.value("SELECT sync_reconcile('Person')") == 0, "that it is NULL need not be told"
    assert server.fetch()["toVersion"] == 4
    assert [json.loads(change["payload"])["Status"] for change in server.fetch(2)["changes"]] == ["active", "active"]


def test_a_client_leaves_a_new_columns_default_to_its_server(synced):
    server, client = synced
    alter("ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'", client, server)
    for replica in synced:
        replica.sql("SELECT sync_reconcile('Person')")
    assert client.fetch_local()["changes"] == []
    settle(server, client)
    assert equal("Person", server, client) and client.conflicts() == server.conflicts() == []


@pytest.mark.parametrize("strategy", ["last_write_wins", "client_wins", "server_wins", "merge"])
@pytest.mark.parametrize("order", ["edit, server, client", "server, edit, client", "server, client, edit"])
def test_an_edit_that_does_not_know_a_new_column_leaves_both_sides_with_its_value(synced, strategy, order):
    server, client = synced
    steps = {
        "edit": (client, "UPDATE Person SET Name = 'edited'"),
        "server": (server, "ALTER TABLE Person ADD COLUMN Status TEXT DEFAULT 'active'"),
        "client": (client, "ALTER TABLE Person ADD COLUMN Status TEXT"),
    }
    for replica in synced:
        replica.sql("SELECT sync_set_conflict_strategy('Person', ?)", strategy)
    for step in order.split(", "):
        replica, statement = steps[step]
        replica.sql(statement)
        if step == "server":
            server.sql("SELECT sync_reconcile('Person')")
        let_the_clock_tick()
    settle(server, client)
    name = "Alice" if strategy == "server_wins" else "edited"
    assert server.rows("Person") == [(1, name, "alice@example.com", "active")]
    assert equal("Person", server, client) and len(client.conflicts()) == 1


def test_a_later_change_that_does_not_know_a_new_column_leaves_both_sides_with_its_value(synced):
    server, client = synced
    client.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    client.fetch_local()
    client.sql("UPDATE Person SET Status = 'set offline'")
    let_the_clock_tick()
    server.sql("UPDATE Person SET Name = 'later'")
    server.sql("ALTER TABLE Person ADD COLUMN Status TEXT")
    settle(server, client)
    assert server.rows("Person") == [(1, "later", "alice@example.com", "set offline")]
    assert equal("Person", server, client)


# Another primary key

BY_NAME = [
    "CREATE TABLE n(Id INTEGER, Name TEXT PRIMARY KEY NOT NULL, Email TEXT)",
    "INSERT INTO n SELECT * FROM Person",
    "DROP TABLE Person",
    "ALTER TABLE n RENAME TO Person",
]


def test_another_primary_key_goes_on_for_old_and_new_replicas(synced, make_replica):
    server, client = synced
    server.sql("INSERT INTO Person VALUES (2, 'Bob', NULL), (3, 'Carol', NULL)")
    server.sql("DELETE FROM Person WHERE Id = 3")
    client.sync(server)
    for replica in (server, client):
        with replica.transaction():
            for statement in BY_NAME:
                replica.sql(statement)
    server.sql("UPDATE Person SET Email = 'b' WHERE Name = 'Bob'")
    client.sql("UPDATE Person SET Email = 'a' WHERE Name = 'Alice'")
    settle(server, client)
    new = make_replica("new", BY_NAME[0].replace("n(", "Person("), track=["Person"])
    settle(server, new, client)
    assert server.rows("Person") == [(1, "Alice", "a"), (2, "Bob", "b")]
    assert equal("Person", server, client, new)


def rename_key(replica):
    replica.sql("ALTER TABLE Person RENAME COLUMN Id TO PersonId")


def rename_on_the_wire(replica):
    replica.track("Person", name="people")


@pytest.mark.parametrize("rename", [rename_key, rename_on_the_wire])
@pytest.mark.parametrize("later", ["server", "client"])
def test_a_conflict_is_found_though_what_tells_rows_apart_was_renamed(synced, rename, later):
    server, client = synced
    edits = {"server": server, "client": client}
    if later == "client":
        server.sql("UPDATE Person SET Name = 'server'")
        let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'client'")
    client.fetch_local()
    if later == "server":
        let_the_clock_tick()
        server.sql("UPDATE Person SET Name = 'server'")
    for replica in edits.values():
        rename(replica)
    settle(server, client)
    assert equal("Person", server, client) and server.value("SELECT Name FROM Person") == later
    assert len(client.conflicts()) == 1
