"""What a replica sends: the batch's form, its limits, and whose changes it leaves out."""

import json

import pytest

from crafted import ALICE, BOB, let_the_clock_tick, person, push
from replica import settle, sync_error

MAX_BATCH_SIZE = 10_000


def add_people(replica, count, first=1):
    replica.many("INSERT INTO Person VALUES (?, ?, NULL)", [(id, f"Person {id}") for id in range(first, first + count)])


def versions(batch):
    return [change["version"] for change in batch["changes"]]


def test_a_batch_has_the_contracts_members(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'alice@example.com')")
    batch = server.fetch()
    assert batch["kind"] == "pull"
    assert batch["originId"] == server.origin
    assert batch["epoch"] == server.state["epoch"]
    assert (batch["fromVersion"], batch["toVersion"], batch["hasMore"]) == (0, 1, False)
    assert batch["hash"] == server.value("SELECT sync_hash_batch(?)", json.dumps(batch))
    [change] = batch["changes"]
    assert change["version"] == 1
    assert change["tableName"] == "Person"
    assert change["pkValue"] == '{"Id":1}'
    assert change["operation"] == "Insert"
    assert change["payload"] == '{"Id":1,"Name":"Alice","Email":"alice@example.com"}'
    assert change["origin"] == server.origin
    assert len(change["timestamp"]) == len("2025-01-15T10:30:00.000Z") and change["timestamp"].endswith("Z")


