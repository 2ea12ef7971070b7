"""Measure everything the project has goals for, and print one Markdown table of medians.

    python tests/bench/run.py            about five minutes
    python tests/bench/run.py --quick    under a minute, smaller sizes

SYNC_BENCH_LOG_ENTRIES sets the size of the long log, TMPDIR the file system of the databases.
"""

import argparse
import concurrent.futures
import multiprocessing
import os
import pathlib
import platform
import sqlite3
import sys
import tempfile

import apsw

from capture import capture
from exchange import apply, conflicting, fetch, hash_rows
from measure import markdown
from memory import memory

FULL = {"rows": 100_000, "runs": 3, "long_log": 3_000_000, "hashed": 1_000_000, "large": 1_000_000}
QUICK = {"rows": 20_000, "runs": 3, "long_log": 300_000, "hashed": 100_000, "large": 100_000}
SMALL = 10_000


def main():
    parser = argparse.ArgumentParser(description="measure sqlite_sync")
    parser.add_argument("--quick", action="store_true", help="smaller sizes and fewer runs")
    parser.add_argument("--driver", choices=("sqlite3", "apsw"), help="only this driver")
    parser.add_argument("--only", choices=("capture", "apply", "fetch", "hash", "memory"), help="only this part")
    wanted = parser.parse_args()
    sizes = QUICK if wanted.quick else FULL
    long_log = int(os.environ.get("SYNC_BENCH_LOG_ENTRIES", sizes["long_log"]))
    drivers = [wanted.driver] if wanted.driver else ["sqlite3", "apsw"]

    rows, runs, first = sizes["rows"], sizes["runs"], drivers[0]

    # What is the core's work alone is measured with one driver.
    parts = {
        "capture": [(capture, driver, rows, runs) for driver in drivers],
        "apply": [*((apply, driver, rows, runs) for driver in drivers), (conflicting, first, SMALL, runs)],
        "fetch": [(fetch, first, rows, long_log, runs)],
        "hash": [(hash_rows, first, sizes["hashed"], runs)],
        "memory": [(memory, first, SMALL, sizes["large"])],
    }
    lines = []
    for part, measurements in parts.items():
        for measure, *arguments in measurements if wanted.only in (None, part) else ():
            print(f"measuring {part} ...", file=sys.stderr, flush=True)
            with tempfile.TemporaryDirectory() as folder:
                lines += in_own_process(measure, pathlib.Path(folder), *arguments)
    print(markdown(lines))
    print(
        f"\n{os.cpu_count()} CPUs, {platform.machine()}, {platform.system()};"
        f" sqlite3 is SQLite {sqlite3.sqlite_version}, apsw is SQLite {apsw.sqlite_lib_version()}."
        f" Medians of {sizes['runs']} runs."
    )


def in_own_process(measure, *arguments):
    """Each driver brings its own SQLite, and a loaded extension serves only one of them."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as process:
        return process.submit(measure, *arguments).result()


if __name__ == "__main__":
    main()
