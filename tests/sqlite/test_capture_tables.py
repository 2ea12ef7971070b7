"""Every shape of table is captured: keys, widths, kinds and generated columns."""

import pytest

from crafted import let_the_clock_tick

WIDTHS = [1, 2, 50, 63, 64, 65, 66, 127, 128, 129, 500]


def converge(server, client, table):
    client.pull(server)
    assert client.rows(table) == server.rows(table)
    assert client.hash(table) == server.hash(table)


def wide_table(columns):
    """A table of that many columns, the key being the first."""
    names = ["id INTEGER PRIMARY KEY"] + [f"c{number}" for number in range(2, columns + 1)]
    return f"CREATE TABLE wide({', '.join(names)})"


@pytest.mark.parametrize("columns", WIDTHS)
def test_a_table_of_any_width_is_captured(make_pair, columns):
    server, client = make_pair(wide_table(columns), track=["wide"])
    places = ", ".join(["?"] * columns)
    for id in (1, 2, 3):
        server.sql(f"INSERT INTO wide VALUES ({places})", id, *range(2, columns + 1))
    converge(server, client, "wide")
    server.sql("DELETE FROM wide WHERE id = 2")
    server.sql("UPDATE wide SET id = 30 WHERE id = 3")
    converge(server, client, "wide")


