"""Fixtures: real replicas in the test's own directory, on every driver."""

import shutil

import hypothesis
import pytest

from replica import DRIVERS, Replica

PERSON = "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)"

hypothesis.settings.register_profile(
    "default",
    deadline=None,
    suppress_health_check=[
        hypothesis.HealthCheck.function_scoped_fixture,
        hypothesis.HealthCheck.differing_executors,
        hypothesis.HealthCheck.too_slow,
    ],
    database=None,
    print_blob=True,
)
hypothesis.settings.load_profile("default")


@pytest.fixture(params=DRIVERS)
def driver(request):
    """Debian's sqlite3 module (SQLite 3.40.1) and apsw (the newest SQLite)."""
    return request.param


@pytest.fixture
def open_replica(tmp_path, driver):
    """Open a replica by name, any number of times; `extension=False` for a process without the extension."""
    opened = []

    def open_(name, extension=True):
        replica = Replica(tmp_path / f"{name}.db", driver, extension)
        opened.append(replica)
        return replica

    yield open_
    for replica in opened:
        replica.close()


@pytest.fixture
def make_replica(open_replica):
    """A new replica with these statements run and these tables tracked."""

    def make(name, *statements, track=()):
        replica = open_replica(name)
        for statement in statements:
            replica.sql(statement)
        replica.sql("SELECT sync_init()")
        for table in track:
            replica.track(table)
        return replica

    return make


@pytest.fixture
def make_pair(make_replica):
    """A server and a client with the same tables, all tracked. `called` keeps several pairs of one test apart."""

    def make(*statements, track, called=""):
        return tuple(make_replica(role + called, *statements, track=track) for role in ("server", "client"))

    return make


@pytest.fixture
def server(make_replica):
    """An empty `Person` table, tracked."""
    return make_replica("server", PERSON, track=["Person"])


@pytest.fixture
def client(make_replica):
    """An empty `Person` table, tracked."""
    return make_replica("client", PERSON, track=["Person"])


@pytest.fixture
def other(make_replica):
    """An empty `Person` table, tracked: a second client."""
    return make_replica("other", PERSON, track=["Person"])


@pytest.fixture
def synced(server, client):
    """A server and a client that both know Alice."""
    server.sql("INSERT INTO Person VALUES (1, 'Alice', 'alice@example.com')")
    client.sync(server)
    return server, client


@pytest.fixture
def disk(tmp_path, driver):
    """Backups: `save` a replica under a name, `load` it over a replica. Both close and reopen the database."""

    class Disk:
        def save(self, replica, name):
            replica.sql("PRAGMA wal_checkpoint(TRUNCATE)")
            shutil.copyfile(replica.path, tmp_path / f"{name}.backup")

        def load(self, replica, name):
            replica.close()
            shutil.copyfile(tmp_path / f"{name}.backup", replica.path)
            return self.open(replica.path)

        def clone(self, replica, name):
            self.save(replica, name)
            path = tmp_path / f"{name}.db"
            shutil.copyfile(tmp_path / f"{name}.backup", path)
            return self.open(path)

        def open(self, path):
            opened.append(Replica(path, driver))
            return opened[-1]

    opened = []
    yield Disk()
    for replica in opened:
        replica.close()
