"""A subscription delivers the changes of a record, a table or a query at least once, in order, from where it stands."""

import json
import uuid

import pytest

from crafted import ALICE, person, push, stamp
from replica import sync_error

ITEM = "CREATE TABLE item(name TEXT PRIMARY KEY NOT NULL, colour TEXT, amount INT)"


@pytest.fixture
def shop(make_replica):
    return make_replica("shop", ITEM, "CREATE TABLE plain(id INTEGER PRIMARY KEY)", track=["item"])


def subscribe(replica, table="item", key=None, **options):
    return replica.value("SELECT sync_subscribe(?, ?, ?)", table, key, json.dumps(options) if options else None)


def poll(replica, subscription, *size):
    return replica.json(f"SELECT sync_poll(?{', ?' * len(size)})", subscription, *size)


def keys(answer):
    return [json.loads(change["pkValue"])["name"] for change in answer["changes"]]


def add(replica, *names, colour=None, amount=None):
    replica.many("INSERT INTO item VALUES (?, ?, ?)", [(name, colour, amount) for name in names])


def test_a_subscription_starts_now(shop):
    add(shop, "before")
    subscription = subscribe(shop)
    assert poll(shop, subscription)["changes"] == []
    add(shop, "after")
    assert keys(poll(shop, subscription)) == ["after"]


def test_a_subscription_can_start_earlier(shop):
    add(shop, "a", "b", "c")
    assert keys(poll(shop, subscribe(shop, fromVersion=1))) == ["b", "c"]
    assert keys(poll(shop, subscribe(shop, fromVersion=0))) == ["a", "b", "c"]


def test_an_answer_has_the_contracts_members(shop):
    subscription = subscribe(shop)
    add(shop, "a")
    answer = poll(shop, subscription)
    assert answer["subscriptionId"] == subscription
    assert (answer["toVersion"], answer["hasMore"]) == (1, False)
    [change] = answer["changes"]
    assert set(change) >= {"version", "tableName", "pkValue", "operation", "payload", "origin", "timestamp"}
    assert (change["version"], change["tableName"], change["operation"]) == (1, "item", "Insert")


def test_the_next_poll_acknowledges_this_one(shop):
    subscription = subscribe(shop)
    add(shop, "a", "b", "c")
    first = poll(shop, subscription, 2)
    assert (keys(first), first["hasMore"]) == (["a", "b"], True)
    second = poll(shop, subscription, 2)
    assert (keys(second), second["hasMore"]) == (["c"], False)
    assert poll(shop, subscription)["changes"] == []


def test_an_answer_that_was_lost_with_the_transaction_is_given_again(shop):
    subscription = subscribe(shop)
    add(shop, "a", "b")
    poll(shop, subscription, 1)
    shop.sql("BEGIN")
    poll(shop, subscription, 1)
    shop.sql("ROLLBACK")
    assert keys(poll(shop, subscription, 1)) == ["b"]


def test_updates_deletes_and_applied_changes_are_delivered(server):
    subscription = subscribe(server, "Person")
    server.sql("INSERT INTO Person VALUES (1, 'a', NULL)")
    server.sql("UPDATE Person SET Name = 'b'")
    server.sql("DELETE FROM Person")
    server.apply(push(person(2, "pushed")))
    answer = poll(server, subscription)
    assert [change["operation"] for change in answer["changes"]] == ["Insert", "Update", "Delete", "Insert"]
    assert answer["changes"][-1]["origin"] == ALICE


def test_what_was_skipped_or_rejected_is_not_delivered(server):
    subscription = subscribe(server, "Person")
    server.sql("CREATE TRIGGER no AFTER INSERT ON Person WHEN NEW.Name = 'bad' BEGIN SELECT raise(ABORT, 'bad'); END")
    server.apply(push(person(1, "bad"), person(2, "echo", origin=server.origin)))
    assert poll(server, subscription)["changes"] == []


def test_a_record_is_its_whole_key_and_not_a_part_of_it(shop):
    subscription = subscribe(shop, key='{"name":"p1"}')
    add(shop, "p1", "p10", "name", "p")
    assert keys(poll(shop, subscription)) == ["p1"]


def test_several_records_are_followed_by_one_subscription(shop):
    subscription = subscribe(shop, key='[{"name":"a"},{"name":"c"}]')
    add(shop, "a", "b", "c")
    assert keys(poll(shop, subscription)) == ["a", "c"]


def test_a_record_may_have_a_key_of_any_type(make_replica):
    replica = make_replica("new", "CREATE TABLE t(a INT, b BLOB, c TEXT, PRIMARY KEY (a, b))", track=["t"])
    subscription = subscribe(replica, "t", '{"b":{"$blob":"00ff"},"a":1}')
    replica.sql("INSERT INTO t VALUES (1, x'00ff', 'yes'), (1, x'00', 'no'), (2, x'00ff', 'no')")
    assert [json.loads(change["payload"])["c"] for change in poll(replica, subscription)["changes"]] == ["yes"]


