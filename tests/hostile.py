"""Batches that are refused, each with the kind of its error. They are also seeds of the fuzz targets.

`python tests/hostile.py` writes them to tests/fuzz_seeds, after a change here.
"""

import json
import pathlib
import re

from crafted import ALICE, EPOCH, insert, person, pull, push

SEEDS = pathlib.Path(__file__).with_name("fuzz_seeds")
OUTCOMES_OF_OTHER_SEEDS = ("accepted", "rejected")
AT = "2025-01-15T10:30:00.000Z"
MAX_NESTING = 32


def mallory(id=7, name="Mallory"):
    return person(id, name, at=AT)


def changed(**members):
    """A push of one change that is good but for these members; `...` leaves a member out."""
    good = push(mallory())
    return {**good, "changes": [altered(good["changes"][0], members)]}


def altered(value, members):
    together = {**value, **members}
    return {name: member for name, member in together.items() if member is not ...}


def batch(**members):
    """A push of one good change whose head has these members."""
    return altered(push(mallory()), members)


def two(first, second):
    """A push of two changes with these versions."""
    good = push(mallory(7), mallory(8))
    good["changes"][0]["version"], good["changes"][1]["version"] = first, second
    return good


def nested(depth):
    return "[" * depth + "]" * depth


def with_name(raw):
    """A push of a payload that is nested in its change, with this JSON as the name."""
    return GOOD.replace(json.dumps(json.dumps({"Id": 7, "Name": "Mallory", "Email": None}, separators=(",", ":"))), '{"Id":7,"Name":%s}' % raw)


def text(value):
    return value if isinstance(value, str) else json.dumps(value)


def seed_name(case):
    """The file of a case of `REFUSED` in `SEEDS`."""
    kind = re.sub(r"(?<!^)(?=[A-Z])", "_", REFUSED[case][1]).lower()
    return f"{kind}--{case.lower().replace(' ', '_')}.json"


def refused(case):
    """The bytes of a case of `REFUSED`."""
    value = REFUSED[case][0]
    return value if isinstance(value, bytes) else text(value).encode()


def write_seeds():
    for path in SEEDS.iterdir():
        if path.name.split("--")[0] not in OUTCOMES_OF_OTHER_SEEDS:
            path.unlink()
    for case in REFUSED:
        (SEEDS / seed_name(case)).write_bytes(refused(case))


