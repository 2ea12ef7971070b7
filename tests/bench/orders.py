"""The table that everything is measured on: 7 columns, a uuid text as key; and how to open and fill a database with it."""

import json
import pathlib
import random
import sys
import uuid

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

from replica import Replica  # noqa: E402

SCHEMA = (
    "CREATE TABLE orders(id TEXT PRIMARY KEY, customer TEXT, status TEXT, total REAL, qty INTEGER,"
    " note TEXT, created_at TEXT)"
)
INSERT = "INSERT INTO orders VALUES (?, ?, ?, ?, ?, ?, ?)"
UPSERT = (
    f"{INSERT} ON CONFLICT (id) DO UPDATE SET customer = excluded.customer, status = excluded.status,"
    " total = excluded.total, qty = excluded.qty, note = excluded.note, created_at = excluded.created_at"
)
UPDATE = "UPDATE orders SET qty = qty + 1 WHERE id = ?"
DELETE = "DELETE FROM orders WHERE id = ?"

# Keys in order, so that millions of rows are made in seconds.
INSERT_MANY = """
WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < ?1)
INSERT INTO orders
SELECT printf('%08x-0000-4000-8000-%012x', i, i), printf('%08x-0000-4000-8000-%012x', i % 1000, 7), 'open', i * 0.37, i % 9,
       'a note of sixty characters, as an order has it, number ' || printf('%05d', i % 100000), '2025-01-15T10:30:00.000Z'
FROM n
"""

FAST = "PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF; PRAGMA cache_size = -200000;"


def random_orders(count):
    """The same rows in every run."""
    source = random.Random(1)

    def new_uuid():
        return str(uuid.UUID(int=source.getrandbits(128), version=4))

    return [
        (
            new_uuid(),
            new_uuid(),
            source.choice(("open", "paid", "sent")),
            source.uniform(0, 1000),
            source.randint(1, 9),
            f"a note of sixty characters, as an order has it, number {number % 100_000:05d}",
            "2025-01-15T10:30:00.000Z",
        )
        for number in range(count)
    ]


def new_database(path, driver, tracked=True):
    """A new file with the empty table, at the engine's own settings."""
    for name in (path, f"{path}-journal", f"{path}-wal"):
        pathlib.Path(name).unlink(missing_ok=True)
    replica = Replica(path, driver)
    replica.sql(SCHEMA)
    if tracked:
        replica.track("orders")
    return replica


def filled_database(path, driver, count):
    """A tracked table of `count` rows, with a log of as many entries; made as fast as possible and closed."""
    with new_database(path, driver) as replica:
        replica.script(FAST)
        with replica.transaction():
            replica.sql(INSERT_MANY, count)


def insert_all(replica, rows):
    with replica.transaction():
        replica.many(INSERT, rows)


def pull_batches(server, asker=None, size=1000):
    """The texts of all batches a client that begins at 0 gets."""
    texts, version, more = [], 0, True
    while more:
        texts.append(server.fetch_text(version, size, asker))
        version, more = outline(texts[-1])
    return texts


def push_batches(client, size=1000):
    """The texts of all batches a client pushes."""
    texts, more = [], True
    while more:
        texts.append(client.fetch_local_text(size))
        version, more = outline(texts[-1])
        client.acknowledge(version)
    return texts


def outline(text):
    batch = json.loads(text)
    return batch["toVersion"], batch["hasMore"]
