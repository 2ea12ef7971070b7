"""Many at once: clients push batches that overlap in rows, some of which are refused and some have to wait, while others write the same tables,
delete what is referred to, fetch, retry, purge and compact. Nothing that was acknowledged is lost, doubled or overwritten unseen, the log is the
tables', and every replica that pulls has them.

`SYNC_LOAD_S` seconds for each kind of load (default 3), `SYNC_SEED` for the same choices again, `SYNC_LOAD_ROWS` changes in each of the batches that
are pushed at the same moment (default 1,000).
"""

import collections
import contextlib
import itertools
import json
import os
import random
import threading
import time
import uuid

import psycopg
import pytest

from crafted import compact, stamp

SECONDS = float(os.environ.get("SYNC_LOAD_S", "3"))
ROWS = int(os.environ.get("SYNC_LOAD_ROWS", "1000"))
SEED = int(os.environ.get("SYNC_SEED") or random.randrange(1_000_000))
PUSHERS, CLIENTS, WRITERS = 4, 2, 3
PARENTS, CHILDREN = 60, 3000
ISOLATION = ["read committed"] * 6 + ["repeatable read", "serializable"]
TABLES = ("parent", "child", "late", "kept")
SCHEMA = (
    "CREATE TABLE parent(id bigint PRIMARY KEY, name text CHECK (name <> 'bad'))",
    "CREATE TABLE child(id bigint PRIMARY KEY, parent bigint REFERENCES parent, size int CHECK (size < 100), note text)",
    "CREATE TABLE late(id bigint PRIMARY KEY, parent bigint REFERENCES parent DEFERRABLE, size int CHECK (size < 100), note text)",
    "CREATE TABLE kept(id bigint PRIMARY KEY, parent bigint REFERENCES parent ON DELETE CASCADE, size int CHECK (size < 100), note text)",
)
CLIENT = ["CREATE TABLE parent(id INTEGER PRIMARY KEY, name TEXT)"] + [
    f"CREATE TABLE {table}(id INTEGER PRIMARY KEY, parent INTEGER {{}}, size INTEGER, note TEXT)" for table in TABLES[1:]
]
REFERS = "REFERENCES parent(id)"
# What fails a whole batch or transaction, which is then sent again.
PASSING = (psycopg.errors.DeadlockDetected, psycopg.errors.SerializationFailure, psycopg.errors.LockNotAvailable)


class Actor(threading.Thread):
    """Repeats `step` until the end of the load."""

    def __init__(self, load, name, session):
        super().__init__(name=name)
        self.load, self.session, self.source = load, session, random.Random(f"{SEED} {name}")
        self.failure, self.steps, self.again = None, 0, 0

    def run(self):
        try:
            while time.monotonic() < self.load.end:
                self.step()
                self.steps += 1
        except BaseException as failure:  # Raised again in the thread of the test.
            self.failure = failure
            self.load.end = 0
        finally:
            self.finish()

    def finish(self):
        pass

    def text(self):
        return f"{self.name} {self.steps} {self.source.randrange(1000)}"

    def any_parent(self):
        """One of ten is of those that are seldom there."""
        return self.source.choice([None, *[self.source.randrange(PARENTS) for _ in range(8)], PARENTS + self.source.randrange(20)])


