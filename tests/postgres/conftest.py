"""Fixtures: databases in a scratch cluster."""

import pytest

from cluster import Cluster
from pg_replica import PgReplica

PERSON = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"


@pytest.fixture(scope="session")
def cluster():
    cluster = Cluster()
    yield cluster
    cluster.close()


@pytest.fixture
def make_database(cluster):
    """A new database with the extension, these statements run and these tables tracked."""
    opened = []

    def make(*statements, track=(), schema=None):
        replica = PgReplica(cluster, schema=schema)
        opened.append(replica)
        for statement in statements:
            replica.sql(statement)
        for table in track:
            replica.track(table)
        return replica

    yield make
    for replica in opened:
        replica.close()


@pytest.fixture
def database(make_database):
    """An empty `person` table, tracked."""
    return make_database(PERSON, track=["person"])


@pytest.fixture
def session(database):
    """Opens further sessions of the same database."""
    opened = []

    def open_(user="postgres"):
        opened.append(database.again(user))
        return opened[-1]

    yield open_
    for replica in opened:
        replica.close()
