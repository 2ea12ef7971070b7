"""The log's replay beside the table: what every test of capture comes down to; and the table that they have in common."""

import json

MANY = 1200  # more entries than are kept back at a time
T = "CREATE TABLE t(id bigint PRIMARY KEY, v int, note text)"
INSERT = f"INSERT INTO t SELECT g, g, 'note ' || g FROM generate_series(1, {MANY}) g"


def trigger(body, name="a_first", event="AFTER INSERT", table="t"):
    """A row trigger of the user's, which fires before ours by its name (or after it, by another)."""
    return (
        f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN {body} RETURN NULL; END $f$;"
        f"CREATE TRIGGER {name} {event} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"
    )


def copy_into(database, rows, columns="id, v, note"):
    with database.connection.cursor() as cursor, cursor.copy(f"COPY t({columns}) FROM STDIN") as copy:
        for row in rows:
            copy.write_row(row)


def logged(database):
    return database.value("SELECT count(*) FROM _sync_log_data")


def replay(database, table="t"):
    """The rows by key, as the log alone has them."""
    rows = {}
    for entry in database.log(table):
        rows[entry["pk_value"]] = None if entry["operation"] == "delete" else entry["payload"]
    return {key: json.loads(payload) for key, payload in rows.items() if payload is not None}


def table_rows(database, table="t"):
    """The rows by key, as the table has them; for keys named id."""
    rows = database.sql(f"SELECT json_build_object('id', id)::text, row_to_json({table})::text FROM {table}")
    return {key.replace(" ", ""): json.loads(row) for key, row in rows}


def assert_replays(database, *tables):
    """The log's replay is the table, and no two entries have one version."""
    for table in tables or ("t",):
        assert replay(database, table) == table_rows(database, table)
    versions = [version for (version,) in database.sql("SELECT version FROM _sync_log_data ORDER BY ctid")]
    assert len(versions) == len(set(versions))
    # The index has every entry, and no other.
    database.sql("SET enable_seqscan = off")
    indexed = [version for (version,) in database.sql("SELECT version FROM _sync_log_data WHERE version > 0 ORDER BY version")]
    database.sql("RESET enable_seqscan")
    assert indexed == sorted(versions)
