"""`sync_with(path)`: pull and push against another SQLite database file in one call."""

import json

import pytest

from crafted import let_the_clock_tick
from replica import COUNTS, DRIVER_ERRORS, sync_error

MEMBERS = {"pulled", "pushed", "applied", "conflicts", "rejected", "batches", "lastServerVersion", "lastPushVersion"}


def sync_with(replica, server, **options):
    return replica.json("SELECT sync_with(?, ?)", str(server.path), json.dumps(options) if options else None)


def add(replica, *ids):
    replica.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in ids])


def test_one_call_pulls_and_pushes(server, client):
    add(server, 1, 2)
    add(client, 10)
    answer = sync_with(client, server)
    assert set(answer) >= MEMBERS
    assert (answer["pulled"], answer["pushed"], answer["conflicts"], answer["rejected"]) == (2, 1, 0, 0)
    assert answer["lastServerVersion"] == client.cursor
    assert answer["lastPushVersion"] == client.value("SELECT sync_last_push_version()")
    assert client.rows("Person") == server.rows("Person")
    assert client.hash() == server.hash()


def test_a_second_call_has_nothing_to_do(server, client):
    add(server, 1)
    add(client, 10)
    sync_with(client, server)
    sync_with(client, server)
    entries = client.state["entries"], server.state["entries"]
    answer = sync_with(client, server)
    assert (answer["pulled"], answer["pushed"], answer["applied"]) == (0, 0, 0)
    assert (client.state["entries"], server.state["entries"]) == entries


def test_three_databases_meet_in_one(server, client, other):
    add(server, 1)
    add(client, 2)
    add(other, 3)
    for replica in (client, other, client):
        sync_with(replica, server)
    assert server.rows("Person") == client.rows("Person") == other.rows("Person")


def test_conflicts_end_the_same_on_both_sides(server, client):
    add(server, 1)
    sync_with(client, server)
    server.sql("UPDATE Person SET Name = 'server'")
    let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'client'")
    assert sync_with(client, server)["conflicts"] >= 1
    sync_with(client, server)
    assert server.rows("Person") == client.rows("Person") == [(1, "client", None)]


def test_many_batches_are_one_call(server, client):
    add(server, *range(1, 26))
    add(client, *range(101, 126))
    answer = sync_with(client, server, batchSize=4)
    assert (answer["pulled"], answer["pushed"]) == (25, 25)
    assert answer["batches"] >= 14
    assert client.hash() == server.hash()


def test_it_goes_on_where_another_way_of_syncing_stopped(server, client):
    add(server, *range(1, 11))
    add(client, *range(101, 111))
    client.pull(server, size=3, limit=1)
    client.push(server, size=3, limit=1)
    answer = sync_with(client, server)
    assert client.hash() == server.hash()
    assert (answer["pulled"], answer["pushed"]) == (7, 7)


def test_it_goes_on_after_an_error_in_the_middle(server, client):
    add(server, *range(1, 11))
    client.sql("SELECT sync_set_conflict_strategy('Person', 'custom', ?)", "json_set('not json', '$', :local, '$', :remote)")
    client.sql("INSERT INTO Person VALUES (8, 'another', NULL)")
    with sync_error("UnresolvedConflict"):
        sync_with(client, server, batchSize=2)
    assert client.cursor == 6
    client.sql("SELECT sync_set_conflict_strategy('Person', 'last_write_wins')")
    sync_with(client, server)
    sync_with(client, server)
    assert client.hash() == server.hash()


def test_a_rejection_is_counted_and_stops_nothing(server, client):
    client.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Id = 2 BEGIN SELECT raise(ABORT, 'no'); END")
    add(server, 1, 2, 3)
    assert sync_with(client, server)["rejected"] == 1
    assert [row[0] for row in client.rows("Person")] == [1, 3]


def test_the_client_is_registered_at_the_server(server, client):
    add(server, 1)
    sync_with(client, server)
    assert server.sql("SELECT origin_id, last_sync_version FROM sync_clients()") == [(client.origin, 1)]


def test_a_file_url_is_taken(server, client):
    add(server, 1)
    assert client.json("SELECT sync_with(?)", f"file:{server.path}")["pulled"] == 1


def test_the_server_needs_no_connection_of_its_own(server, client):
    add(server, 1)
    server.close()
    assert sync_with(client, server)["pulled"] == 1


def test_a_server_whose_table_has_changed_is_followed(make_replica, open_replica):
    server, client = (make_replica(name, "CREATE TABLE t(k DATETIME PRIMARY KEY NOT NULL)", track=["t"]) for name in ("server", "client"))
    server.sql("INSERT INTO t VALUES ('2024-01-02 03:04:05')")
    server.close()
    plain = open_replica("server", extension=False)
    plain.sql("ALTER TABLE t ADD COLUMN v DEFAULT 1")
    plain.close()
    assert sync_with(client, server)["pulled"] >= 1
    assert client.rows("t") == [("2024-01-02T03:04:05.000",)], "a key's time goes over the wire in its one form"


def test_the_server_may_be_in_use_by_others(server, client, open_replica):
    for replica in (server, client):
        replica.sql("PRAGMA journal_mode = WAL")
    add(server, 1)
    reader = open_replica("server")
    reader.sql("BEGIN")
    reader.rows("Person")
    add(client, 2)
    sync_with(client, server)
    reader.sql("COMMIT")
    assert server.rows("Person") == client.rows("Person")


def test_a_file_that_is_not_there_is_refused_and_not_made(client, tmp_path):
    missing = tmp_path / "nowhere.db"
    with pytest.raises(DRIVER_ERRORS):
        client.sql("SELECT sync_with(?)", str(missing))
    assert not missing.exists()


def test_a_file_that_is_no_database_is_refused(client, tmp_path):
    text = tmp_path / "text.db"
    text.write_text("this is no database, and long enough to have a header " * 10)
    with pytest.raises(DRIVER_ERRORS):
        client.sql("SELECT sync_with(?)", str(text))


def test_a_database_that_was_never_initialised_is_refused(client, open_replica):
    stranger = open_replica("stranger")
    stranger.sql("CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)")
    with sync_error("NotInitialized"):
        sync_with(client, stranger)


def test_syncing_with_itself_is_refused(client):
    add(client, 1)
    with pytest.raises(DRIVER_ERRORS, match="sync: "):
        sync_with(client, client)
    assert len(client.log()) == 1


@pytest.mark.parametrize("options", ['{"colour":1}', '{"batchSize":0}', '{"batchSize":10001}', '{"batchSize":"many"}', "[]", "{", ""])
def test_a_wrong_option_is_refused(server, client, options):
    with sync_error("InvalidArgument"):
        client.sql("SELECT sync_with(?, ?)", str(server.path), options)


@pytest.mark.parametrize("url", ["", None])
def test_a_url_that_is_nothing_is_refused(client, url):
    with sync_error("InvalidArgument"):
        client.sql("SELECT sync_with(?)", url)


def test_an_error_of_the_server_comes_through(server, client, make_replica):
    add(server, 1)
    sync_with(client, server)
    replacement = make_replica("replacement", "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)", track=["Person"])
    with sync_error("EpochMismatch"):
        sync_with(client, replacement)


def test_the_answer_adds_up_what_the_batches_answered(server, client):
    add(server, *range(1, 8))
    answer = sync_with(client, server, batchSize=2)
    assert answer["applied"] == 7 and all(answer[name] >= 0 for name in COUNTS if name in answer)
