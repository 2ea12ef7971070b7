"""The log's replay beside the table: what every test of capture comes down to."""

import json


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
