"""Every row of TYPES.md, both ways: a value arrives exactly, or the change is in `sync_rejections()`; the hashes agree on both engines."""

import json
import hypothesis
import pytest
from hypothesis import strategies as some

from cluster import is_built_with

# (type in PostgreSQL, declared type in SQLite's own style, values as SQL literals)
TYPES = [
    ("boolean", "BOOLEAN", ["true", "false", "NULL"]),
    ("smallint", "INTEGER", ["-32768", "0", "32767"]),
    ("integer", "INTEGER", ["-2147483648", "2147483647"]),
    ("bigint", "INTEGER", ["-9223372036854775808", "9223372036854775807", "9007199254740993"]),
    ("real", "REAL", ["0.1", "-0.0", "3.4028235e38", "1e-45", "'Infinity'", "'-Infinity'", "16777216", "123456.79"]),
    ("double precision", "DOUBLE", ["0.1", "-0.0", "0.1::float8 + 0.2", "1.7976931348623157e308", "5e-324", "'-Infinity'", "1e21", "1e22"]),
    ("numeric", "NUMERIC", ["10.5", "0", "-0.001", "123456789012345", "1e10", "NULL"]),
    ("numeric", "TEXT", ["10.5", "1234567890123456789012345678901234567890.0123456789", "1e200", "0.000000000000000000001"]),
    ("numeric(10,2)", "DECIMAL(10,2)", ["10.50", "99999999.99", "0"]),
    ("text", "TEXT", ["''", "'it''s'", "E'\\n\\t\\\\\"'", "'☂ é \U0001f600'", "'12'", "'null'", "E'\\u0001'"]),
    ("varchar(5)", "VARCHAR(5)", ["'abcde'", "''"]),
    ("char(5)", "CHAR(5)", ["'ab'", "'abcde'", "''"]),
    ("uuid", "UUID", ["'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11'"]),
    ("timestamptz", "TIMESTAMP", [
        "'2024-05-06 07:08:09+02'", "'2024-05-06 07:08:09.123456+00'", "'0001-01-01 00:00:00+00'", "'9999-12-31 23:59:59.999999+00'",
        "'0044-03-15 12:00:00+00 BC'", "'infinity'", "'-infinity'", "'1969-12-31 23:59:59.999999+00'", "'294276-12-31 23:59:59+00'",
    ]),
    ("timestamp", "DATETIME", ["'2024-05-06 07:08:09'", "'2024-05-06 07:08:09.5'", "'0044-03-15 12:00:00 BC'", "'infinity'"]),
    ("date", "DATE", ["'2024-02-29'", "'0001-01-01'", "'0044-03-15 BC'", "'infinity'", "'5874897-12-31'"]),
    ("time", "TIME", ["'07:08:09'", "'23:59:59.999999'", "'24:00:00'"]),
    ("timetz", "TIME", ["'07:08:09.5+05:30'"]),
    ("interval", "TEXT", ["'1 year -2 mons 3 days 04:05:06.7'", "'-1 day 02:00:00'", "'0'"]),
    ("json", "JSON", ["'{\"b\": 1.0,  \"a\": [1, null, \"x\"]}'", "'\"text\"'", "'null'", "'12'", "'-1.5'", "'true'", "'9007199254740993'"]),
    ("jsonb", "JSONB", ["'{\"b\": 1.50, \"a\": {\"z\": 1, \"aa\": 2}}'", "'[]'", "'12'", "'-0.25'"]),
    ("bytea", "BLOB", ["'\\x'", "'\\x00ff10'"]),
    ("int[]", "JSON", ["'{1,NULL,3}'", "'{}'", "'{{1,2},{3,4}}'", "'{{{1},{2}},{{3},{4}}}'"]),
    ("text[]", "JSON", ["'{\"a,b\",\"\\\"q\\\\\\\\\",NULL,\"NULL\",\"{}\"}'", "'{\"\"}'"]),
    ("bytea[]", "JSON", ["'{\"\\\\\\\\x00ff\"}'"]),
    ("float8[]", "JSON", ["'{1,0.1,NaN,-Infinity}'", "'{-0}'"]),
    ("numeric[]", "JSON", ["'{1.5,12345678901234567890.5}'", "'{1.10,100.00}'"]),
    ("box[]", "JSON", ["'{(1,1),(0,0);(3,3),(2,2)}'", "'{}'"]),
    ("timestamptz[]", "JSON", ["'{2024-05-06 07:08:09+02}'"]),
    ("jsonb[]", "JSON", ["array['{\"a\": 1}'::jsonb, 'null'::jsonb]"]),
    ("int[]", "TEXT", ["'[2:3]={1,2}'"]),
    ("inet", "TEXT", ["'10.0.0.1'", "'10.0.0.0/8'", "'::1'"]),
    ("macaddr", "TEXT", ["'08:00:2b:01:02:03'"]),
    ("int4range", "TEXT", ["'[1,5)'", "'empty'", "'(,)'"]),
    ("tstzrange", "TEXT", ["'[2024-05-06 07:00+00,infinity)'"]),
    ("point", "TEXT", ["'(1.5,2)'"]),
    ("mood", "TEXT", ["'happy'", "'so so'"]),
    ("positive", "INTEGER", ["1"]),
    ("pair", "TEXT", ["ROW(1, 'x, \"y\"')"]),
    ("xml", "TEXT", ["'<a>b</a>'"]),
    ("tsvector", "TEXT", ["'a:1 b:2'"]),
]
SETUP = (
    "CREATE TYPE mood AS ENUM ('happy', 'so so')",
    "CREATE DOMAIN positive AS int CHECK (VALUE > 0)",
    "CREATE TYPE pair AS (a int, b text)",
)
ODD = (
    "SET DateStyle = 'SQL, DMY'; SET TimeZone = 'America/St_Johns'; SET IntervalStyle = 'postgres_verbose';"
    " SET bytea_output = 'escape'; SET extra_float_digits = -3; SET array_nulls = off; SET standard_conforming_strings = off"
)
IDS = [f"{declared}-{own}" for declared, own, _ in TYPES]


