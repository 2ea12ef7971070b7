"""One bad row never blocks the stream and is never lost: it waits, with its reason, and what follows it waits behind it."""

import json

import pytest

from crafted import ALICE, BOB, delete, insert, let_the_clock_tick, pull, push, stamp, update
from replica import DRIVER_ERRORS

ITEM = "CREATE TABLE item(id INTEGER PRIMARY KEY, code TEXT{code}, amount INT{amount}){kind}"
NO_NEGATIVE = "CREATE TRIGGER no_negative BEFORE {} ON item WHEN NEW.amount < 0 BEGIN SELECT raise(ABORT, 'negative amount'); END"


def item(id, code="c", amount=1, **about):
    return insert("item", {"id": id, "code": code, "amount": amount}, ["id"], **about)


def items(replica):
    return replica.rows("item")


@pytest.fixture
def shop(make_replica):
    """A replica that takes no negative amounts."""
    replica = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    for event in ("INSERT", "UPDATE"):
        replica.sql(NO_NEGATIVE.format(event).replace("no_negative", f"no_negative_{event}"))
    return replica


def allow_negative(shop):
    for event in ("INSERT", "UPDATE"):
        shop.sql(f"DROP TRIGGER no_negative_{event}")


REFUSALS = {
    "CheckViolation": ({"amount": " CHECK (amount > 0)"}, item(2, amount=-1)),
    "UniqueViolation": ({"code": " UNIQUE"}, item(2, code="taken")),
    "NotNullViolation": ({"code": " NOT NULL"}, item(2, code=None)),
    "TypeMismatch": ({"kind": " STRICT"}, item(2, amount="many")),
    "SchemaMismatch": ({}, insert("item", {"id": 2, "colour": "red"}, ["id"])),
}


@pytest.mark.parametrize("kind", REFUSALS)
def test_what_a_constraint_refuses_is_rejected_and_the_rest_goes_on(make_replica, kind):
    constraints, bad = REFUSALS[kind]
    table = ITEM.format(**{"code": "", "amount": "", "kind": "", **constraints})
    shop = make_replica("shop", table, track=["item"])
    result = shop.apply(push(item(1, code="taken"), bad, item(3, code="free")))
    assert (result["applied"], result["rejected"]) == (2, 1)
    assert [rejection["kind"] for rejection in result["rejections"]] == [kind]
    assert [row[0] for row in items(shop)] == [1, 3]


def test_what_a_trigger_refuses_is_rejected_and_the_rest_goes_on(shop):
    result = shop.apply(push(item(1), item(2, amount=-1), item(3)))
    assert (result["applied"], result["rejected"]) == (2, 1)
    [rejection] = result["rejections"]
    assert rejection["kind"] == "ConstraintViolation" and "negative amount" in rejection["message"]


@pytest.mark.parametrize("function", ["ABORT", "FAIL", "ROLLBACK"])
def test_a_trigger_may_refuse_in_any_way(make_replica, function):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.sql(NO_NEGATIVE.format("INSERT").replace("ABORT", function))
    shop.apply(push(item(1), item(2, amount=-1), item(3)))
    assert [row[0] for row in items(shop)] == [1, 3]
    assert len(shop.rejections()) == 1


def test_a_row_a_trigger_ignores_is_not_called_applied(make_replica):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.sql(NO_NEGATIVE.format("INSERT").replace("ABORT, 'negative amount'", "IGNORE"))
    result = shop.apply(push(item(1), item(2, amount=-1)))
    assert result["applied"] == 1
    assert items(shop) == [(1, "c", 1)]


SOFT_DELETE = """CREATE {} TRIGGER soft_delete BEFORE DELETE ON item WHEN OLD.code <> 'gone'
BEGIN UPDATE item SET code = 'gone' WHERE id = OLD.id; SELECT raise(IGNORE); END"""


