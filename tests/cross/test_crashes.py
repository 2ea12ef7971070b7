"""A server or a client that crashes while writers, readers and an apply are at work: nothing is half done, no version that anybody saw comes
again for another change, and both converge afterwards.

`SYNC_CRASHES` crashes in all, or some more (default 36).
"""

import json
import math
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
ROLES = 2
ROUNDS = math.ceil(CRASHES / (len(KINDS) * len(COMMITS) * ROLES))
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


def crash(cluster, kind, number, worker):
    """At any moment, every other time while a batch is applied. Was it so?"""
    witness = cluster.connect()
    time.sleep(worker.source.random() * LONGEST_S)
    for _ in range(0 if number % 2 else 1000):
        if worker.applying:
            time.sleep(worker.source.random() * 0.02)
            break
        time.sleep(0.001)
    applying = worker.applying
    if kind == "backend":
        os.kill(worker.pid, signal.SIGKILL)
    elif kind == "postmaster":
        cluster.kill()
    else:
        cluster.stop("immediate")
    cluster.wait_for_crash(witness)
    return applying


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
        hits += crash(cluster, kind, number, pusher)
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


class Client(Worker):
    """A PostgreSQL client of a SQLite server: both make rows, and the client syncs. `received` are the groups that the server was handed."""

    applying = False

    def __init__(self, client, seed, server, received):
        super().__init__(client, seed)
        self.upstream, self.received = server, received
        self.count = max((first for first, *_ in server.rows("Person")), default=0) // 10_000

    def step(self):
        self.count += 1
        first = self.count * 10_000
        rows = [(first + n, "group", str(first)) for n in range(PUSHED)]
        with self.upstream.transaction():
            self.upstream.many("INSERT INTO Person VALUES (?, ?, ?)", [(key + 5_000, *row) for key, *row in rows])
        self.applying = True
        self.server.pull(self.upstream, 10_000)
        self.applying = False
        with self.server.transaction():
            self.server.many("INSERT INTO person VALUES (?, ?, ?)", rows)
        batch = self.server.fetch_local_text(10_000)
        self.received.append(first)
        self.upstream.apply(batch)
        self.server.acknowledge(json.loads(batch)["toVersion"])


@pytest.mark.timeout(60 + 10 * ROUNDS)
@pytest.mark.parametrize("commit", COMMITS)
@pytest.mark.parametrize("kind", KINDS)
def test_a_client_that_crashes_goes_on_where_it_was(cluster, make_replica, kind, commit):
    server = make_replica("server", CLIENT, track=["Person"])
    client = PgReplica(cluster)
    client.sql(SERVER)
    client.sql(f"ALTER DATABASE {client.database} SET synchronous_commit = {commit}")
    client.track("person")
    received = []
    for number in range(ROUNDS):
        source = random.Random(f"client {kind} {commit} {number}")
        worker = Client(client.again(), source.random(), server, received)
        client.close()
        worker.start()
        crash(cluster, kind, number, worker)
        worker.join()
        if worker.failure:
            raise worker.failure
        cluster.start_again()

        client = client.again()
        rows = client.rows("person")
        assert replayed(served(client)) == rows, "the log is not the table's"
        for first in received:
            assert sum(first <= key < first + PUSHED for key, *_ in rows) == PUSHED, "what was handed out is gone"
        for first in range(5_000, 10_000 * (worker.count + 1), 10_000):
            assert sum(first <= key < first + PUSHED for key, *_ in rows) in (0, PUSHED), "a pull is half done"
        client.sync(server, 10_000)
        assert client.hash() == server.hash() and client.rows("person") == server.rows("Person")
    client.close()