def test_a_delete_travels_without_payload(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    server.sql("DELETE FROM Person")
    change = server.fetch()["changes"][-1]
    assert (change["operation"], change["pkValue"], change["payload"]) == ("Delete", '{"Id":1}', None)


def test_a_push_batch_says_up_to_where_its_sender_has_pulled(server, client):
    add_people(server, 3)
    client.pull(server)
    client.sql("INSERT INTO Person VALUES (9, 'Here', NULL)")
    batch = client.fetch_local()
    assert (batch["kind"], batch["lastServerVersion"]) == ("push", 3)
    assert [change["pkValue"] for change in batch["changes"]] == ['{"Id":9}']


def test_fetching_is_cut_at_the_batch_size_and_goes_on_where_it_stopped(server):
    add_people(server, 5)
    first = server.fetch(0, 2)
    assert (versions(first), first["toVersion"], first["hasMore"]) == ([1, 2], 2, True)
    second = server.fetch(first["toVersion"], 2)
    assert (versions(second), second["hasMore"]) == ([3, 4], True)
    third = server.fetch(second["toVersion"], 2)
    assert (versions(third), third["hasMore"]) == ([5], False)


def test_has_more_is_exact_when_the_batch_is_just_full(server):
    add_people(server, 4)
    assert server.fetch(0, 4)["hasMore"] is False
    assert server.fetch(2, 2)["hasMore"] is False
    assert server.fetch(1, 2)["hasMore"] is True


def test_nothing_to_send_is_an_empty_batch_at_the_highest_version(server):
    empty = server.fetch()
    assert (empty["changes"], empty["fromVersion"], empty["toVersion"], empty["hasMore"]) == ([], 0, 0, False)
    add_people(server, 3)
    done = server.fetch(3)
    assert (done["changes"], done["toVersion"], done["hasMore"]) == ([], 3, False)


def test_the_cursor_moves_past_excluded_entries(server):
    server.apply(push(person(1, "Alice"), person(2, "Bob"), sender=ALICE))
    batch = server.fetch(0, 1000, ALICE)
    assert (batch["changes"], batch["toVersion"], batch["hasMore"]) == ([], server.state["maxVersion"], False)


def test_has_more_is_exact_when_only_excluded_entries_remain(server):
    add_people(server, 2)
    server.apply(push(person(11, "Alice"), sender=ALICE))
    batch = server.fetch(0, 2, ALICE)
    assert (versions(batch), batch["hasMore"]) == ([1, 2], False)


def test_nobody_gets_the_own_changes_back(server):
    server.apply(push(person(1, "Alice"), sender=ALICE))
    server.apply(push(person(2, "Bob", origin=BOB), sender=BOB))
    assert [change["origin"] for change in server.fetch(0, 1000, ALICE)["changes"]] == [BOB]
    assert [change["origin"] for change in server.fetch(0, 1000, BOB)["changes"]] == [ALICE]
    assert len(server.fetch()["changes"]) == 2


@pytest.mark.parametrize("size", [0, -1, MAX_BATCH_SIZE + 1, 2**63 - 1])
def test_a_batch_size_out_of_bounds_is_refused(server, size):
    for call in ("sync_fetch_changes(0, ?)", "sync_fetch_local_changes(?)"):
        with sync_error("InvalidArgument"):
            server.sql(f"SELECT {call}", size)
    with sync_error("InvalidArgument"):
        server.sql("SELECT * FROM sync_changes(0, ?)", size)


@pytest.mark.parametrize("size", [1, MAX_BATCH_SIZE])
def test_the_bounds_of_the_batch_size_are_allowed(server, size):
    add_people(server, 2)
    assert len(server.fetch(0, size)["changes"]) == min(size, 2)


def test_a_negative_version_is_refused(server):
    with sync_error("InvalidArgument"):
        server.fetch(-1)


def test_an_origin_to_exclude_that_is_no_uuid_is_refused(server):
    with sync_error("InvalidArgument"):
        server.fetch(0, 10, "alice")


def test_defaults_stand_for_missing_and_null_arguments(server):
    add_people(server, 3)
    whole = server.fetch()
    for call in ("sync_fetch_changes()", "sync_fetch_changes(NULL, NULL, NULL)", "sync_fetch_changes(0)"):
        assert server.json(f"SELECT {call}")["changes"] == whole["changes"]


def test_the_set_of_changes_is_the_batch_in_rows(server):
    add_people(server, 3)
    server.sql("DELETE FROM Person WHERE Id = 2")
    rows = server.records("SELECT * FROM sync_changes(1, 2)")
    changes = server.fetch(1, 2)["changes"]
    assert [row["version"] for row in rows] == versions({"changes": changes})
    assert [row["payload"] for row in rows] == [change["payload"] for change in changes]
    assert [row["operation"] for row in rows] == ["insert", "insert"]
    assert server.sql("SELECT operation, payload FROM sync_changes(3)") == [("delete", None)]


def test_fetching_changes_nothing(server):
    add_people(server, 3)
    server.sql("PRAGMA query_only = ON")
    assert len(server.fetch()["changes"]) == 3
    assert len(server.sql("SELECT * FROM sync_changes()")) == 3


def test_a_push_carries_the_newest_entry_of_a_row_only(client):
    add_people(client, 2)
    client.sql("UPDATE Person SET Name = 'Once' WHERE Id = 1")
    client.sql("UPDATE Person SET Name = 'Twice' WHERE Id = 1")
    batch = client.fetch_local()
    assert [(change["pkValue"], json.loads(change["payload"])["Name"]) for change in batch["changes"]] == [
        ('{"Id":2}', "Person 2"),
        ('{"Id":1}', "Twice"),
    ]
    assert batch["toVersion"] == 4


def test_a_push_goes_on_after_what_was_acknowledged(client):
    add_people(client, 3)
    first = client.fetch_local(2)
    assert (len(first["changes"]), first["hasMore"]) == (2, True)
    client.acknowledge(first["toVersion"])
    second = client.fetch_local(2)
    assert (len(second["changes"]), second["hasMore"]) == (1, False)
    client.acknowledge(second["toVersion"])
    assert client.fetch_local()["changes"] == []


def test_what_came_from_the_server_is_not_pushed_to_it(server, client):
    add_people(server, 3)
    client.pull(server)
    assert client.fetch_local()["changes"] == []


def test_what_came_from_downstream_is_pushed_upstream(client):
    client.apply(push(person(1, "Alice"), sender=ALICE))
    assert [change["origin"] for change in client.fetch_local()["changes"]] == [ALICE]


def test_a_row_changed_while_its_push_was_under_way_is_pushed_again(server, client):
    add_people(client, 1)
    under_way = client.fetch_local()
    let_the_clock_tick()
    client.sql("UPDATE Person SET Name = 'Changed'")
    server.apply(under_way)
    client.acknowledge(under_way["toVersion"])
    client.push(server)
    assert server.rows("Person") == [(1, "Changed", None)]


def test_invalid_utf8_is_refused_with_the_row_named(server):
    server.sql("INSERT INTO Person VALUES (77, CAST(x'66ff' AS TEXT), NULL)")
    with pytest.raises(Exception, match=r"sync: \w+: .*Person.*77"):
        server.fetch()


def test_a_repaired_row_frees_the_stream_again(server, client):
    server.sql("INSERT INTO Person VALUES (77, CAST(x'66ff' AS TEXT), NULL)")
    server.sql("UPDATE Person SET Name = 'fine'")
    server.sql("SELECT sync_compact()")
    client.pull(server)
    assert client.rows("Person") == [(77, "fine", None)]


# Bytes

MEGABYTE = 1_000_000
FULL_BYTES = 32 * 1024 * 1024
MAX_BYTES = 64 * 1024 * 1024


@pytest.fixture
def photos(make_pair):
    """A server and a client with photos, which take twice their bytes in a batch."""
    return make_pair("CREATE TABLE photo(id INTEGER PRIMARY KEY, data BLOB)", track=["photo"])


def take(replica, *megabytes, first=1):
    replica.many(
        "INSERT INTO photo VALUES (?, zeroblob(?))",
        [(first + place, size * MEGABYTE) for place, size in enumerate(megabytes)],
    )


def pulled(server, client):
    """What the client's pull brings, batch by batch: the keys, and whether more follows."""
    found, more = [], True
    while more:
        text = server.fetch_text(client.cursor, 1000, client.origin)
        assert len(text) <= MAX_BYTES
        client.apply(text)
        batch = json.loads(text)
        more = batch["hasMore"]
        found.append(([json.loads(change["pkValue"])["id"] for change in batch["changes"]], more))
    return found


def pushed(client, server):
    """As `pulled`."""
    found, more = [], True
    while more:
        text = client.fetch_local_text()
        assert len(text) <= MAX_BYTES
        server.apply(text)
        batch = json.loads(text)
        client.acknowledge(batch["toVersion"])
        more = batch["hasMore"]
        found.append(([json.loads(change["pkValue"])["id"] for change in batch["changes"]], more))
    return found


def test_a_pull_is_closed_before_it_has_too_many_bytes(photos):
    server, client = photos
    take(server, 7, 7, 7, 20, 7)
    assert pulled(server, client) == [([1, 2], True), ([3], True), ([4], True), ([5], False)]
    assert client.hash() == server.hash()


def test_a_push_is_closed_before_it_has_too_many_bytes(photos):
    server, client = photos
    take(client, 7, 7, 7, 20, 7)
    assert pushed(client, server) == [([1, 2], True), ([3], True), ([4], True), ([5], False)]
    assert client.hash() == server.hash()


def test_a_push_of_few_rows_of_a_long_log_is_closed_in_the_same_way(photos):
    server, client = photos
    take(client, 7, first=1)
    client.many("UPDATE photo SET data = zeroblob(?) WHERE id = 1", [(size,) for size in range(50)])
    take(client, 7, 7, 7, first=2)
    client.many("UPDATE photo SET data = zeroblob(?) WHERE id = 1", [(size,) for size in range(50)])
    assert pushed(client, server) == [([2, 3], True), ([4, 1], False)]


def test_a_resync_takes_large_rows_one_after_the_other(photos):
    server, client = photos
    take(server, 10, 17, 17)
    client.sql("SELECT sync_begin_resync()")
    client.pull(server)
    assert client.hash() == server.hash()


def test_a_row_that_no_batch_has_room_for_is_named_where_it_is_next(photos):
    server, client = photos
    for sender, receiver, exchange, fetch in (
        (server, client, pulled, lambda: server.fetch(client.cursor, 1000, client.origin)),
        (client, server, lambda receiver, sender: pushed(sender, receiver), client.fetch_local),
    ):
        take(sender, 1, 34, 1)
        with sync_error("LimitExceeded") as error:
            exchange(*((sender, receiver) if sender is server else (receiver, sender)))
        assert '"photo"' in error.message and '{"id":2}' in error.message
        assert receiver.sql("SELECT id FROM photo") == [(1,)], "what comes before it has arrived"
        with sync_error("LimitExceeded"):
            fetch()
        sender.sql("DELETE FROM photo WHERE id <> 1")
        sender.sql("INSERT INTO photo VALUES (4, x'00')")
        sender.sync(receiver) if sender is client else receiver.sync(sender)
        assert receiver.sql("SELECT id FROM photo") == [(1,), (4,)], "what was deleted is passed"
        sender.sql("DELETE FROM photo")
        sender.sync(receiver) if sender is client else receiver.sync(sender)


def test_a_row_that_was_made_smaller_is_passed(photos):
    server, client = photos
    take(server, 34, 1)
    server.sql("UPDATE photo SET data = x'00' WHERE id = 1")
    assert pulled(server, client) == [([2, 1], False)]
    assert client.hash() == server.hash()


def test_a_batch_is_closed_as_well_by_what_it_leaves_out(server, client):
    client.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    client.sync(server)
    rows = 600_000
    server.sql(
        "WITH RECURSIVE n(i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < ?) INSERT INTO Person SELECT i, '', NULL FROM n", rows
    )
    # As if the client had pushed them.
    server.sql("UPDATE _sync_log_data SET origin = (SELECT id FROM _sync_origins WHERE origin = ?)", client.origin)
    server.sql("INSERT INTO Person VALUES (0, 'Zoe', NULL)")
    first = server.fetch_text(0, 1, client.origin)
    assert len(first) < FULL_BYTES + 1000
    first = json.loads(first)
    assert first["hasMore"] and first["changes"] == [] and 0 < first["toVersion"] < rows
    second = server.fetch(first["toVersion"], 1, client.origin)
    assert not second["hasMore"] and len(second["changes"]) == 1
    assert len(first["excluded"]) + len(second["excluded"]) == rows


BAD_TEXT = "CAST(x'ff41' AS TEXT)"


@pytest.mark.parametrize("mend", ["UPDATE Person SET Name = 'right' WHERE Id = 2", "DELETE FROM Person WHERE Id = 2"])
def test_a_text_that_is_not_utf8_is_passed_over_once_its_row_was_mended(server, client, mend):
    subscription = server.value("SELECT sync_subscribe('Person')")
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    server.sql(f"INSERT INTO Person VALUES (2, {BAD_TEXT}, NULL)")
    server.sql("INSERT INTO Person VALUES (3, 'Carol', NULL)")
    with sync_error("InvalidArgument"):
        client.pull(server)
    server.sql(mend)
    client.pull(server)
    assert client.rows("Person") == server.rows("Person") and len(client.rows("Person")) >= 2
    assert [row[0] for row in server.sql("SELECT version FROM sync_changes(0)")] == [1, 3, 4]
    assert [change["version"] for change in server.json("SELECT sync_poll(?)", subscription)["changes"]] == [1, 3, 4]
    server.sql(f"UPDATE Person SET Email = {BAD_TEXT} WHERE Id = 3")
    with sync_error("InvalidArgument"):
        client.pull(server)


@pytest.mark.parametrize("at", ["server", "client"])
def test_a_key_that_is_not_utf8_is_passed_over_once_its_row_is_gone(make_pair, at):
    server, client = make_pair("CREATE TABLE file(path TEXT PRIMARY KEY NOT NULL, size INT)", track=["file"])
    replica = server if at == "server" else client
    replica.sql(f"INSERT INTO file VALUES ('a', 1), ({BAD_TEXT}, 2), (CAST(x'ff42' AS TEXT), 3)")
    replica.sql("DELETE FROM file WHERE hex(path) = 'FF41'")
    with sync_error("InvalidArgument"):
        client.sync(server)
    replica.sql("SELECT sync_compact()")
    with sync_error("InvalidArgument"):
        client.sync(server)
    replica.sql("UPDATE file SET path = 'b' WHERE hex(path) = 'FF42'")
    client.sync(server)
    assert client.rows("file") == server.rows("file") == [("a", 1), ("b", 3)]


def test_a_text_that_is_not_utf8_does_not_keep_capture_from_following_the_schema(server, client):
    server.sql(f"INSERT INTO Person VALUES (1, 'Alice', NULL), (2, {BAD_TEXT}, NULL), (3, {BAD_TEXT}, NULL)")
    server.sql("UPDATE Person SET Name = 'Bob' WHERE Id = 2")
    for replica in (server, client):
        replica.sql("ALTER TABLE Person ADD COLUMN Age INT")
    assert server.value("SELECT sync_reconcile('Person')") == 0
    server.sql("UPDATE Person SET Name = 'Carol' WHERE Id = 3")
    client.pull(server)
    assert client.rows("Person") == server.rows("Person")


def test_a_row_that_cannot_be_read_here_holds_up_only_what_comes_for_it(server, client):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL)")
    client.pull(server)
    client.sql(f"UPDATE Person SET Name = {BAD_TEXT} WHERE Id = 1")
    server.sql("UPDATE Person SET Email = 'new'")
    client.pull(server)
    assert client.value("SELECT Email FROM Person WHERE Id = 2") == "new"
    assert [(r["kind"], r["pk_value"]) for r in client.rejections()] == [("TypeMismatch", '{"Id":1}')]
    client.sql("UPDATE Person SET Name = 'Alicia' WHERE Id = 1")
    settle(server, client, rounds=2)
    assert client.rows("Person") == server.rows("Person") and client.rejections() == []
