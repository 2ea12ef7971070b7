"""Bad input is refused with its kind, and the database file is byte for byte what it was."""

import json

import pytest

from conftest import PERSON
from crafted import ALICE, EPOCH, delete, insert, person, pull, push, stamp, update
from replica import sync_error

MAX_CHANGES = 10_000
MAX_BYTES = 64 * 1024 * 1024
MAX_NESTING = 32


def changed(**members):
    """A push of one change that is good but for these members; `...` leaves a member out."""
    good = push(person(7, "Mallory"))
    return {**good, "changes": [altered(good["changes"][0], members)]}


def altered(value, members):
    together = {**value, **members}
    return {name: member for name, member in together.items() if member is not ...}


def batch(**members):
    """A push of one good change whose head has these members."""
    return altered(push(person(7, "Mallory")), members)


def two(first, second):
    """A push of two changes with these versions."""
    good = push(person(7), person(8))
    good["changes"][0]["version"], good["changes"][1]["version"] = first, second
    return good


def nested(depth):
    return "[" * depth + "]" * depth


def text(value):
    return value if isinstance(value, str) else json.dumps(value)


GOOD = text(push(person(7, "Mallory")))
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
    "text behind it": (GOOD + "x", "InvalidBatch"),
    "a second batch behind it": (GOOD + GOOD, "InvalidBatch"),
    "a NUL behind it": (GOOD + "\0", "InvalidBatch"),
    "a raw NUL in a string": (GOOD.replace("Mallory", "Mal\0lory"), "InvalidBatch"),
    "a raw control character in a string": (GOOD.replace("Mallory", "Mal\nlory"), "InvalidBatch"),
    "a byte order mark": ("\ufeff" + GOOD, "InvalidBatch"),
    "a comment": ("/* */" + GOOD, "InvalidBatch"),
    "single quotes": (GOOD.replace('"', "'"), "InvalidBatch"),
    "a trailing comma": (GOOD[:-1] + ",}", "InvalidBatch"),
    "NaN": (GOOD.replace('"toVersion": 1', '"toVersion": NaN'), "InvalidBatch"),
    "a lone surrogate": (GOOD.replace("Mallory", "\\ud800"), "InvalidBatch"),
    "a lone surrogate in a name": (GOOD.replace("Person", "\\udc00"), "InvalidBatch"),
    "a duplicate member": (GOOD[:-1] + ', "toVersion": 1}', "InvalidBatch"),
    "a duplicate member in another case": (GOOD[:-1] + ', "ToVersion": 1}', "InvalidBatch"),
    "a duplicate member of a change": (GOOD.replace('"version": 1', '"version": 1, "version": 1'), "InvalidBatch"),
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
    "a sender that is no uuid": (batch(originId="mallory"), "InvalidBatch"),
    "a sender that is empty": (batch(originId=""), "InvalidBatch"),
    "a sender that is a number": (batch(originId=1), "InvalidBatch"),
    "a range that ends before it starts": (batch(fromVersion=5, toVersion=1), "InvalidBatch"),
    "a negative start": (batch(fromVersion=-1), "InvalidBatch"),
    "an end beyond int64": (batch(toVersion=2**63), "InvalidBatch"),
    "an end that is text": (batch(toVersion="one"), "InvalidBatch"),
    "an end that is a fraction": (batch(toVersion=1.5), "InvalidBatch"),
    "more that is no boolean": (batch(hasMore="maybe"), "InvalidBatch"),
    "a negative last server version": (batch(lastServerVersion=-1), "InvalidBatch"),
    "a last server version the log does not have": (batch(lastServerVersion=10**6), "EpochMismatch"),
    "the epoch of another server": (batch(serverEpoch=EPOCH, lastServerVersion=1), "EpochMismatch"),
    "a hash that does not match": (batch(hash="0" * 64), "HashMismatch"),
    "a hash that is too short": (batch(hash="00"), "HashMismatch"),
    "a hash that is a number": (batch(hash=1), "InvalidBatch"),
    "a pull with a gap": (pull(person(7), after=5), "InvalidBatch"),
    "a pull from no one": (altered(pull(person(7)), {"originId": ...}), "InvalidBatch"),
    # versions
    "a version that is missing": (changed(version=...), "InvalidBatch"),
    "version zero": (changed(version=0), "InvalidBatch"),
    "a negative version": (changed(version=-1), "InvalidBatch"),
    "a version above the range": (changed(version=2), "InvalidBatch"),
    "a version beyond int64": (changed(version=2**63), "InvalidBatch"),
    "a version that is a fraction": (changed(version=1.5), "InvalidBatch"),
    "a version with an exponent": (GOOD.replace('"version": 1', '"version": 1e999'), "InvalidBatch"),
    "a version that is text": (changed(version="first"), "InvalidBatch"),
    "versions twice": (two(1, 1), "InvalidBatch"),
    "versions backwards": (two(2, 1), "InvalidBatch"),
    # changes
    "no table": (changed(tableName=...), "InvalidBatch"),
    "a table that is a number": (changed(tableName=1), "InvalidBatch"),
    "no operation": (changed(operation=...), "InvalidBatch"),
    "an unknown operation": (changed(operation="Truncate"), "InvalidBatch"),
    "operation three": (changed(operation=3), "InvalidBatch"),
    "a negative operation": (changed(operation=-1), "InvalidBatch"),
    "operation null": (changed(operation=None), "InvalidBatch"),
    "no origin": (changed(origin=...), "InvalidBatch"),
    "an origin that is empty": (changed(origin=""), "InvalidBatch"),
    "an origin that is no uuid": (changed(origin="' OR 1=1 --"), "InvalidBatch"),
    "an origin with braces": (changed(origin="{" + ALICE + "}x"), "InvalidBatch"),
    "no timestamp": (changed(timestamp=...), "InvalidBatch"),
    "a timestamp of words": (changed(timestamp="yesterday"), "InvalidBatch"),
    "a timestamp that is a number": (changed(timestamp=1736937000), "InvalidBatch"),
    "a timestamp of February 30": (changed(timestamp="2025-02-30T00:00:00.000Z"), "InvalidBatch"),
    "a timestamp of the year 10000": (changed(timestamp="10000-01-01T00:00:00.000Z"), "InvalidBatch"),
    "no key": (changed(pkValue=...), "InvalidBatch"),
    "a key that is null": (changed(pkValue=None), "InvalidBatch"),
    "a key that is no JSON": (changed(pkValue="seven"), "InvalidBatch"),
    "a key that is a list": (changed(pkValue="[7]"), "InvalidBatch"),
    "a key without columns": (changed(pkValue="{}"), "InvalidBatch"),
    "a key of another column": (changed(pkValue='{"Name":"Mallory"}'), "InvalidBatch"),
    "a key with a column too many": (changed(pkValue='{"Id":7,"Name":"Mallory"}'), "InvalidBatch"),
    "a key with a column twice": (changed(pkValue='{"Id":7,"Id":7}'), "InvalidBatch"),
    "a key with injected SQL": (changed(pkValue='{"1=1 OR Id":7}'), "InvalidBatch"),
    "no payload": (changed(payload=...), "InvalidBatch"),
    "an update without payload": (changed(operation="Update", payload=None), "InvalidBatch"),
    "a payload that is no JSON": (changed(payload="Mallory"), "InvalidBatch"),
    "a payload that is a list": (changed(payload="[7]"), "InvalidBatch"),
    "a payload that is a number": (changed(payload=7), "InvalidBatch"),
    "a payload without the key": (changed(payload='{"Name":"Mallory"}'), "InvalidBatch"),
    "a payload of another key": (changed(payload='{"Id":8,"Name":"Mallory"}'), "InvalidBatch"),
    "a payload with a column twice": (changed(payload='{"Id":7,"Name":"a","Name":"b"}'), "InvalidBatch"),
    "a payload with a column twice in another case": (changed(payload='{"Id":7,"Name":"a","name":"b"}'), "InvalidBatch"),
    # tables
    "an unknown table": (changed(tableName="Nobody"), "TableNotFound"),
    "an untracked table": (changed(tableName="Secret"), "TableNotTracked"),
    "a view": (changed(tableName="Everyone"), "TableNotTracked"),
    "the schema table": (changed(tableName="sqlite_master"), "TableNotTracked"),
    "the sequence table": (changed(tableName="sqlite_sequence"), "TableNotTracked"),
    "our state": (changed(tableName="_sync_state"), "TableNotTracked"),
    "our log": (changed(tableName="_sync_log"), "TableNotTracked"),
    "our log in another case": (changed(tableName="_SYNC_LOG"), "TableNotTracked"),
    "our clients": (changed(tableName="_sync_clients"), "TableNotTracked"),
    "a table with injected SQL": (changed(tableName='Person"; DROP TABLE Person; --'), "TableNotFound"),
    "a table in quotes": (changed(tableName='"Person"'), "TableNotFound"),
    "a table of a schema": (changed(tableName="main.Person"), "TableNotFound"),
    "a table with a NUL": (changed(tableName="Person\0"), "TableNotFound"),
    "a table in look-alike letters": (changed(tableName="P\u0435rson"), "TableNotFound"),
    "a table without a name": (changed(tableName=""), ("TableNotFound", "InvalidBatch")),
    # limits
    "nested too deep": (nested(MAX_NESTING + 1), "LimitExceeded"),
    "nested very deep": (nested(1_000_000), "LimitExceeded"),
    "nested and never closed": ("[" * 1_000_000, "LimitExceeded"),
    "objects nested and never closed": ('{"changes":' * 100_000, "LimitExceeded"),
    "a payload nested too deep": (changed(payload='{"Id":7,"Name":%s}' % nested(100_000)), "LimitExceeded"),
    "a key nested too deep": (changed(pkValue='{"Id":%s}' % nested(100_000)), "LimitExceeded"),
}