@pytest.mark.parametrize("kind", ["", "TEMP"])
def test_a_delete_that_a_trigger_makes_an_update_of_is_refused_and_the_row_is_as_it_was(make_replica, kind):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.apply(push(item(1), item(2)))
    shop.sql(SOFT_DELETE.format(kind))
    before = len(shop.log())
    result = shop.apply(push(delete("item", {"id": 1}, at=stamp(minutes=1)), item(3)))
    assert (result["applied"], result["rejected"]) == (1, 1)
    assert items(shop) == [(1, "c", 1), (2, "c", 1), (3, "c", 1)]
    assert [entry["operation"] for entry in shop.log()][before:] == ["insert"]
    shop.sql("DROP TRIGGER soft_delete")
    shop.json("SELECT sync_retry()")
    assert [row[0] for row in items(shop)] == [2, 3] and shop.rejections() == []


@pytest.mark.parametrize("columns", ["id INTEGER PRIMARY KEY, amount INT", "id INTEGER PRIMARY KEY, amount INT, own TEXT", "amount INTEGER PRIMARY KEY"])
def test_a_row_a_trigger_notes_and_ignores_waits_in_the_rejections(make_replica, columns):
    shop = make_replica("shop", f"CREATE TABLE item({columns})", "CREATE TABLE noted(amount)")
    shop.track("item", exclude=["own"] if "own" in columns else [])
    for event in ("INSERT", "UPDATE"):
        ignore = NO_NEGATIVE.format(event).replace("no_negative", f"no_negative_{event}")
        shop.sql(ignore.replace("SELECT raise(ABORT, 'negative amount')", "INSERT INTO noted VALUES (NEW.amount); SELECT raise(IGNORE)"))
    names = [name for name in ("id", "amount") if f"{name} " in columns]
    key = names[:1]
    rows = [dict(zip(["id", "amount"], row)) for row in ((1, 1), (2, -2), (3, 3))]
    result = shop.apply(push(*[insert("item", {name: row[name] for name in names}, key) for row in rows]))
    assert (result["applied"], result["rejected"]) == (2, 1)
    assert [row["operation"] for row in shop.rejections()] == ["insert"]
    assert len(shop.rows("item")) == 2 and shop.rows("noted") == [] and len(shop.log()) == 2


def test_one_bad_row_among_a_thousand(make_replica):
    shop = make_replica("shop", ITEM.format(code=" UNIQUE", amount="", kind=""), track=["item"])
    changes = [item(id, code=f"code {id}") for id in range(1, 1001)]
    changes[500] = item(501, code="code 1")
    result = shop.apply(push(*changes))
    assert (result["applied"], result["rejected"]) == (999, 1)
    shop.sql("UPDATE item SET code = 'moved' WHERE id = 1")
    assert shop.json("SELECT sync_retry()")["applied"] == 1
    assert len(items(shop)) == 1000


def test_a_rejection_holds_the_whole_change(shop):
    at = stamp(minutes=-5)
    bad = item(1, code="é\0\"", amount=-1, at=at)
    shop.apply(push(bad))
    [rejection] = shop.rejections()
    assert rejection["table_name"] == "item"
    assert json.loads(rejection["pk_value"]) == {"id": 1}
    assert json.loads(rejection["payload"]) == {"id": 1, "code": "é\0\"", "amount": -1}
    assert rejection["operation"].lower() == "insert"
    assert (rejection["origin"], rejection["timestamp"]) == (ALICE, at)
    assert (rejection["kind"], rejection["attempts"]) == ("ConstraintViolation", 1)
    assert rejection["code"] and "negative amount" in rejection["message"] and rejection["rejected_at"]


def test_a_rejected_change_moves_the_cursor_and_is_not_in_the_log(shop):
    shop.apply(pull(item(1, amount=-1)))
    assert shop.cursor == 1
    assert shop.log() == []
    assert shop.fetch_local()["changes"] == []


def test_a_rejected_push_is_not_tried_twice_when_it_is_sent_twice(shop):
    batch = push(item(1, amount=-1))
    shop.apply(batch)
    shop.apply(batch)
    assert len(shop.rejections()) == 1


# What follows a rejected change


def test_a_later_change_of_the_row_queues_behind_it(shop):
    shop.apply(push(item(1, amount=-1, at=stamp(minutes=-2)), item(1, amount=5, at=stamp(minutes=-1)), item(2)))
    assert items(shop) == [(2, "c", 1)]
    assert [rejection["kind"] for rejection in shop.rejections()] == ["ConstraintViolation", "Queued"]


