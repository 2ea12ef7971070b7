"""Every value of every storage class arrives on the other replica bit for bit, whatever its column was declared as."""

import json
import math
import struct
import uuid

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crafted import compact

INTEGERS = [0, 1, -1, 127, -128, 2**31, -(2**31), 2**53, 2**53 + 1, 2**63 - 1, -(2**63), -(2**63) + 1]
REALS = [
    0.0, -0.0, 1.0, -1.0, 0.1, 0.1 + 0.2, 1 / 3, math.pi, 123456789.123456789, 1e15, 1e16, 1e20, 1e21, 1e22, 9007199254740993.0,
    9.2233720368547758e18, 1e308, 1.7976931348623157e308, 5e-324, 2.2250738585072014e-308, 2.2250738585072009e-308, 1e-7, 1e-6,
    math.inf, -math.inf,
]
TEXTS = [
    "", "a", "NULL", "null", "0", "1", "1.0", "1e3", " 1 ", "-0.0", "9223372036854775808", "true", "x'00'", "O'Hara", '"', "\\", "\\u0000",
    "\n\r\t\b\f", "\x01\x1f\x7f\x80", "\0", "a\0b", "\0\0end", "é", "ﬁ", "日本語", "😀", "\ufeffbom", "\ud7ff\ue000\uffff", "[1,2]", "{}",
    '{"a":1}', '{"$blob":"00"}', '{"$real":"Infinity"}', "Infinity", "NaN", "a" * 100_000,
]
BLOBS = [b"", b"\0", b"\1", b"\x13\x31", b"text", b"\xff\xfe", bytes(range(256)), b'{"a":1}', bytes(1_000_000)]
VALUES = [None, *INTEGERS, *REALS, *TEXTS, *BLOBS]

DECLARED_TYPES = [
    "", "INT", "INTEGER", "BIGINT", "BOOLEAN", "REAL", "DOUBLE", "NUMERIC", "DECIMAL(10,2)", "TEXT", "VARCHAR(3)", "UUID", "DATETIME",
    "TIMESTAMP", "DATE", "TIME", "JSON", "JSONB", "BLOB", "ANY", "POINT",
]


def exact(value):
    """The value with its storage class; a REAL by its bits."""
    return (type(value), struct.pack(">d", value) if isinstance(value, float) else value)


def exact_rows(replica, table):
    return [tuple(exact(value) for value in row) for row in replica.rows(table)]


def values_table(declared_type):
    return f"CREATE TABLE v(id INTEGER PRIMARY KEY, x {declared_type})"


def fill(replica, values, first=1):
    replica.many("INSERT INTO v VALUES (?, ?)", list(enumerate(values, first)))


@pytest.mark.parametrize("declared_type", DECLARED_TYPES)
def test_every_value_arrives_exactly(make_pair, declared_type):
    server, client = make_pair(values_table(declared_type), track=["v"])
    fill(server, VALUES)
    result = client.pull(server)
    assert result["rejections"] == []
    assert exact_rows(client, "v") == exact_rows(server, "v")
    assert client.hash() == server.hash()


def test_every_value_arrives_exactly_when_pushed(make_pair):
    server, client = make_pair(values_table(""), track=["v"])
    fill(client, VALUES)
    client.push(server)
    assert exact_rows(server, "v") == [(exact(id), exact(value)) for id, value in enumerate(VALUES, 1)]


def test_every_value_arrives_exactly_when_backfilled(make_replica):
    server = make_replica("server", values_table(""))
    fill(server, VALUES)
    server.track("v")
    client = make_replica("client", values_table(""), track=["v"])
    client.pull(server)
    assert exact_rows(client, "v") == exact_rows(server, "v")


def test_every_value_arrives_exactly_as_an_update(make_pair):
    server, client = make_pair(values_table(""), track=["v"])
    fill(server, ["before"] * len(VALUES))
    client.pull(server)
    server.many("UPDATE v SET x = ?2 WHERE id = ?1", list(enumerate(VALUES, 1)))
    client.pull(server)
    assert exact_rows(client, "v") == exact_rows(server, "v")


def test_every_value_can_be_a_key(make_pair):
    server, client = make_pair("CREATE TABLE k(x PRIMARY KEY, n INT)", track=["k"])
    keys = list({(type(value), value): value for value in VALUES if value is not None and value != 0.0}.values())
    distinct = [key for key in keys if not (isinstance(key, float) and key in INTEGERS)]
    server.many("INSERT OR IGNORE INTO k VALUES (?, 0)", [(key,) for key in distinct])
    client.pull(server)
    assert exact_rows(client, "k") == exact_rows(server, "k")
    server.sql("UPDATE k SET n = 1")
    client.pull(server)
    assert exact_rows(client, "k") == exact_rows(server, "k")
    server.sql("DELETE FROM k")
    client.pull(server)
    assert client.rows("k") == []


