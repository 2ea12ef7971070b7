"""A fleet of replicas that lives through a history: real databases, and a network that loses, doubles and delays batches.

Every step also guards what must hold at once: a batch delivered again changes nothing, a batch cut short is an error that changes
nothing, and a pull that starts above the cursor is refused. What must hold in the end is in `ledger`.
"""

import collections
import contextlib
import json
import pathlib
import tempfile

from replica import Replica, sync_error

from history import PARENTS
from ledger import KEY_LENGTHS, Ledger

ORIGINS = tuple(f"{number}0000000-0000-4000-8000-00000000000{number}" for number in range(1, 5))
YEAR_2040_MS = 2_208_988_800_000

# The same row wins on both sides, whichever of them is called local. A missing side is a delete and loses.
RESOLVER = "CASE WHEN :local IS NULL THEN :remote WHEN :remote IS NULL THEN :local ELSE max(:local, :remote) END"

SCHEMA = """
CREATE TABLE parent(id TEXT PRIMARY KEY, name TEXT, code INTEGER UNIQUE);
CREATE TABLE child(id INTEGER PRIMARY KEY, parent TEXT REFERENCES parent(id) ON DELETE {on_delete}, note TEXT, amount REAL);
CREATE TABLE link(a TEXT, b INTEGER, weight REAL, data BLOB, PRIMARY KEY(a, b));
"""

REFUSE = """
CREATE TRIGGER refuse_{event} BEFORE {event} ON link WHEN NEW.weight > 0.6
BEGIN SELECT raise(ABORT, 'a constraint of this replica alone'); END
"""

MOST_BATCHES = 1000
ROUNDS_TO_QUIET = {"hub": 4, "chain": 6}
# A rejected change that is applied after all may be the cause of another's rejection, as when it takes a code again.
MOST_HEALINGS = 3


def live_and_converge(make_fleet):
    """Run a fleet's history in a folder, and check it when it is quiet, when old batches arrive, and when the causes of rejections are gone."""
    with tempfile.TemporaryDirectory() as folder:
        fleet = make_fleet(folder)
        try:
            fleet.live()
            fleet.settle()
            fleet.ledger.check(fleet.replicas)
            fleet.deliver_everything_late()
            for _ in range(MOST_HEALINGS):
                fleet.heal()
                fleet.settle(extra_rounds=4)
                if not any(replica.rejections() for replica in fleet.replicas):
                    break
            fleet.ledger.check(fleet.replicas, rejections_allowed=False)
        finally:
            fleet.close()


