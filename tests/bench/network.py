"""How long one `sync_with` takes to bring 100,000 rows to a new client, and back up: over HTTP and from PostgreSQL, on loopback.

    SYNC_API=target/release/sync_api python tests/bench/network.py [ROWS]

It starts servers of its own; PG_CONFIG names PostgreSQL's.
"""

import contextlib
import pathlib
import sys
import tempfile
import time

TESTS = pathlib.Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "api")]

from cluster import Cluster  # noqa: E402
from gateway import Gateway  # noqa: E402
from pg_replica import PgReplica  # noqa: E402

from orders import insert_all, new_database, random_orders  # noqa: E402

GOAL_SECONDS = 5


def timed(replica, url, way):
    started = time.monotonic()
    answer = replica.json(f"SELECT {way}(?)", url)
    return time.monotonic() - started, answer


def measure(folder, name, server, url, count):
    with new_database(folder / f"{name}.db", "sqlite3") as client:
        client.sql("PRAGMA journal_mode = WAL")
        seconds, answer = timed(client, url, "sync_with")
        assert answer["pulled"] == count, answer
        assert client.hash() == server.hash()
        print(f"{name}: {count:,} rows pulled in {seconds:.2f} s (goal {GOAL_SECONDS} s), {answer['batches']} batches", flush=True)
        client.sql("UPDATE orders SET qty = qty + 1")
        seconds, answer = timed(client, url, "sync_with")
        assert answer["pushed"] == count, answer
        print(f"{name}: {count:,} updates pushed in {seconds:.2f} s, {answer['batches']} batches", flush=True)


def main():
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 100_000
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        with new_database(folder / "server.db", "sqlite3") as server:
            server.sql("PRAGMA journal_mode = WAL")
            insert_all(server, random_orders(count))
            with contextlib.closing(Gateway(server.path)) as gateway:
                measure(folder, "http-sqlite", server, gateway.url, count)
        cluster = Cluster("listen_addresses = '127.0.0.1'\nport = 54329\n")
        connect = cluster.connect
        cluster.connect = lambda *args, **options: connect(*args, port=54329, **options)
        try:
            for name in ("postgres", "http-postgres"):
                server = PgReplica(cluster)
                server.sql(postgres_table(folder / f"server-{name}.db"))
                server.track("orders")
                with server.connection.cursor() as cursor, cursor.copy("COPY orders FROM STDIN") as copy:
                    for row in random_orders(count):
                        copy.write_row(row)
                url = f"postgres://postgres@127.0.0.1:54329/{server.database}"
                if name == "postgres":
                    measure(folder, name, server, url, count)
                else:
                    with contextlib.closing(Gateway(url)) as gateway:
                        measure(folder, name, server, gateway.url, count)
                server.close()
        finally:
            cluster.close()


def postgres_table(scratch):
    """The table of the SQLite databases in PostgreSQL's types."""
    types = {"TEXT": "text", "INTEGER": "bigint", "REAL": "double precision", "BLOB": "bytea", "": "text"}
    with new_database(scratch, "sqlite3", tracked=False) as empty:
        columns = empty.sql("SELECT name, upper(type), pk FROM pragma_table_info('orders')")
    parts = [f"{name} {types.get(type, 'text')}{' PRIMARY KEY' if pk else ''}" for name, type, pk in columns]
    return f"CREATE TABLE orders({', '.join(parts)})"


if __name__ == "__main__":
    main()
