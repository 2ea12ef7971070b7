"""Many clients push and pull at the same time: no error, nothing lost, and both sides equal in the end."""

import os
import statistics
import threading
import time
import uuid

from replica import Replica

# Of each kind; and for how long they go on, in seconds.
PUSHERS = PULLERS = int(os.environ.get("SYNC_LOAD_CLIENTS", "16"))
SECONDS = float(os.environ.get("SYNC_LOAD_SECONDS", "5"))
SOON = 30


def change(origin, version):
    key = f"{origin}-{version}"
    return {
        "version": version, "tableName": "Person", "pkValue": f'{{"Id":"{key}"}}', "operation": "Insert",
        "payload": f'{{"Id":"{key}","Name":"x","Email":null}}', "origin": origin, "timestamp": "2026-01-15T10:30:00.000Z",
    }


class Load:
    def __init__(self, gateway):
        self.gateway, self.errors, self.pushed, self.took = gateway, [], 0, {"push": [], "pull": []}
        self.seen = []
        self.over = time.monotonic() + SECONDS

    def run(self, body):
        try:
            with self.gateway.client() as http:
                body(http)
        except Exception as error:  # noqa: BLE001
            self.errors.append(error)

    def timed(self, what, request):
        begun = time.perf_counter()
        answer = request()
        self.took[what].append(1000 * (time.perf_counter() - begun))
        assert answer.status_code == 200, answer.text
        return answer.json()

    def push(self, http):
        origin, version = str(uuid.uuid4()), 0
        while time.monotonic() < self.over:
            batch = {
                "kind": "push", "originId": origin, "fromVersion": version, "toVersion": version + 10,
                "changes": [change(origin, version + number) for number in range(1, 11)],
            }
            answer = self.timed("push", lambda batch=batch: http.post("/sync/changes", json=batch))
            assert answer["applied"] == 10, answer
            version += 10
            self.pushed += 10

    def pull(self, http):
        version, seen = 0, 0
        while time.monotonic() < self.over:
            batch = self.timed("pull", lambda version=version: http.get(f"/sync/changes?fromVersion={version}&batchSize=500&waitMs=50"))
            seen += len(batch["changes"])
            version = batch["toVersion"]
        while batch["hasMore"] or batch["changes"]:
            batch = http.get(f"/sync/changes?fromVersion={version}&batchSize=5000").json()
            seen, version = seen + len(batch["changes"]), batch["toVersion"]
        self.seen.append((version, seen))



def test_many_push_and_pull_at_once(database, gateway, tmp_path):
    load = Load(gateway)
    threads = [threading.Thread(target=load.run, args=(body,)) for body in [load.push] * PUSHERS + [load.pull] * PULLERS]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(SECONDS + SOON)
    assert not load.errors, load.errors[0]
    assert database.value('SELECT count(*) FROM "Person"') == load.pushed > 0
    assert all(version == seen for version, seen in load.seen), "every puller saw every version once"
    with gateway.client() as http, Replica(tmp_path / "client.db") as client:
        client.sql("CREATE TABLE Person (Id TEXT PRIMARY KEY NOT NULL, Name TEXT, Email TEXT)")
        client.track("Person")
        more = True
        while more:
            text = http.get(f"/sync/changes?fromVersion={client.cursor}&batchSize=5000").text
            client.apply(text)
            more = '"hasMore":true' in text
        assert client.hash() == http.get("/sync/hash").json()["hash"]
    for what, took in load.took.items():
        took.sort()
        print(f"{what}: {len(took)} requests, p50 {statistics.median(took):.1f} ms, p99 {took[len(took) * 99 // 100]:.1f} ms, {load.pushed} changes")
