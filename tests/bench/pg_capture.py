"""PostgreSQL: what capture costs beside an untracked table and beside the usual design (a row-level plpgsql trigger that puts to_jsonb(NEW)
into a bigserial log), in time and in bytes.

The variants are measured one after the other in every round, so that what else the machine does meets all of them; the medians count.
"""

import os
import statistics
import subprocess
import time

from cluster import Cluster, bindir

ROWS = int(os.environ.get("ROWS", "100000"))
ROUNDS = int(os.environ.get("ROUNDS", "3"))
SECONDS = int(os.environ.get("SECONDS", "5"))
TABLE = """CREATE TABLE {name}(id bigint PRIMARY KEY, customer text, status text, quantity int, price numeric(10,2), placed timestamptz,
 note text)"""
FILL = """INSERT INTO {name} SELECT g, 'customer ' || g % 1000, 'open', g % 10, g % 10000 / 100.0, now(), 'a note of some length ' || g
 FROM generate_series(1, {rows}) g"""
USUAL = """
CREATE TABLE usual_log(version bigserial PRIMARY KEY, table_name text NOT NULL, pk_value text NOT NULL, operation text NOT NULL, payload jsonb,
 origin text NOT NULL, timestamp text NOT NULL);
CREATE FUNCTION usual() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
 INSERT INTO usual_log(table_name, pk_value, operation, payload, origin, timestamp) VALUES (TG_TABLE_NAME,
  jsonb_build_object('id', coalesce(NEW.id, OLD.id))::text, lower(TG_OP), to_jsonb(NEW), '0a000000-0000-4000-8000-000000000001',
  to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.MS"Z"'));
 RETURN NULL; END $$;
CREATE TRIGGER usual AFTER INSERT OR UPDATE OR DELETE ON usual FOR EACH ROW EXECUTE FUNCTION usual();
"""
# What NOTIFY costs by itself: an untracked table whose writer notifies, as capture does once for every transaction.
NOTIFYING = """
CREATE FUNCTION notifying() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_notify('other', '1'); RETURN NULL; END $$;
CREATE TRIGGER notifying AFTER INSERT ON notifying FOR EACH STATEMENT EXECUTE FUNCTION notifying();
"""
VARIANTS = ("untracked", "usual", "pg_sync")
LOGS = {"usual": "usual_log", "pg_sync": "_sync_log_data"}
STATEMENTS = ("INSERT .. SELECT", "COPY", "UPDATE", "DELETE")
# fsync is off in the first, so that the server's own work is all there is.
DURABILITY = {
    "fsync off": "",
    "fsync on, synchronous_commit off": "fsync = on\nsynchronous_commit = off\n",
    "fsync on, synchronous_commit on": "fsync = on\n",
}


def timed(body):
    start = time.perf_counter()
    body()
    return time.perf_counter() - start


class Capture:
    """The tables, in a database of their own for every round."""

    def __init__(self, cluster):
        self.cluster, self.database = cluster, cluster.create_database()
        self.connection = cluster.connect(self.database)
        execute = self.connection.execute
        execute("CREATE EXTENSION pg_sync")
        for name in (*VARIANTS, "notifying"):
            execute(TABLE.format(name=name))
        execute(USUAL)
        execute(NOTIFYING)
        execute("SELECT sync_track_table('pg_sync')")

    def measure(self, name):
        """Seconds of every statement, and the bytes of a log entry after the INSERT."""
        execute = self.connection.execute
        path = self.cluster.folder / f"{name}.copy"
        seconds = {"INSERT .. SELECT": timed(lambda: execute(FILL.format(name=name, rows=ROWS)))}
        entry = None
        if name in LOGS:
            entry = execute(f"SELECT pg_total_relation_size('{LOGS[name]}') / {ROWS}.0").fetchone()[0]
        execute(f"COPY {name} TO '{path}'")
        seconds["UPDATE"] = timed(lambda: execute(f"UPDATE {name} SET quantity = quantity + 1"))
        seconds["DELETE"] = timed(lambda: execute(f"DELETE FROM {name}"))
        execute(f"VACUUM {name}")
        seconds["COPY"] = timed(lambda: execute(f"COPY {name} FROM '{path}'"))
        return seconds, entry

    def transactions(self, name):
        """Transactions per second of 8 clients that insert a row each."""
        self.connection.execute(f"CREATE SEQUENCE IF NOT EXISTS {name}_ids START 10000000")
        script = self.cluster.folder / f"{name}.sql"
        script.write_text(f"INSERT INTO {name} VALUES (nextval('{name}_ids'), 'c', 'open', 1, 2, now(), 'a note');", encoding="utf-8")
        out = subprocess.check_output(
            [bindir() / "pgbench", "-h", self.cluster.folder, "-U", "postgres", "-n", "-c", "8", "-j", "2", "-T", str(SECONDS), "-M", "prepared",
             "-f", script, self.database], text=True, stderr=subprocess.DEVNULL,
        )
        return next(float(line.split("=")[1].split()[0]) for line in out.splitlines() if line.startswith("tps"))


def statements(cluster):
    samples, entries = {}, {}
    for _ in range(ROUNDS):
        round_ = Capture(cluster)
        for name in VARIANTS:
            seconds, entry = round_.measure(name)
            for what, taken in seconds.items():
                samples.setdefault((what, name), []).append(ROWS / taken)
            entries[name] = entry
        round_.connection.close()
    print("| capture, rows/s | untracked | usual design | pg_sync |\n| --- | --- | --- | --- |")
    for what in STATEMENTS:
        base, usual, ours = (statistics.median(samples[what, name]) for name in VARIANTS)
        print(f"| {what} | {base:,.0f} | {usual:,.0f} ({base / usual:.1f}x) | {ours:,.0f} ({base / ours:.1f}x) |")
    print(f"| log, bytes per inserted row | | {entries['usual']:,.0f} | {entries['pg_sync']:,.0f} |")


def clients():
    """Eight of them, and what durability and NOTIFY have to do with it."""
    print("\n| 8 clients, 1 row, transactions/s | untracked | untracked, with NOTIFY | usual design | pg_sync | pg_sync.notify off |\n| --- | --- | --- | --- | --- | --- |")
    for durability, settings in DURABILITY.items():
        cluster = Cluster(settings)
        try:
            samples = {}
            for _ in range(ROUNDS):
                round_ = Capture(cluster)
                for name in ("untracked", "notifying", "usual", "pg_sync"):
                    samples.setdefault(name, []).append(round_.transactions(name))
                round_.connection.execute(f"ALTER DATABASE {round_.database} SET pg_sync.notify = off")
                samples.setdefault("quiet", []).append(round_.transactions("pg_sync"))
                round_.connection.close()
            base = statistics.median(samples.pop("untracked"))
            shares = (f"{statistics.median(tps):,.0f} ({statistics.median(tps) / base:.2f})" for tps in samples.values())
            print(f"| {durability} | {base:,.0f} | {' | '.join(shares)} |")
        finally:
            cluster.close()
