"""A process that writes and syncs is killed at a random moment, again and again, and its two databases are looked at.

They are whole; what was acknowledged is there; each transaction is there wholly or not at all; the cursors tell the truth; and
going on makes the replicas equal. The databases keep the settings users have, `synchronous` among them.
"""

import multiprocessing
import os
import random
import signal
import time
import traceback

import pytest

from replica import DRIVERS, Replica

ROUNDS = 25  # for each driver and journal mode: 100 in all
LONGEST_LIFE_S = 0.4
START_LIMIT_S = 20
SIDES = ("server", "client")
ACCOUNTS = 20

SCHEMA = """
CREATE TABLE entry(id TEXT PRIMARY KEY, home TEXT NOT NULL, parcel TEXT NOT NULL, size INTEGER NOT NULL);
CREATE TABLE account(id INTEGER PRIMARY KEY, balance INTEGER, note TEXT);
"""


@pytest.mark.timeout(300)
@pytest.mark.parametrize("driver", DRIVERS)
@pytest.mark.parametrize("journal_mode", ("delete", "wal"))
def test_a_killed_process_leaves_databases_that_are_whole_and_go_on(tmp_path, driver, journal_mode):
    source = random.Random(f"{driver} {journal_mode}")
    found(tmp_path, driver, journal_mode)
    for generation in range(ROUNDS):
        kill_while_it_works(tmp_path, driver, generation, source.uniform(0, LONGEST_LIFE_S))
        with Replica(tmp_path / "server.db", driver) as server, Replica(tmp_path / "client.db", driver) as client:
            check_databases(tmp_path, server, client)
            check_cursors(server, client)
            if generation % 3 == 2:
                check_going_on(server, client)
    with Replica(tmp_path / "server.db", driver) as server, Replica(tmp_path / "client.db", driver) as client:
        check_going_on(server, client)
        assert client.value("SELECT count(*) FROM entry") > ROUNDS, "the process did work"


def found(folder, driver, journal_mode):
    for side in SIDES:
        with Replica(folder / f"{side}.db", driver) as replica:
            replica.sql(f"PRAGMA journal_mode = {journal_mode}")
            replica.script(SCHEMA)
            replica.track("entry")
            replica.track("account")


# --- the process that is killed


def kill_while_it_works(folder, driver, generation, life_s):
    """Let a process work on both databases, and kill it `life_s` seconds after it began to."""
    begun = folder / f"begun.{generation}"
    process = multiprocessing.get_context("fork").Process(target=work, args=(folder, driver, generation, begun))
    process.start()
    limit = time.monotonic() + START_LIMIT_S
    while not begun.exists() and process.is_alive() and time.monotonic() < limit:
        time.sleep(0.001)
    time.sleep(life_s)
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    failure = folder / "failure"
    assert process.exitcode == -signal.SIGKILL, failure.read_text() if failure.exists() else "it ended by itself"


def work(folder, driver, generation, begun):
    """Write on both sides, pull and push, for ever. Every commit is noted in `acknowledged` after it has happened."""
    try:
        source = random.Random(generation)
        sides = {side: Replica(folder / f"{side}.db", driver) for side in SIDES}
        acknowledged = os.open(folder / "acknowledged", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        begun.touch()
        for step in range(1_000_000):
            for side in SIDES:
                parcel = f"{side}-{generation}-{step}"
                write(sides[side], side, parcel, source)
                os.write(acknowledged, f"{side} {parcel}\n".encode())
            size = source.choice((1, 3, 10, 1000))
            sides["client"].pull(sides["server"], size, limit=source.choice((1, 5, None)))
            if source.randrange(2):
                sides["client"].push(sides["server"], size, limit=source.choice((1, 5, None)))
    except BaseException:
        (folder / "failure").write_text(traceback.format_exc())
        raise


def write(replica, side, parcel, source):
    """One transaction: some entries that stay for ever, and changes of accounts that both sides change."""
    size = source.randint(1, 12)
    with replica.transaction():
        for number in range(size):
            replica.sql("INSERT INTO entry VALUES (?, ?, ?, ?)", f"{parcel}-{number}", side, parcel, size)
        for _ in range(source.randrange(4)):
            account = source.randrange(ACCOUNTS)
            if source.randrange(4) == 0:
                replica.sql("DELETE FROM account WHERE id = ?", account)
            else:
                replica.sql(
                    "INSERT INTO account VALUES (?1, ?2, ?3)"
                    " ON CONFLICT(id) DO UPDATE SET balance = excluded.balance, note = excluded.note",
                    account,
                    source.randrange(10**6),
                    parcel,
                )


# --- what must be true afterwards


def check_databases(folder, server, client):
    """Both files are sound, nothing acknowledged is missing, no transaction is there by half, and each is in the log."""
    noted = (folder / "acknowledged").read_text().splitlines() if (folder / "acknowledged").exists() else []
    for side, replica in zip(SIDES, (server, client)):
        assert replica.value("PRAGMA integrity_check") == "ok"
        parcels = replica.sql(
            "SELECT parcel, count(*), min(size) FROM entry WHERE home = ? GROUP BY parcel", side
        )
        assert all(there == size for _, there, size in parcels), "a transaction is there wholly or not at all"
        acknowledged = {line.split()[1] for line in noted if line.split()[0] == side}
        assert acknowledged <= {parcel for parcel, _, _ in parcels}, "an acknowledged commit is there"
        own = {key for (key,) in replica.sql("SELECT id FROM entry WHERE home = ?", side)}
        assert own == logged_entries(replica, replica.origin), "the log has what the table has"


def check_cursors(server, client):
    """What a cursor says was moved is on the other side, and what it does not say was moved is not."""
    on_client = {key for (key,) in client.sql("SELECT id FROM entry")}
    on_server = {key for (key,) in server.sql("SELECT id FROM entry")}
    pulled, pushed = client.cursor, client.value("SELECT sync_last_push_version()")

    assert logged_entries(server, server.origin, up_to=pulled) <= on_client, "the pull cursor runs ahead"
    assert not logged_entries(server, server.origin, above=pulled) & on_client, "the pull cursor lags behind"
    assert logged_entries(client, client.origin, up_to=pushed) <= on_server, "the push cursor runs ahead"
    for replica, foreign in ((client, server.origin), (server, client.origin)):
        keys = replica.sql("SELECT pk_value FROM _sync_log WHERE table_name = 'entry' AND origin = ?", foreign)
        assert len(keys) == len(set(keys)), "a received change is logged once"


def check_going_on(server, client):
    """The next syncs make both sides equal, and nothing is left over."""
    for _ in range(3):
        client.sync(server)
    assert client.hash() == server.hash()
    for table in ("entry", "account"):
        assert client.rows(table) == server.rows(table)
    assert client.rejections() == server.rejections() == []
    newest = client.state["maxVersion"], server.state["maxVersion"]
    client.sync(server)
    assert (client.state["maxVersion"], server.state["maxVersion"]) == newest, "a quiet sync logs nothing"


def logged_entries(replica, origin, above=0, up_to=2**62):
    """The keys of the entries that the log has from one origin, in a range of versions."""
    rows = replica.sql(
        "SELECT json_extract(pk_value, '$.id') FROM _sync_log"
        " WHERE table_name = 'entry' AND origin = ? AND version > ? AND version <= ?",
        origin,
        above,
        up_to,
    )
    return {key for (key,) in rows}