GOOD = text(push(mallory()))
REFUSED = {
    # no JSON, or not of this shape
    "empty text": ("", "InvalidBatch"),
    "white space": (" \n", "InvalidBatch"),
    "null": ("null", "InvalidBatch"),
    "a number": ("42", "InvalidBatch"),
    "a string": ('"push"', "InvalidBatch"),
    "true": ("true", "InvalidBatch"),
    "an empty object": ("{}", "InvalidBatch"),
    "cut in the middle": (GOOD[: len(GOOD) // 2], "InvalidBatch"),
    "cut at the last byte": (GOOD[:-1], "InvalidBatch"),
    "cut in an escape": ('{"changes":[{"tableName":"Per\\u00', "InvalidBatch"),
    "text behind it": (GOOD + "x", "InvalidBatch"),
    "a second batch behind it": (GOOD + GOOD, "InvalidBatch"),
    "a byte order mark": ("\ufeff" + GOOD, "InvalidBatch"),
    "a comment": ("/* */" + GOOD, "InvalidBatch"),
    "single quotes": (GOOD.replace('"', "'"), "InvalidBatch"),
    "a trailing comma": (GOOD[:-1] + ",}", "InvalidBatch"),
    "not a number": (GOOD.replace('"toVersion": 1', '"toVersion": NaN'), "InvalidBatch"),
    "a lone surrogate": (GOOD.replace("Mallory", "\\ud800"), "InvalidBatch"),
    "a lone surrogate in a name": (GOOD.replace("Person", "\\udc00"), "InvalidBatch"),
    "a raw control character": (GOOD.replace("Person", "Per\nson"), "InvalidBatch"),
    "bytes that are not utf8": (GOOD.encode().replace(b"Mallory", b"Mal\xfflory"), "InvalidArgument"),
    "a table in bytes that are not utf8": (GOOD.encode().replace(b"Person", b"Per\xc3son"), "InvalidArgument"),
    # NUL
    "a NUL alone": ("\0", "InvalidBatch"),
    "a NUL before it": ("\0" + GOOD, "InvalidBatch"),
    "a NUL behind it": (GOOD + "\0", "InvalidBatch"),
    "a NUL between members": (GOOD.replace(", ", ",\0", 1), "InvalidBatch"),
    "a raw NUL in a string": (GOOD.replace("Person", "Per\0son"), "InvalidBatch"),
    "a NUL in a kind": (batch(kind="push\0"), "InvalidBatch"),
    "a NUL in a sender": (batch(originId=ALICE[:-1] + "\0"), "InvalidBatch"),
    "a NUL in an operation": (changed(operation="Insert\0"), "InvalidBatch"),
    "a NUL in an origin": (changed(origin=ALICE[:-1] + "\0"), "InvalidBatch"),
    "a NUL in a timestamp": (changed(timestamp=AT + "\0"), "InvalidBatch"),
    "a NUL in a member": (GOOD.replace('"pkValue"', '"pkValue\\u0000"'), "InvalidBatch"),
    "a NUL in a table": (changed(tableName="Person\0"), "TableNotFound"),
    "a NUL in a key column": (changed(pkValue='{"Id\\u0000":7}'), "InvalidBatch"),
    # members that stand twice
    "a member of the head twice": (GOOD[:-1] + ', "toVersion": 1}', "InvalidBatch"),
    "a member of the head twice in another case": (GOOD[:-1] + ', "to_version": 1}', "InvalidBatch"),
    "a member of the head twice the first null": ('{"hasMore": null, ' + GOOD[1:], "InvalidBatch"),
    "two kinds": (GOOD[:-1] + ', "KIND": "pull"}', "InvalidBatch"),
    "two senders": (GOOD[:-1] + f', "originId": "{EPOCH}"}}', "InvalidBatch"),
    "two lists of changes": (GOOD[:-1] + ', "changes": []}', "InvalidBatch"),
    "a member of a change twice": (GOOD.replace('"version": 1', '"version": 1, "version": 1'), "InvalidBatch"),
    "a member of a change twice in another case": (GOOD.replace('"version": 1', '"tablename": "Secret", "version": 1'), "InvalidBatch"),
    "a member of a change twice the first null": (GOOD.replace('"version": 1', '"payload": null, "version": 1'), "InvalidBatch"),
    "a member of a change twice the second null": (GOOD.replace('"version": 1', '"version": 1, "contested": true, "contested": null'), "InvalidBatch"),
    "a key with a column twice": (changed(pkValue='{"Id":7,"Id":7}'), "InvalidBatch"),
    "a key with a column twice in another case": (changed(pkValue='{"Id":7,"ID":7}'), "InvalidBatch"),
    "a nested key with a column twice": (GOOD.replace(json.dumps('{"Id":7}'), '{"Id":7,"Id":8}'), "InvalidBatch"),
    "a payload with a column twice": (changed(payload='{"Id":7,"Name":"a","Name":"b"}'), "InvalidBatch"),
    "a payload with a column twice in another case": (changed(payload='{"Id":7,"Name":"a","name":"b"}'), "InvalidBatch"),
    "a payload with a column twice one escaped": (changed(payload='{"Id":7,"Name":"a","Na\\u006de":"b"}'), "InvalidBatch"),
    "a payload with the key twice": (changed(payload='{"Id":7,"Id":8}'), "InvalidBatch"),
    # the head
    "no changes": (batch(changes=...), "InvalidBatch"),
    "changes are an object": (batch(changes={}), "InvalidBatch"),
    "changes are text": (batch(changes="[]"), "InvalidBatch"),
    "changes are null": (batch(changes=None), "InvalidBatch"),
    "a change is a number": (batch(changes=[1]), "InvalidBatch"),
    "a change is null": (batch(changes=[None]), "InvalidBatch"),
    "a change is a list": (batch(changes=[[]]), "InvalidBatch"),
    "an unknown kind": (batch(kind="sideways"), "InvalidBatch"),
    "a kind that is a number": (batch(kind=1), "InvalidBatch"),
    "a range that ends before it starts": (batch(fromVersion=5, toVersion=1), "InvalidBatch"),
    "an end that is text": (batch(toVersion="one"), "InvalidBatch"),
    "more that is no boolean": (batch(hasMore="maybe"), "InvalidBatch"),
    "a last server version the log does not have": (batch(lastServerVersion=10**6), "EpochMismatch"),
    "the epoch of another server": (batch(serverEpoch=EPOCH, lastServerVersion=1), "EpochMismatch"),
    "a hash that does not match": (batch(hash="0" * 64), "HashMismatch"),
    "a hash that is too short": (batch(hash="00"), "HashMismatch"),
    "a hash that is not hexadecimal": (batch(hash="z" * 64), "HashMismatch"),
    "a hash that is a number": (batch(hash=1), "InvalidBatch"),
    "a pull with a gap": (pull(mallory(), after=5), "InvalidBatch"),
    "a pull without its start": (altered(pull(mallory()), {"fromVersion": ...}), "InvalidBatch"),
    "a pull without its end": (altered(pull(mallory()), {"toVersion": ...}), "InvalidBatch"),
    "a pull of a change at its start": (altered(pull(mallory(), after=5), {"fromVersion": 6, "toVersion": 7}), "InvalidBatch"),
    # numbers
    "a negative start": (batch(fromVersion=-1), "InvalidBatch"),
    "a start beyond int64": (batch(fromVersion=2**63), "InvalidBatch"),
    "an end beyond int64": (batch(toVersion=2**63), "InvalidBatch"),
    "an end beyond uint64": (batch(toVersion=2**64), "InvalidBatch"),
    "an end that is a fraction": (batch(toVersion=1.5), "InvalidBatch"),
    "a negative last server version": (batch(lastServerVersion=-1), "InvalidBatch"),
    "a last server version beyond int64": (batch(lastServerVersion=2**63), "InvalidBatch"),
    "the greatest last server version": (batch(lastServerVersion=2**63 - 1), "EpochMismatch"),
    "a negative greatest version": (batch(maxVersion=-(2**63)), "InvalidBatch"),
    "a negative received version": (altered(pull(mallory()), {"receivedVersion": -1}), "InvalidBatch"),
    "a received mark that is a number": (altered(pull(mallory()), {"receivedMark": 1}), "InvalidBatch"),
    "a mark that is a number": (batch(marks=[7]), "InvalidBatch"),
    "a mark without a version": (batch(marks=["b0b00000-0000-4000-8000-000000000002"]), "InvalidBatch"),
    "a mark that is no UUID": (batch(marks=["1@me"]), "InvalidBatch"),
    "marks of another end": (batch(marks=["7@b0b00000-0000-4000-8000-000000000002"]), "InvalidBatch"),
    "101 marks": (batch(marks=["1@b0b00000-0000-4000-8000-000000000002"] * 101), "InvalidBatch"),
    "a negative seen version": (changed(seenVersion=-1), "InvalidBatch"),
    "a seen version beyond int64": (changed(seenVersion=2**63), "InvalidBatch"),
    "a version that is missing": (changed(version=...), "InvalidBatch"),
    "version zero": (changed(version=0), "InvalidBatch"),
    "a negative version": (changed(version=-1), "InvalidBatch"),
    "the least version": (changed(version=-(2**63)), "InvalidBatch"),
    "a version above the range": (changed(version=2), "InvalidBatch"),
    "a version beyond int64": (changed(version=2**63), "InvalidBatch"),
    "a version of 400 digits": (changed(version=int("1" * 400)), "InvalidBatch"),
    "a version that is a fraction": (changed(version=1.5), "InvalidBatch"),
    "a version that is almost an integer": (GOOD.replace('"version": 1', '"version": 1.0'), "InvalidBatch"),
    "a version with an exponent": (GOOD.replace('"version": 1', '"version": 1e999'), "InvalidBatch"),
    "a version that is text": (changed(version="first"), "InvalidBatch"),
    "versions twice": (two(1, 1), "InvalidBatch"),
    "versions backwards": (two(2, 1), "InvalidBatch"),
    "a key written differently": (changed(payload='{"Id":7e0,"Name":1E-7}'), "InvalidBatch"),
    # forged origins
    "a sender that is missing": (batch(originId=...), "InvalidBatch"),
    "a sender that is no uuid": (batch(originId="mallory"), "InvalidBatch"),
    "a sender that is empty": (batch(originId=""), "InvalidBatch"),
    "a sender that is a number": (batch(originId=1), "InvalidBatch"),
    "a sender in braces": (batch(originId="{" + ALICE + "}"), "InvalidBatch"),
    "a sender without hyphens": (batch(originId=ALICE.replace("-", "")), "InvalidBatch"),
    "a pull from no one": (altered(pull(mallory()), {"originId": ...}), "InvalidBatch"),
    "an origin that is missing": (changed(origin=...), "InvalidBatch"),
    "an origin that is null": (changed(origin=None), "InvalidBatch"),
    "an origin that is empty": (changed(origin=""), "InvalidBatch"),
    "an origin that is SQL": (changed(origin="' OR 1=1 --"), "InvalidBatch"),
    "an origin in braces": (changed(origin="{" + ALICE + "}"), "InvalidBatch"),
    "an origin with other letters": (changed(origin=ALICE.replace("a", "g")), "InvalidBatch"),
    "an origin with a space": (changed(origin=ALICE[:-1] + " "), "InvalidBatch"),
    "an origin in wide digits": (changed(origin=ALICE.replace("0", "\uff10")), "InvalidBatch"),
    "an origin as a urn": (changed(origin="urn:uuid:" + ALICE), "InvalidBatch"),
    # changes
    "a table that is missing": (changed(tableName=...), "InvalidBatch"),
    "a table that is a number": (changed(tableName=1), "InvalidBatch"),
    "a table that is an object": (changed(tableName={"Person": 1}), "InvalidBatch"),
    "an operation that is missing": (changed(operation=...), "InvalidBatch"),
    "an unknown operation": (changed(operation="Truncate"), "InvalidBatch"),
    "operation three": (changed(operation=3), "InvalidBatch"),
    "a negative operation": (changed(operation=-1), "InvalidBatch"),
    "an operation as the text of a number": (changed(operation="7"), "InvalidBatch"),
    "operation null": (changed(operation=None), "InvalidBatch"),
    "operation true": (changed(operation=True), "InvalidBatch"),
    "a timestamp that is missing": (changed(timestamp=...), "InvalidBatch"),
    "a timestamp of words": (changed(timestamp="yesterday"), "InvalidBatch"),
    "a timestamp that is a number": (changed(timestamp=1736937000), "InvalidBatch"),
    "a timestamp of February 30": (changed(timestamp="2025-02-30T00:00:00.000Z"), "InvalidBatch"),
    "a timestamp of hour 25": (changed(timestamp="2025-01-15T25:00:00.000Z"), "InvalidBatch"),
    "a timestamp without a zone": (changed(timestamp="2025-01-15T10:30:00.000"), "InvalidBatch"),
    "a timestamp of the year 10000": (changed(timestamp="10000-01-01T00:00:00.000Z"), "InvalidBatch"),
    "a timestamp of the year 100000": (changed(timestamp="+100000-01-01T00:00:00.000Z"), "InvalidBatch"),
    "a timestamp before the year 0": (changed(timestamp="-000001-12-31T23:59:59.999Z"), "InvalidBatch"),
    "a contested that is a number": (changed(contested=1), "InvalidBatch"),
    "a key that is missing": (changed(pkValue=...), "InvalidBatch"),
    "a key that is null": (changed(pkValue=None), "InvalidBatch"),
    "a key that is no JSON": (changed(pkValue="seven"), "InvalidBatch"),
    "a key that is a list": (changed(pkValue="[7]"), "InvalidBatch"),
    "a key that is a number": (changed(pkValue=7), "InvalidBatch"),
    "a key without columns": (changed(pkValue="{}"), "InvalidBatch"),
    "a key with a null value": (changed(pkValue='{"Id":null}'), "InvalidBatch"),
    "a key of another column": (changed(pkValue='{"Name":"Mallory"}'), "InvalidBatch"),
    "a key with a column too many": (changed(pkValue='{"Id":7,"Name":"Mallory"}'), "InvalidBatch"),
    "a payload that is missing": (changed(payload=...), "InvalidBatch"),
    "an update without payload": (changed(operation="Update", payload=None), "InvalidBatch"),
    "a payload that is no JSON": (changed(payload="Mallory"), "InvalidBatch"),
    "a payload that is a list": (changed(payload="[7]"), "InvalidBatch"),
    "a payload that is a number": (changed(payload=7), "InvalidBatch"),
    "a payload that is true": (changed(payload=True), "InvalidBatch"),
    "a payload without the key": (changed(payload='{"Name":"Mallory"}'), "InvalidBatch"),
    "a payload of another key": (changed(payload='{"Id":8,"Name":"Mallory"}'), "InvalidBatch"),
    "a payload of the key as text": (changed(payload='{"Id":"7x","Name":"Mallory"}'), "InvalidBatch"),
    # injected names
    "a table with injected SQL": (changed(tableName='Person"; DROP TABLE Person; --'), "TableNotFound"),
    "a table in quotes": (changed(tableName='"Person"'), "TableNotFound"),
    "a table in brackets": (changed(tableName="[Person]"), "TableNotFound"),
    "a table of a schema": (changed(tableName="main.Person"), "TableNotFound"),
    "a table with a space behind it": (changed(tableName="Person "), "TableNotFound"),
    "a table in look-alike letters": (changed(tableName="P\u0435rson"), "TableNotFound"),
    "a table without a name": (changed(tableName=""), "InvalidBatch"),
    "a table with a name too long": (changed(tableName="P" * 1025), "InvalidBatch"),
    "a key with injected SQL": (changed(pkValue='{"1=1 OR Id":7}'), "InvalidBatch"),
    "a key in quotes": (changed(pkValue='{"\\"Id\\"":7}'), "InvalidBatch"),
    "a key named rowid": (changed(pkValue='{"rowid":7}'), "InvalidBatch"),
    # system tables
    "an unknown table": (changed(tableName="Nobody"), "TableNotFound"),
    "an untracked table": (changed(tableName="Secret"), "TableNotTracked"),
    "a view": (changed(tableName="Everyone"), "TableNotTracked"),
    "the schema table": (changed(tableName="sqlite_master"), "TableNotTracked"),
    "the schema table by its newer name": (changed(tableName="sqlite_schema"), "TableNotTracked"),
    "the schema table of a schema": (changed(tableName="main.sqlite_master"), "TableNotFound"),
    "the temporary schema table": (changed(tableName="sqlite_temp_master"), "TableNotTracked"),
    "the sequence table": (changed(tableName="sqlite_sequence"), "TableNotTracked"),
    "our state": (changed(tableName="_sync_state"), "TableNotTracked"),
    "our log": (changed(tableName="_sync_log"), "TableNotTracked"),
    "our log in another case": (changed(tableName="_SYNC_LOG"), "TableNotTracked"),
    "the table behind our log": (changed(tableName="_sync_log_data"), "TableNotTracked"),
    "our clients": (changed(tableName="_sync_clients"), "TableNotTracked"),
    "our rejections": (changed(tableName="_sync_rejections"), "TableNotTracked"),
    "our list of tables": (changed(tableName="_sync_tables"), "TableNotTracked"),
    "a good change and then one of our state": (push(mallory(), insert("_sync_state", {"Id": 1}, at=AT)), "TableNotTracked"),
    # limits
    "nested too deep": (nested(MAX_NESTING + 1), "LimitExceeded"),
    "nested very deep": (nested(15_000), "LimitExceeded"),
    "nested and never closed": ("[" * 30_000, "LimitExceeded"),
    "objects nested and never closed": ('{"changes":' * 2_500, "LimitExceeded"),
    "a member nested too deep": (batch(colour=json.loads(nested(MAX_NESTING))), "LimitExceeded"),
    "a payload nested too deep": (changed(payload='{"Id":7,"Name":%s}' % nested(MAX_NESTING)), "LimitExceeded"),
    "a payload nested very deep": (changed(payload='{"Id":7,"Name":%s}' % nested(10_000)), "LimitExceeded"),
    "a nested payload nested too deep": (with_name(nested(MAX_NESTING - 3)), "LimitExceeded"),
    "a key nested very deep": (changed(pkValue='{"Id":%s}' % nested(10_000)), "LimitExceeded"),
    "ten thousand and one empty changes": ("[" + ",".join(["{}"] * 10_001) + "]", "InvalidBatch"),
}

if __name__ == "__main__":
    write_seeds()