def decimals(declared, own):
    return {"types": {"v": "decimal"}} if declared == "numeric" and own == "TEXT" else {}


@pytest.mark.parametrize("declared, own, values", TYPES, ids=IDS)
def test_a_value_goes_through_sqlite_and_comes_back(make_server, make_replica, declared, own, values):
    if declared == "xml" and not is_built_with("libxml"):
        pytest.skip("this server was built without XML")
    table = f"CREATE TABLE t(id int PRIMARY KEY, v {declared})"
    server = make_server(*SETUP, table, track=["t"])
    second = make_server(*SETUP, table, track=["t"])
    same_ddl = make_replica("same", table, track=["t"])
    own_style = make_replica("own", f"CREATE TABLE T(Id INTEGER PRIMARY KEY, V {own})")
    own_style.track("T", **decimals(declared, own))
    if declared == "numeric" and own == "TEXT":
        same_ddl = own_style
    for number, value in enumerate(values):
        server.sql(f"INSERT INTO t VALUES ({number}, {value})")
    second.script(ODD)
    for client in {same_ddl, own_style}:
        client.sync(server)
        assert client.rejections() == []
        assert client.hash() == server.hash(), (client.sql("SELECT * FROM t"), [e["payload"] for e in server.log()])
    # On to another server: through the log of a SQLite replica.
    batch = own_style.fetch_text()
    answer = second.apply(batch.replace('"kind":"pull"', '"kind":"push"'))
    assert answer["rejections"] == []
    exact = "SELECT id, v::text FROM t ORDER BY id"
    server.script(ODD)
    assert second.sql(exact) == server.sql(exact)
    assert second.hash() == server.hash()


