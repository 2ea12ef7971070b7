"""What a user's own writes cost on a tracked table, against the same table untracked. Runs of both alternate."""

import statistics

from measure import Line, Samples, ratio_line
from orders import DELETE, INSERT, UPDATE, insert_all, new_database, random_orders

ROWS_PER_TRANSACTION = 100
TRANSACTIONS = 200  # each waits for the disk
GOALS = {
    "insert": ("rows inserted in one transaction", 3.5),
    "update": ("single-row updates by key", 2.6),
    "delete": ("single-row deletes by key", 1.8),
    "small": (f"inserts of {ROWS_PER_TRANSACTION} rows, a transaction each", 1.9),
}
FILE_GOAL = 2.3


def capture(folder, driver, count, runs):
    """The report's lines for one driver."""
    rows = random_orders(count)
    samples, sizes = Samples(), {False: [], True: []}
    for run in range(runs):
        for tracked in (False, True) if run % 2 else (True, False):
            sizes[tracked].append(one_run(folder, driver, rows, tracked, samples))
    lines = []
    for name, (what, goal) in GOALS.items():
        times = TRANSACTIONS if name == "small" else count
        plain, tracked = (samples.median((name, variant)) for variant in (False, True))
        lines.append(ratio_line(f"{times:,} {what}", driver, plain, tracked, goal))
    return [*lines, file_line(count, driver, *(statistics.median(sizes[tracked]) for tracked in (False, True)))]


def one_run(folder, driver, rows, tracked, samples):
    """Measure every kind of write once. The size of the file after the inserts."""
    path = folder / "capture.db"
    keys = [row[:1] for row in rows]
    with new_database(path, driver, tracked) as replica:
        with samples.of(("insert", tracked)):
            insert_all(replica, rows)
        size = path.stat().st_size
        with samples.of(("update", tracked)), replica.transaction():
            replica.many(UPDATE, keys)
        with samples.of(("delete", tracked)), replica.transaction():
            replica.many(DELETE, keys)
    with new_database(path, driver, tracked) as replica, samples.of(("small", tracked)):
        for first in range(0, TRANSACTIONS * ROWS_PER_TRANSACTION, ROWS_PER_TRANSACTION):
            with replica.transaction():
                replica.many(INSERT, rows[first : first + ROWS_PER_TRANSACTION])
    return size


def file_line(count, driver, plain, tracked):
    ratio = tracked / plain
    return Line(
        f"file size after {count:,} inserts",
        driver,
        f"{plain / 1e6:.1f} → {tracked / 1e6:.1f} MB",
        "",
        f"{ratio:.2f}x",
        f"at most {FILE_GOAL}x",
        ratio <= FILE_GOAL,
    )
