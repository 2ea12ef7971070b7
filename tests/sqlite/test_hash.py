"""Hashes and canonical JSON agree with the specification, as an independent implementation of it and its vectors tell."""

import hashlib
import json
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import canonical
from conftest import PERSON
from crafted import person, push
from replica import sync_error
from test_capture_values import VALUES, any_text, any_value

EMPTY = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

NUMBERS = [
    ("1", "1"), ("-1", "-1"), ("0", "0"), ("-0", "0"), ("-0.0", "0"), ("0e10", "0"), ("1.0", "1"), ("10.50", "10.5"), ("100", "100"),
    ("1e2", "100"), ("1E+2", "100"), ("1.5e1", "15"), ("9223372036854775807", "9223372036854775807"), ("1e20", "100000000000000000000"),
    ("999999999999999999999", "999999999999999999999"), ("1e21", "1e+21"), ("1000000000000000000000", "1e+21"), ("1.5e300", "1.5e+300"),
    ("0.000001", "0.000001"), ("0.0000001", "1e-7"), ("1e-6", "0.000001"), ("1e-7", "1e-7"), ("12e-8", "1.2e-7"), ("5e-324", "5e-324"),
    ("12345678901234567890.0123456789", "12345678901234567890.0123456789"), ("0.30000000000000004", "0.30000000000000004"),
    ("123456789012345678901234567890", "1.2345678901234567890123456789e+29"), ("1e400", "1e+400"),
]
STRINGS = [
    (r'"\u20ac$\u000F\u000aA\u0027\u0042\u0022\u005c\\\"\/"', '"€$\\u000f\\nA\'B\\"\\\\\\\\\\"/"'),
    (r'"\b\t\n\f\r\u0000\u001f\u007f\u0080"', '"\\b\\t\\n\\f\\r\\u0000\\u001f\x7f\x80"'),
    (r'"\ud83d\ude00"', '"😀"'),
    (r'"\u00e9"', '"é"'),
    (r'"\u2028<>&\/"', '"\u2028<>&/"'),
]
NESTED = [
    (' { } ', "{}"), ("[ ]", "[]"), ("true", "true"), (" null", "null"), ('{"b":1,"a":2}', '{"a":2,"b":1}'),
    ('{"a":{"d":[{"z":1,"y":[]}],"c":null}}', '{"a":{"c":null,"d":[{"y":[],"z":1}]}}'),
    ('{"\\ud83d\\ude00":1,"\\uffff":2,"é":3,"e":4,"E":5,"":6}', '{"":6,"E":5,"e":4,"é":3,"\uffff":2,"😀":1}'),
    ("[3,1,2]", "[3,1,2]"),
]


@pytest.mark.parametrize(("text", "expected"), NUMBERS + STRINGS + NESTED)
def test_canonical_json(make_replica, text, expected):
    assert make_replica("any").value("SELECT sync_canonical_json(?)", text) == expected
    assert canonical.canonical_json(text) == expected, "the independent implementation agrees with the vector"


NO_JSON = ["", "{", "{}}", "[1,]", "{'a':1}", "nul", "01", "1.", ".5", "+1", "NaN", "Infinity", '"\t"', '"\\x"', '"\\ud800"', "[1] [2]", "\ufeff1"]


@pytest.mark.parametrize("text", NO_JSON)
def test_what_is_no_json_has_no_canonical_form(make_replica, text):
    with sync_error("InvalidArgument"):
        make_replica("any").sql("SELECT sync_canonical_json(?)", text)


def test_json_nested_too_deep_is_refused(make_replica):
    with sync_error("LimitExceeded"):
        make_replica("any").sql("SELECT sync_canonical_json(?)", "[" * 100_000 + "]" * 100_000)


any_number = st.integers().map(str) | st.floats(allow_nan=False, allow_infinity=False).map(repr) | st.decimals(
    allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40
).map(lambda number: f"{number:f}")
any_json = st.recursive(
    st.none() | st.booleans() | any_number.map(canonical.Number) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=20,
)


