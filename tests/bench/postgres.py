"""PostgreSQL: what capture costs, and how fast changes are fetched, applied and hashed. Prints Markdown tables.

`ROWS` rows (default 100,000), `ROUNDS` interleaved rounds of which the median counts (default 3). `LONG_LOG` entries (default 3,000,000) for
the fetch from a long log. Parts by name: `statements`, `clients`, `exchange`, `long`; all of them by default.
"""

import json
import os
import pathlib
import statistics
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import postgres_apply  # noqa: E402
from cluster import Cluster  # noqa: E402
from pg_capture import FILL, ROUNDS, ROWS, TABLE, clients, statements, timed  # noqa: E402

BATCH = 1000
LONG_LOG = int(os.environ.get("LONG_LOG", "3000000"))
# Fetched from a long log, at its beginning, in its middle and at its end.
SPAN = 100_000


def one(connection, sql, *args):
    return connection.execute(sql, args).fetchone()[0]


def follow(server, size, after=0, most=None):
    """Batches from a cursor on, up to a number of changes; and how long they took."""
    cursor, batches, start = after, [], time.perf_counter()
    while True:
        batch = one(server, "SELECT sync_fetch_changes(%s, %s)", cursor, size)
        batches.append(batch)
        head = json.loads(batch[: batch.index('"hash"') - 1] + "}")
        cursor = head["toVersion"]
        if not head["hasMore"] or (most and len(batches) * size >= most):
            return batches, time.perf_counter() - start


def exchange(cluster):
    server, client = (cluster.connect(cluster.create_database()) for _ in range(2))
    for connection in (server, client):
        connection.execute("CREATE EXTENSION pg_sync")
        connection.execute(TABLE.format(name="orders"))
        connection.execute("SELECT sync_track_table('orders')")
    server.execute(FILL.format(name="orders", rows=ROWS))
    server.execute("VACUUM ANALYZE")
    for size in (BATCH, 10_000):
        batches, seconds = follow(server, size)
        print(f"| fetch, batches of {size:,} | {ROWS / seconds:,.0f} changes/s |")
        if size == BATCH:
            seconds = timed(lambda: [one(client, "SELECT sync_apply_batch(%s)", batch) for batch in batches])
            print(f"| apply, batches of {size:,} into an empty table | {ROWS / seconds:,.0f} changes/s |")
    print(f"| sync_hash | {ROWS / timed(lambda: one(server, 'SELECT sync_hash()')):,.0f} rows/s |")
    assert one(client, "SELECT sync_hash()") == one(server, "SELECT sync_hash()")


def long(cluster):
    """The same number of changes, from a log of as many and from one of many more."""
    servers = {}
    for entries in (SPAN, LONG_LOG):
        server = servers[entries] = cluster.connect(cluster.create_database())
        server.execute("CREATE EXTENSION pg_sync")
        server.execute(TABLE.format(name="orders"))
        server.execute("SELECT sync_track_table('orders')")
        server.execute(FILL.format(name="orders", rows=entries))
        server.execute("VACUUM ANALYZE")
    places = [(SPAN, 0), *((LONG_LOG, after) for after in (0, LONG_LOG // 2, LONG_LOG - SPAN))]
    for size in (BATCH, 10_000):
        samples = {place: [] for place in places}
        for _ in range(ROUNDS):
            for entries, after in places:
                samples[entries, after].append(SPAN / follow(servers[entries], size, after, SPAN)[1])
        for (entries, after), rates in samples.items():
            print(f"| fetch, batches of {size:,}, log of {entries:,}, after {after:,} | {statistics.median(rates):,.0f} changes/s |")


def main():
    wanted = sys.argv[1:] or ["statements", "clients", "exchange", "long", "apply"]
    cluster = Cluster()
    try:
        if "statements" in wanted:
            statements(cluster)
        if "clients" in wanted:
            clients()
        print("\n| exchange | |\n| --- | --- |")
        for part, measure in (("exchange", exchange), ("long", long)):
            if part in wanted:
                measure(cluster)
        if "apply" in wanted:
            print()
            postgres_apply.main(cluster)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