@pytest.mark.parametrize(
    "declared, own, value, kind",
    [
        ("integer", "INTEGER", 2**31, "TypeMismatch"),
        ("integer", "REAL", 1.5, "TypeMismatch"),
        ("smallint", "TEXT", "12", "TypeMismatch"),
        ("numeric(4,2)", "REAL", 1.005, "TypeMismatch"),
        ("real", "REAL", 0.123456789012, "TypeMismatch"),
        ("varchar(3)", "TEXT", "abcd", "TypeMismatch"),
        ("varchar(3)", "TEXT", "ab   ", "TypeMismatch"),
        ("char(3)", "TEXT", "ab ", "TypeMismatch"),
        ("text", "TEXT", "a\0b", "TypeMismatch"),
        ("text", "", 5, "TypeMismatch"),
        ("text", "BLOB", b"x", "TypeMismatch"),
        ("bytea", "TEXT", "x", "TypeMismatch"),
        ("boolean", "INTEGER", 2, "TypeMismatch"),
        ("date", "TEXT", "2024-02-30", "TypeMismatch"),
        ("timestamptz", "TEXT", "2024-05-06 07:08:09", "TypeMismatch"),
        ("timestamp", "TEXT", "2024-05-06T07:08:09Z", "TypeMismatch"),
        ("timestamptz", "TEXT", "2024-05-06T07:08:09.1234567Z", "TypeMismatch"),
        ("uuid", "TEXT", "nonsense", "TypeMismatch"),
        ("jsonb", "TEXT", "{", "TypeMismatch"),
        ("mood", "TEXT", "angry", "TypeMismatch"),
        ("positive", "INTEGER", -1, "CheckViolation"),
        ("inet", "TEXT", "10.0.0.1/32", "TypeMismatch"),
    ],
)
def test_what_does_not_convert_exactly_is_rejected(make_server, make_replica, declared, own, value, kind):
    server = make_server(*SETUP, f"CREATE TABLE t(id int PRIMARY KEY, v {declared})", track=["t"])
    client = make_replica("client", f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {own})", track=["t"])
    client.sql("INSERT INTO t VALUES (1, ?)", value)
    client.sql("INSERT INTO t VALUES (2, NULL)")
    answer = client.push(server)
    assert [rejection["kind"] for rejection in answer["rejections"]] == [kind], answer
    assert answer["applied"] == 1
    assert server.sql("SELECT id, v::text FROM t") == [(2, None)]


@pytest.mark.parametrize("declared, own, stored, held", [
    ("timestamptz", "TIMESTAMP", "2024-05-06T09:08:09+02:00", "2024-05-06T07:08:09.000Z"),
    ("timestamp", "DATETIME", "2024-05-06 07:08:09", "2024-05-06T07:08:09.000"),
    ("time", "TIME", "03:04:05.100000", "03:04:05.1"),
    ("uuid", "UUID", "A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11", "a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"),
    ("boolean", "BOOLEAN", 1, True),
    ("double precision", "REAL", 5, 5.0),
    ("numeric", "NUMERIC", 10.5, 10.5),
    ("jsonb", "JSON", '{"a":1}', '{"a": 1}'),
])
def test_another_form_of_the_same_value_is_taken(make_server, make_replica, declared, own, stored, held):
    server = make_server(f"CREATE TABLE t(id int PRIMARY KEY, v {declared})", track=["t"])
    client = make_replica("client", f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {own})", track=["t"])
    client.sql("INSERT INTO t VALUES (1, ?)", stored)
    client.sync(server)
    assert server.rejections() == [] and client.hash() == server.hash()
    assert json.loads(server.log()[0]["payload"])["v"] == held