@pytest.fixture
def fortress(make_replica):
    """A replica with three people, and things no batch may touch."""
    replica = make_replica(
        "fortress",
        PERSON,
        "CREATE TABLE Secret(Id INTEGER PRIMARY KEY AUTOINCREMENT, Word TEXT)",
        "CREATE VIEW Everyone AS SELECT * FROM Person",
        "INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL), (3, 'Carol', NULL)",
        "INSERT INTO Secret(Word) VALUES ('sesame')",
        track=["Person"],
    )
    replica.apply(push(person(4, "Dan"), sender=EPOCH))
    return replica


def stored(replica):
    replica.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return replica.path.read_bytes()


def assert_refused(replica, batch, kind):
    before = stored(replica)
    kinds = kind if isinstance(kind, tuple) else (kind,)
    with pytest.raises(Exception, match=rf"^sync: ({'|'.join(kinds)}): ."):
        replica.sql("SELECT sync_apply_batch(?)", batch)
    assert stored(replica) == before
    assert replica.value("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_batch_is_refused_and_changes_nothing(fortress, case):
    batch, kind = REFUSED[case]
    assert_refused(fortress, text(batch), kind)


@pytest.mark.parametrize("case", REFUSED)
def test_in_wal_mode_too(fortress, case):
    fortress.sql("PRAGMA journal_mode = WAL")
    batch, kind = REFUSED[case]
    assert_refused(fortress, text(batch), kind)


def test_the_limit_of_changes_is_exact(fortress):
    changes = [person(id) for id in range(10, 10 + MAX_CHANGES + 1)]
    assert_refused(fortress, text(push(*changes)), "LimitExceeded")
    assert fortress.apply(push(*changes[:-1]))["applied"] == MAX_CHANGES


def test_the_limit_of_bytes_is_exact(fortress):
    head = text(push(person(7, "Mallory")))
    fits = head.replace("Mallory", "M" * (MAX_BYTES - len(head) + len("Mallory")))
    assert_refused(fortress, fits.replace("MMM", "MMMM", 1), "LimitExceeded")
    assert fortress.apply(fits)["applied"] == 1


def test_the_limit_of_nesting_lets_the_allowed_depth_through(fortress):
    fits = batch(colour=json.loads(nested(MAX_NESTING - 1)))
    assert fortress.apply(fits)["applied"] == 1


@pytest.mark.parametrize("argument", [None, 42, 1.5, b"\x00\xff"])
def test_an_argument_that_is_no_text_is_refused(fortress, argument):
    assert_refused(fortress, argument, ("InvalidArgument", "InvalidBatch"))


def test_text_that_is_not_utf8_is_refused(fortress):
    broken = GOOD.encode().replace(b"Mallory", b"Mal\xfflory").hex()
    before = stored(fortress)
    with pytest.raises(Exception, match="^sync: (InvalidArgument|InvalidBatch): "):
        fortress.sql(f"SELECT sync_apply_batch(CAST(x'{broken}' AS TEXT))")
    assert stored(fortress) == before


SQL_AS_DATA = ["'; DROP TABLE Person; --", '"', "' OR '1'='1", "%s%n?1:x@y", "\\", "\0", "${jndi}", "x'00'"]


@pytest.mark.parametrize("data", SQL_AS_DATA)
def test_sql_in_a_value_is_data(fortress, data):
    assert fortress.apply(push(person(7, data)))["applied"] == 1
    assert fortress.sql("SELECT Name FROM Person WHERE Id = 7") == [(data,)]


@pytest.mark.parametrize("column", ["Name = 'x' --", '"Name"', "1=1 OR Id", "rowid", "Name\0", "_sync", "", "nаme"])
def test_an_unknown_column_is_rejected_and_touches_no_other(fortress, column):
    people = fortress.rows("Person")
    result = fortress.apply(push(insert("Person", {"Id": 7, column: "x"}), update("Person", {"Id": 1, column: "x"}), seen=1))
    assert [rejection["kind"] for rejection in result["rejections"]] == ["SchemaMismatch"] * 2
    assert fortress.rows("Person") == people


VALUES_OF_NO_KIND = [{"$blob": "zz"}, {"$blob": "abc"}, {"$blob": 1}, {"$real": "Huge"}, {"$colour": "red"}, {}, {"a": 1}, [], [1]]


@pytest.mark.parametrize("value", VALUES_OF_NO_KIND)
def test_a_value_of_no_kind_is_never_stored(fortress, value):
    people = fortress.rows("Person")
    try:
        result = fortress.apply(push(insert("Person", {"Id": 7, "Name": value})))
    except Exception as error:
        assert str(error).startswith("sync: InvalidBatch: ")
    else:
        assert [rejection["kind"] for rejection in result["rejections"]] == ["TypeMismatch"]
    assert fortress.rows("Person") == people


def test_a_forged_echo_changes_nothing(fortress):
    forged = [person(1, "Forged", origin=fortress.origin, at=stamp(minutes=1)), delete("Person", {"Id": 2}, origin=fortress.origin)]
    before = fortress.rows("Person")
    result = fortress.apply(push(*forged))
    assert (result["applied"], result["skipped"]) == (0, 2)
    assert fortress.rows("Person") == before


def test_an_error_names_no_other_data(fortress):
    with sync_error("TableNotTracked") as error:
        fortress.apply(changed(tableName="Secret"))
    assert "sesame" not in error.message
