"""The random histories of `tests/sqlite/test_convergence.py` with a PostgreSQL server, and with a PostgreSQL client.

The resolvers of the strategy `custom` are written in each engine's own SQL, so those histories run with `last_write_wins`.
`SYNC_SEEDS=from:to` chooses the histories (default: the first 60).
"""

import dataclasses
import os

import pytest

from pg_fleet import PgFleet
from fleet import live_and_converge
from history import history_of_seed

SEEDS = os.environ.get("SYNC_SEEDS", "1:60")


def span():
    first, last = (int(end) for end in SEEDS.split(":"))
    return range(first, last + 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize("postgres", [0, 1], ids=["server", "client"])
@pytest.mark.parametrize("refusing", [False, True], ids=["plain", "refusing"])
@pytest.mark.parametrize("seed", span())
def test_every_history_ends_with_equal_replicas(cluster, seed, refusing, postgres):
    history = history_of_seed(seed, refusing)
    if history.strategy == "custom":
        history = dataclasses.replace(history, strategy="last_write_wins")
    try:
        live_and_converge(lambda folder: PgFleet(history, folder, cluster, postgres))
    except Exception as error:
        pytest.fail(f"seed {seed}: {type(error).__name__}: {error}\n{history}", pytrace=False)