@pytest.mark.parametrize("own", ["NUMERIC", "DECIMAL(10,2)", "INTEGER", "REAL", "DATE"])
@pytest.mark.parametrize("text", ["1010", "-1.5", "1e3", " 7 ", "0012", "1.50"])
def test_a_text_that_sqlite_would_make_a_number_of_waits_there(make_server, make_replica, own, text):
    server = make_server("CREATE TABLE t(id int PRIMARY KEY, v text)", track=["t"])
    client = make_replica("client", f"CREATE TABLE t(id INTEGER PRIMARY KEY, v {own})", track=["t"])
    server.sql("INSERT INTO t VALUES (1, ?), (2, 'no number')", text)
    client.pull(server)
    assert client.sql("SELECT id, v FROM t") == [(2, "no number")]
    [rejection] = client.rejections()
    assert rejection["kind"] == "TypeMismatch" and "TEXT" in rejection["message"]
    server.sql("DELETE FROM t WHERE id = 1")
    client.sql("SELECT sync_discard(?)", rejection["id"])
    client.pull(server)
    assert client.rejections() == [] and client.hash() == server.hash()


def test_a_negative_zero_is_zero(make_server, make_replica):
    server = make_server("CREATE TABLE t(id int PRIMARY KEY, f float8, r real)", track=["t"])
    client = make_replica("client", "CREATE TABLE t(id INTEGER PRIMARY KEY, f REAL, r REAL)", track=["t"])
    server.sql("INSERT INTO t VALUES (1, '-0', '-0'), (2, 0, 0), (3, 1, 1)")
    client.sync(server)
    client.sql("UPDATE t SET f = -0.0, r = -0.0 WHERE id = 3")
    client.sync(server)
    assert client.rejections() == [] and client.hash() == server.hash()
    server.sql("UPDATE t SET f = '-0' WHERE id = 2")
    client.sync(server)
    assert client.rejections() == [] and client.hash() == server.hash()


@pytest.mark.parametrize("declared, own, keys", [
    ("interval", "TEXT", ["'1 day'", "'04:05:00'", "'1 year'", "'-1 day'"]),
    ("money", "TEXT", ["'5'", "'1234'", "'-3'", "'200'"]),
    ("timetz", "TEXT", ["'07:00+02'", "'06:30-01'"]),
    ("timestamptz", "DATETIME", [
        "'2024-01-02 03:04:05.123+00'", "'2024-01-02 03:04:05.123456+00'", "'2024-01-02 03:04:05.124+00'", "'2024-01-02 03:04:05+00'",
        "'0044-03-15 12:00:00+00 BC'", "'0044-03-15 12:00:00+00'", "'0045-03-15 12:00:00+00 BC'", "'10000-01-01 00:00:00+00'", "'infinity'", "'-infinity'",
    ]),
    ("timestamp", "DATETIME", [
        "'2024-01-02 03:04:05.123'", "'2024-01-02 03:04:05.123456'", "'0044-03-15 12:00:00 BC'", "'0044-03-15 12:00:00'", "'10000-01-01'", "'infinity'",
    ]),
    ("date", "DATE", ["'9999-12-31'", "'10000-01-01'", "'0044-03-15 BC'", "'0044-03-15'", "'0045-03-15 BC'", "'infinity'", "'-infinity'"]),
    ("tstzrange", "TEXT", ["'[2024-05-06 07:00+00,infinity)'", "'[2024-01-06 07:00+00,infinity)'", "'empty'"]),
    ("text[]", "JSON", ["'{a}'", "'{b c}'", "'{\"{\"}'", "'{}'", "'{NULL}'"]),
    ("int[]", "JSON", ["'{10}'", "'{9,1}'", "'{{1,2},{3,4}}'"]),
    ("interval[]", "JSON", ["'{1 day}'", "'{04:05:00}'", "'{1 year}'"]),
])
def test_rows_are_hashed_in_one_order_whatever_type_the_key_has(make_server, make_replica, declared, own, keys):
    server = make_server(f"CREATE TABLE t(id {declared} PRIMARY KEY, v int)", track=["t"])
    client = make_replica("client", f"CREATE TABLE t(id {own} PRIMARY KEY NOT NULL, v INTEGER)", track=["t"])
    for number, key in enumerate(keys):
        server.sql(f"INSERT INTO t VALUES ({key}, {number})")
    client.sync(server)
    assert client.rejections() == [] and client.hash() == server.hash()
    server.script(ODD)
    assert client.hash() == server.hash()


