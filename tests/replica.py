"""One replica: a SQLite database file, opened through a real driver, with the extension loaded.

`Replica` gives a test the SQL functions under short names and the loops an application writes around them (`pull`, `push`,
`sync`). It never rewrites a batch on the way: what one replica fetched is handed to the other as the same text.
"""

import contextlib
import json
import os
import pathlib
import sqlite3

import apsw
import psycopg
import pytest

# One driver a process: a loadable extension holds the API of one SQLite library, and the two drivers bring one each.
DRIVERS = (os.environ.get("SYNC_DRIVER", "sqlite3"),)
DRIVER_ERRORS = (sqlite3.Error, apsw.Error, psycopg.Error)
BUSY_TIMEOUT_MS = 10_000

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
LIBRARY = os.environ.get("SQLITE_SYNC_LIBRARY", str(REPOSITORY / "target" / "release" / "libsqlite_sync.so"))

COUNTS = ("applied", "skipped", "conflicts", "deferred", "rejected", "restamped")


def quoted(identifier):
    """The identifier as SQL text."""
    return '"' + identifier.replace('"', '""') + '"'


def connect(path, driver="sqlite3"):
    """A connection in autocommit mode, without the extension. It may be used from another thread than this one."""
    if driver == "sqlite3":
        return sqlite3.connect(
            str(path), isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_MS / 1000
        )
    if driver == "apsw":
        connection = apsw.Connection(str(path))
        connection.set_busy_timeout(BUSY_TIMEOUT_MS)
        return connection
    raise ValueError(f"no driver {driver!r}")


def load_extension(connection):
    """Load the extension into a connection of either driver."""
    connection.enable_load_extension(True)
    connection.load_extension(LIBRARY)
    connection.enable_load_extension(False)


class Replica:
    """A database file and one connection to it. `extension=False` opens it as a process that never heard of sync."""

    def __init__(self, path, driver="sqlite3", extension=True):
        self.path = pathlib.Path(path)
        self.driver = driver
        self.connection = connect(path, driver)
        if extension:
            load_extension(self.connection)

    # --- SQL

    def sql(self, query, *args):
        """All rows of one statement, as tuples."""
        return [tuple(row) for row in self.connection.execute(query, args)]

    def script(self, statements):
        """Run several statements, one after the other."""
        if self.driver == "sqlite3":
            self.connection.executescript(statements)
        else:
            for _ in self.connection.execute(statements):
                pass

    def many(self, query, rows):
        """Run one statement for every tuple of arguments."""
        self.connection.executemany(query, rows)

    def value(self, query, *args):
        """The single value of a query."""
        [(value,)] = self.sql(query, *args)
        return value

    def json(self, query, *args):
        """The single value of a query, which is JSON text, parsed."""
        return json.loads(self.value(query, *args))

    def records(self, query, *args):
        """All rows of a query, as dictionaries by column name."""
        cursor = self.connection.cursor()
        result = cursor.execute(query, args)
        names = None
        found = []
        for row in result:
            if names is None:
                names = [column[0] for column in (cursor.description or ())]
            found.append(dict(zip(names, row)))
        return found

    @contextlib.contextmanager
    def transaction(self, begin="BEGIN IMMEDIATE"):
        """A transaction of the application: committed at the end, rolled back when the body raises."""
        self.sql(begin)
        try:
            yield self
        except BaseException:
            self.sql("ROLLBACK")
            raise
        self.sql("COMMIT")

    def begin(self):
        """Begin a transaction of the application that will write."""
        self.sql("BEGIN IMMEDIATE")

    def attempt(self, query, *args):
        """A write of an application, in its transaction or without one; one that breaks a constraint is its own affair."""
        try:
            self.sql(query, *args)
        except DRIVER_ERRORS as error:
            if "constraint" not in str(error).lower():
                raise

    def check_whole(self):
        """The database is not damaged, and where foreign keys are enforced none is violated."""
        assert self.value("PRAGMA integrity_check") == "ok", "a database is damaged: integrity_check"
        if self.value("PRAGMA foreign_keys"):
            assert self.sql("PRAGMA foreign_key_check") == [], "a foreign key is violated: foreign_key_check"

    def close(self):
        """Close the connection. The replica can be opened again with another `Replica` of the same path."""
        self.connection.close()

    def __enter__(self):
        return self

    def __exit__(self, *exception):
        self.close()

    # --- what it is

    @property
    def origin(self):
        return self.state["originId"]

    @property
    def state(self):
        return self.json("SELECT sync_state()")

    @property
    def status(self):
        return self.json("SELECT sync_status()")

    @property
    def cursor(self):
        """Up to which version of its server this replica has pulled."""
        return self.value("SELECT sync_last_server_version()")

    def track(self, table, **options):
        """Track a table; the answer parsed."""
        return self.json("SELECT sync_track_table(?, ?)", table, json.dumps(options) if options else None)

    def hash(self, table=None):
        return self.value("SELECT sync_hash(?)", table)

    def rows(self, table):
        """The rows of a table in the order of its primary key."""
        keys = self.sql("SELECT name FROM pragma_table_info(?) WHERE pk > 0 ORDER BY pk", table)
        order = ", ".join(quoted(name) for (name,) in keys) or "rowid"
        return self.sql(f"SELECT * FROM {quoted(table)} ORDER BY {order}")

    def log(self, table=None):
        """The log's entries as dictionaries, oldest first."""
        return self.records(
            "SELECT version, table_name, pk_value, operation, payload, origin, timestamp FROM _sync_log"
            " WHERE ?1 IS NULL OR table_name = ?1 ORDER BY version",
            table,
        )

    def conflicts(self):
        return self.records("SELECT * FROM sync_conflicts() ORDER BY id")

    def rejections(self):
        return self.records("SELECT * FROM sync_rejections() ORDER BY id")

    # --- moving changes

    def fetch_text(self, from_version=0, size=1000, exclude=None):
        return self.value("SELECT sync_fetch_changes(?, ?, ?)", from_version, size, exclude)

    def fetch(self, from_version=0, size=1000, exclude=None):
        """A batch for a downstream replica."""
        return json.loads(self.fetch_text(from_version, size, exclude))

    def fetch_local_text(self, size=1000):
        return self.value("SELECT sync_fetch_local_changes(?)", size)

    def fetch_local(self, size=1000):
        """A batch to push upstream."""
        return json.loads(self.fetch_local_text(size))

    def acknowledge(self, to_version):
        return self.value("SELECT sync_acknowledge_push(?)", to_version)

    def apply(self, batch, **options):
        """Apply a batch, a dictionary, a list or JSON text; the answer parsed."""
        text = batch if isinstance(batch, str) else json.dumps(batch)
        return self.json("SELECT sync_apply_batch(?, ?)", text, json.dumps(options) if options else None)

    def pull(self, server, size=1000, limit=None):
        """Pull until the server has no more, or `limit` batches; then register here at the server. The answers, added up."""
        total = Total()
        while limit is None or total.batches < limit:
            batch = server.fetch_text(self.cursor, size, self.origin)
            total.add(self.apply(batch))
            if not json.loads(batch)["hasMore"]:
                break
        server.sql("SELECT sync_register_client(?, ?)", self.origin, self.cursor)
        return total

    def push(self, server, size=1000, limit=None):
        """Push until nothing is left, or `limit` batches. The server's answers, added up."""
        total = Total()
        while limit is None or total.batches < limit:
            batch = self.fetch_local_text(size)
            header = json.loads(batch)
            total.add(server.apply(batch))
            self.acknowledge(header["toVersion"])
            if not header["hasMore"]:
                break
        return total

    def sync(self, server, size=1000):
        """Pull, then push. Both totals."""
        return self.pull(server, size), self.push(server, size)


