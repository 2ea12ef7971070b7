"""Killed at any moment, a replica holds what was before or what is after, and goes on; a standby does not guess."""

import json
import os
import random
import signal
import threading
import time
import uuid

import psycopg
import pytest

from cluster import Cluster
from ledger import assert_replays
from pg_replica import PgReplica, pg_error

PERSON = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"
SENDER = str(uuid.UUID(int=9))
ROUNDS = int(os.environ.get("SYNC_CRASHES", "6"))
SEED = int(os.environ.get("SYNC_SEED") or random.randrange(1_000_000))
PER_BATCH = 200
# What is checked after a crash grows with what was written before it.
CRASHES_OF_A_DATABASE = 5


def batch(number):
    """Push number `number`: rows of its own."""
    first = number * PER_BATCH
    changes = [
        {
            "version": first + place + 1, "tableName": "person", "pkValue": json.dumps({"id": first + place}), "operation": "Insert",
            "payload": json.dumps({"id": first + place, "name": f"n{number}", "email": None}), "origin": SENDER,
            "timestamp": "2025-01-01T00:00:00.000Z",
        }
        for place in range(PER_BATCH)
    ]
    return {
        "kind": "push", "originId": SENDER, "epoch": "e", "fromVersion": first, "toVersion": first + PER_BATCH, "lastServerVersion": 0,
        "changes": changes,
    }


def assert_whole(replica, most):
    """Rows, log and received ranges speak of the same batches, each whole."""
    rows = replica.value("SELECT count(*) FROM person")
    assert rows % PER_BATCH == 0 and rows <= most * PER_BATCH
    assert replica.value("SELECT count(*) FROM _sync_log") == rows
    received = replica.value("SELECT coalesce(sum(to_version - from_version), 0)::bigint FROM _sync_received")
    assert received == rows


@pytest.fixture
def own_cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.mark.timeout(3600)
def test_a_backend_that_is_killed_while_it_applies(own_cluster):
    print(f"\nseed {SEED}, {ROUNDS} crashes")
    source = random.Random(SEED)
    server = PgReplica(own_cluster)
    server.sql(PERSON)
    server.track("person")
    for number in range(ROUNDS):
        victim, witness = server.again(), own_cluster.connect()
        pid = victim.value("SELECT pg_backend_pid()")
        killer = threading.Timer(source.random() * 0.03, lambda pid=pid: os.kill(pid, signal.SIGKILL))
        killer.start()
        try:
            victim.apply(batch(number))
        except psycopg.OperationalError:
            pass
        killer.join()
        own_cluster.wait_for_crash(witness)
        server = reconnected(own_cluster, server.database)
        assert_whole(server, number + 1)
        server.apply(batch(number))
        assert_whole(server, number + 1)
        assert server.value("SELECT count(*) FROM person") == (number + 1) * PER_BATCH
    server.close()


def reconnected(cluster, database):
    """The server restarts by itself after a backend was killed."""
    for _ in range(200):
        try:
            replica = PgReplica(cluster, database)
            replica.sql("SELECT 1")
            return replica
        except psycopg.OperationalError:
            time.sleep(0.05)
    raise AssertionError("the server does not come back")


@pytest.mark.timeout(3600)
def test_a_server_that_is_shut_down_at_once_while_it_captures(own_cluster):
    """One row at a time and hundreds; what a fetch has served is the same after the crash, and the log's replay is the table."""
    print(f"\nseed {SEED}, {ROUNDS // 2} crashes")
    source = random.Random(SEED)
    for number in range(ROUNDS // 2):
        if number % CRASHES_OF_A_DATABASE == 0:
            server = PgReplica(own_cluster)
            server.sql(PERSON)
            server.track("person")
            database, key, seen = server.database, 0, {}
        stop = threading.Timer(0.1 + source.random() * 0.3, lambda: own_cluster.stop("immediate"))
        stop.start()
        try:
            while True:
                count = source.choice((1, 1, 1, 1, 300))
                server.sql("INSERT INTO person(id, name) SELECT g, repeat('x', 100) FROM generate_series(?::bigint, ?) g", key + 1, key + count)
                key += count
                if source.randrange(10) == 0:
                    server.sql("UPDATE person SET email = 'e' WHERE id > ?", key - 200)
                if source.randrange(10) == 0:
                    seen |= {c["version"]: c for c in server.fetch(max(seen, default=0), 10_000)["changes"]}
        except psycopg.Error:
            key += 1000
        stop.join()
        own_cluster.start()
        server = PgReplica(own_cluster, database)
        log = {c["version"]: c for c in everything(server)}
        assert {version: log.get(version) for version in seen} == seen, "a version that was seen is another change now"
        assert_replays(server, "person")


def everything(server):
    """All changes, batch by batch."""
    cursor, changes = 0, []
    while True:
        batch = server.fetch(cursor, 10_000)
        changes += batch["changes"]
        cursor = batch["toVersion"]
        if not batch["hasMore"]:
            return changes


def test_a_standby_refuses_to_fetch(own_cluster):
    server = PgReplica(own_cluster)
    server.sql(PERSON)
    server.track("person")
    standby = Cluster.__new__(Cluster)
    standby.folder = own_cluster.folder / "standby"
    own_cluster.run("pg_basebackup", "-c", "fast", "-h", own_cluster.folder, "-U", "postgres", "-D", standby.data, "-R")
    with (standby.data / "postgresql.conf").open("a", encoding="utf-8") as file:
        file.write(f"unix_socket_directories = '{standby.folder}'\n")
    standby.start()
    try:
        replica = PgReplica(standby, server.database)
        with pg_error("InvalidArgument"):
            replica.fetch()
        assert replica.hash() == server.hash()
        replica.close()
    finally:
        standby.stop("immediate")
    server.close()