def spelled(value):
    """JSON text of the value, with white space and escapes where JSON allows them."""
    if isinstance(value, canonical.Number):
        return str(value)
    if isinstance(value, list):
        return "[ " + " ,".join(map(spelled, value)) + "]"
    if isinstance(value, dict):
        return "{\n" + ",\t".join(f"{json.dumps(name)} : {spelled(member)}" for name, member in value.items()) + "}"
    return json.dumps(value)


@settings(max_examples=100)
@given(value=any_json)
def test_canonical_json_of_anything_agrees_with_the_independent_implementation(make_replica, value):
    replica = make_replica(uuid.uuid4().hex)
    once = replica.value("SELECT sync_canonical_json(?)", spelled(value))
    assert once == canonical.canonical(value)
    assert replica.value("SELECT sync_canonical_json(?)", once) == once
    replica.close()


def test_no_tables_have_the_hash_of_nothing(make_replica):
    assert make_replica("any").hash() == EMPTY == hashlib.sha256(b"").hexdigest()


BATCHES = [
    ([], EMPTY),
    (
        [{"version": 1, "tableName": "Person", "pkValue": '{"Id":"1"}', "operation": "Insert", "payload": '{"Id":"1","Name":"Alice"}'}],
        "5b6ee2b21286027a76dec46ff52485005089f542a224faf4f126da7cc864eec2",
    ),
    (
        [{"version": 1, "tableName": "Person", "pkValue": '{"Id":"1"}', "operation": "Delete", "payload": None}],
        "6815d9722331e89baffda78afa471bf53fa617da838ab45d1bf21759eeeca6ee",
    ),
]


@pytest.mark.parametrize(("changes", "expected"), BATCHES)
def test_batch_hash_vectors(make_replica, changes, expected):
    about = {"origin": "a11ce000-0000-4000-8000-000000000001", "timestamp": "2025-01-15T10:30:00.000Z"}
    batch = {"fromVersion": 0, "toVersion": len(changes), "changes": [{**change, **about} for change in changes]}
    replica = make_replica("any")
    assert replica.value("SELECT sync_hash_batch(?)", json.dumps(batch)) == expected
    assert replica.value("SELECT sync_hash_batch(?)", json.dumps(batch["changes"])) == expected
    assert canonical.batch_hash(changes) == expected


def test_a_fetched_batch_carries_its_hash(server):
    server.many("INSERT INTO Person VALUES (?, ?, NULL)", [(id, 'é\0"\n') for id in range(1, 20)])
    server.sql("DELETE FROM Person WHERE Id = 7")
    batch = server.fetch()
    assert batch["hash"] == canonical.batch_hash(batch["changes"])


def test_the_hash_of_the_example(server):
    server.apply(push(person(2, "Bob", "b"), person(1, "Alice", None)))
    text = 'person\n{"email":null,"id":1,"name":"Alice"}\n{"email":"b","id":2,"name":"Bob"}\n'
    assert server.hash("Person") == server.hash() == hashlib.sha256(text.encode()).hexdigest()


def test_all_tables_are_hashed_by_name(make_replica):
    replica = make_replica("any", *(f"CREATE TABLE {name}(Id INTEGER PRIMARY KEY)" for name in ("b", "A", "C")), track=["b", "A", "C"])
    replica.sql("INSERT INTO A VALUES (1)")
    assert replica.hash() == canonical.sha256('a\n{"id":1}\nb\nc\n')


def test_untracked_tables_do_not_count(make_replica):
    replica = make_replica("any", PERSON, "CREATE TABLE untracked(id INTEGER PRIMARY KEY)", track=["Person"])
    before = replica.hash()
    replica.sql("INSERT INTO untracked VALUES (1)")
    assert replica.hash() == before
    with sync_error("TableNotTracked"):
        replica.hash("untracked")


