"""What an apply causes, by cascades and triggers, is no conflict with what the same author did afterwards."""

import pytest

from caused import FOLDER, LINE, ORDERS, add_and_pay, assert_all, cancel, delete_and_file, move_and_delete, note, pay_and_push
from crafted import let_the_clock_tick
from replica import settle

TOTALS = """CREATE TRIGGER totals AFTER INSERT ON line BEGIN
    UPDATE orders SET total = (SELECT sum(quantity) FROM line WHERE order_id = NEW.order_id) WHERE id = NEW.order_id;
END"""
STRATEGIES = ["last_write_wins", "server_wins", "client_wins", "merge"]
BATCH_SIZES = [1, 2, 1000]


@pytest.fixture
def make_filed(make_replica):
    """A server and two clients, all with two folders and two notes in the first."""

    def make(action, strategy="last_write_wins"):
        replicas = [make_replica(name, FOLDER, note(action), track=["folder", "note"]) for name in ("server", "client", "other")]
        for replica in replicas:
            replica.sql("PRAGMA foreign_keys = ON")
            replica.sql("SELECT sync_set_conflict_strategy('note', ?)", strategy)
        server, client, other = replicas
        server.sql("INSERT INTO folder VALUES (1, 'old'), (2, 'new')")
        server.sql("INSERT INTO note VALUES (7, 1, 'seven'), (8, 1, 'eight')")
        settle(server, client, other, rounds=1)
        let_the_clock_tick()
        return replicas

    return make


@pytest.fixture
def make_shop(make_replica):
    """A server and two clients with an open order; those that are named keep its total by a trigger."""

    def make(*with_totals):
        replicas = []
        for name in ("server", "client", "other"):
            replica = make_replica(name, ORDERS, LINE, track=["orders", "line"])
            if name in with_totals:
                replica.sql(TOTALS)
            replicas.append(replica)
        server, client, other = replicas
        server.sql("INSERT INTO orders VALUES (1, 'open', 0)")
        settle(server, client, other, rounds=1)
        let_the_clock_tick()
        return replicas

    return make


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_note_that_left_its_folder_survives_it(make_filed, action, strategy, size):
    replicas = make_filed(action, strategy)
    server, client, other = replicas
    move_and_delete(client)
    settle(server, client, other, size=size)
    assert_all(replicas, "note", [(7, 2, "edited"), (8, 2, "eight")])


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("action", ["CASCADE", "SET NULL"])
def test_it_survives_on_clients_too(make_filed, action, size):
    replicas = make_filed(action)
    server, client, other = replicas
    move_and_delete(server)
    settle(server, client, other, size=size)
    assert_all(replicas, "note", [(7, 2, "edited"), (8, 2, "eight")])


def test_a_resync_deletes_nothing_by_its_own_cascades(make_filed):
    replicas = make_filed("CASCADE")
    server, client, other = replicas
    move_and_delete(server)
    client.sql("SELECT sync_begin_resync()")
    settle(server, client, other)
    assert_all(replicas, "note", [(7, 2, "edited"), (8, 2, "eight")])


@pytest.mark.parametrize("size", BATCH_SIZES)
def test_a_note_that_lost_its_folder_is_filed_elsewhere(make_filed, size):
    replicas = make_filed("SET NULL")
    server, client, other = replicas
    delete_and_file(client)
    settle(server, client, other, size=size)
    assert_all(replicas, "note", [(7, 2, "seven"), (8, None, "eight")])


def test_a_folder_and_its_notes_are_made_again(make_filed):
    replicas = make_filed("CASCADE")
    server, client, other = replicas
    client.sql("DELETE FROM folder WHERE id = 1")
    client.sql("INSERT INTO folder VALUES (1, 'again')")
    client.sql("INSERT INTO note VALUES (7, 1, 'again')")
    let_the_clock_tick()
    settle(server, client, other)
    assert_all(replicas, "note", [(7, 1, "again")])


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("with_totals", [("server",), ("server", "client"), ("server", "client", "other")])
def test_a_trigger_keeps_its_field_and_the_author_the_others(make_shop, with_totals, size):
    replicas = make_shop(*with_totals)
    server, client, other = replicas
    add_and_pay(client)
    settle(server, client, other, size=size)
    assert_all(replicas, "orders", [(1, "paid", 5)])


@pytest.mark.parametrize("size", BATCH_SIZES)
@pytest.mark.parametrize("with_totals", [("client",), ("client", "other")])
def test_so_does_a_trigger_of_a_client(make_shop, with_totals, size):
    replicas = make_shop(*with_totals)
    server, client, other = replicas
    add_and_pay(server)
    settle(server, client, other, size=size)
    assert_all(replicas, "orders", [(1, "paid", 5)])


def test_what_another_has_changed_meanwhile_is_a_conflict_as_ever(make_shop):
    server, client, other = make_shop("server")
    cancel(other)
    add_and_pay(client)
    other.sync(server)
    client.push(server)
    [conflict] = server.conflicts()
    assert (conflict["table_name"], conflict["pk_value"]) == ("orders", '{"id":1}')


def test_what_another_changes_afterwards_is_a_conflict_as_ever(make_shop):
    server, client, other = make_shop("server")
    client.sql("INSERT INTO line VALUES (1, 1, 5)")
    client.push(server)
    other.sync(server)
    other.sql("UPDATE orders SET status = 'cancelled' WHERE id = 1")
    other.sync(server)
    let_the_clock_tick()
    client.sql("UPDATE orders SET status = 'paid' WHERE id = 1")
    client.push(server)
    [conflict] = server.conflicts()
    assert conflict["winner"] == "remote"


def test_an_author_may_go_on_without_pulling_what_its_changes_caused(make_shop):
    replicas = make_shop("server")
    server, client, other = replicas
    pay_and_push(client, server)
    settle(server, client, other)
    assert_all(replicas, "orders", [(1, "paid", 15)])