def test_negative_zero_keeps_its_sign_in_an_untyped_column(make_pair):
    server, client = make_pair(values_table(""), track=["v"])
    server.sql("INSERT INTO v VALUES (1, ?)", -0.0)
    client.pull(server)
    assert math.copysign(1, client.value("SELECT x FROM v")) == -1


PAYLOADS = [
    (1, "1"),
    (1.0, "1.0"),
    (0.1, "0.1"),
    (0.1 + 0.2, "0.30000000000000004"),
    (2**63 - 1, "9223372036854775807"),
    (-(2**63), "-9223372036854775808"),
    (None, "null"),
    ("a\0b", '"a\\u0000b"'),
    ("é😀", '"é😀"'),
    (b"\x00\xab", '{"$blob":"00ab"}'),
    (b"", '{"$blob":""}'),
    (math.inf, '{"$real":"Infinity"}'),
    (-math.inf, '{"$real":"-Infinity"}'),
]


@pytest.mark.parametrize(("value", "text"), PAYLOADS)
def test_a_payload_encodes_the_storage_class(make_replica, value, text):
    server = make_replica("server", values_table(""), track=["v"])
    fill(server, [value])
    assert server.fetch()["changes"][0]["payload"] == '{"id":1,"x":%s}' % text


def test_a_real_stays_a_real_even_when_integral(make_pair):
    server, client = make_pair(values_table(""), track=["v"])
    fill(server, [1.0, 1e15, 1e20, 9007199254740992.0])
    client.pull(server)
    assert client.sql("SELECT DISTINCT typeof(x) FROM v") == [("real",)]


def test_a_value_with_json_subtype_is_logged_as_the_text_it_is_stored_as(make_pair):
    server, client = make_pair(values_table("TEXT"), track=["v"])
    server.sql("""INSERT INTO v VALUES (1, json('{"a":1}')), (2, '{"a":1}')""")
    server.sql("UPDATE v SET x = json('[1, 2]') WHERE id = 1")
    client.pull(server)
    assert client.rows("v") == [(1, "[1,2]"), (2, '{"a":1}')]
    payloads = [json.loads(change["payload"]) for change in server.fetch()["changes"]]
    assert [payload["x"] for payload in payloads] == ['{"a":1}', '{"a":1}', "[1,2]"]


def test_text_that_is_not_changed_by_a_cast_stays_text_in_a_numeric_column(make_pair):
    server, client = make_pair(values_table("INTEGER"), track=["v"])
    fill(server, ["abc", "12abc", ""])
    client.pull(server)
    assert client.sql("SELECT typeof(x), x FROM v") == [("text", "abc"), ("text", "12abc"), ("text", "")]


def test_a_payload_names_every_column_also_those_that_are_null(server):
    server.sql("INSERT INTO Person(Id) VALUES (1)")
    assert server.fetch()["changes"][0]["payload"] == compact({"Id": 1, "Name": None, "Email": None})


any_real = st.floats(allow_nan=False) | st.integers(0, 2**64 - 1).map(
    lambda bits: struct.unpack(">d", bits.to_bytes(8, "big"))[0]
).filter(lambda real: not math.isnan(real))
any_text = st.text(st.characters(exclude_categories=["Cs"]))
any_value = st.none() | st.integers(-(2**63), 2**63 - 1) | any_real | any_text | st.binary()


@settings(max_examples=40)
@given(values=st.lists(any_value, min_size=1, max_size=50))
def test_whatever_is_written_is_what_arrives(make_pair, values):
    server, client = make_pair(values_table(""), track=["v"], called=uuid.uuid4().hex)
    fill(server, values)
    client.pull(server)
    assert exact_rows(client, "v") == [(exact(id), exact(value)) for id, value in enumerate(values, 1)]


@settings(max_examples=20)
@given(reals=st.lists(any_real, min_size=100, max_size=300))
def test_reals_arrive_bit_for_bit(make_pair, reals):
    server, client = make_pair(values_table(""), track=["v"], called=uuid.uuid4().hex)
    fill(server, reals)
    client.pull(server)
    assert exact_rows(client, "v") == [(exact(id), exact(real)) for id, real in enumerate(reals, 1)]
