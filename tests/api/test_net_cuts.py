"""A bad network loses nothing: connections are cut at random places while both sides write, and all ends equal.

SYNC_CUTS sets how many cuts there are for each way (300 in the long run), SYNC_CUT_SEED which.
"""

import os
import random
import threading
import time

import pytest

from calls import sync_with
from replica import DRIVER_ERRORS, Replica

CUTS = int(os.environ.get("SYNC_CUTS", "25"))
SEED = int(os.environ.get("SYNC_CUT_SEED", "1"))
# Seconds in which all has to arrive once the network is good again.
DRAINED_WITHIN = 30
# How long a call repeats an exchange: short, so that many calls are given up half-way.
TIMEOUT_MS = 400
PADDING = "some text that makes a batch longer than a packet " * 4


class Writer(threading.Thread):
    """Writes to a replica with a connection of its own until told to stop: inserts, updates of shared rows, deletes."""

    def __init__(self, open_connection, first, seed):
        super().__init__(daemon=True)
        self.open_connection, self.first, self.random = open_connection, first, random.Random(seed)
        self.stopping = threading.Event()
        self.inserted, self.failure = set(), None

    def run(self):
        try:
            with self.open_connection() as replica:
                id = self.first
                while not self.stopping.is_set():
                    with replica.transaction("BEGIN"):
                        for _ in range(self.random.randrange(1, 30)):
                            replica.sql("INSERT INTO Person VALUES (?, ?, ?)", id, f"row {id}", PADDING)
                            self.inserted.add(id)
                            id += 1
                        replica.sql("UPDATE Person SET Name = ? WHERE Id = ?", f"changed {id}", self.random.randrange(1, 20))
                        if self.inserted and self.random.random() < 0.3:
                            gone = self.random.choice(sorted(self.inserted))
                            replica.sql("DELETE FROM Person WHERE Id = ?", gone)
                            self.inserted.discard(gone)
                    time.sleep(self.random.random() * 0.1)
        except BaseException as error:
            self.failure = error

    def end(self):
        self.stopping.set()
        self.join(60)
        assert self.failure is None, self.failure


@pytest.mark.timeout(1800)
def test_random_cuts_lose_nothing(remote, client, open_replica, proxy, cluster):
    print(f"SYNC_CUT_SEED={SEED} SYNC_CUTS={CUTS}")
    client.sql("PRAGMA journal_mode = WAL")
    remote.sql("INSERT INTO Person VALUES (1, 'shared', NULL), (2, 'shared', NULL), (3, 'shared', NULL)")
    sync_with(client, remote.url)
    scheme, rest = remote.url.split("://")
    port = int(rest.rsplit(":", 1)[1].split("/")[0])
    bad = proxy(port, cuts=CUTS, seed=SEED)
    url = f"{scheme}://{rest.replace(str(port), str(bad.port), 1)}"

    is_file = isinstance(remote, Replica) and type(remote) is Replica
    writers = [
        Writer(lambda: open_replica("client"), 1_000_000, SEED),
        Writer((lambda: open_replica("server")) if is_file else remote.again, 2_000_000, SEED + 1),
    ]
    for writer in writers:
        writer.start()
    calls = failed = 0
    while bad.made < CUTS:
        calls += 1
        try:
            sync_with(client, url, batchSize=50, timeoutMs=TIMEOUT_MS)
        except DRIVER_ERRORS as error:
            failed += 1
            assert "sync: the server at" in str(error), error
    bad.quiet()
    for writer in writers:
        writer.end()
    started = time.monotonic()
    while True:
        try:
            answer = sync_with(client, url)
        except DRIVER_ERRORS:
            continue
        if answer["pulled"] == answer["pushed"] == 0:
            break
    drained = time.monotonic() - started
    print(f"{bad.made} cuts, {calls} calls, {failed} given up, drained in {drained:.1f} s")
    assert drained < DRAINED_WITHIN
    assert client.hash() == remote.hash()
    ids = {row[0] for row in client.rows("Person")}
    assert ids == {1, 2, 3} | writers[0].inserted | writers[1].inserted
    assert client.rejections() == [] and remote.rejections() == []
    # Nothing arrived twice: an entry of the log for each change of an origin, but for conflicts that were sent back.
    for replica in (client, remote):
        changes = [(e["origin"], e["table_name"], e["pk_value"], e["operation"], e["timestamp"]) for e in replica.log()]
        assert len(changes) - len(set(changes)) <= len(client.conflicts()) + len(remote.conflicts())
