"""Any identifier SQLite accepts can name a tracked table and its columns."""

import pytest

IDENTIFIERS = [
    "Order", "select", "table", "group", "rowid2", "my table", " leading", "trailing ", "it's", "a'b''c", 'a"b', '""', "[x]", "`y`", "a;b--", "/*",
    "%s", "?1", ":p", "@v", "$v", "1st", "12", "a.b", "a,b", "(a)", "Größe", "表", "😀", "naïve\u0301", "tab\there", "new\nline", "back\\slash",
    "NULL", "main", "temp", "version", "operation", "origin", "c1", "layout", "payload", "new", "old", "x" * 60, "é" * 60,
    "a_sync_insert",
]


def quoted(name):
    return '"' + name.replace('"', '""') + '"'


def quoted_text(name):
    return "'" + name.replace("'", "''") + "'"


def table_called(name):
    """A table of that name whose key and second column are called so, too."""
    return f"CREATE TABLE {quoted(name)}({quoted(name)} TEXT PRIMARY KEY, {quoted(name + ' 2')} INT, plain)"


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_a_table_and_columns_of_any_name_are_synced(make_pair, name):
    server, client = make_pair(table_called(name), track=[name])
    server.sql(f"INSERT INTO {quoted(name)} VALUES ('a', 1, 'x'), ('b', 2, 'y'), ('c', 3, 'z')")
    client.pull(server)
    assert client.rows(name) == [("a", 1, "x"), ("b", 2, "y"), ("c", 3, "z")]

    client.sql(f"UPDATE {quoted(name)} SET {quoted(name + ' 2')} = 20 WHERE {quoted(name)} = 'b'")
    client.sql(f"UPDATE {quoted(name)} SET {quoted(name)} = 'd' WHERE {quoted(name)} = 'a'")
    client.sql(f"DELETE FROM {quoted(name)} WHERE {quoted(name)} = 'c'")
    client.push(server)
    assert server.rows(name) == [("b", 20, "y"), ("d", 1, "x")]
    assert server.hash(name) == client.hash(name)


@pytest.mark.parametrize("name", IDENTIFIERS)
def test_the_log_names_the_table_as_it_is(make_replica, name):
    server = make_replica("server", table_called(name), track=[name])
    server.sql(f"INSERT INTO {quoted(name)} VALUES ('a', 1, 'x')")
    assert [entry["table_name"] for entry in server.log()] == [name]
    assert server.sql("SELECT table_name FROM sync_tables()") == [(name,)]


def test_all_of_them_live_in_one_database(make_pair):
    names = list({name.casefold(): name for name in IDENTIFIERS}.values())
    server, client = make_pair(*map(table_called, names), track=names)
    for name in names:
        server.sql(f"INSERT INTO {quoted(name)} VALUES ({quoted_text(name)}, 1, {quoted_text(name)})")
    client.pull(server)
    for name in names:
        assert client.rows(name) == [(name, 1, name)]
    assert client.hash() == server.hash()


def test_a_column_is_matched_in_another_case_when_no_exact_one_exists(make_replica):
    server = make_replica("server", "CREATE TABLE Person(Id INTEGER PRIMARY KEY, FullName TEXT)", track=["Person"])
    client = make_replica("client", "CREATE TABLE person(id INTEGER PRIMARY KEY, fullname TEXT)", track=["person"])
    server.sql("INSERT INTO Person VALUES (1, 'Alice')")
    client.pull(server)
    client.sql("UPDATE person SET fullname = 'Alice B.'")
    client.push(server)
    assert server.rows("Person") == client.rows("person") == [(1, "Alice B.")]
    assert [entry["payload"] for entry in client.log()][-1] == '{"id":1,"fullname":"Alice B."}'
    assert server.hash() == client.hash()
