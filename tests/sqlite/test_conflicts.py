"""Concurrent edits of one row end the same on every replica, by the table's strategy, whichever way they travel."""

import itertools
import json

import pytest

from conftest import PERSON
from crafted import let_the_clock_tick, person, push, stamp
from replica import settle, sync_error

STRATEGIES = ["last_write_wins", "server_wins", "client_wins", "merge"]


def set_strategy(strategy, *replicas):
    for replica in replicas:
        assert replica.value("SELECT sync_set_conflict_strategy('Person', ?)", strategy) == strategy


def name(text):
    return f"UPDATE Person SET Name = '{text}' WHERE Id = 1"


def insert(text):
    return f"INSERT INTO Person VALUES (1, '{text}', NULL)"


DELETE = "DELETE FROM Person WHERE Id = 1"
GONE = []


def called(text):
    return [(1, text, None)]


def both_know_alice(server, client):
    server.sql(insert("Alice"))
    client.sync(server)


def edit(*edits):
    """Run each replica's edit, one after the other, so that the last one has the greatest stamp."""
    for replica, statement in edits:
        replica.sql(statement)
        let_the_clock_tick()


def all_equal(*replicas):
    return len({replica.hash() for replica in replicas}) == 1 and len({str(replica.rows("Person")) for replica in replicas}) == 1


# (edit on the server, edit on the client, the row if the server's edit wins, the row if the client's wins)
CONCURRENT = {
    "update, update": (name("server"), name("client"), called("server"), called("client")),
    "delete, update": (DELETE, name("client"), GONE, called("client")),
    "update, delete": (name("server"), DELETE, called("server"), GONE),
    "delete, delete": (DELETE, DELETE, GONE, GONE),
}
FIRST_EXCHANGE = {
    "pull, then push": lambda client, server: (client.pull(server), client.push(server)),
    "push, then pull": lambda client, server: (client.push(server), client.pull(server)),
}


@pytest.mark.parametrize("exchange", FIRST_EXCHANGE)
@pytest.mark.parametrize("last_writer", ["server", "client"])
@pytest.mark.parametrize("edits", CONCURRENT)
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_concurrent_edits_end_the_same_on_both_sides(server, client, strategy, edits, last_writer, exchange):
    set_strategy(strategy, server, client)
    both_know_alice(server, client)
    on_server, on_client, if_server, if_client = CONCURRENT[edits]
    in_order = [(server, on_server), (client, on_client)]
    edit(*(in_order if last_writer == "client" else reversed(in_order)))
    FIRST_EXCHANGE[exchange](client, server)
    settle(server, client, rounds=2)
    winner = {"server_wins": "server", "client_wins": "client"}.get(strategy, last_writer)
    expected = if_server if winner == "server" else if_client
    assert server.rows("Person") == client.rows("Person") == expected
    assert all_equal(server, client)