class Pusher(Actor):
    """A client of batches written by hand. `sent`: each change's version, and up to which of the server's it had seen."""

    def __init__(self, load, number, session, together):
        super().__init__(load, f"pusher {number}", session)
        self.origin, self.together = str(uuid.UUID(int=0xF000 + number)), together
        self.version, self.seen, self.sent, self.acknowledged = 0, 0, {}, []
        self.last, self.newest = {}, ""
        session.sql("SELECT sync_register_client(?, 0)", self.origin)

    def step(self):
        if self.source.randrange(3) == 0:
            self.seen = self.session.fetch(self.seen, 10_000)["toVersion"]
            self.session.sql("SELECT sync_register_client(?, ?)", self.origin, self.seen)
        size = ROWS if self.together else self.source.choice((1, 5, 40, 200, 1000))
        changes = self.changes(size)
        batch = json.dumps({
            "kind": "push", "originId": self.origin, "epoch": "e", "fromVersion": self.version, "toVersion": self.version + len(changes),
            "lastServerVersion": self.seen, "changes": changes,
        })
        for change in changes:
            self.sent[key_of(change)] = (change["version"], self.seen)
        if self.together:
            with contextlib.suppress(threading.BrokenBarrierError):
                self.together.wait(5)
        self.send(batch)
        self.version += len(changes)
        self.acknowledged += changes
        if self.source.randrange(8) == 0:
            answer = self.send(batch)
            assert answer["skipped"] >= len(changes), f"a batch that came twice was taken for another: {answer}"

    def send(self, batch):
        while True:
            isolation = self.source.choice(ISOLATION)
            self.session.sql(f"SET default_transaction_isolation = '{isolation}'")
            try:
                return self.session.apply(batch)
            except PASSING:
                self.again += 1

    def changes(self, size):
        changes = []
        while len(changes) < size:
            table = self.source.choice(("parent", "child", "child", "child", "late", "kept"))
            first = self.source.randrange(CHILDREN)
            for key in range(first, first + self.source.choice((1, 3, 30, 300))):
                if len(changes) == size:
                    break
                row, deletes = self.row(table, key), self.source.randrange(12) == 0
                # No two changes of a row have one stamp. A delete of what is not there is logged if its sender's newest stamp is older.
                while (at := stamp()) <= (self.newest if deletes else self.last.get((table, row["id"]), "")):
                    time.sleep(0.001)
                self.newest = self.last[table, row["id"]] = at
                changes.append({
                    "version": self.version + len(changes) + 1, "tableName": table, "pkValue": compact({"id": row["id"]}),
                    "operation": "Delete" if deletes else self.source.choice(("Insert", "Update")),
                    "payload": None if deletes else compact(row), "origin": self.origin, "timestamp": at,
                })
        return changes

    def row(self, table, key):
        if table == "parent":
            return {"id": key % (PARENTS + 5), "name": "bad" if self.source.randrange(20) == 0 else self.text()}
        size = 100 if self.source.randrange(100) == 0 else self.source.randrange(100)
        return {"id": key, "parent": self.any_parent(), "size": size, "note": self.text()}

    def finish(self):
        if self.together:
            self.together.abort()