def test_a_change_of_a_later_batch_queues_too(shop):
    shop.apply(push(item(1, amount=-1, at=stamp(minutes=-2))))
    shop.apply(push(item(1, amount=5, at=stamp(minutes=-1)), after=1))
    assert items(shop) == []
    assert [rejection["kind"] for rejection in shop.rejections()] == ["ConstraintViolation", "Queued"]


def test_nothing_overtakes_when_the_cause_is_gone(shop):
    shop.apply(push(item(1, amount=-1, at=stamp(minutes=-3)), delete("item", {"id": 1}, at=stamp(minutes=-2))))
    allow_negative(shop)
    shop.apply(push(item(9), after=2))
    assert items(shop) == [(9, "c", 1)], "the insert came first, then the delete"
    assert shop.rejections() == []


def test_all_that_queued_ends_with_the_newest(shop):
    changes = [item(1, code=str(number), amount=-number, at=stamp(minutes=number - 9)) for number in range(1, 6)]
    shop.apply(push(*changes))
    allow_negative(shop)
    shop.json("SELECT sync_retry()")
    assert items(shop) == [(1, "5", -5)]
    assert shop.rejections() == []


# Trying again


def test_every_later_apply_tries_again(shop):
    shop.apply(push(item(1, amount=-1)))
    allow_negative(shop)
    shop.apply(push(item(2), after=1))
    assert items(shop) == [(1, "c", -1), (2, "c", 1)]
    assert shop.rejections() == []


def test_retrying_says_what_happened(shop):
    shop.apply(push(item(1, amount=-1), item(2, amount=-2)))
    again = shop.json("SELECT sync_retry()")
    assert (again["applied"], again["rejected"], len(again["rejections"])) == (0, 2, 2)
    assert all(rejection["attempts"] > 1 for rejection in shop.rejections())
    allow_negative(shop)
    assert shop.json("SELECT sync_retry()")["applied"] == 2
    assert shop.json("SELECT sync_retry()")["applied"] == 0


def test_a_retried_change_keeps_its_origin_and_stamp_and_is_passed_on(shop, make_replica):
    at = stamp(minutes=-5)
    shop.apply(push(item(1, amount=-1, at=at)))
    allow_negative(shop)
    shop.json("SELECT sync_retry()")
    assert [(entry["origin"], entry["timestamp"]) for entry in shop.log()] == [(ALICE, at)]
    assert shop.fetch(0, 10, BOB)["changes"] and not shop.fetch(0, 10, ALICE)["changes"]


def test_a_retried_change_does_not_overwrite_a_newer_one_made_here(shop):
    shop.apply(push(item(1, code="waited", amount=-1, at=stamp(minutes=-5))))
    shop.sql("INSERT INTO item VALUES (1, 'newer', 1)")
    allow_negative(shop)
    shop.json("SELECT sync_retry()")
    assert items(shop) == [(1, "newer", 1)]


def test_a_discarded_change_is_gone_and_frees_the_queue(shop):
    shop.apply(push(item(1, amount=-1, at=stamp(minutes=-2)), item(1, amount=5, at=stamp(minutes=-1))))
    first, _ = shop.rejections()
    assert shop.value("SELECT sync_discard(?)", first["id"]) == 1
    assert shop.value("SELECT sync_discard(?)", first["id"]) == 0
    shop.json("SELECT sync_retry()")
    assert items(shop) == [(1, "c", 5)]
    assert shop.rejections() == []


def test_the_status_counts_rejections(shop):
    assert shop.status["rejections"] == 0
    shop.apply(push(item(1, amount=-1)))
    assert shop.status["rejections"] == 1


def test_a_unique_value_that_moves_on_in_the_same_push_arrives(make_replica):
    tables = ITEM.format(code=" UNIQUE", amount="", kind="")
    server, client = (make_replica(name, tables, track=["item"]) for name in ("server", "client"))
    client.sql("INSERT INTO item VALUES (1, 'a', 1), (2, 'b', 1)")
    client.sync(server)
    client.sql("UPDATE item SET code = 'c' WHERE id = 1")
    client.sql("UPDATE item SET code = 'a' WHERE id = 2")
    client.sql("UPDATE item SET amount = 2 WHERE id = 1")
    client.push(server)
    server.json("SELECT sync_retry()")
    assert items(server) == items(client) == [(1, "c", 2), (2, "a", 1)]
    assert server.rejections() == []