class Fleet:
    """The replicas of one history. Number 0 is the server; the others sync along the history's routes."""

    def __init__(self, history, folder):
        self.history = history
        self.ledger = Ledger(history.on_delete)
        self.upstream = dict(history.routes)
        self.late = collections.defaultdict(list)
        self.writes = 0
        self.replicas = [self.found(number, pathlib.Path(folder)) for number in range(4)]

    def found(self, number, folder):
        """A new database: its schema, rows that are older than tracking, then tracking."""
        replica = Replica(folder / f"{number}.db", self.history.driver)
        replica.script("PRAGMA journal_mode = MEMORY; PRAGMA synchronous = OFF;")
        replica.script(f"PRAGMA foreign_keys = {'ON' if self.history.foreign_keys else 'OFF'};")
        replica.script(SCHEMA.format(on_delete=self.history.on_delete))
        with self.ledger.watch(replica):
            for write in self.history.preloaded[number]:
                replica.attempt(*write)
        replica.sql("SELECT sync_init(?)", ORIGINS[number])
        options = {"conflict": self.history.strategy}
        if self.history.strategy == "custom":
            options["resolver"] = RESOLVER
        for table in KEY_LENGTHS:
            replica.track(table, **options)
        if number in self.history.refusing:
            for event in ("INSERT", "UPDATE"):
                replica.sql(REFUSE.format(event=event))
        return replica

    def close(self):
        for replica in self.replicas:
            replica.close()

    def live(self):
        """Take every step of the history."""
        for kind, *arguments in self.history.steps:
            getattr(self, kind)(*arguments)

    # --- the steps

    def write(self, number, writes, ending, ahead_ms):
        replica = self.replicas[number]
        before = newest_version(replica)
        replica.begin()
        for write in writes:
            # What is rolled back was never written.
            with contextlib.nullcontext() if ending == "ROLLBACK" else self.ledger.watch(replica):
                replica.attempt(*write)
        replica.sql(ending)
        if ending == "ROLLBACK":
            assert newest_version(replica) == before, "a rollback left a trace: in the log"
        elif newest_version(replica) > before:
            self.turn_clock(replica, ahead_ms)

    def turn_clock(self, replica, ahead_ms):
        """Stamp the newest entry as a wall clock would that is ahead, or that stands still in the year 2040."""
        self.writes += 1
        at_least = YEAR_2040_MS + self.writes + ahead_ms if self.history.frozen_clock else 0
        replica.sql(
            "UPDATE _sync_log_data SET clock = max(clock + ?1, ?2)"
            " WHERE version = (SELECT max(version) FROM _sync_log_data)",
            0 if self.history.frozen_clock else ahead_ms,
            at_least,
        )

    def pull(self, number, size, batches, fate):
        client, server = self.ends(number)
        for _ in range(batches):
            text = server.fetch_text(client.cursor, size, client.origin)
            if fate == "lost":
                return
            if fate == "late":
                self.late[number, "pull"].append(text)
                return
            self.deliver_to(client, text, twice=fate == "twice")
            self.register(number)
            if not json.loads(text)["hasMore"]:
                return

    def push(self, number, size, batches, fate):
        client, server = self.ends(number)
        for _ in range(batches):
            text = client.fetch_local_text(size)
            if fate == "lost":
                return
            if fate == "late":
                self.late[number, "push"].append(text)
                return
            self.deliver_to(server, text, twice=fate == "twice")
            if fate == "unacknowledged":
                return
            batch = json.loads(text)
            client.acknowledge(batch["toVersion"])
            if not batch["hasMore"]:
                return

    def deliver(self, number, direction, index):
        """A late batch arrives, possibly after younger ones."""
        waiting = self.late[number, direction]
        if waiting:
            self.deliver_late(number, direction, waiting.pop(index % len(waiting)))

    def deliver_late(self, number, direction, text):
        client, server = self.ends(number)
        if direction == "push":
            self.deliver_to(server, text)
        elif json.loads(text)["fromVersion"] > client.cursor:
            with sync_error("InvalidBatch"):
                client.apply(text)
        else:
            self.deliver_to(client, text)
            self.register(number)

    def cut(self, number, direction, permille):
        """A batch that ends too early is an error, and the receiver's file stays as it is, byte for byte."""
        client, server = self.ends(number)
        if direction == "pull":
            receiver, text = client, server.fetch_text(client.cursor, 5, client.origin)
        else:
            receiver, text = server, client.fetch_local_text(5)
        before = self.whole(receiver)
        with sync_error("InvalidBatch"):
            receiver.apply(text[: len(text) * permille // 1000])
        assert self.whole(receiver) == before, "a truncated batch changed the database: it must not"

    def whole(self, replica):
        """All that a replica has stored."""
        return replica.path.read_bytes()

    def compact(self, number):
        self.replicas[number].sql("SELECT sync_compact()")

    def purge(self, number):
        self.replicas[number].sql("SELECT sync_purge_tombstones()")

    def retry(self, number):
        self.replicas[number].sql("SELECT sync_retry()")

    def resync(self, number):
        self.replicas[number].sql("SELECT sync_begin_resync()")

    # --- moving batches

    def ends(self, number):
        return self.replicas[number], self.replicas[self.upstream[number]]

    def register(self, number):
        client, server = self.ends(number)
        server.sql("SELECT sync_register_client(?, ?)", client.origin, client.cursor)

    def deliver_to(self, receiver, text, twice=False):
        receiver.apply(text)
        if twice:
            before = everything(receiver)
            again = receiver.apply(text)
            assert again["applied"] == 0, f"a batch delivered again was applied again: {again}"
            assert everything(receiver) == before, f"a batch delivered again changed something: {text}"

    def sync_all(self, size):
        """Every client pulls and pushes all there is. How many changes were in the batches."""
        moved = 0
        for number, _ in self.history.routes:
            client, server = self.ends(number)
            for _ in range(MOST_BATCHES):
                batch = server.fetch_text(client.cursor, size, client.origin)
                client.apply(batch)
                self.register(number)
                moved += len(json.loads(batch)["changes"])
                if not json.loads(batch)["hasMore"]:
                    break
            else:
                raise AssertionError(f"a pull does not end: {batch}")
            for _ in range(MOST_BATCHES):
                batch = client.fetch_local_text(size)
                server.apply(batch)
                client.acknowledge(json.loads(batch)["toVersion"])
                moved += len(json.loads(batch)["changes"])
                if not json.loads(batch)["hasMore"]:
                    break
            else:
                raise AssertionError(f"a push does not end: {batch}")
        return moved

    def settle(self, extra_rounds=0):
        """Sync until nothing moves. After the allowed rounds a further one must move nothing and log nothing."""
        sizes = self.history.settle_sizes
        for number in range(ROUNDS_TO_QUIET[self.history.topology] + extra_rounds):
            if self.sync_all(sizes[number % len(sizes)]) == 0:
                break
        before = [everything(replica) for replica in self.replicas]
        moved = self.sync_all(1000)
        assert moved == 0, f"the fleet does not come to rest: {moved} changes moved after the last round"
        assert [everything(replica) for replica in self.replicas] == before, "an empty cycle changed something: it must not"

    def deliver_everything_late(self):
        """What the network still holds arrives at a quiet fleet, where it is all old news."""
        before = [everything(replica) for replica in self.replicas]
        for (number, direction), waiting in self.late.items():
            for text in waiting:
                self.deliver_late(number, direction, text)
                assert [everything(replica) for replica in self.replicas] == before, (
                    f"a stale {direction} changed something: {text}"
                )

    def stop_refusing(self, replica):
        for event in ("INSERT", "UPDATE"):
            replica.sql(f"DROP TRIGGER IF EXISTS refuse_{event}")

    def heal(self):
        """Take away every cause of a rejection: nothing refuses rows, no code is taken, no child holds a parent back, every parent is there."""
        for replica in self.replicas:
            self.stop_refusing(replica)
            with self.ledger.watch(replica):
                replica.sql("UPDATE parent SET code = NULL")
                replica.sql("UPDATE child SET parent = NULL")
        server = self.replicas[0]
        with self.ledger.watch(server):
            for parent in PARENTS:
                server.sql("INSERT INTO parent(id) VALUES (?) ON CONFLICT DO NOTHING", parent)


def newest_version(replica):
    return replica.value("SELECT coalesce(max(version), 0) FROM _sync_log_data")


def everything(replica):
    """The rows, and where the log ends."""
    return newest_version(replica), {table: replica.rows(table) for table in KEY_LENGTHS}