class Total(dict):
    """The answers of several `sync_apply_batch` calls added up, with all their rejections."""

    def __init__(self):
        super().__init__({name: 0 for name in COUNTS}, rejections=[])
        self.batches = 0

    def add(self, result):
        self.batches += 1
        for name in COUNTS:
            self[name] += result[name]
        self["rejections"] += result["rejections"]


def refusals(replica):
    """What waits here, as (kind, operation, key)."""
    return [(r["kind"], r["operation"], r["pk_value"]) for r in replica.rejections()]


def equal(table, *replicas):
    """Have all of them the same rows of this table, and the same hash?"""
    first = replicas[0]
    return all(
        replica.rows(table) == first.rows(table) and replica.hash(table) == first.hash(table) for replica in replicas
    )


def settle(server, *clients, rounds=3, size=1000):
    """Let every client sync with the server in turn, `rounds` times. Afterwards all is quiet."""
    for _ in range(rounds):
        for client in clients:
            client.sync(server, size)


class SyncError:
    """What `sync_error` caught: the whole message, and the JSON object at its end (None without one)."""

    def __init__(self):
        self.message = None
        self.data = None


def data_at_end(message):
    """The JSON object that ends an error message, or None."""
    for start, character in enumerate(message):
        if character == "{":
            with contextlib.suppress(ValueError):
                return json.loads(message[start:])
    return None


@contextlib.contextmanager
def sync_error(kind):
    """The body must fail with `sync: <kind>: <what happened and what to do>`."""
    caught = SyncError()
    with pytest.raises(DRIVER_ERRORS) as raised:
        yield caught
    caught.message = str(raised.value)
    caught.data = data_at_end(caught.message)
    assert caught.message.startswith(f"sync: {kind}: "), caught.message
    assert len(caught.message) > len(f"sync: {kind}: "), "the message says what happened"
