"""Fixtures: gateways, and a PostgreSQL server that is reached by TCP as well."""

import socket

import pytest

from calls import PERSON_PG
from cluster import Cluster
from gateway import Gateway
from pg_replica import PgReplica
from proxy import Proxy


@pytest.fixture
def start_gateway():
    """Start a gateway over a database: `start_gateway(path_or_url, *options)`; all are ended with the test."""
    running = []

    def start(database, *options, **more):
        running.append(Gateway.start(database, *options, **more))
        return running[-1]

    yield start
    for gateway in running:
        if gateway.process.poll() is None:
            gateway.kill()


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
def postgres(cluster):
    """A new PostgreSQL database with an empty, tracked `person` table; `url` is how it is reached."""
    server = PgReplica(cluster)
    server.sql(PERSON_PG)
    server.track("person")
    server.url = f"postgres://postgres@127.0.0.1:{cluster.port}/{server.database}"
    server.socket_url = f"postgres://postgres@/{server.database}?host={cluster.folder}&port={cluster.port}"
    yield server
    server.close()


@pytest.fixture(params=["http", "http-postgres", "postgres"])
def remote(request, start_gateway):
    """A server with an empty `Person` table, and `url` to sync with it: a gateway over SQLite, one over PostgreSQL, or PostgreSQL itself."""
    if request.param == "http":
        server = request.getfixturevalue("server")
        server.sql("PRAGMA journal_mode = WAL")
        server.url = start_gateway(server.path).url
        return server
    server = request.getfixturevalue("postgres")
    if request.param == "http-postgres":
        server.url = start_gateway(server.url).url
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