@pytest.mark.parametrize("last_writer", ["server", "client"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_the_same_key_inserted_on_both_sides_ends_the_same(server, client, strategy, last_writer):
    set_strategy(strategy, server, client)
    in_order = [(server, insert("server")), (client, insert("client"))]
    edit(*(in_order if last_writer == "client" else reversed(in_order)))
    settle(server, client, rounds=2)
    winner = {"server_wins": "server", "client_wins": "client"}.get(strategy, last_writer)
    assert server.rows("Person") == client.rows("Person") == called(winner)


HUB_ORDERS = sorted(set(itertools.permutations(["a pulls", "a pushes", "b pulls", "b pushes"])))


@pytest.mark.parametrize("order", HUB_ORDERS, ids=lambda order: ", ".join(order))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_two_clients_and_a_hub_converge_in_every_order(server, client, other, strategy, order):
    replicas = {"a": client, "b": other}
    set_strategy(strategy, server, client, other)
    server.sql(insert("Alice"))
    settle(server, client, other, rounds=1)
    edit((client, name("a")), (server, name("hub")), (other, name("b")))
    for step in order:
        replica = replicas[step[0]]
        replica.pull(server) if step.endswith("pulls") else replica.push(server)
    settle(server, client, other)
    assert all_equal(server, client, other)
    if strategy in ("last_write_wins", "merge"):
        assert server.rows("Person") == called("b")
    if strategy == "server_wins":
        assert server.rows("Person") == called("hub")


@pytest.mark.parametrize("deleter", ["client", "other", "server"])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_delete_against_two_updates_converges(server, client, other, strategy, deleter):
    replicas = {"server": server, "client": client, "other": other}
    set_strategy(strategy, *replicas.values())
    server.sql(insert("Alice"))
    settle(server, client, other, rounds=1)
    edit(*((replica, DELETE if who == deleter else name(who)) for who, replica in replicas.items()))
    settle(server, client, other)
    assert all_equal(server, client, other)


@pytest.fixture
def chain(make_replica):
    """Three replicas in a row: the first is the server of the second, which is the server of the third."""
    return [make_replica(name, PERSON, track=["Person"]) for name in ("top", "middle", "bottom")]


def relay(top, middle, bottom, rounds=3):
    for _ in range(rounds):
        bottom.sync(middle)
        middle.sync(top)


def test_a_change_travels_along_a_chain_both_ways(chain):
    top, middle, bottom = chain
    top.sql("INSERT INTO Person VALUES (1, 'top', NULL)")
    bottom.sql("INSERT INTO Person VALUES (2, 'bottom', NULL)")
    relay(*chain, rounds=2)
    assert all_equal(*chain)
    assert len(top.rows("Person")) == 2
    assert top.log()[-1]["origin"] == bottom.origin


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_chain_converges_whoever_wrote_last(chain, strategy, order):
    set_strategy(strategy, *chain)
    chain[0].sql(insert("Alice"))
    relay(*chain)
    edit(*((chain[index], name(f"replica {index}")) for index in order))
    relay(*chain, rounds=4)
    assert all_equal(*chain)
    if strategy == "last_write_wins":
        assert chain[0].rows("Person") == called(f"replica {order[-1]}")


def test_an_edit_after_the_other_was_seen_is_no_conflict(server, client):
    both_know_alice(server, client)
    client.sql(name("first"))
    client.sync(server)
    server.sql(name("second"))
    client.sync(server)
    client.sql(name("third"))
    client.sync(server)
    assert server.conflicts() == client.conflicts() == []
    assert server.rows("Person") == called("third")


def test_when_quiet_nothing_moves_and_no_log_grows(server, client, other):
    edit((server, insert("hub")), (client, insert("a")), (other, insert("b")))
    settle(server, client, other)
    before = [replica.state["entries"] for replica in (server, client, other)]
    for _ in range(10):
        for replica in (client, other):
            pulled, pushed = replica.sync(server)
            assert pulled["applied"] == pushed["applied"] == 0
    assert [replica.state["entries"] for replica in (server, client, other)] == before


def test_a_conflict_is_recorded_with_both_sides(server):
    server.sql(insert("Server"))
    server.apply(push(person(1, "Client", at=stamp(minutes=1))))
    [conflict] = server.conflicts()
    assert (conflict["table_name"], json.loads(conflict["pk_value"])) == ("Person", {"Id": 1})
    local, remote = json.loads(conflict["local_change"]), json.loads(conflict["remote_change"])
    assert json.loads(local["payload"])["Name"] == "Server" and local["origin"] == server.origin
    assert json.loads(remote["payload"])["Name"] == "Client"
    assert conflict["winner"] == "remote"
    assert conflict["strategy"] == "last_write_wins"
    assert conflict["detected_at"].endswith("Z")


def test_a_conflict_a_local_change_won_is_recorded_too(server):
    server.sql(insert("Server"))
    server.apply(push(person(1, "Client", at=stamp(minutes=-1))))
    assert [conflict["winner"] for conflict in server.conflicts()] == ["local"]
    assert server.status["conflicts"] == 1


def resolve(replica, *arguments):
    local = json.dumps({"version": 1, **person(1, "local", at=stamp(minutes=-1))})
    remote = json.dumps({"version": 1, **person(1, "remote", at=stamp())})
    places = ", ".join(["?"] * (2 + len(arguments)))
    return replica.json(f"SELECT sync_resolve_conflict({places})", local, remote, *arguments)


@pytest.mark.parametrize(
    ("arguments", "winner"),
    [([], "remote"), (["last_write_wins"], "remote"), (["server_wins"], "remote"), (["client_wins"], "local")],
)
def test_resolving_names_the_winner_and_the_strategy(client, arguments, winner):
    answer = resolve(client, *arguments)
    assert json.loads(answer["winner"]["payload"])["Name"] == winner
    assert answer["strategy"] == (arguments or ["last_write_wins"])[0]


@pytest.mark.parametrize("strategy", ["coin_toss", "", "LAST WRITE WINS"])
def test_an_unknown_strategy_is_refused(server, strategy):
    with sync_error("InvalidArgument"):
        resolve(server, strategy)
    with sync_error("InvalidArgument"):
        server.sql("SELECT sync_set_conflict_strategy('Person', ?)", strategy)


def test_the_strategy_of_a_table_is_kept(server, open_replica):
    set_strategy("server_wins", server)
    assert open_replica("server").sql("SELECT conflict_strategy FROM sync_tables()") == [("server_wins",)]
    server.track("Person")
    assert server.sql("SELECT conflict_strategy FROM sync_tables()") == [("server_wins",)]
    server.track("Person", conflict="merge")
    assert server.sql("SELECT conflict_strategy FROM sync_tables()") == [("merge",)]
