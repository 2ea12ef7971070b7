"""What tests of the network client share: the table of the other side, and one call."""

import json

PERSON_PG = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"


def sync_with(replica, url, way="sync_with", **options):
    """The answer of one call."""
    return replica.json(f"SELECT {way}(?, ?)", url, json.dumps(options) if options else None)
