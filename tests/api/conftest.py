"""Fixtures: databases of both kinds behind gateways."""

import subprocess

import pytest

from cluster import Cluster
from gateway import Gateway, Stream, postgres_url
from pg_replica import PgReplica
from replica import Replica

PERSON = {
    "sqlite": "CREATE TABLE Person (Id TEXT PRIMARY KEY NOT NULL, Name TEXT, Email TEXT)",
    "postgres": 'CREATE TABLE "Person" ("Id" text PRIMARY KEY, "Name" text, "Email" text)',
}


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def make_database(tmp_path, request):
    """A new database of a kind, with the table `Person` tracked."""
    opened = []

    def make(kind, name="server"):
        if kind == "sqlite":
            database = Replica(tmp_path / f"{name}.db")
            database.url = str(tmp_path / f"{name}.db")
        else:
            database = PgReplica(request.getfixturevalue("cluster"))
            database.url = postgres_url(database)
        opened.append(database)
        database.kind = kind
        database.sql(PERSON[kind])
        database.track('"Person"' if kind == "postgres" else "Person")
        return database

    yield make
    for database in opened:
        database.close()


@pytest.fixture(params=["sqlite", "postgres"])
def database(request, make_database):
    """A database with the table `Person`, tracked: once a SQLite file, once PostgreSQL."""
    return make_database(request.param)


@pytest.fixture
def make_gateway():
    """A gateway before a database."""
    running = []

    def make(database, *options, **more):
        url = database if isinstance(database, str) else database.url
        running.append(Gateway(url, *options, **more))
        return running[-1]

    yield make
    for gateway in running:
        gateway.close()


@pytest.fixture
def gateway(make_gateway, database):
    """A gateway before `database`, without limits on requests."""
    return make_gateway(database, "--requests-per-minute", 0)


@pytest.fixture
def http(gateway):
    with gateway.client() as client:
        yield client


@pytest.fixture
def subscribe(gateway):
    """Subscribe to a table; the stream is closed at the end."""
    opened = []

    def open_(query="tableName=Person", last=None, to=None, token=None):
        opened.append(Stream(to or gateway, query, last, token))
        return opened[-1]

    yield open_
    for stream in opened:
        stream.close()


@pytest.fixture(scope="session")
def certificate(tmp_path_factory):
    """A certificate for 127.0.0.1 that signs itself, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key, "-out", cert,
         "-days", "2", "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True,
    )
    return cert, key