def test_a_tracked_table_that_is_gone_is_named_until_it_is_untracked(make_replica):
    replica = make_replica("any", PERSON, "CREATE TABLE t(id INTEGER PRIMARY KEY)", track=["Person", "t"])
    replica.sql("DROP TABLE t")
    for table in (None, "t", "T"):
        with sync_error("TableNotFound") as error:
            replica.hash(table)
        assert '"t"' in error.message and "sync_untrack_table" in error.message
    assert replica.value("SELECT sync_untrack_table('T')") == 1
    assert replica.hash() == canonical.table_hash("Person", ["Id", "Name", "Email"], ["Id"], [])


def test_verifying_takes_hex_in_any_case_and_names_both(server):
    assert server.value("SELECT sync_verify_hash(?, ?)", EMPTY.upper(), EMPTY) == 1
    with sync_error("HashMismatch") as error:
        server.sql("SELECT sync_verify_hash(?, ?)", EMPTY, "0" * 64)
    assert error.data == {"expected": EMPTY, "actual": "0" * 64}


COLUMNS = ["Id", "Any", "Whole", "Real", "Number", "Text", "Bytes"]
EVERY = 'CREATE TABLE Every(Id PRIMARY KEY, "Any", Whole INT, Real REAL, Number NUMERIC, Text TEXT, Bytes BLOB)'


def every_hash(replica):
    return canonical.table_hash("Every", COLUMNS, ["Id"], replica.sql('SELECT * FROM "Every"'))


def test_every_value_is_hashed_as_the_independent_implementation_does(make_replica):
    replica = make_replica("any", EVERY, track=["Every"])
    replica.many("INSERT INTO Every VALUES (?1, ?2, ?2, ?2, ?2, ?2, ?2)", list(enumerate(VALUES)))
    assert replica.hash("Every") == every_hash(replica)


@settings(max_examples=60)
@given(rows=st.lists(st.tuples(any_value.filter(lambda key: key is not None), *[any_value] * 6), max_size=12))
def test_any_rows_are_hashed_as_the_independent_implementation_does(make_replica, rows):
    replica = make_replica(uuid.uuid4().hex, EVERY, track=["Every"])
    replica.many("INSERT OR IGNORE INTO Every VALUES (?, ?, ?, ?, ?, ?, ?)", rows)
    assert replica.hash("Every") == every_hash(replica)
    replica.close()


ORDERED = [-1e300, -(2**63), -1, -0.5, 0, 0.5, 1, 1.5, 2**53, 2**53 + 1, 2**63 - 1, 1e19, 1e300, "", "A", "B", "a", "é", "\ud7ff", "\uffff", "😀", b"", b"\0", b"\xff"]


@pytest.mark.parametrize("key", ["k PRIMARY KEY", "k COLLATE NOCASE PRIMARY KEY", "k, PRIMARY KEY (k DESC)", "k COLLATE BINARY PRIMARY KEY"])
def test_rows_are_hashed_in_the_order_of_the_specification(make_replica, key):
    replica = make_replica("any", f"CREATE TABLE t({key}) WITHOUT ROWID" if "NOCASE" not in key else f"CREATE TABLE t({key})", track=["t"])
    values = [value for value in ORDERED if not ("NOCASE" in key and value == "A")]
    replica.many("INSERT INTO t VALUES (?)", [(value,) for value in reversed(values)])
    text = "t\n" + "".join(canonical.canonical({"k": canonical.of_column(value)}) + "\n" for value in values)
    assert replica.hash("t") == canonical.sha256(text)


@pytest.mark.parametrize("encoding", ["UTF-16le", "UTF-16be"])
def test_rows_of_a_file_in_utf16_are_hashed_in_the_same_order(make_replica, encoding):
    statements = ["CREATE TABLE t(k PRIMARY KEY) WITHOUT ROWID", "CREATE TABLE u(k UUID PRIMARY KEY, v) WITHOUT ROWID"]
    replicas = [make_replica("utf8", *statements), make_replica("utf16", f"PRAGMA encoding = '{encoding}'", *statements)]
    # Older libraries cannot read U+FFFF out of such a file.
    values = [value for value in ORDERED if value != "\uffff"]
    for replica in replicas:
        replica.many("INSERT INTO t VALUES (?)", [(value,) for value in values])
        replica.many("INSERT INTO u VALUES (?, 1)", [(value,) for value in values if isinstance(value, str) and value != "A"])
        replica.track("t")
        replica.track("u")
    assert replicas[1].value("PRAGMA encoding") == encoding
    assert replicas[0].hash() == replicas[1].hash()