def test_two_rows_with_one_unique_value_stay_where_they_are_until_one_changes(make_pair):
    server, client = make_pair(ITEM.format(code=" UNIQUE", amount="", kind=""), track=["item"])
    server.sql("INSERT INTO item VALUES (1, 'same', 1)")
    client.sql("INSERT INTO item VALUES (2, 'same', 1)")
    client.sync(server)
    assert items(server) == [(1, "same", 1)] and items(client) == [(2, "same", 1)]
    server.sql("UPDATE item SET code = 'renamed'")
    client.sync(server)
    for rejection in client.rejections()[:1]:
        client.sql("SELECT sync_discard(?)", rejection["id"])
    client.sync(server)
    assert items(server) == items(client) == [(1, "renamed", 1), (2, "same", 1)]
    assert server.rejections() == client.rejections() == []


UNCONVERTIBLE = {
    "text in an integer key": {"id": "one"},
    "a number beyond int64 as integer key": {"id": 9223372036854775808},
    "a fraction as integer key": {"id": 1.5},
    "an object": {"id": 1, "amount": {"a": 1}},
    "an array": {"id": 1, "amount": [1]},
}


@pytest.mark.parametrize("case", UNCONVERTIBLE)
def test_what_the_column_cannot_hold_exactly_is_never_rounded(shop, case):
    result = shop.apply(push(insert("item", UNCONVERTIBLE[case], ["id"])))
    assert [rejection["kind"] for rejection in result["rejections"]] == ["TypeMismatch"]
    assert items(shop) == []


def test_an_update_that_is_rejected_leaves_the_row_as_it_was(shop):
    shop.apply(push(item(1, amount=1, at=stamp(minutes=-2))))
    shop.apply(push(update("item", {"id": 1, "amount": -1}, ["id"], at=stamp(minutes=-1)), after=1))
    assert items(shop) == [(1, "c", 1)]
    assert len(shop.rejections()) == 1


# While a change of the server waits, the row is edited here


@pytest.mark.parametrize(
    "strategy, row",
    [
        ("last_write_wins", (1, "mine", 1)),
        ("server_wins", (1, "a", -1)),
        ("client_wins", (1, "mine", 1)),
        ("merge", (1, "mine", -1)),
    ],
)
def test_a_pull_that_waited_and_what_was_pushed_meanwhile_are_in_conflict(make_pair, strategy, row):
    """The client's author had not seen the server's change: the server is told, and decides by the strategy."""
    server, client = make_pair(ITEM.format(code="", amount="", kind=""), track=["item"])
    for replica in (server, client):
        replica.sql("SELECT sync_set_conflict_strategy('item', ?)", strategy)
    for event in ("INSERT", "UPDATE"):
        client.sql(NO_NEGATIVE.format(event).replace("no_negative", f"no_negative_{event}"))
    server.sql("INSERT INTO item VALUES (1, 'a', 1)")
    client.sync(server)
    server.sql("UPDATE item SET amount = -1")
    client.pull(server)
    assert len(client.rejections()) == 1
    client.sql("UPDATE item SET code = 'mine'")
    client.push(server)
    allow_negative(client)
    client.json("SELECT sync_retry()")
    client.sync(server)
    assert items(server) == items(client) == [row]
    assert len(server.conflicts()) == 1
    assert client.rejections() == server.rejections() == []


def test_what_the_server_decides_meanwhile_comes_to_all_that_waits(make_pair):
    """Two changes of the server wait; the push between them loses to the second, which the client must take when it can."""
    server, client = make_pair(ITEM.format(code="", amount="", kind=""), track=["item"])
    for event in ("INSERT", "UPDATE"):
        client.sql(NO_NEGATIVE.format(event).replace("no_negative", f"no_negative_{event}"))
    server.sql("INSERT INTO item VALUES (1, 'a', 1)")
    client.sync(server)
    server.sql("UPDATE item SET amount = -1")
    client.pull(server)
    client.sql("UPDATE item SET code = 'mine'")
    let_the_clock_tick()
    server.sql("UPDATE item SET amount = -2")
    client.push(server)
    client.pull(server)
    assert [rejection["kind"] for rejection in client.rejections()] == ["ConstraintViolation", "Queued"]
    allow_negative(client)
    client.json("SELECT sync_retry()")
    assert items(client) == items(server) == [(1, "a", -2)]