def test_the_delete_of_a_record_is_delivered(shop):
    add(shop, "a", "b")
    subscription = subscribe(shop, key='{"name":"a"}')
    shop.sql("DELETE FROM item")
    assert [(change["operation"], json.loads(change["pkValue"])) for change in poll(shop, subscription)["changes"]] == [
        ("Delete", {"name": "a"})
    ]


@pytest.mark.parametrize(
    ("where", "expected"),
    [
        ({"colour": "red"}, ["a", "b"]),
        ({"colour": "red", "amount": 1}, ["a"]),
        ({"amount": 2}, ["b", "c"]),
        ({"colour": None}, ["d"]),
        ({"amount": "two"}, []),
        ({"colour": "re"}, []),
        ({"colour": "' OR 1=1 --"}, []),
    ],
)
def test_a_query_delivers_rows_whose_columns_have_these_values(shop, where, expected):
    subscription = subscribe(shop, where=where)
    add(shop, "a", colour="red", amount=1)
    add(shop, "b", colour="red", amount=2)
    add(shop, "c", colour="blue", amount=2)
    add(shop, "d")
    assert keys(poll(shop, subscription)) == expected


def test_has_more_is_exact_when_the_rest_does_not_match(shop):
    subscription = subscribe(shop, where={"colour": "red"})
    add(shop, "a", "b", colour="red")
    add(shop, "c", "d", colour="blue")
    answer = poll(shop, subscription, 2)
    assert (keys(answer), answer["hasMore"]) == (["a", "b"], False)
    assert answer["toVersion"] == 4


def test_subscriptions_are_listed(shop):
    table = subscribe(shop)
    record = subscribe(shop, key='{"name":"a"}')
    query = subscribe(shop, where={"colour": "red"}, expiresAt=stamp(days=1))
    listed = {row["subscription_id"]: row for row in shop.records("SELECT * FROM sync_subscriptions()")}
    assert {name: listed[name]["subscription_type"] for name in (table, record, query)} == {
        table: "table",
        record: "record",
        query: "query",
    }
    assert {row["table_name"] for row in listed.values()} == {"item"}
    assert listed[table]["expires_at"] is None and listed[query]["expires_at"] is not None
    assert "red" in listed[query]["filter"]
    assert all(uuid.UUID(name) for name in listed)


def test_the_listed_version_is_what_was_acknowledged(shop):
    subscription = subscribe(shop)
    add(shop, "a", "b")
    poll(shop, subscription)
    poll(shop, subscription)
    assert shop.sql("SELECT last_version FROM sync_subscriptions()") == [(2,)]


def test_subscriptions_do_not_disturb_each_other(shop):
    one, two = subscribe(shop), subscribe(shop)
    add(shop, "a")
    assert keys(poll(shop, one)) == ["a"]
    assert poll(shop, one)["changes"] == []
    assert keys(poll(shop, two)) == ["a"]


def test_a_subscription_ends_once(shop):
    subscription = subscribe(shop)
    assert shop.value("SELECT sync_unsubscribe(?)", subscription) == 1
    assert shop.value("SELECT sync_unsubscribe(?)", subscription) == 0
    with sync_error("InvalidArgument"):
        poll(shop, subscription)
    assert shop.sql("SELECT * FROM sync_subscriptions()") == []


def test_an_expired_subscription_delivers_nothing(shop):
    subscription = subscribe(shop, expiresAt=stamp(days=1))
    shop.sql("UPDATE _sync_subscriptions SET expires_at = ?", stamp(seconds=-1))
    add(shop, "a")
    with sync_error("InvalidArgument"):
        poll(shop, subscription)


WRONG = [
    ("plain", None, None, "TableNotTracked"),
    ("nobody", None, None, "TableNotFound"),
    ("_sync_state", None, None, "TableNotTracked"),
    ("item", '{"colour":"red"}', None, "InvalidArgument"),
    ("item", "[]", None, "InvalidArgument"),
    ("item", None, '{"where":{"nobody":1}}', "InvalidArgument"),
    ("item", None, '{"where":1}', "InvalidArgument"),
    ("item", None, '{"fromVersion":-1}', "InvalidArgument"),
    ("item", None, '{"expiresAt":"soon"}', "InvalidArgument"),
    ("item", None, '{"sideways":1}', "InvalidArgument"),
    ("item", None, "[]", "InvalidArgument"),
]


@pytest.mark.parametrize(("table", "key", "options", "kind"), WRONG)
def test_a_wrong_subscription_is_refused(shop, table, key, options, kind):
    with sync_error(kind):
        shop.sql("SELECT sync_subscribe(?, ?, ?)", table, key, options)
    assert shop.sql("SELECT * FROM sync_subscriptions()") == []


@pytest.mark.parametrize("size", [0, -1, 10_001])
def test_a_batch_size_out_of_bounds_is_refused(shop, size):
    with sync_error("InvalidArgument"):
        poll(shop, subscribe(shop), size)


def test_an_unknown_subscription_is_refused(shop):
    with sync_error("InvalidArgument"):
        poll(shop, str(uuid.uuid4()))
