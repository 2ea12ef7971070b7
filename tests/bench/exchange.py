"""How fast changes move: apply, apply again, fetch from a short and a long log; and how fast a table is hashed."""

from measure import Samples, rate_line
from orders import (
    UPDATE,
    UPSERT,
    filled_database,
    insert_all,
    new_database,
    outline,
    pull_batches,
    push_batches,
    random_orders,
)
from replica import Replica

BATCH = 1000
APPLY_GOAL, AGAIN_GOAL, FETCH_GOAL, HASH_GOAL = 100_000, 350_000, 500_000, 350_000


def apply(folder, driver, count, runs):
    """Batches of 1,000 into an empty replica, as a pull and as a push; the same again; and updates of rows that are there.

    Beside them what bounds them: the rows alone, written by an upsert into a table that is not tracked.
    """
    rows, samples = random_orders(count), Samples()
    with new_database(folder / "source.db", driver) as source:
        insert_all(source, rows)
        pushes = push_batches(source, BATCH)
        inserts = pull_batches(source, size=BATCH)
        with source.transaction():
            source.many(UPDATE, [row[:1] for row in rows])
        updates = pull_batches(source, size=BATCH)[len(inserts) :]
    for _ in range(runs):
        with new_database(folder / "pulling.db", driver) as replica:
            for name, batches in (("pull", inserts), ("pull again", inserts), ("updates", updates)):
                apply_all(replica, name, batches, samples)
            assert replica.value("SELECT count(*) FROM orders") == count
        with new_database(folder / "pushed.db", driver) as replica:
            for name in ("push", "push again"):
                apply_all(replica, name, pushes, samples)
            assert replica.value("SELECT count(*) FROM orders") == count
        with new_database(folder / "plain.db", driver, tracked=False) as replica, samples.of("plain"):
            for first in range(0, count, BATCH):
                with replica.transaction():
                    replica.many(UPSERT, rows[first : first + BATCH])
    lines = (
        ("plain", "the rows alone, upserted into an untracked table", None),
        ("pull", "apply: pull into an empty replica", APPLY_GOAL),
        ("pull again", "apply: the same pull again", AGAIN_GOAL),
        ("updates", "apply: pull of updates to rows that are there", None),
        ("push", "apply: push into an empty replica", APPLY_GOAL),
        ("push again", "apply: the same push again", AGAIN_GOAL),
    )
    return [rate_line(what, driver, count, samples.median(name), goal) for name, what, goal in lines]


def apply_all(replica, name, batches, samples):
    with samples.of(name):
        for batch in batches:
            replica.sql("SELECT sync_apply_batch(?)", batch)


def fetch(folder, driver, short, long, runs):
    """As many changes from a short log and from a long one, spread over the log; and local changes to push."""
    samples, logs = Samples(), {}
    for entries in (short, long):
        path = folder / f"log-{entries}.db"
        filled_database(path, driver, entries)
        logs[entries] = Replica(path, driver)
    for _ in range(runs):
        for entries, replica in logs.items():
            starts = range(0, entries, entries // (short // BATCH))
            with samples.of(entries):
                for start in starts:
                    replica.sql("SELECT sync_fetch_changes(?, ?)", start, BATCH)
    with samples.of("local"):
        push_batches(logs[short], BATCH)
    for replica in logs.values():
        replica.close()
    (folder / f"log-{long}.db").unlink()
    return [
        *(rate_line(f"fetch, {entries:,} log entries", driver, short, samples.median(entries), FETCH_GOAL) for entries in logs),
        rate_line(f"fetch of local changes, {short:,} log entries", driver, short, samples.median("local")),
    ]


def hash_rows(folder, driver, count, runs):
    """A long table whose keys are in the order of its rows, and a shorter one whose keys are random, as uuids are."""
    samples, paths = Samples(), {"in order": folder / "hash.db", "random": folder / "random.db"}
    counts = {"in order": count, "random": count // 4}
    filled_database(paths["in order"], driver, count)
    with new_database(paths["random"], driver) as replica:
        insert_all(replica, random_orders(counts["random"]))
    for keys, path in paths.items():
        with Replica(path, driver) as replica:
            for _ in range(runs):
                with samples.of(keys):
                    replica.hash("orders")
    return [
        rate_line(f"hash, {counts[keys]:,} rows, keys {keys}", driver, counts[keys], samples.median(keys), HASH_GOAL, "rows")
        for keys in paths
    ]


def conflicting(folder, driver, count, runs):
    """A pull in which every change is in conflict with an unpushed local one."""
    rows, samples = random_orders(count), Samples()
    for _ in range(runs):
        with new_database(folder / "server.db", driver) as server, new_database(folder / "client.db", driver) as client:
            insert_all(client, rows)
            insert_all(server, rows)
            batches = pull_batches(server, client.origin, BATCH)
            assert not outline(batches[-1])[1]
            apply_all(client, "conflicts", batches, samples)
    return [rate_line("apply: pull, every change in conflict", driver, count, samples.median("conflicts"))]
