"""Whatever the applications write and the network does: when all is quiet, the replicas hold the same rows.

One server, three clients, as a hub or a chain; three tables with a foreign key, a composite key and a UNIQUE column; every
strategy; rows that some replicas refuse; clocks that are wrong by hours or stand still; batches that are partial, doubled, lost, late, out of order or cut.
"""

import re

import hypothesis
import pytest
from hypothesis import strategies

from fleet import Fleet, live_and_converge
from history import draw_history, history_of_seed, keep_seed, seeds, shortest


def live(history):
    live_and_converge(lambda folder: Fleet(history, folder))


def failure_of(history):
    """None, or which promise the history broke and how."""
    try:
        live(history)
    except Exception as error:
        message = f"{type(error).__name__}: {error}"
        return re.match(r"\w+: (sync: \w+|[^:]*)", message)[0], message
    return None


def cases():
    return [pytest.param(seed, refusing, id=f"{seed}{'r' if refusing else ''}") for refusing in (False, True) for seed in seeds(refusing)]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("seed, refusing", cases())
def test_every_history_ends_with_equal_replicas(seed, refusing):
    history = history_of_seed(seed, refusing)
    failure = failure_of(history)
    if failure is None:
        return
    promise, message = failure
    keep_seed(seed, refusing, message)
    short = shortest(history, lambda shorter: (failure_of(shorter) or ("",))[0] == promise)
    _, message = failure_of(short) or failure
    pytest.fail(f"seed {seed}: {message}\n{short}", pytrace=False)


@hypothesis.settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(strategies.randoms(use_true_random=False))
def test_histories_that_hypothesis_can_shrink_end_with_equal_replicas(source):
    history = draw_history(source, most_steps=16)
    hypothesis.note(str(history))
    live(history)
