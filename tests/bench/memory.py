"""Peak memory of fetch, apply and hash, each in a process of its own, on a small and on a large table.

Run with arguments it is that process: `memory.py <what> <folder> <rows> <driver>` prints its peak resident set in KiB. It reads
that from the kernel's VmHWM, because `getrusage` counts what the parent held when it started the child.
"""

import pathlib
import re
import subprocess
import sys

from measure import Line
from orders import filled_database, new_database, outline
from replica import Replica

BATCH = 1000
PUSHED = 10_000
GROWTH_GOAL_KIB = 8 * 1024


def memory(folder, driver, small, large):
    """The report's lines: peaks at both sizes, above a process that only opens the database."""
    peaks = {}
    for count in (small, large):
        filled_database(folder / f"{count}.db", driver, count)
        for what in WORK:
            peaks[what, count] = peak_of(what, folder, count, driver)
    return [
        Line(
            f"peak memory of {what}, {small:,} and {large:,} rows",
            driver,
            f"{peaks[what, small] / 1024:.1f} → {peaks[what, large] / 1024:.1f} MiB",
            "",
            f"opening alone {peaks['open', small] / 1024:.1f} MiB",
            "the same at both sizes",
            peaks[what, large] - peaks[what, small] <= GROWTH_GOAL_KIB,
        )
        for what in WORK
        if what != "open"
    ]


def peak_of(what, folder, count, driver):
    command = [sys.executable, __file__, what, str(folder), str(count), driver]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def work_open(server, client):
    server.state


def work_fetch(server, client):
    """Every batch of the whole log."""
    version, more = 0, True
    while more:
        version, more = outline(server.fetch_text(version, BATCH))


def work_pull(server, client):
    """The whole table into an empty replica."""
    version, more = 0, True
    while more:
        text = server.fetch_text(version, BATCH, client.origin)
        client.sql("SELECT sync_apply_batch(?)", text)
        version, more = outline(text)


def work_push(server, client):
    """10,000 changed rows, from the replica that pulled, into the table they came from."""
    with client.transaction():
        client.sql("UPDATE orders SET qty = qty + 1 WHERE id IN (SELECT id FROM orders LIMIT ?)", PUSHED)
    client.push(server, BATCH)


def work_hash(server, client):
    server.hash("orders")


WORK = {"open": work_open, "fetch": work_fetch, "pull": work_pull, "push": work_push, "hash": work_hash}


def main(what, folder, count, driver):
    folder = pathlib.Path(folder)
    client_path = folder / f"client-{count}.db"
    with Replica(folder / f"{count}.db", driver) as server:
        with Replica(client_path, driver) if client_path.exists() else new_database(client_path, driver) as client:
            client.sql("PRAGMA synchronous = OFF")
            WORK[what](server, client)
    print(re.search(r"VmHWM:\s+(\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])


if __name__ == "__main__":
    main(*sys.argv[1:])
