"""Changes and batches written by hand, for what no honest replica sends at the moment a test needs it."""

import datetime
import json
import time

ALICE = "a11ce000-0000-4000-8000-000000000001"
BOB = "b0b00000-0000-4000-8000-000000000002"
HUB = "cafe0000-0000-4000-8000-000000000003"
EPOCH = "e90c0000-0000-4000-8000-000000000004"
# One UUID in two spellings.
UPPER, LOWER = "6242D466-6887-433A-923F-BCC1EC471740", "6242d466-6887-433a-923f-bcc1ec471740"


def stamp(**offset):
    """Now, or so much later (`hours=3`) or earlier (`days=-1`), as a change carries it."""
    instant = datetime.datetime.now(datetime.timezone.utc) + datetime.timedelta(**offset)
    return instant.strftime("%Y-%m-%dT%H:%M:%S.") + f"{instant.microsecond // 1000:03d}Z"


def instant(timestamp):
    """The moment a stamp means."""
    return datetime.datetime.fromisoformat(timestamp.replace("Z", "+00:00"))


def let_the_clock_tick():
    """What is written after this has a greater stamp than what was written before."""
    time.sleep(0.003)


def compact(value):
    """JSON text without white space."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False)


def insert(table, row, key=("Id",), operation="Insert", origin=ALICE, at=None):
    """An insert of a row; the members named in `key` are its primary key."""
    return {
        "tableName": table,
        "pkValue": compact({name: row[name] for name in key}),
        "operation": operation,
        "payload": compact(row),
        "origin": origin,
        "timestamp": at or stamp(),
    }


def update(table, row, key=("Id",), origin=ALICE, at=None):
    """An update to a row."""
    return insert(table, row, key, "Update", origin, at)


def delete(table, key, origin=ALICE, at=None):
    """A delete of the row with this key, a dictionary."""
    return {
        "tableName": table,
        "pkValue": compact(key),
        "operation": "Delete",
        "payload": None,
        "origin": origin,
        "timestamp": at or stamp(),
    }


def person(id, name=None, email=None, **about):
    """An insert into `Person`."""
    return insert("Person", {"Id": id, "Name": name, "Email": email}, **about)


def push(*changes, sender=ALICE, after=0, seen=0):
    """A push of these changes, numbered from `after` on, by a sender that had pulled up to `seen`."""
    return {
        "kind": "push",
        "originId": sender,
        "epoch": EPOCH,
        "lastServerVersion": seen,
        **numbered(changes, after),
    }


def pull(*changes, sender=HUB, after=0, more=False):
    """What a server answers to a pull from `after` on."""
    return {"kind": "pull", "originId": sender, "epoch": EPOCH, **numbered(changes, after), "hasMore": more}


def numbered(changes, after):
    return {
        "fromVersion": after,
        "toVersion": after + len(changes),
        "hasMore": False,
        "changes": [{"version": after + 1 + index, **change} for index, change in enumerate(changes)],
    }