def test_the_key_columns_order_the_rows_in_key_order(make_replica):
    replica = make_replica("any", "CREATE TABLE t(a INT, b INT, PRIMARY KEY (b, a))", track=["t"])
    rows = [(1, 2), (2, 1), (1, 1), (3, 0)]
    replica.many("INSERT INTO t VALUES (?, ?)", rows)
    assert replica.hash("t") == canonical.table_hash("t", ["a", "b"], ["b", "a"], rows)


@pytest.mark.parametrize(("declared", "stored", "hashed"), [
    (
        "DATETIME", ["2024-01-02 03:04:05.200Z", "2024-01-02T04:04:05.200456+01:00", "soon", 5, "2024-01-02T03:04:05.100Z"],
        [5, "2024-01-02T03:04:05.100Z", "2024-01-02T03:04:05.200456Z", "2024-01-02T03:04:05.200Z", "soon"],
    ),
    ("TIME", ["10:00:00.100001", "9 h", "10:00:00.10"], ["10:00:00.1", "10:00:00.100001", "9 h"]),
    ("JSON", ['{"b":3, "a":2}', '{"a":1,"c":2}', "~", '"a"'], ['"a"', '{"a":1,"c":2}', '{"a":2,"b":3}', "~"]),
])
def test_rows_are_hashed_in_the_order_of_their_canonical_keys(make_replica, declared, stored, hashed):
    replica = make_replica("any", f"CREATE TABLE t(k {declared} PRIMARY KEY NOT NULL)", track=["t"])
    replica.many("INSERT INTO t VALUES (?)", [(key,) for key in stored])
    text = "t\n" + "".join(canonical.canonical({"k": canonical.of_column(key)}) + "\n" for key in hashed)
    assert replica.hash("t") == replica.hash() == canonical.sha256(text)


TYPED = [
    ("UUID", "A11CE000-0000-4000-8000-00000000000F", "a11ce000-0000-4000-8000-00000000000f"),
    ("DATETIME", "2025-01-15 10:30:00", "2025-01-15T10:30:00.000"),
    ("TIMESTAMP", "2025-01-15T12:30:00+02:00", "2025-01-15T10:30:00.000Z"),
    ("DATETIME", "2025-01-15T10:30:00.123456Z", "2025-01-15T10:30:00.123456Z"),
    ("JSON", '{"b": 1.0, "a": [ ]}', '{"a":[],"b":1}'),
    ("TIME", "10:30:00.250000", "10:30:00.25"),
    ("TIME", "10:30:00.000", "10:30:00"),
]


@pytest.mark.parametrize(("declared", "stored", "hashed"), TYPED)
def test_a_value_of_a_portable_type_is_hashed_in_its_canonical_form(make_replica, declared, stored, hashed):
    replica = make_replica("any", f"CREATE TABLE t(id INTEGER PRIMARY KEY, x {declared})", track=["t"])
    replica.sql("INSERT INTO t VALUES (1, ?)", stored)
    assert replica.hash("t") == canonical.table_hash("t", ["id", "x"], ["id"], [(1, hashed)])


def test_equal_data_has_an_equal_hash_and_other_data_another(make_replica):
    hashes = set()
    for number, value in enumerate([None, "", 0, "0", b"0", 0.5, "null", b""]):
        replica = make_replica(f"r{number}", "CREATE TABLE t(id INTEGER PRIMARY KEY, x)", track=["t"])
        replica.sql("INSERT INTO t VALUES (1, ?)", value)
        hashes.add(replica.hash())
    assert len(hashes) == 8
