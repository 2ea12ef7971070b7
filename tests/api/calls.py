"""What tests of the network client share: the table of the other side, rows, and one call."""

import json

PERSON_PG = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"


def sync_with(replica, url, way="sync_with", **options):
    """The answer of one call."""
    return replica.json(f"SELECT {way}(?, ?)", url, json.dumps(options) if options else None)


def add(replica, *ids):
    """Rows with these keys, in one transaction."""
    with replica.transaction("BEGIN"):
        replica.many("INSERT INTO Person VALUES (?, 'x', NULL)", [(id,) for id in ids])
