"""PostgreSQL: how fast batches are applied, into a table without and with a foreign key, and when a part of the rows has to wait for the
row that it refers to. Beside it, in the same rounds and on the same rows, two programs without sync: a loop in SQL that inserts row by
row with a savepoint for each, and one `INSERT .. SELECT` for each 1,000 rows, both into a table that is not tracked.

Alone: `python postgres_apply.py`; `ROWS` and `ROUNDS` as for `postgres.py`.
"""

import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from cluster import Cluster  # noqa: E402

ROWS = int(os.environ.get("ROWS", "50000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
BATCH = 1000
CUSTOMERS = 1000
# Rows that are there in no table of customers, and the rows that are applied when so many of them wait.
CASES = {"without a foreign key": (None, 1), "with a foreign key": (0, 1), "1 % wait for their parent": (1, 1), "45 % wait for their parent": (45, 0.4)}
COLUMNS = "id, customer, status, quantity, price, placed, note"
TABLE = """CREATE TABLE {name}(id bigint PRIMARY KEY, customer bigint{key}, status text, quantity int, price numeric(10,2), placed timestamptz,
 note text)"""
KEY = " REFERENCES customer"
ROW = """SELECT g, 1 + g % {customers} + CASE WHEN g * 37 % 100 < {orphans} THEN 1000000 ELSE 0 END, 'open', g % 10, g % 10000 / 100.0, now(),
 'a note of some length ' || g"""
# What a program without sync does: a bad row must not stop the others.
LOOP = """
CREATE FUNCTION row_by_row(first int, last int) RETURNS void LANGUAGE plpgsql AS $$ DECLARE r {name}_source; BEGIN
 FOR r IN SELECT * FROM {name}_source WHERE id BETWEEN first AND last LOOP
  BEGIN INSERT INTO {name} SELECT r.*; EXCEPTION WHEN foreign_key_violation THEN NULL; END;
 END LOOP; END $$"""
SET = "INSERT INTO {name} SELECT s.* FROM {name}_source AS s WHERE id BETWEEN {first} AND {last}"


def timed(connection, body):
    """Seconds that the server's process computed for `body`, and that passed: other programs on the machine lengthen only these much."""
    schedule = pathlib.Path(f"/proc/{connection.info.backend_pid}/schedstat")
    computed = lambda: int(schedule.read_text(encoding="ascii").split()[0]) / 1e9
    start, before = time.perf_counter(), computed()
    body()
    return computed() - before, time.perf_counter() - start


def value(connection, sql, *args):
    return connection.execute(sql, args).fetchone()[0]


def pulls(server):
    """The batches of a server, those of the customers first."""
    batches, cursor = [], 0
    while True:
        batch = value(server, "SELECT sync_fetch_changes(%s, %s)", cursor, BATCH)
        batches.append(batch)
        head = json.loads(batch[: batch.index('"hash"') - 1] + "}")
        cursor = head["toVersion"]
        if not head["hasMore"]:
            return batches[: CUSTOMERS // BATCH], batches[CUSTOMERS // BATCH :]


class Case:
    """A server whose own tables have no foreign key, and its batches."""

    def __init__(self, cluster, orphans, share):
        self.cluster, self.has_key, self.rows = cluster, orphans is not None, int(ROWS * share)
        self.source = ROW.format(customers=CUSTOMERS, orphans=orphans or 0) + f" FROM generate_series(1, {self.rows}) g"
        with cluster.connect(cluster.create_database()) as server:
            server.execute("CREATE EXTENSION pg_sync")
            server.execute("CREATE TABLE customer(id bigint PRIMARY KEY)")
            server.execute(TABLE.format(name="orders", key=""))
            server.execute("SELECT sync_track_table('customer'), sync_track_table('orders')")
            server.execute(f"INSERT INTO customer SELECT generate_series(1, {CUSTOMERS})")
            server.execute("INSERT INTO orders " + self.source)
            self.first, self.inserts = pulls(server)
            server.execute("UPDATE orders SET quantity = quantity + 1")
            self.updates = pulls(server)[1][len(self.inserts) :]
        self.key = KEY if self.has_key else ""

    def apply(self):
        """Changes per second of the inserts, and of updates to all rows after them."""
        with self.cluster.connect(self.cluster.create_database()) as client:
            client.execute("CREATE EXTENSION pg_sync")
            client.execute("CREATE TABLE customer(id bigint PRIMARY KEY)")
            client.execute(TABLE.format(name="orders", key=self.key))
            client.execute("SELECT sync_track_table('customer'), sync_track_table('orders')")
            for batch in self.first:
                value(client, "SELECT sync_apply_batch(%s)", batch)
            inserts = timed(client, lambda: [value(client, "SELECT sync_apply_batch(%s)", batch) for batch in self.inserts])
            there = value(client, "SELECT count(*) FROM orders") + value(client, "SELECT count(*) FROM sync_rejections()")
            assert there == self.rows
            updates = timed(client, lambda: [value(client, "SELECT sync_apply_batch(%s)", batch) for batch in self.updates])
            return {"apply": self.rates(inserts), "updates": self.rates(updates)}

    def plain(self):
        """Rows per second of the two programs without sync."""
        with self.cluster.connect(self.cluster.create_database()) as client:
            client.execute("CREATE TABLE customer(id bigint PRIMARY KEY)")
            client.execute(f"INSERT INTO customer SELECT generate_series(1, {CUSTOMERS})")
            client.execute(TABLE.format(name="orders_source", key=""))
            client.execute("INSERT INTO orders_source " + self.source)
            client.execute("ANALYZE")
            seconds = {}
            firsts = range(1, self.rows + 1, BATCH)
            client.execute(TABLE.format(name="orders", key=self.key))
            client.execute(LOOP.format(name="orders"))
            seconds["loop"] = timed(client, lambda: [client.execute(f"SELECT row_by_row({first}, {first + BATCH - 1})") for first in firsts])
            client.execute("DROP FUNCTION row_by_row; DROP TABLE orders")
            client.execute(TABLE.format(name="orders", key=self.key))
            known = f" AND customer <= {CUSTOMERS}"
            seconds["set"] = timed(
                client, lambda: [client.execute(SET.format(name="orders", first=first, last=first + BATCH - 1) + known) for first in firsts]
            )
            return {name: self.rates(taken) for name, taken in seconds.items()}

    def rates(self, seconds):
        return [self.rows / taken for taken in seconds]


def main(cluster=None):
    ours = cluster is None
    cluster = cluster or Cluster()
    try:
        cases, samples = {name: Case(cluster, *case) for name, case in CASES.items()}, {}
        for _ in range(ROUNDS):
            for name, case in cases.items():
                for what, rate in {**case.plain(), **case.apply()}.items():
                    samples.setdefault((name, what), []).append(rate)
        print("| apply, changes/s of computing (of wall clock), batches of 1,000 | `INSERT .. SELECT` | row by row in SQL | pg_sync | of row by row | updates |")
        print("| --- | --- | --- | --- | --- | --- |")
        for name in cases:
            rates = {what: [statistics.median(rate) for rate in zip(*samples[name, what])] for what in ("set", "loop", "apply", "updates")}
            cells = {what: f"{computed:,.0f} ({wall:,.0f})" for what, (computed, wall) in rates.items()}
            ratio = rates["apply"][0] / rates["loop"][0]
            print(f"| {name} | {cells['set']} | {cells['loop']} | {cells['apply']} | {ratio:.2f} | {cells['updates']} |")
    finally:
        if ours:
            cluster.close()


if __name__ == "__main__":
    main()
