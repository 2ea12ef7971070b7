"""Fixtures: databases of both kinds behind gateways, and a PostgreSQL server that is reached by TCP as well."""

import socket
import subprocess

import pytest

from calls import PERSON_PG
from cluster import Cluster
from gateway import Gateway, Stream, postgres_url
from pg_replica import PgReplica
from proxy import Proxy
from replica import Replica

PERSON = {
    "sqlite": "CREATE TABLE Person (Id TEXT PRIMARY KEY NOT NULL, Name TEXT, Email TEXT)",
    "postgres": 'CREATE TABLE "Person" ("Id" text PRIMARY KEY, "Name" text, "Email" text)',
}


@pytest.fixture(scope="session")
def cluster():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    cluster = Cluster(f"listen_addresses = '127.0.0.1'\nport = {port}\n")
    cluster.port = port
    # The socket's name has the port; the other fixtures connect by it.
    connect = cluster.connect
    cluster.connect = lambda *args, **options: connect(*args, port=port, **options)
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
        running.append(Gateway(getattr(database, "url", database), *options, **more))
        return running[-1]

    yield make
    for gateway in running:
        gateway.close()


@pytest.fixture
def gateway(make_gateway, database):
    """A gateway before `database`."""
    return make_gateway(database)


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
    """Paths of a certificate of its own authority for 127.0.0.1 and localhost, its key, and one of somebody else."""
    folder = tmp_path_factory.mktemp("tls")
    for name in ("server", "stranger"):
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "30",
             "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost",
             "-addext", "basicConstraints=critical,CA:FALSE",
             "-keyout", folder / f"{name}.key", "-out", folder / f"{name}.pem"],
            check=True, capture_output=True,
        )
    return folder


@pytest.fixture
def postgres(cluster):
    """A new PostgreSQL database with an empty, tracked `person` table; `url` is how it is reached."""
    server = PgReplica(cluster)
    server.sql(PERSON_PG)
    server.track("person")
    server.url = f"postgres://postgres@127.0.0.1:{cluster.port}/{server.database}"
    server.socket_url = postgres_url(server)
    yield server
    server.close()


@pytest.fixture(params=["http", "http-postgres", "postgres"])
def remote(request, make_gateway):
    """A server with an empty `Person` table, and `url` to sync with it: a gateway over SQLite, one over PostgreSQL, or PostgreSQL itself."""
    if request.param == "http":
        server = request.getfixturevalue("server")
        server.sql("PRAGMA journal_mode = WAL")
        server.url = make_gateway(server.path).url
        return server
    server = request.getfixturevalue("postgres")
    if request.param == "http-postgres":
        server.url = make_gateway(server.url).url
    return server


@pytest.fixture
def proxy():
    """Start a `Proxy` in front of a port."""
    running = []

    def start(target, **network):
        running.append(Proxy(target, **network))
        return running[-1]

    yield start
    for proxy in running:
        proxy.close()
