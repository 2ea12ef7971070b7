"""Writers that sleep, roll back, use savepoints and write one row or many; readers that follow their cursors: every committed change is seen
exactly once, in order. The naive reader (`version > cursor` over the log) must be seen to lose some in the same run, or the run proves nothing.

`SYNC_COMMITS` commits (default 4,000), `SYNC_SEED` for the same choices again.
"""

import json
import os
import random
import threading
import time

import pytest

WRITERS, READERS = 8, 4
COMMITS = int(os.environ.get("SYNC_COMMITS", "4000"))
SEED = int(os.environ.get("SYNC_SEED") or random.randrange(1_000_000))
MANY = "INSERT INTO person(id, name) SELECT g, ? FROM generate_series(?::bigint, ?, ?) g"


class Writer(threading.Thread):
    def __init__(self, session, number, commits):
        super().__init__()
        self.session, self.number, self.commits = session, number, commits
        self.committed, self.transactions = set(), 0

    def run(self):
        source = random.Random(f"{SEED} {self.number}")
        key = self.number
        while self.transactions < self.commits:
            mine = set()
            self.session.sql("BEGIN")
            for _ in range(source.choice((1, 1, 2, 3))):
                count = source.choice((1, 1, 1, 1, 1, 40))
                keys = range(key + WRITERS, key + count * WRITERS + 1, WRITERS)
                key = keys[-1]
                nested = source.randrange(4) == 0
                if nested:
                    self.session.sql("SAVEPOINT s")
                self.session.sql(MANY, str(self.number), keys[0], keys[-1], WRITERS)
                if nested and source.randrange(2) == 0:
                    self.session.sql("ROLLBACK TO s")
                else:
                    mine.update(keys)
                if source.randrange(5) == 0:
                    time.sleep(source.random() * 0.01)
            if source.randrange(6) == 0:
                self.session.sql("ROLLBACK")
            else:
                self.session.sql("COMMIT")
                self.committed |= mine
                self.transactions += 1


class Reader(threading.Thread):
    """Follows the log until it is told that all is committed and nothing is left."""

    def __init__(self, session, done, naive=False):
        super().__init__()
        self.session, self.done, self.naive = session, done, naive
        self.seen, self.versions = [], []

    def run(self):
        cursor = 0
        while True:
            finished = self.done.is_set()
            rows, to = self.read(cursor)
            self.seen += [json.loads(key)["id"] for _, key in rows]
            self.versions += [version for version, _ in rows]
            if finished and not rows:
                return
            cursor = max(cursor, to)

    def read(self, cursor):
        if self.naive:
            rows = self.session.sql(
                "SELECT version, pk_value FROM _sync_log_data WHERE version > ? ORDER BY version LIMIT 1000", cursor
            )
            return rows, rows[-1][0] if rows else cursor
        batch = self.session.fetch(cursor)
        return [(change["version"], change["pkValue"]) for change in batch["changes"]], batch["toVersion"]


@pytest.mark.timeout(3600)
def test_every_reader_sees_every_commit_exactly_once_and_in_order(session):
    done = threading.Event()
    writers = [Writer(session(), number, COMMITS // WRITERS) for number in range(WRITERS)]
    readers = [Reader(session(), done, naive=number == READERS) for number in range(READERS + 1)]
    for thread in (*writers, *readers):
        thread.start()
    for writer in writers:
        writer.join()
    done.set()
    for reader in readers:
        reader.join()
    committed = set().union(*(writer.committed for writer in writers))
    assert sum(writer.transactions for writer in writers) == COMMITS // WRITERS * WRITERS
    *fenced, naive = readers
    for reader in fenced:
        assert len(reader.seen) == len(set(reader.seen)), "a change was served twice"
        assert set(reader.seen) == committed, f"{len(committed - set(reader.seen))} of {len(committed)} changes were lost"
        assert reader.versions == sorted(reader.versions)
    lost = committed - set(naive.seen)
    print(f"\nseed {SEED}: {COMMITS} commits, {len(committed)} changes; {READERS} readers lost none, the naive reader lost {len(lost)}")
    assert lost, "the naive reader lost nothing: the run was too gentle to prove anything"
