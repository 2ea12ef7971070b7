"""Random histories of a small fleet: what is written where, and which batches are delivered, lost, doubled or late.

A history is plain data drawn from one random source, and no step depends on what an earlier one did, so steps can be left out:
`shortest` looks for a shorter history that fails in the same way.
"""

import dataclasses
import os
import pathlib
import random
import time

from replica import DRIVERS

KEPT_SEEDS = pathlib.Path(__file__).with_name("kept_seeds.txt")
# By whether replicas refuse rows.
DEFAULT_SEEDS = {False: range(1, 201), True: range(1, 101)}

STRATEGIES = ("last_write_wins", "server_wins", "client_wins", "merge", "custom")
TOPOLOGIES = {
    "hub": ((1, 0), (2, 0), (3, 0)),
    "chain": ((1, 0), (2, 1), (3, 1)),
}
ON_DELETE = ("NO ACTION", "CASCADE", "SET NULL")
PULL_FATES = ("delivered", "delivered", "delivered", "twice", "lost", "late")
PUSH_FATES = ("delivered", "delivered", "delivered", "twice", "lost", "late", "unacknowledged")

HOUR_MS = 3_600_000
SKEWS_MS = (0, 0, 900, 4 * HOUR_MS, 30 * HOUR_MS)

PARENTS = tuple(f"p{number}" for number in range(1, 6))
CHILDREN = tuple(range(1, 8))
LINKS = tuple((left, right) for left in ("x", "y é") for right in (1, -7, 2**53 + 1))

PUT_PARENT = (
    "INSERT INTO parent(id, name, code) VALUES (?, ?, ?)"
    " ON CONFLICT(id) DO UPDATE SET name = excluded.name, code = excluded.code"
)
PUT_CHILD = (
    "INSERT INTO child(id, parent, note, amount) VALUES (?, ?, ?, ?)"
    " ON CONFLICT(id) DO UPDATE SET parent = excluded.parent, note = excluded.note, amount = excluded.amount"
)
PUT_LINK = (
    "INSERT INTO link(a, b, weight, data) VALUES (?, ?, ?, ?)"
    " ON CONFLICT(a, b) DO UPDATE SET weight = excluded.weight, data = excluded.data"
)


@dataclasses.dataclass(frozen=True)
class History:
    """Everything that happens to one fleet, and how the fleet is made."""

    topology: str
    strategy: str
    on_delete: str
    foreign_keys: bool
    driver: str
    frozen_clock: bool
    preloaded: tuple
    steps: tuple
    settle_sizes: tuple
    # The replicas on which a trigger refuses some rows of `link`, the application's and the others', until they heal.
    refusing: tuple = ()

    @property
    def routes(self):
        """Pairs of (client, server)."""
        return TOPOLOGIES[self.topology]

    def __str__(self):
        facts = [
            f"{field.name} = {getattr(self, field.name)!r}"
            for field in dataclasses.fields(self)
            if field.name != "steps"
        ]
        text = "\n".join([*facts, "steps:", *(f"  {step!r}" for step in self.steps)])
        for name in ("PUT_PARENT", "PUT_CHILD", "PUT_LINK"):
            text = text.replace(repr(globals()[name]), name)
        return text


def history_of_seed(seed, refusing=False):
    source = random.Random(seed)
    history = draw_history(source)
    if not refusing:
        return history
    replicas = tuple(number for number in range(4) if source.randrange(2) == 0)
    return dataclasses.replace(history, refusing=replicas)


def draw_history(source, most_steps=45):
    """A history from `source`, anything with the methods of `random.Random`."""
    skews = [source.choice(SKEWS_MS) for _ in range(4)]
    return History(
        topology=source.choice(("hub", "hub", "chain")),
        strategy=source.choice(STRATEGIES),
        on_delete=source.choice(ON_DELETE),
        foreign_keys=source.randrange(4) != 0,
        driver=DRIVERS[0],
        frozen_clock=source.randrange(2) == 0,
        preloaded=tuple(
            tuple(draw_write(source) for _ in range(source.randrange(4))) if source.randrange(3) == 0 else ()
            for _ in range(4)
        ),
        steps=tuple(draw_step(source, skews) for _ in range(source.randint(8, most_steps))),
        settle_sizes=tuple(source.choice((1, 2, 3, 7, 1000)) for _ in range(4)),
    )


def draw_step(source, skews):
    chance = source.randrange(100)
    replica = source.randrange(4)
    client = source.randint(1, 3)
    if chance < 50:
        return draw_writes(source, replica, skews)
    if chance < 68:
        return ("pull", client, source.randint(1, 7), source.randint(1, 3), source.choice(PULL_FATES))
    if chance < 86:
        return ("push", client, source.randint(1, 7), source.randint(1, 3), source.choice(PUSH_FATES))
    if chance < 91:
        return ("deliver", client, source.choice(("pull", "push")), source.randrange(3))
    if chance < 94:
        return ("cut", client, source.choice(("pull", "push")), source.randrange(1000))
    if chance < 96:
        return ("compact", replica)
    if chance < 97:
        return ("purge", replica)
    if chance < 98:
        return ("retry", replica)
    return ("resync", client)