@pytest.mark.parametrize("columns", [width for width in WIDTHS if width > 1])
def test_every_column_of_a_wide_table_is_seen_to_change(make_pair, columns):
    server, client = make_pair(wide_table(columns), track=["wide"])
    server.sql("INSERT INTO wide(id) VALUES (1)")
    for number in sorted({2, columns // 2 + 1, columns - 1, columns} - {1}):
        server.sql(f"UPDATE wide SET c{number} = 'changed {number}'")
        converge(server, client, "wide")


def test_a_wide_row_is_one_entry_of_the_log(make_replica):
    server = make_replica("server", wide_table(500), track=["wide"])
    server.sql("INSERT INTO wide(id) VALUES (1)")
    server.sql("INSERT INTO wide(id) VALUES (2)")
    assert [entry["operation"] for entry in server.log()] == ["insert", "insert"]
    assert len(server.fetch()["changes"]) == 2
    first = server.fetch(0, 1)
    assert (len(first["changes"]), first["hasMore"]) == (1, True)
    assert len(server.fetch(first["toVersion"], 1)["changes"]) == 1


def test_a_wide_row_travels_in_every_batch_size(make_pair):
    server, client = make_pair(wide_table(200), track=["wide"])
    server.many("INSERT INTO wide(id, c200) VALUES (?, ?)", [(id, f"last {id}") for id in range(1, 8)])
    client.pull(server, size=1)
    assert client.rows("wide") == server.rows("wide")
    client.sql("UPDATE wide SET c150 = 'here'")
    client.push(server, size=2)
    assert client.hash() == server.hash()


KEYS = {
    "integer": ("id INTEGER PRIMARY KEY", [(1,), (-5,), (2**63 - 1,)]),
    "autoincrement": ("id INTEGER PRIMARY KEY AUTOINCREMENT", [(1,), (7,)]),
    "int that is no rowid": ("id INT PRIMARY KEY", [(1,), (2,)]),
    "descending": ("id INTEGER, PRIMARY KEY (id DESC)", [(1,), (2,)]),
    "text": ("id TEXT PRIMARY KEY NOT NULL", [("",), ("a",), ("é😀",), ("a\0b",)]),
    "blob": ("id BLOB PRIMARY KEY NOT NULL", [(b"",), (b"\0\xff",)]),
    "real": ("id REAL PRIMARY KEY NOT NULL", [(0.1,), (1e300,)]),
    "composite": ("a INT NOT NULL, b TEXT NOT NULL, PRIMARY KEY (b, a)", [(1, "x"), (2, "x"), (1, "y")]),
    "three parts": ("a NOT NULL, b NOT NULL, c NOT NULL, PRIMARY KEY (a, b, c)", [(1, 2, 3), (1, 2, "3"), (1, b"2", 3)]),
}


@pytest.mark.parametrize("kind", ["", " WITHOUT ROWID"])
@pytest.mark.parametrize("key", KEYS)
def test_every_kind_of_key_is_captured(make_pair, key, kind):
    if kind and key == "autoincrement":
        pytest.skip("AUTOINCREMENT needs a rowid")
    columns, keys = KEYS[key]
    constraint = columns.find("PRIMARY KEY (")
    head, tail = (columns, "") if constraint < 0 else (columns[: constraint - 2], ", " + columns[constraint:])
    server, client = make_pair(f"CREATE TABLE t({head}, note{tail}){kind}", track=["t"])
    places = ", ".join(["?"] * (len(keys[0]) + 1))
    server.many(f"INSERT INTO t VALUES ({places})", [(*value, "new") for value in keys])
    converge(server, client, "t")
    server.sql("UPDATE t SET note = 'changed'")
    converge(server, client, "t")
    first = server.sql("SELECT name FROM pragma_table_info('t') WHERE pk = 1")[0][0]
    server.sql(f"DELETE FROM t WHERE {first} = (SELECT {first} FROM t LIMIT 1)")
    converge(server, client, "t")
    server.sql("DELETE FROM t")
    converge(server, client, "t")


def test_deleting_one_row_of_a_composite_key_leaves_its_siblings(make_pair):
    lines = "CREATE TABLE line(invoice INT, position INT, text TEXT, PRIMARY KEY (invoice, position))"
    server, client = make_pair(lines, track=["line"])
    server.sql("INSERT INTO line VALUES (1, 1, 'a'), (1, 2, 'b'), (1, 3, 'c')")
    client.pull(server)
    server.sql("DELETE FROM line WHERE position = 2")
    client.pull(server)
    assert client.rows("line") == [(1, 1, "a"), (1, 3, "c")]


def test_key_and_payload_name_columns_in_the_tables_order(make_replica):
    lines = "CREATE TABLE line(text TEXT, invoice INT, position INT, PRIMARY KEY (position, invoice))"
    server = make_replica("server", lines, track=["line"])
    server.sql("INSERT INTO line VALUES ('a', 7, 1)")
    [entry] = server.log()
    assert entry["payload"] == '{"text":"a","invoice":7,"position":1}'
    assert entry["pk_value"] == '{"invoice":7,"position":1}'


@pytest.mark.parametrize("kind", ["STRICT", "STRICT, WITHOUT ROWID"])
def test_a_strict_table_is_captured(make_pair, kind):
    columns = "id INTEGER PRIMARY KEY, i INT, r REAL, t TEXT, b BLOB, a ANY"
    server, client = make_pair(f"CREATE TABLE t({columns}) {kind}", track=["t"])
    server.sql("INSERT INTO t VALUES (1, 2, 3.0, 'x', x'00ff', 4.0), (2, NULL, NULL, NULL, NULL, '5')")
    converge(server, client, "t")
    assert client.sql("SELECT typeof(a) FROM t ORDER BY id") == [("real",), ("text",)]


@pytest.mark.parametrize("storage", ["VIRTUAL", "STORED"])
def test_a_generated_column_is_neither_sent_nor_applied(make_pair, storage):
    columns = f"id INTEGER PRIMARY KEY, net REAL, gross REAL AS (net * 2) {storage}, note TEXT"
    server, client = make_pair(f"CREATE TABLE price({columns})", track=["price"])
    server.sql("INSERT INTO price(id, net, note) VALUES (1, 10, 'a')")
    assert server.log()[0]["payload"] == '{"id":1,"net":10.0,"note":"a"}'
    converge(server, client, "price")
    server.sql("UPDATE price SET net = 11")
    converge(server, client, "price")
    assert client.rows("price") == [(1, 11.0, 22.0, "a")]


def test_a_server_generated_column_may_be_a_plain_one_elsewhere(make_replica):
    server = make_replica("server", "CREATE TABLE p(id INTEGER PRIMARY KEY, net, gross AS (net * 2))", track=["p"])
    client = make_replica("client", "CREATE TABLE p(id INTEGER PRIMARY KEY, net, gross DEFAULT 'mine')", track=["p"])
    server.sql("INSERT INTO p(id, net) VALUES (1, 10)")
    client.pull(server)
    assert client.rows("p") == [(1, 10, "mine")]


def test_a_table_of_only_a_key_is_captured(make_pair):
    server, client = make_pair("CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL)", track=["tag"])
    server.sql("INSERT INTO tag VALUES ('a'), ('b')")
    converge(server, client, "tag")
    server.sql("UPDATE tag SET name = 'c' WHERE name = 'a'")
    converge(server, client, "tag")


def test_a_row_deleted_and_inserted_again_is_there_again(make_pair):
    server, client = make_pair("CREATE TABLE tag(name TEXT PRIMARY KEY NOT NULL, n)", track=["tag"])
    for round_ in range(3):
        server.sql("INSERT INTO tag VALUES ('a', ?)", round_)
        converge(server, client, "tag")
        let_the_clock_tick()
        server.sql("DELETE FROM tag")
        converge(server, client, "tag")
