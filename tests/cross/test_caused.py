"""What an apply causes on PostgreSQL, by cascades and triggers, is no conflict with what the same author did afterwards."""

import pytest

from caused import FOLDER, LINE, ORDERS, add_and_pay, assert_all, cancel, delete_and_file, move_and_delete, note, pay_and_push
from crafted import let_the_clock_tick
from replica import settle

TOTALS = """CREATE FUNCTION totals() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    UPDATE orders SET total = (SELECT sum(quantity) FROM line WHERE order_id = NEW.order_id) WHERE id = NEW.order_id;
    RETURN NULL;
END $$"""
TOTALS_OF_LINES = "CREATE TRIGGER totals AFTER INSERT ON line FOR EACH ROW EXECUTE FUNCTION totals()"
TOUCH = """CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    NEW.total := coalesce(OLD.total, 0) + 1;
    RETURN NEW;
END $$"""
TOUCHED_ORDERS = "CREATE TRIGGER touch BEFORE UPDATE ON orders FOR EACH ROW EXECUTE FUNCTION touch()"
BATCH_SIZES = [1, 1000]


@pytest.fixture
def make_filed(make_server, make_replica):
    """A server and two clients, all with two folders and two notes in the first."""

    def make(action):
        server = make_server(FOLDER, note(action), track=["folder", "note"])
        clients = [make_replica(name, FOLDER, note(action), track=["folder", "note"]) for name in ("client", "other")]
        for client in clients:
            client.sql("PRAGMA foreign_keys = ON")
        server.sql("INSERT INTO folder VALUES (1, 'old'), (2, 'new')")
        server.sql("INSERT INTO note VALUES (7, 1, 'seven'), (8, 1, 'eight')")
        settle(server, *clients, rounds=1)
        let_the_clock_tick()
        return server, *clients

    return make


@pytest.fixture
def shop(make_server, make_replica):
    """A server that keeps the totals of orders by a trigger, and two clients, with an open order."""
    server = make_server(ORDERS, LINE, TOTALS, TOTALS_OF_LINES, track=["orders", "line"])
    clients = [make_replica(name, ORDERS, LINE, track=["orders", "line"]) for name in ("client", "other")]
    server.sql("INSERT INTO orders VALUES (1, 'open', 0)")
    settle(server, *clients, rounds=1)
    let_the_clock_tick()
    return server, *clients


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
@pytest.mark.parametrize("by", ["client", "server"])
def test_a_note_that_left_its_folder_survives_it(make_filed, by, action, size):
    server, client, other = replicas = make_filed(action)
    move_and_delete({"client": client, "server": server}[by])
    settle(server, client, other, size=size)
    assert_all(replicas, "note", [(7, 2, "edited"), (8, 2, "eight")])


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_a_note_that_lost_its_folder_is_filed_elsewhere(make_filed, size):
    server, client, other = replicas = make_filed("SET NULL")
    delete_and_file(client)
    settle(server, client, other, size=size)
    assert_all(replicas, "note", [(7, 2, "seven"), (8, None, "eight")])


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_a_trigger_keeps_its_field_and_the_author_the_others(shop, size):
    server, client, other = shop
    add_and_pay(client)
    settle(server, client, other, size=size)
    assert_all(shop, "orders", [(1, "paid", 5)])


def test_an_author_may_go_on_without_pulling_what_its_changes_caused(shop):
    server, client, other = shop
    pay_and_push(client, server)
    settle(server, client, other)
    assert_all(shop, "orders", [(1, "paid", 15)])


def test_a_trigger_on_the_row_itself_is_no_conflict_with_its_next_edit(make_server, make_replica):
    server = make_server(ORDERS, TOUCH, TOUCHED_ORDERS, track=["orders"])
    client, other = (make_replica(name, ORDERS, track=["orders"]) for name in ("client", "other"))
    server.sql("INSERT INTO orders VALUES (1, 'open', 0)")
    settle(server, client, other, rounds=1)
    for status in ("packed", "sent", "paid"):
        client.sql("UPDATE orders SET status = ? WHERE id = 1", status)
        client.push(server)
        let_the_clock_tick()
    settle(server, client, other)
    assert_all((server, client, other), "orders", server.rows("orders"))
    assert server.rows("orders")[0][1] == "paid"


def test_what_another_has_changed_meanwhile_is_a_conflict_as_ever(shop):
    server, client, other = shop
    cancel(other)
    add_and_pay(client)
    other.sync(server)
    client.push(server)
    [conflict] = server.conflicts()
    assert (conflict["table_name"], conflict["pk_value"]) == ("orders", '{"id":1}')