def test_numbers_that_sqlite_cannot_hold_wait_there(make_server, make_replica):
    server = make_server("CREATE TABLE t(id int PRIMARY KEY, f float8, n numeric)", track=["t"])
    client = make_replica("client", "CREATE TABLE t(id INTEGER PRIMARY KEY, f REAL, n NUMERIC)", track=["t"])
    server.sql("INSERT INTO t VALUES (1, 'NaN', 1), (2, 1, 'NaN'), (3, 1, 12345678901234567890.5), (4, 1, 1)")
    client.pull(server)
    assert client.sql("SELECT id FROM t") == [(4,)]
    assert [r["kind"] for r in client.rejections()] == ["TypeMismatch"] * 3


COLUMNS = {
    "i": ("bigint", some.integers(-(2**63), 2**63 - 1)),
    "f": ("double precision", some.floats(allow_nan=False)),
    "t": ("text", some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0"))),
    "b": ("bytea", some.binary(max_size=40)),
    "n": ("numeric", some.decimals(allow_nan=False, allow_infinity=False, places=6, min_value=-(10**30), max_value=10**30)),
    "d": ("timestamptz", some.datetimes(timezones=some.timezones())),
    "o": ("boolean", some.booleans()),
    "u": ("uuid", some.uuids()),
    "a": ("text[]", some.lists(some.none() | some.text(some.characters(exclude_categories=["Cs"], exclude_characters="\0")), max_size=4)),
}
ROWS = some.fixed_dictionaries({name: some.none() | values for name, (_, values) in COLUMNS.items()})


@pytest.fixture
def pair_of_servers(make_server, make_replica):
    columns = ", ".join(f"{name} {declared}" for name, (declared, _) in COLUMNS.items())
    own = "i INTEGER, f REAL, t TEXT, b BLOB, n TEXT, d TIMESTAMP, o BOOLEAN, u UUID, a JSON"
    servers = [make_server(f"CREATE TABLE t(id bigint PRIMARY KEY, {columns})", track=["t"]) for _ in range(2)]
    middle = make_replica("middle", f"CREATE TABLE t(id INTEGER PRIMARY KEY, {own})")
    middle.track("t", types={"n": "decimal"})
    return servers[0], middle, servers[1]


@hypothesis.settings(max_examples=60, deadline=None, suppress_health_check=list(hypothesis.HealthCheck))
@hypothesis.given(rows=some.lists(ROWS, min_size=1, max_size=5))
def test_any_row_goes_through_sqlite_to_another_server_bit_by_bit(pair_of_servers, rows):
    first, middle, last = pair_of_servers
    first.sql("DELETE FROM t")
    for number, row in enumerate(rows):
        first.sql(
            f"INSERT INTO t(id, {', '.join(row)}) VALUES (?, {', '.join('?::' + COLUMNS[name][0] for name in row)})",
            number, *row.values(),
        )
    middle.sync(first)
    cursor = last.value("SELECT coalesce(max(to_version), 0) FROM _sync_received")
    batch = middle.fetch_text(cursor, 10_000)
    answer = last.apply(batch.replace('"kind":"pull"', '"kind":"push"'))
    assert answer["rejections"] == [] and middle.rejections() == []
    # SQLite holds -0.0 as 0.0 in a column of type REAL, and they are one value: so is the canonical form of both.
    images = "SELECT id, i, float8send(f + 0.0), t, b, n::text, d, o, u, a FROM t ORDER BY id"
    assert last.sql(images) == first.sql(images)
    assert first.hash() == middle.hash() == last.hash()
