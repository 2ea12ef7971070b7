"""A server that crashes while writers, readers and an apply are at work: nothing is half done, no version that anybody saw comes again for
another change, and the client converges afterwards.

`SYNC_CRASHES` crashes in all (default 36).
"""

import json
import os
import random
import signal
import threading
import time

import psycopg
import pytest

from cluster import Cluster
from pg_replica import PgReplica

CRASHES = int(os.environ.get("SYNC_CRASHES", "36"))
KINDS = ("backend", "postmaster", "immediate")
COMMITS = ("on", "off")
ROUNDS = max(1, CRASHES // (len(KINDS) * len(COMMITS)))
WRITERS, PUSHED, LONGEST_S = 2, 200, 0.5
# Without synchronous_commit nothing but a fetch brings the write-ahead log to disk.
SETTINGS = "wal_writer_delay = 10s\nwal_writer_flush_after = 0\nwal_buffers = 64MB\nlog_checkpoints = off\n"
SERVER = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"
CLIENT = "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)"


@pytest.fixture(scope="module")
def cluster():
    cluster = Cluster(SETTINGS)
    yield cluster
    cluster.close()


class Worker(threading.Thread):
    """Repeats `step` on a session of its own until the server is gone."""

    def __init__(self, server, seed):
        super().__init__()
        self.server, self.source = server, random.Random(seed)
        self.pid = server.value("SELECT pg_backend_pid()")
        self.failure = None

    def run(self):
        try:
            while True:
                self.step()
        except psycopg.OperationalError:
            pass
        except BaseException as failure:  # Raised again in the thread of the test.
            self.failure = failure
        finally:
            self.server.close()


class Writer(Worker):
    """Transactions of a few writes to rows of its own; some are rolled back."""

    def __init__(self, server, seed, number):
        super().__init__(server, seed)
        self.number, self.committed, self.unsure = number, {}, {}

    def step(self):
        rows = {}
        self.server.sql("BEGIN")
        for _ in range(self.source.randrange(1, 6)):
            key, name = self.source.randrange(300) * WRITERS + self.number, f"{self.source.random()}"
            if self.source.randrange(4) == 0:
                self.server.sql("DELETE FROM person WHERE id = ?", key)
                rows[key] = None
            else:
                self.server.sql("INSERT INTO person VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name", key, name)
                rows[key] = name
        if self.source.randrange(6) == 0:
            self.server.sql("ROLLBACK")
        else:
            self.unsure = rows
            self.server.sql("COMMIT")
            self.committed |= rows


class Reader(Worker):
    """Follows the log; what it has seen has to stay as it was."""

    def __init__(self, server, seed, seen):
        super().__init__(server, seed)
        self.seen, self.at = seen, max(seen, default=0)

    def step(self):
        batch = self.server.fetch(self.at)
        for change in batch["changes"]:
            assert self.seen.setdefault(change["version"], change) == change
        self.at = batch["toVersion"]


class Pusher(Worker):
    """The client: makes groups of rows, each in one transaction, and syncs."""

    applying = False

    def __init__(self, server, seed, client, groups):
        super().__init__(server, seed)
        self.client, self.groups = client, groups

    def step(self):
        first = (len(self.groups) + 1) * 10_000
        with self.client.transaction():
            self.client.many("INSERT INTO Person VALUES (?, ?, ?)", [(first + n, "group", str(first)) for n in range(PUSHED)])
        batch = self.client.fetch_local_text(10_000)
        self.groups[first] = json.loads(batch)["toVersion"]
        self.applying = True
        self.server.apply(batch)
        self.applying = False
        self.client.acknowledge(self.groups[first])
        self.client.pull(self.server, 10_000)


def served(server):
    """Every change of the log by its version."""
    changes, at, more = {}, 0, True
    while more:
        batch = server.fetch(at, 10_000)
        changes |= {change["version"]: change for change in batch["changes"]}
        at, more = batch["toVersion"], batch["hasMore"]
    return changes


def replayed(changes):
    """The rows that a log leads to."""
    rows = {}
    for change in changes.values():
        rows[change["pkValue"]] = change["payload"]
    return sorted(tuple(json.loads(row).values()) for row in rows.values() if row is not None)


def crash(cluster, kind, pusher):
    if kind == "backend":
        os.kill(pusher.pid, signal.SIGKILL)
    elif kind == "postmaster":
        cluster.kill()
    else:
        cluster.stop("immediate")


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_crash_leaves_before_or_after(cluster, make_replica, kind, commit):
    server = PgReplica(cluster)
    server.sql(SERVER)
    server.sql(f"ALTER DATABASE {server.database} SET synchronous_commit = {commit}")
    server.track("person")
    client = make_replica("client", CLIENT, track=["Person"])
    seen, groups, hits = {}, {}, 0
    for number in range(ROUNDS):
        source = random.Random(f"{kind} {commit} {number}")
        writers = [Writer(server.again(), source.random(), writer) for writer in range(WRITERS)]
        pusher = Pusher(server.again(), source.random(), client, groups)
        workers = [*writers, pusher, Reader(server.again(), source.random(), seen)]
        before = dict((key, name) for key, name, _ in server.rows("person"))
        server.close()
        for worker in workers:
            worker.start()
        time.sleep(source.random() * LONGEST_S)
        hits += pusher.applying
        crash(cluster, kind, pusher)
        for worker in workers:
            worker.join()
            if worker.failure:
                raise worker.failure
        cluster.start_again()

        server = server.again()
        changes, rows = served(server), server.rows("person")
        assert replayed(changes) == rows, "the log is not the table's"
        assert {version: changes.get(version) for version in seen} == seen, "what was seen is gone, or its version has come again"
        seen |= changes
        received = server.fetch(0, 1, client.origin)["receivedVersion"]
        for first, version in groups.items():
            count = sum(email == str(first) for _, _, email in rows)
            assert count == (PUSHED if version <= received else 0), f"{count} of {PUSHED} rows of an apply are there"
        if commit == "on":
            held = {key: name for key, name, _ in rows}
            for writer in writers:
                for key, name in (before | writer.committed).items():
                    if key < 10_000 and key % WRITERS == writer.number and key not in writer.unsure:
                        assert held.get(key) == name, "a commit that was answered is gone"
        client.sync(server, 10_000)
        client.pull(server, 10_000)
        assert client.hash() == server.hash() and client.rows("Person") == server.rows("person")
    server.close()
    print(f"{ROUNDS} crashes, {hits} during an apply; {len(seen)} versions")
    assert hits or ROUNDS < 6, "no crash came during an apply"
