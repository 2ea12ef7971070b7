"""The whole at once: a gateway on PostgreSQL, clients over HTTP and over postgres://, a relay with clients of its own; and kills.

SYNC_FLEET_SECONDS sets how long it runs, SYNC_FLEET_SEED who is killed when.
"""

import os
import pathlib
import random
import subprocess
import sys
import time

import pytest

from calls import sync_with
from replica import LIBRARY

SECONDS = int(os.environ.get("SYNC_FLEET_SECONDS", "15"))
SEED = int(os.environ.get("SYNC_FLEET_SEED", "1"))
PROGRAM = pathlib.Path(__file__).with_name("fleet_client.py")
OVER_HTTP, OVER_POSTGRES, BEHIND_RELAY = 5, 2, 2
QUIET_AFTER_ROUNDS = 10


class Member:
    """A client's process, and where it syncs."""

    def __init__(self, replica, url, number, *options):
        self.replica, self.url, self.number, self.options = replica, url, number, options
        self.log = replica.path.with_suffix(".log")
        self.start()

    def start(self):
        with self.log.open("a") as log:
            command = [sys.executable, PROGRAM, self.replica.path, self.url, f"{SEED} {self.number}", *self.options]
            self.process = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"SQLITE_SYNC_LIBRARY": LIBRARY})

    def kill(self):
        assert self.process.poll() is None, self.log.read_text()
        self.process.kill()
        self.process.wait()

    def end(self):
        assert self.process.wait(60) == 0, self.log.read_text()


@pytest.mark.timeout(1800)
def test_all_ends_equal(postgres, make_replica, make_gateway, tmp_path):
    print(f"SYNC_FLEET_SEED={SEED}")
    chance = random.Random(SEED)
    gateway = make_gateway(postgres.url)

    def new(name):
        replica = make_replica(name, "CREATE TABLE Person(Id INTEGER PRIMARY KEY, Name TEXT, Email TEXT)", track=["Person"])
        replica.sql("PRAGMA journal_mode = WAL")
        return replica

    relay = new("relay")
    relays_gateway = make_gateway(relay.path)
    members = [Member(relay, gateway.url, 0, "--quiet")]
    for number in range(1, OVER_HTTP + OVER_POSTGRES + BEHIND_RELAY + 1):
        is_http, is_behind = number <= OVER_HTTP, number > OVER_HTTP + OVER_POSTGRES
        url = relays_gateway.url if is_behind else gateway.url if is_http else postgres.url
        members.append(Member(new(f"client{number}"), url, number))
    kills = {"clients": 0, "gateways": 0}
    until = time.monotonic() + SECONDS
    while time.monotonic() < until:
        time.sleep(chance.random() * 2)
        if chance.random() < 0.7:
            member = chance.choice(members)
            member.kill()
            member.start()
            kills["clients"] += 1
        else:
            killed = chance.choice((gateway, relays_gateway))
            killed.kill()
            time.sleep(chance.random() * 0.3)
            killed.start()
            kills["gateways"] += 1
    (tmp_path / "stop").touch()
    for member in members:
        member.end()

    for round in range(1, QUIET_AFTER_ROUNDS + 1):
        # From the leaves to the root.
        answers = [sync_with(member.replica, member.url) for member in reversed(members)]
        if all(answer["pulled"] == answer["pushed"] == 0 for answer in answers):
            break
    else:
        raise AssertionError(f"it does not become quiet: {answers}")
    replicas = [member.replica for member in members]
    print(f"{kills}, {len(postgres.rows('person'))} rows, {len(postgres.conflicts())} conflicts at the server, quiet after {round} rounds")
    assert {replica.hash() for replica in replicas} == {postgres.hash()}
    assert all(replica.rejections() == [] for replica in [postgres, *replicas])
    for replica in replicas:
        replica.check_whole()