def draw_writes(source, replica, skews):
    """One transaction of an application: its writes, how it ends, and how far the writer's clock is ahead."""
    writes = tuple(draw_write(source) for _ in range(source.choice((1, 1, 1, 2, 4))))
    ending = "ROLLBACK" if source.randrange(8) == 0 else "COMMIT"
    ahead = skews[replica] if source.randrange(3) == 0 else 0
    return ("write", replica, writes, ending, ahead)


def draw_write(source):
    """One statement with its arguments. It may well fail a constraint on the replica that runs it."""
    table = source.choice((draw_parent_write, draw_child_write, draw_link_write))
    return table(source, source.randrange(100))


def draw_parent_write(source, chance):
    key, code = source.choice(PARENTS), source.choice((None, 1, 2, 3))
    name = f"name {source.randrange(10_000)}"
    if chance < 45:
        return (PUT_PARENT, key, name, code)
    if chance < 65:
        return ("UPDATE parent SET name = ? WHERE id = ?", name, key)
    if chance < 78:
        return ("UPDATE parent SET code = ? WHERE id = ?", code, key)
    if chance < 85:
        return ("UPDATE parent SET id = ? WHERE id = ?", source.choice(PARENTS), key)
    return ("DELETE FROM parent WHERE id = ?", key)


def draw_child_write(source, chance):
    key, parent = source.choice(CHILDREN), source.choice((None, *PARENTS))
    note, amount = f"note {source.randrange(10_000)} ☂", source.uniform(-1e6, 1e6)
    if chance < 45:
        return (PUT_CHILD, key, parent, note, amount)
    if chance < 60:
        return ("UPDATE child SET note = ? WHERE id = ?", note, key)
    if chance < 70:
        return ("UPDATE child SET amount = ? WHERE id = ?", amount, key)
    if chance < 80:
        return ("UPDATE child SET parent = ? WHERE id = ?", parent, key)
    if chance < 87:
        return ("UPDATE child SET id = ? WHERE id = ?", source.choice(CHILDREN), key)
    return ("DELETE FROM child WHERE id = ?", key)


def draw_link_write(source, chance):
    key = source.choice(LINKS)
    weight, data = source.uniform(0, 1), bytes(source.randrange(256) for _ in range(4))
    if chance < 45:
        return (PUT_LINK, *key, weight, data)
    if chance < 60:
        return ("UPDATE link SET weight = ? WHERE a = ? AND b = ?", weight, *key)
    if chance < 75:
        return ("UPDATE link SET data = ? WHERE a = ? AND b = ?", data, *key)
    if chance < 85:
        return ("UPDATE link SET a = ?, b = ? WHERE a = ? AND b = ?", *source.choice(LINKS), *key)
    return ("DELETE FROM link WHERE a = ? AND b = ?", *key)


def seeds(refusing):
    """The seeds kept after a failure first, then `SYNC_SEEDS=from:to` (both inclusive) or the default ones."""
    span = os.environ.get("SYNC_SEEDS")
    default = DEFAULT_SEEDS[refusing]
    first, last = (int(end) for end in span.split(":")) if span else (default[0], default[-1])
    return list(dict.fromkeys([*kept_seeds(refusing), *range(first, last + 1)]))


def kept_seeds(refusing):
    """One seed a line, with an `r` where replicas refuse rows; what follows a `#` is the reader's."""
    if not KEPT_SEEDS.exists():
        return []
    lines = (line.split("#")[0].strip() for line in KEPT_SEEDS.read_text(encoding="utf-8").splitlines())
    return [int(line.rstrip("r")) for line in lines if line and line.endswith("r") == refusing]


def keep_seed(seed, refusing, reason):
    """Note a failing seed, so that every later run begins with it."""
    if seed not in kept_seeds(refusing):
        with KEPT_SEEDS.open("a", encoding="utf-8") as kept:
            kept.write(f"{seed}{'r' if refusing else ''}  # {' '.join(reason.split())[:120]}\n")


def shortest(history, fails, seconds=20.0):
    """A shorter history for which `fails` still holds: leave out ever smaller runs of steps, for at most `seconds`."""
    end = time.monotonic() + seconds
    steps, length = list(history.steps), max(1, len(history.steps) // 2)
    while True:
        start, removed = 0, False
        while start < len(steps):
            if time.monotonic() > end:
                return dataclasses.replace(history, steps=tuple(steps))
            fewer = steps[:start] + steps[start + length :]
            if fails(dataclasses.replace(history, steps=tuple(fewer))):
                steps, removed = fewer, True
            else:
                start += length
        if length == 1 and not removed:
            return dataclasses.replace(history, steps=tuple(steps))
        length = max(1, length // 2)