def test_what_waits_from_one_client_does_not_hold_up_another(shop):
    """Both edited the row unseen by the other: what can be applied is, and what waited then meets it as a conflict."""
    shop.apply(push(item(1, code="waits", amount=-1, at=stamp(minutes=-5))))
    shop.apply(push(item(1, code="goes on", at=stamp(minutes=-4), origin=BOB), sender=BOB))
    assert items(shop) == [(1, "goes on", 1)]
    assert [conflict["winner"] for conflict in shop.conflicts()] == ["local"]
    assert shop.rejections() == []


def test_a_conflict_is_recorded_once_however_often_its_winner_is_refused(shop):
    shop.sql("INSERT INTO item VALUES (1, 'mine', 1)")
    shop.apply(push(item(1, code="newer", amount=-1, at=stamp(minutes=1))))
    for _ in range(3):
        shop.json("SELECT sync_retry()")
    allow_negative(shop)
    shop.json("SELECT sync_retry()")
    assert items(shop) == [(1, "newer", -1)]
    assert len(shop.conflicts()) == 1


def test_a_parent_written_here_lets_its_child_in(make_replica):
    shop = make_replica(
        "shop",
        "CREATE TABLE parent(id INTEGER PRIMARY KEY)",
        "CREATE TABLE child(id INTEGER PRIMARY KEY, parent INTEGER REFERENCES parent(id))",
        track=["parent", "child"],
    )
    shop.apply(push(insert("child", {"id": 1, "parent": 7}, ["id"])))
    shop.sql("INSERT INTO parent VALUES (7)")
    shop.apply(push(insert("child", {"id": 2, "parent": 7}, ["id"]), after=1))
    assert shop.rows("child") == [(1, 7), (2, 7)]


@pytest.mark.parametrize("strategy, code", [("last_write_wins", "mine"), ("server_wins", "theirs"), ("client_wins", "mine")])
def test_a_pull_that_waited_meets_what_was_not_pushed_as_a_conflict(make_pair, strategy, code):
    server, client = make_pair(ITEM.format(code="", amount="", kind=""), track=["item"])
    for replica in (server, client):
        replica.sql("SELECT sync_set_conflict_strategy('item', ?)", strategy)
    for event in ("INSERT", "UPDATE"):
        client.sql(NO_NEGATIVE.format(event).replace("no_negative", f"no_negative_{event}"))
    server.sql("INSERT INTO item VALUES (1, 'a', 1)")
    client.sync(server)
    server.sql("UPDATE item SET code = 'theirs', amount = -1")
    client.pull(server)
    let_the_clock_tick()
    client.sql("UPDATE item SET code = 'mine'")
    allow_negative(client)
    client.json("SELECT sync_retry()")
    client.sync(server)
    assert items(server) == items(client)
    assert items(client)[0][1] == code
    assert len(client.conflicts()) == 1


def test_a_push_that_waited_meets_what_was_deleted_and_purged_meanwhile(make_replica):
    tables = ITEM.format(code="", amount="", kind="")
    server, client, other = (make_replica(name, tables, track=["item"]) for name in ("server", "client", "other"))
    server.sql(NO_NEGATIVE.format("INSERT"))
    client.sql("INSERT INTO item VALUES (1, 'waits', -1)")
    client.sync(server)
    assert len(server.rejections()) == 1
    other.sync(server)
    other.sql("INSERT INTO item VALUES (2, 'x', 1)")
    other.sync(server)
    server.sql("DELETE FROM item")
    for replica in (client, other):
        replica.sync(server)
    server.sql("SELECT sync_purge_tombstones()")
    server.sql("DROP TRIGGER no_negative")
    server.json("SELECT sync_retry()")
    for _ in range(2):
        client.sync(server)
        other.sync(server)
    assert items(server) == items(client) == items(other) == [(1, "waits", -1)]


