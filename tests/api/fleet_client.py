"""A client as a process of its own, to be killed at any time: writes at random and syncs, until its database's folder has a file `stop`.

    python fleet_client.py DATABASE URL SEED [--quiet]      --quiet: it syncs and writes nothing (a relay)
"""

import pathlib
import random
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))

from replica import DRIVER_ERRORS, DRIVERS, Replica  # noqa: E402

SHARED = 50


def write(replica, choice):
    with replica.transaction():
        for _ in range(choice.randrange(1, 20)):
            id = choice.randrange(1, SHARED) if choice.random() < 0.3 else choice.randrange(1 << 40)
            what = choice.random()
            if what < 0.7:
                replica.sql(
                    "INSERT INTO Person VALUES (?1, ?2, ?3) ON CONFLICT (Id) DO UPDATE SET Name = excluded.Name",
                    id, f"name {choice.random()}", "some text " * choice.randrange(20),
                )
            elif what < 0.9:
                replica.sql("UPDATE Person SET Email = ? WHERE Id <= ?", f"mail {choice.random()}", choice.randrange(5))
            else:
                replica.sql("DELETE FROM Person WHERE Id = ?", id)


def main():
    path, url, seed = sys.argv[1:4]
    choice = random.Random(f"{seed} {time.time()}")
    replica = Replica(path, DRIVERS[0])
    while not pathlib.Path(path).with_name("stop").exists():
        if "--quiet" not in sys.argv:
            write(replica, choice)
        try:
            replica.json("SELECT sync_with(?, ?)", url, '{"timeoutMs": 3000, "batchSize": %d}' % choice.choice((7, 100, 1000)))
        except DRIVER_ERRORS as error:
            if "sync: the server at" not in str(error):
                raise
        time.sleep(choice.random() * 0.2)


if __name__ == "__main__":
    main()
