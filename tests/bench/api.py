"""The gateway: how long a committed write takes to reach subscribers, what idle subscribers cost, and how many bytes a change is on the wire;
before SQLite and before PostgreSQL. Prints a Markdown table.

`RATE` changes a second (default 1000) for `SECONDS` (default 10), to `SUBSCRIBERS` (default 100); `IDLE` subscribers (default 2000).
"""

import multiprocessing
import os
import pathlib
import selectors
import socket
import statistics
import sys
import tempfile
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from cluster import Cluster  # noqa: E402
from gateway import Gateway, postgres_url  # noqa: E402
from orders import INSERT, SCHEMA, random_orders  # noqa: E402
from pg_replica import PgReplica  # noqa: E402
from replica import Replica  # noqa: E402

RATE, SECONDS = int(os.environ.get("RATE", "1000")), int(os.environ.get("SECONDS", "10"))
SUBSCRIBERS, IDLE = int(os.environ.get("SUBSCRIBERS", "100")), int(os.environ.get("IDLE", "2000"))
# Of all subscribers, how many are timed; the others only take what comes.
TIMED = 5
QUERY = "/sync/subscribe?tableName=orders"


def subscribe(gateway):
    host, port = gateway.listen.split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.sendall(f"GET {QUERY} HTTP/1.1\r\nHost: {gateway.listen}\r\n\r\n".encode())
    return connection


def read_all(gateway, count, ready, stop, results):
    """Subscribe so often, and note how old each change is when it arrives at one of the timed."""
    watch, ages, rest, events = selectors.DefaultSelector(), [], {}, 0
    for number in range(count):
        connection = subscribe(gateway)
        connection.setblocking(False)
        watch.register(connection, selectors.EVENT_READ)
        if number < TIMED:
            rest[connection] = b""
    ready.set()
    while not stop.is_set():
        for key, _ in watch.select(0.1):
            data = key.fileobj.recv(1 << 18)
            if key.fileobj in rest:
                now = time.time_ns()
                *frames, rest[key.fileobj] = (rest[key.fileobj] + data).split(b"\n\n")
                for frame in frames:
                    at = frame.find(b"sent at ")
                    if at >= 0:
                        events += 1
                        ages.append((now - int(frame[at + 8 : at + 27])) / 1e6)
    results.put((events, ages))


def write(database, rate, seconds):
    """So many transactions a second, each with one row that says when it was written."""
    begun, number = time.perf_counter(), 0
    rows = random_orders(rate * seconds)
    while number < rate * seconds:
        due = begun + number / rate
        now = time.perf_counter()
        if now < due:
            time.sleep(due - now)
        row = list(rows[number])
        row[5] = f"sent at {time.time_ns()} "
        database.sql(INSERT, *row)
        number += 1
    return number, time.perf_counter() - begun


def latency(database, gateway):
    """Milliseconds from before the write to the arrival, over all timed subscribers: count, p50, p99, and changes a second written."""
    ready, stop, results = multiprocessing.Event(), multiprocessing.Event(), multiprocessing.Queue()
    reader = multiprocessing.Process(target=read_all, args=(gateway, SUBSCRIBERS, ready, stop, results))
    reader.start()
    ready.wait(60)
    time.sleep(0.5)
    written, took = write(database, RATE, SECONDS)
    time.sleep(1)
    stop.set()
    events, ages = results.get(timeout=60)
    reader.join()
    assert events == written * TIMED, f"{events} events of {written} changes for {TIMED} subscribers"
    ages.sort()
    return statistics.median(ages), ages[len(ages) * 99 // 100], written / took


def memory(gateway):
    """MiB that the gateway has in memory."""
    with open(f"/proc/{gateway.process.pid}/status", encoding="utf-8") as file:
        return next(int(line.split()[1]) / 1024 for line in file if line.startswith("VmRSS"))


def idle(gateway):
    """MiB before, and with so many subscribers that hear nothing."""
    before = memory(gateway)
    connections = [subscribe(gateway) for _ in range(IDLE)]
    for connection in connections:
        heard = b""
        while b"connected" not in heard:
            heard += connection.recv(65536)
    after = memory(gateway)
    for connection in connections:
        connection.close()
    return before, after


def wire(database, gateway):
    """Bytes of a pulled change: as it is, gzip and zstd, in batches of 1,000."""
    version = database.state["maxVersion"]
    # Others than those that were written before.
    rows = random_orders(RATE * SECONDS + 1000)[-1000:]
    database.begin()
    database.many(INSERT, rows)
    database.sql("COMMIT")
    sizes = []
    with gateway.client() as client:
        for encoding in ["identity", "gzip", "zstd"]:
            request = client.build_request("GET", f"/sync/changes?fromVersion={version}", headers={"Accept-Encoding": encoding})
            answer = client.send(request, stream=True)
            sizes.append(sum(len(part) for part in answer.iter_raw()) / 1000)
    return sizes


def measure(name, database, url):
    database.sql(SCHEMA)
    database.track("orders")
    gateway = Gateway(url, "--requests-per-minute", 0, "--subscriptions", 5000, environment={"SYNC_API_LOG": "info"})
    try:
        before, after = idle(gateway)
        p50, p99, rate = latency(database, gateway)
        plain, gzipped, zstd = wire(database, gateway)
    finally:
        gateway.close()
    print(f"| {name} | write to event at {rate:.0f} changes/s, {SUBSCRIBERS} subscribers | p50 {p50:.1f} ms, p99 {p99:.1f} ms | 10, 50 ms |")
    print(f"| {name} | memory with {IDLE} idle subscribers | {after:.0f} MiB ({before:.0f} without) | 200 MiB |")
    print(f"| {name} | bytes of a pulled change | {plain:.0f}, gzip {gzipped:.0f}, zstd {zstd:.0f} | 150 |", flush=True)


def main():
    print("| database | what | measured | goal |\n| --- | --- | --- | --- |", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "server.db"
        database = Replica(path)
        database.sql("PRAGMA journal_mode = WAL")
        database.sql("PRAGMA synchronous = NORMAL")
        measure("SQLite", database, str(path))
        database.close()
    cluster = Cluster()
    try:
        database = PgReplica(cluster)
        measure("PostgreSQL", database, postgres_url(database))
        database.close()
    finally:
        cluster.close()


if __name__ == "__main__":
    main()
