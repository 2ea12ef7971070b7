"""PostgreSQL: what capture costs beside an untracked table and beside the usual design (a row-level plpgsql trigger that puts to_jsonb(NEW)
into a bigserial log), and how fast changes are fetched, applied and hashed. Prints a Markdown table.

`ROWS` rows (default 100,000), `ROUNDS` interleaved rounds of which the median counts (default 3).
"""

import json
import os
import pathlib
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

import postgres_apply  # noqa: E402
from cluster import Cluster, bindir  # noqa: E402

ROWS = int(os.environ.get("ROWS", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = 5
BATCH = 1000
TABLE = """CREATE TABLE {name}(id bigint PRIMARY KEY, customer text, status text, quantity int, price numeric(10,2), placed timestamptz,
 note text)"""
FILL = """INSERT INTO {name} SELECT g, 'customer ' || g % 1000, 'open', g % 10, g % 10000 / 100.0, now(), 'a note of some length ' || g
 FROM generate_series(1, {rows}) g"""
USUAL = """
CREATE TABLE usual_log(version bigserial PRIMARY KEY, table_name text NOT NULL, pk_value text NOT NULL, operation text NOT NULL, payload jsonb,
 origin text NOT NULL, timestamp text NOT NULL);
CREATE FUNCTION usual() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
 INSERT INTO usual_log(table_name, pk_value, operation, payload, origin, timestamp) VALUES (TG_TABLE_NAME, jsonb_build_object('id', NEW.id)::text,
  lower(TG_OP), to_jsonb(NEW), '0a000000-0000-4000-8000-000000000001', to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
 RETURN NEW; END $$;
CREATE TRIGGER usual AFTER INSERT OR UPDATE ON usual FOR EACH ROW EXECUTE FUNCTION usual();
"""
VARIANTS = ("untracked", "usual", "pg_sync")


def timed(body):
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


class Capture:
    """The three tables, in a database of their own for every round."""

    def __init__(self, cluster):
        self.cluster, self.database = cluster, cluster.create_database()
        self.connection = cluster.connect(self.database)
        execute = self.connection.execute
        execute("CREATE EXTENSION pg_sync")
        for name in VARIANTS:
            execute(TABLE.format(name=name))
        execute(USUAL)
        execute("SELECT sync_track_table('pg_sync')")

    def measure(self, name):
        execute = self.connection.execute
        path = self.cluster.folder / f"{name}.copy"
        seconds = {"INSERT .. SELECT": timed(lambda: execute(FILL.format(name=name, rows=ROWS)))}
        seconds["UPDATE"] = timed(lambda: execute(f"UPDATE {name} SET quantity = quantity + 1"))
        execute(f"COPY {name} TO '{path}'")
        execute(f"ALTER TABLE {name} DISABLE TRIGGER USER")
        execute(f"DELETE FROM {name}")
        execute(f"ALTER TABLE {name} ENABLE TRIGGER USER")
        if name == "pg_sync":
            execute("ALTER TABLE pg_sync ENABLE ALWAYS TRIGGER pg_sync_sync_insert")
        execute(f"VACUUM {name}")
        seconds["COPY"] = timed(lambda: execute(f"COPY {name} FROM '{path}'"))
        return seconds

    def transactions(self, name):
        """Transactions per second of 8 clients that insert a row each."""
        self.connection.execute(f"CREATE SEQUENCE {name}_ids START 10000000")
        script = self.cluster.folder / f"{name}.sql"
        script.write_text(f"INSERT INTO {name} VALUES (nextval('{name}_ids'), 'c', 'open', 1, 2, now(), 'a note');", encoding="utf-8")
        out = subprocess.check_output(
            [bindir() / "pgbench", "-h", self.cluster.folder, "-U", "postgres", "-n", "-c", "8", "-j", "2", "-T", str(SECONDS), "-M", "prepared",
             "-f", script, self.database], text=True, stderr=subprocess.DEVNULL,
        )
        return next(float(line.split("=")[1].split()[0]) for line in out.splitlines() if line.startswith("tps"))


def median(samples):
    return statistics.median(samples)


def capture(cluster):
    samples = {}
    for _ in range(ROUNDS):
        round_ = Capture(cluster)
        for name in VARIANTS:
            for what, seconds in round_.measure(name).items():
                samples.setdefault((what, name), []).append(ROWS / seconds)
            samples.setdefault(("8 clients, 1 row", name), []).append(round_.transactions(name))
        round_.connection.close()
    print("| capture, rows/s | untracked | usual design | pg_sync |\n| --- | --- | --- | --- |")
    for what in ("INSERT .. SELECT", "COPY", "UPDATE", "8 clients, 1 row"):
        base, usual, ours = (median(samples[what, name]) for name in VARIANTS)
        print(f"| {what} | {base:,.0f} | {usual:,.0f} ({base / usual:.1f}x) | {ours:,.0f} ({base / ours:.1f}x) |")


def exchange(cluster):
    server, client = (cluster.connect(cluster.create_database()) for _ in range(2))
    for connection in (server, client):
        connection.execute("CREATE EXTENSION pg_sync")
        connection.execute(TABLE.format(name="orders"))
        connection.execute("SELECT sync_track_table('orders')")
    server.execute(FILL.format(name="orders", rows=ROWS))
    server.execute("VACUUM ANALYZE")
    one = lambda connection, sql, *args: connection.execute(sql, args).fetchone()[0]
    for size in (BATCH, 10_000):
        cursor, batches, start = 0, [], time.perf_counter()
        while True:
            batch = one(server, "SELECT sync_fetch_changes(%s, %s)", cursor, size)
            batches.append(batch)
            head = json.loads(batch[: batch.index('"hash"') - 1] + "}")
            cursor = head["toVersion"]
            if not head["hasMore"]:
                break
        print(f"| fetch, batches of {size:,} | {ROWS / (time.perf_counter() - start):,.0f} changes/s |")
        if size == BATCH:
            seconds = timed(lambda: [one(client, "SELECT sync_apply_batch(%s)", batch) for batch in batches])
            print(f"| apply, batches of {size:,} into an empty table | {ROWS / seconds:,.0f} changes/s |")
    print(f"| sync_hash | {ROWS / timed(lambda: one(server, 'SELECT sync_hash()')):,.0f} rows/s |")
    assert one(client, "SELECT sync_hash()") == one(server, "SELECT sync_hash()")


def main():
    cluster = Cluster()
    try:
        capture(cluster)
        print("\n| exchange | |\n| --- | --- |")
        exchange(cluster)
        print()
        postgres_apply.main(cluster)
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