class Client(Actor):
    """A SQLite database without foreign keys that is written to, and syncs."""

    def __init__(self, load, number, session, replica):
        super().__init__(load, f"client {number}", session)
        self.replica = replica

    def step(self):
        with self.replica.transaction():
            for _ in range(self.source.randrange(1, 40)):
                table, key = self.source.choice(TABLES), self.source.randrange(CHILDREN)
                if table == "parent":
                    self.replica.sql("INSERT OR REPLACE INTO parent VALUES (?, ?)", key % PARENTS, self.text())
                elif self.source.randrange(6) == 0:
                    self.replica.sql(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", key, key + 5)
                else:
                    self.replica.sql(
                        f"INSERT INTO {table} VALUES (?, ?, ?, ?) ON CONFLICT (id) DO UPDATE SET note = excluded.note, parent = excluded.parent",
                        key, self.any_parent(), self.source.randrange(103), self.text(),
                    )
        try:
            self.replica.sync(self.session, self.source.choice((100, 1000, 10_000)))
        except PASSING:
            self.again += 1


class Writer(Actor):
    """Transactions of the server's own; some are rolled back, and what the server refuses is."""

    def step(self):
        try:
            with self.session.transaction():
                for _ in range(self.source.randrange(1, 5)):
                    self.session.sql("SAVEPOINT s")
                    try:
                        self.write()
                    except psycopg.errors.IntegrityError:
                        self.session.sql("ROLLBACK TO s")
                if self.source.randrange(8) == 0:
                    raise psycopg.errors.SerializationFailure("changed its mind")
        except PASSING:
            self.again += 1
        time.sleep(self.source.random() * 0.01)

    def write(self):
        table, first = self.source.choice(TABLES[1:]), self.source.randrange(CHILDREN)
        last, parent = first + self.source.choice((0, 2, 20)), self.any_parent()
        kind = self.source.randrange(10)
        if kind < 3:
            self.session.sql(f"UPDATE {table} SET note = ? WHERE id BETWEEN ? AND ?", self.text(), first, last)
        elif kind < 5:
            self.session.sql(
                f"INSERT INTO {table} SELECT g, ?, 1, ? FROM generate_series(?::bigint, ?) g ON CONFLICT (id) DO UPDATE SET parent = excluded.parent",
                parent, self.text(), first, last,
            )
        elif kind == 5:
            self.session.sql(f"DELETE FROM {table} WHERE id BETWEEN ? AND ?", first, last)
        elif kind == 6:
            self.session.sql(f"UPDATE {table} SET parent = ? WHERE id BETWEEN ? AND ?", parent, first, last)
        elif kind == 7:
            self.session.sql("DELETE FROM parent WHERE id = ?", self.source.randrange(PARENTS + 20))
        elif kind == 8:
            self.session.sql(f"UPDATE {table} SET id = id + 1 WHERE id = ?", first)
        else:
            self.session.sql(
                "INSERT INTO parent VALUES (?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name",
                self.source.randrange(PARENTS + 10), self.text(),
            )


class Keeper(Actor):
    """Reads the log as it grows, and does what a server's owner does. `history`: every entry that it has met, by version."""

    def __init__(self, load, name, session):
        super().__init__(load, name, session)
        self.at, self.history, self.swept = 0, {}, 0

    def read(self):
        more = True
        while more:
            batch = self.session.fetch(self.at, 10_000)
            for change in batch["changes"]:
                assert change["version"] > self.at and change["version"] not in self.history, "a version was passed, or served twice"
                self.history[change["version"]] = change
            self.at, more = batch["toVersion"], batch["hasMore"]

    def step(self):
        self.read()
        # Nothing is purged that the keeper has not read.
        self.session.sql("SELECT sync_register_client(?, ?)", str(uuid.UUID(int=0xEEEE)), self.at)
        act = self.source.randrange(8)
        try:
            if act == 0:
                self.session.sql("SELECT sync_retry()")
            elif act == 1:
                self.swept += self.session.value("SELECT sync_purge_tombstones()")
            elif act == 2:
                self.swept += self.session.value("SELECT sync_compact()")
            elif act == 3:
                self.session.sql("SELECT sync_status(), sync_hash()")
            elif act == 4:
                self.session.sql("SELECT * FROM sync_rejections()")
        except PASSING:
            self.again += 1
        time.sleep(0.02)


class Load:
    def __init__(self, server, make_replica, together):
        self.server, self.end = server, 0
        barrier = threading.Barrier(PUSHERS) if together else None
        replicas = [make_replica(f"client{n}", *(line.format("") for line in CLIENT), track=TABLES) for n in range(CLIENTS)]
        self.pushers = [Pusher(self, n, server.again(), barrier) for n in range(PUSHERS)]
        self.clients = [Client(self, n, server.again(), replica) for n, replica in enumerate(replicas)]
        self.writers = [Writer(self, f"writer {n}", server.again()) for n in range(WRITERS)]
        self.keeper = Keeper(self, "keeper", server.again())
        self.actors = [*self.pushers, *self.clients, *self.writers, self.keeper]

    def run(self):
        self.end = time.monotonic() + SECONDS
        for actor in self.actors:
            actor.start()
        for actor in self.actors:
            actor.join()
        for actor in self.actors:
            if actor.failure:
                raise actor.failure
        for client in self.clients * 3:
            client.replica.sync(self.server, 10_000)
        self.server.sql("SELECT sync_retry()")
        self.keeper.read()

    def close(self):
        for actor in self.actors:
            actor.session.close()


def key_of(change):
    return change["origin"], change["tableName"], change["pkValue"], change["timestamp"]


def row_of(change):
    return change["tableName"], change["pkValue"]


def by_row(history):
    rows = collections.defaultdict(list)
    for _, entry in sorted(history.items()):
        rows[row_of(entry)].append(entry)
    return rows


def tables_of(replica):
    """(table, key) -> the row as JSON, of all tables."""
    columns = {"parent": ("id", "name")}
    return {
        (table, compact({"id": row[0]})): dict(zip(columns.get(table, ("id", "parent", "size", "note")), row))
        for table in TABLES for row in replica.rows(table)
    }


def check_the_log(load, rows):
    """The newest entry of every row is the row, and the log has one for each."""
    newest = {row: json.loads(entries[-1]["payload"]) for row, entries in rows.items() if entries[-1]["payload"] is not None}
    table = tables_of(load.server)
    wrong = {row: (newest.get(row), table.get(row)) for row in newest.keys() | table.keys() if newest.get(row) != table.get(row)}
    assert not wrong, f"the log's newest entry is not the row: {dict(itertools.islice(wrong.items(), 5))}"
    kept = {}
    for entry in load.server.log():
        kept[entry["table_name"], entry["pk_value"]] = entry["payload"]
    assert {row: json.loads(payload) for row, payload in kept.items() if payload is not None} == table


def check_nothing_doubled(load, rows):
    for pusher in load.pushers:
        for row, entries in rows.items():
            order = [pusher.sent[key_of(entry)][0] for entry in entries if entry["origin"] == pusher.origin]
            assert order == sorted(set(order)), f"{pusher.name}'s changes of {row} are doubled or out of order: {order}"


def is_caused_by(origin, entries, rows):
    """Is the last but one of a row's entries a cascade of this origin's delete of the parent?"""
    *earlier, before, entry = entries
    if entry["tableName"] != "kept" or before["payload"] is not None or not earlier or earlier[-1]["payload"] is None:
        return False
    deletes = rows.get(("parent", compact({"id": json.loads(earlier[-1]["payload"])["parent"]})), [])
    return any(
        delete["payload"] is None and delete["origin"] == origin and earlier[-1]["version"] < delete["version"] < entry["version"]
        for delete in deletes
    )


def check_nothing_unseen_overwritten(load, rows):
    """A change that was written over an entry its sender had not seen is the later of the two, unless its sender's own delete caused that."""
    senders = {pusher.origin: pusher for pusher in load.pushers}
    for row, entries in rows.items():
        for place, (before, entry) in enumerate(itertools.pairwise(entries)):
            if entry["origin"] not in senders or before["origin"] == entry["origin"]:
                continue
            _, seen = senders[entry["origin"]].sent[key_of(entry)]
            if before["version"] > seen and not is_caused_by(entry["origin"], entries[:place + 2], rows):
                wins = (entry["timestamp"], entry["origin"]) > (before["timestamp"], before["origin"])
                assert wins, f"{row} was overwritten unseen: {before} by {entry}, whose sender had seen {seen}"


def check_nothing_lost(load, rows):
    """What was acknowledged was logged, waits, lost against something later, or met the same that another had done meanwhile."""
    waiting = {(r["origin"], r["table_name"], compact(json.loads(r["pk_value"])), r["timestamp"]) for r in load.server.rejections()}
    logged = {key_of(entry) for entries in rows.values() for entry in entries}
    count = 0
    for pusher in load.pushers:
        for change in pusher.acknowledged:
            if key_of(change) in logged or key_of(change) in waiting:
                continue
            count += 1
            seen, at = pusher.sent[key_of(change)][1], (change["timestamp"], pusher.origin)
            unseen = [entry for entry in rows.get(row_of(change), ()) if entry["origin"] != pusher.origin and entry["version"] > seen]
            if not any((entry["timestamp"], entry["origin"]) > at or entry["payload"] == change["payload"] for entry in unseen):
                key = change["pkValue"]
                told = [
                    f"a change was lost: {change}, whose sender had seen {seen}",
                    f"history: {rows.get(row_of(change))}",
                    f"acknowledged: {[c for p in load.pushers for c in p.acknowledged if row_of(c) == row_of(change)]}",
                    *(f"{list(r.values())}" for r in (*load.server.rejections(), *load.server.conflicts()) if compact(json.loads(r["pk_value"])) == key),
                ]
                raise AssertionError("\n".join(told))
    return count, len(waiting)


def check_what_waits(load):
    """What still waits has a cause."""
    table, blocked = tables_of(load.server), set()
    referred = {(name, row["parent"]) for (name, _), row in table.items() if name in ("child", "late")}
    for rejection in load.server.rejections():
        name, key = rejection["table_name"], json.loads(rejection["pk_value"])["id"]
        row = json.loads(rejection["payload"]) if rejection["payload"] else None
        place = rejection["origin"], name, key
        if row is None:
            caused = name == "parent" and any((child, key) in referred for child in ("child", "late"))
        elif name == "parent":
            caused = row["name"] == "bad"
        else:
            missing = row["parent"] is not None and ("parent", compact({"id": row["parent"]})) not in table
            caused = missing or row["size"] >= 100
        assert caused or place in blocked, f"this waits for nothing: {rejection}"
        blocked.add(place)


def check_replicas(load, make_replica):
    """New clients, also with foreign keys, and those that have synced all the time."""
    server = load.server
    for name, size, refers in (("new", 1000, ""), ("small", 333, REFERS), ("large", 10_000, REFERS)):
        new = make_replica(name, *(line.format(refers) for line in CLIENT), track=TABLES)
        new.pull(server, size)
        assert new.rejections() == [], "a new client has what it could not apply"
        assert new.hash() == server.hash() and tables_of(new) == tables_of(server)
    waiting = {(r["table_name"], compact(json.loads(r["pk_value"]))) for r in server.rejections()}
    table = tables_of(server)
    for client in load.clients:
        own = tables_of(client.replica)
        differing = {row for row in own.keys() | table.keys() if own.get(row) != table.get(row)}
        assert differing <= waiting, f"rows of {client.name} differ: {[(row, own.get(row), table.get(row)) for row in differing - waiting][:5]}"


@pytest.mark.timeout(120 + 3 * SECONDS)
@pytest.mark.parametrize("together", [False, True], ids=["mixed", "at once"])
def test_what_many_do_at_once_is_neither_lost_nor_doubled(make_server, make_replica, together):
    server = make_server(*SCHEMA, track=TABLES)
    server.sql(f"ALTER DATABASE {server.database} SET deadlock_timeout = '20ms'")
    server.sql("INSERT INTO parent SELECT g, 'there' FROM generate_series(1, ?) g", PARENTS // 2)
    load = Load(server, make_replica, together)
    print(f"\nseed {SEED}")
    try:
        load.run()
        rows = by_row(load.keeper.history)
        check_the_log(load, rows)
        server.check_whole()
        check_nothing_doubled(load, rows)
        check_nothing_unseen_overwritten(load, rows)
        superseded, waiting = check_nothing_lost(load, rows)
        check_what_waits(load)
        check_replicas(load, make_replica)
    finally:
        load.close()
    pushed = sum(len(pusher.acknowledged) for pusher in load.pushers)
    again = {kind: sum(actor.again for actor in actors) for kind, actors in
             (("pushes", load.pushers), ("syncs", load.clients), ("transactions", load.writers))}
    print(
        f"{pushed} changes pushed, {superseded} superseded, {waiting} wait; {len(load.keeper.history)} entries, {load.keeper.swept} swept;"
        f" {sum(c.steps for c in load.clients)} syncs, {sum(w.steps for w in load.writers)} transactions; sent again: {again}"
    )
