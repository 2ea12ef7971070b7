"""Fixtures: a PostgreSQL server and SQLite clients."""

import pytest

from cluster import Cluster
from pg_replica import PgReplica


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def make_server(cluster):
    """A new PostgreSQL database with these statements run and these tables tracked."""
    opened = []

    def make(*statements, track=(), **options):
        server = PgReplica(cluster)
        opened.append(server)
        for statement in statements:
            server.sql(statement)
        for table in track:
            server.track(table, **options)
        return server

    yield make
    for server in opened:
        server.close()