def test_many_waiting_changes_are_judged_in_one_pass(make_replica):
    """Their rows exist, were changed since by another, and everything that waited was older."""
    shop = make_replica("shop", ITEM.format(code="", amount=" CHECK (amount < 1000)", kind=""), track=["item"])
    shop.many("INSERT INTO item VALUES (?, 'start', 1)", [(id,) for id in range(2000)])
    seen = shop.state["maxVersion"]
    shop.apply(push(*[item(id, "late", 1000, at=stamp(minutes=-5)) for id in range(1000)], seen=seen))
    assert len(shop.rejections()) == 1000
    shop.apply(push(*[item(id, "kept", 2, at=stamp(minutes=-4), origin=BOB) for id in range(1000, 2000)], sender=BOB, seen=seen))
    assert len(shop.rejections()) == 1000
    for rejection in shop.rejections()[:1]:
        assert shop.value("SELECT sync_discard(?)", rejection["id"]) == 1
    again = shop.json("SELECT sync_retry()")
    assert (again["applied"], again["rejected"]) == (0, 999)


# A trigger that ends the whole transaction


ROLLS_BACK = NO_NEGATIVE.format("INSERT").replace("ABORT", "ROLLBACK")


def test_changes_over_which_the_transaction_was_ended_wait_like_any_other(make_replica):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.sql(ROLLS_BACK)
    result = shop.apply(push(item(1), item(2, amount=-1), item(3), item(4, amount=-2), item(2, amount=5)))
    assert (result["applied"], result["rejected"], result["deferred"]) == (2, 2, 1)
    assert [rejection["kind"] for rejection in result["rejections"]] == ["ConstraintViolation", "ConstraintViolation", "Queued"]
    assert "negative amount" in result["rejections"][0]["message"]
    shop.apply(push(item(5), after=5))
    shop.json("SELECT sync_retry()")
    assert [row[0] for row in items(shop)] == [1, 3, 5]
    shop.sql("DROP TRIGGER no_negative")
    assert shop.json("SELECT sync_retry()")["applied"] == 3
    assert items(shop) == [(1, "c", 1), (2, "c", 5), (3, "c", 1), (4, "c", -2), (5, "c", 1)]
    assert shop.rejections() == []


def test_a_transaction_of_the_caller_s_that_a_trigger_ends_is_an_error(make_replica):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.sql(ROLLS_BACK)
    shop.sql("BEGIN")
    shop.sql("INSERT INTO item VALUES (9, 'mine', 1)")
    with pytest.raises(DRIVER_ERRORS, match="negative amount"):
        shop.apply(push(item(1), item(2, amount=-1)))
    assert items(shop) == [] and shop.rejections() == []
    shop.apply(push(item(1), item(2, amount=-1)))
    assert [row[0] for row in items(shop)] == [1]


def test_a_dry_run_survives_a_trigger_that_ends_the_transaction(make_replica):
    shop = make_replica("shop", ITEM.format(code="", amount="", kind=""), track=["item"])
    shop.sql(ROLLS_BACK)
    result = shop.apply(push(item(1), item(2, amount=-1)), dryRun=True)
    assert (result["applied"], result["rejected"]) == (1, 1)
    assert items(shop) == [] and shop.rejections() == [] and shop.log() == []


@pytest.mark.parametrize("excludes", ["shop", "client"])
def test_a_value_for_a_generated_column_waits_and_says_what_to_do(make_replica, excludes):
    shop = make_replica("shop", "CREATE TABLE item(id INTEGER PRIMARY KEY, code TEXT, size INT AS (length(code)))", track=["item"])
    client = make_replica("client", "CREATE TABLE item(id INTEGER PRIMARY KEY, code TEXT, size INT)", track=["item"])
    client.sql("INSERT INTO item VALUES (1, 'abc', 3)")
    client.sync(shop)
    [rejection] = shop.rejections()
    assert rejection["kind"] == "SchemaMismatch" and "is generated here" in rejection["message"]
    {"shop": shop, "client": client}[excludes].track("item", exclude=["size"])
    client.sql("UPDATE item SET code = 'abcd', size = 4")
    client.sync(shop)
    if excludes == "client":
        [first, _] = shop.rejections()
        shop.sql("SELECT sync_discard(?)", first["id"])
        shop.sql("SELECT sync_retry()")
    assert shop.rejections() == [] and shop.rows("item") == [(1, "abcd", 4)]
    shop.sql("UPDATE item SET code = 'a'")
    client.sync(shop)
    assert client.rows("item") == [(1, "a", 4)]
