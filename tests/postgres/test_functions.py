"""The contract's functions on PostgreSQL: names, arguments, results and errors."""

import json

import psycopg
import pytest

import canonical
from pg_replica import pg_error

ORIGIN = "0a000000-0000-4000-8000-000000000001"
SIGNATURES = {
    "sync_acknowledge_push": "to_version bigint",
    "sync_apply_batch": "batch text, options text DEFAULT NULL::text",
    "sync_begin_resync": "",
    "sync_canonical_json": "value text",
    "sync_changes": "from_version bigint DEFAULT 0, batch_size integer DEFAULT 1000, exclude_origin text DEFAULT NULL::text",
    "sync_check_table": "table_name text",
    "sync_clients": "",
    "sync_compact": "",
    "sync_conflicts": "",
    "sync_discard": "id bigint",
    "sync_execute_untracked": "statement text",
    "sync_fetch_changes": "from_version bigint DEFAULT 0, batch_size integer DEFAULT 1000, exclude_origin text DEFAULT NULL::text",
    "sync_fetch_local_changes": "batch_size integer DEFAULT 1000",
    # Of PostgreSQL alone: SQLite has no roles.
    "sync_grant_client": "role text",
    "sync_hash": "table_name text DEFAULT NULL::text",
    "sync_hash_batch": "batch text",
    "sync_init": "origin_id text DEFAULT NULL::text",
    "sync_last_push_version": "",
    "sync_last_server_version": "",
    "sync_poll": "subscription_id text, batch_size integer DEFAULT 100",
    "sync_purge_tombstones": "up_to_version bigint DEFAULT NULL::bigint",
    "sync_reconcile": "table_name text",
    "sync_regenerate_origin": "",
    "sync_register_client": "origin_id text, last_sync_version bigint DEFAULT 0",
    "sync_rejections": "",
    "sync_remove_client": "origin_id text",
    "sync_resolve_conflict": "local text, remote text, strategy text DEFAULT 'last_write_wins'::text",
    "sync_retry": "",
    "sync_safe_purge_version": "",
    "sync_set_conflict_strategy": "table_name text, strategy text, resolver text DEFAULT NULL::text",
    "sync_stale_clients": "inactive_days integer DEFAULT 90",
    "sync_state": "",
    "sync_status": "",
    "sync_subscribe": "table_name text, pk_value text DEFAULT NULL::text, options text DEFAULT NULL::text",
    "sync_subscriptions": "",
    "sync_tables": "",
    "sync_track_table": "table_name text, options text DEFAULT NULL::text",
    "sync_unsubscribe": "subscription_id text",
    "sync_untrack_table": "table_name text",
    "sync_verify_hash": "expected text, actual text",
    "sync_version": "",
}
FOR_EVERYBODY = {"sync_canonical_json", "sync_hash_batch", "sync_resolve_conflict", "sync_verify_hash", "sync_version"}


def test_the_functions_are_those_of_the_contract(database):
    found = database.sql(
        "SELECT proname, regexp_replace(pg_get_function_arguments(oid), '(, )?OUT .*|TABLE\\(.*', '') FROM pg_proc"
        " WHERE proname LIKE 'sync\\_%' ORDER BY 1, 2"
    )
    # Of PostgreSQL alone: an argument would make it another function for who grants sync_tables().
    assert found == sorted([*SIGNATURES.items(), ("sync_tables", "counted boolean")])


def test_what_works_on_its_arguments_alone_is_for_everybody_and_nothing_else_is(database):
    assert {name for (name,) in database.sql(
        "SELECT proname FROM pg_proc WHERE proname ~ '^_?sync_' AND has_function_privilege('public', oid, 'EXECUTE')"
    )} == FOR_EVERYBODY
    assert database.sql(
        "SELECT relname FROM pg_class WHERE relname LIKE '\\_sync\\_%' AND relkind IN ('r', 'v', 'S')"
        " AND (relacl::text LIKE '%{=%' OR relacl::text LIKE '%,=%')"
    ) == []


def test_the_hash_is_the_one_of_an_independent_implementation(make_database):
    columns = ["id", "name", "amount"]
    database = make_database("CREATE TABLE t(id bigint, name text, amount double precision, PRIMARY KEY (name, id))", track=["t"])
    rows = [(2, "é", 1.5), (10, "B", None), (-1, "a", 1e21), (3, "a", -0.0), (1, "☂ \"\\\n", 0.1)]
    for row in rows:
        database.sql("INSERT INTO t VALUES (?, ?, ?)", *row)
    assert database.hash("t") == database.hash() == canonical.table_hash("t", columns, ["name", "id"], rows)
    assert database.value("SELECT sync_hash_batch(?)", database.fetch_text()) == canonical.batch_hash(database.fetch()["changes"])
    assert database.fetch()["hash"] == canonical.batch_hash(database.fetch()["changes"])


def test_an_empty_replica_has_the_hash_of_nothing(make_database):
    assert make_database().hash() == canonical.sha256("")


@pytest.fixture
def count_reads(database):
    """How many entries of the log a query reads."""
    seen = "SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = '_sync_log_data'"

    def count(query):
        with database.transaction():
            before = database.value(seen)
            database.sql(query)
            return database.value(seen) - before

    return count


def test_tables_are_listed_without_a_look_at_the_log_when_nothing_is_to_be_counted(database, count_reads):
    database.sql("INSERT INTO person(id) SELECT generate_series(1, 100)")
    assert count_reads("SELECT * FROM sync_tables(false)") == 0 and count_reads("SELECT * FROM sync_tables()") == 100
    listed = "SELECT name, entries FROM sync_tables"
    assert database.sql(f"{listed}(true)") == database.sql(f"{listed}(NULL)") == [("person", 100)]
    assert database.sql(f"{listed}(false)") == [("person", None)]


def test_a_fetch_reads_little_more_than_it_hands_out_before_the_log_was_ever_analyzed(database, count_reads):
    database.sql("INSERT INTO person(id) SELECT generate_series(1, 30000)")
    for start in (0, 10_000):
        assert count_reads(f"SELECT sync_fetch_changes({start}, 10)") < 2000


def test_clients_are_registered_and_only_go_forward(database):
    database.sql("INSERT INTO person(id) VALUES (1), (2)")
    assert database.json("SELECT sync_register_client(?, 1)", ORIGIN)["lastSyncVersion"] == 1
    assert database.json("SELECT sync_register_client(?, 0)", ORIGIN)["lastSyncVersion"] == 1
    assert database.value("SELECT sync_safe_purge_version()") == 1
    with pg_error("InvalidArgument"):
        database.sql("SELECT sync_register_client(?, 3)", ORIGIN)
    assert database.sql("SELECT origin_id FROM sync_clients()") == [(ORIGIN,)]
    assert database.sql("SELECT * FROM sync_stale_clients(1)") == []
    assert database.value("SELECT sync_remove_client(?)", ORIGIN) is True
    assert database.value("SELECT sync_remove_client(?)", ORIGIN) is False


def test_the_log_is_compacted_and_tombstones_are_purged(database):
    database.sql("INSERT INTO person(id) VALUES (1), (2)")
    database.sql("UPDATE person SET name = 'x'")
    database.sql("DELETE FROM person WHERE id = 1")
    assert database.value("SELECT sync_compact()") == 3
    assert [(e["operation"], e["version"]) for e in database.log()] == [("update", 4), ("delete", 5)]
    database.sql("SELECT sync_register_client(?, 5)", ORIGIN)
    assert database.value("SELECT sync_purge_tombstones()") == 1
    assert [e["version"] for e in database.log()] == [4]
    database.sql("INSERT INTO person(id) VALUES (3)")
    assert database.state["maxVersion"] == 6


@pytest.mark.parametrize("arguments, expected", [
    ("'person', '2'", [2]), ("'person', '[1, 3]'", [1, 3]), ("'person'", [1, 2, 3]), ("'person', NULL, '{\"where\": {\"name\": \"b\"}}'", [2, 3]),
])
def test_a_subscription_is_served_until_it_is_acknowledged(database, arguments, expected):
    subscription = database.value(f"SELECT sync_subscribe({arguments})")
    database.sql("INSERT INTO person VALUES (1, 'a'), (2, 'b'), (3, 'b')")
    first = database.json("SELECT sync_poll(?, 1)", subscription)
    assert [json.loads(change["pkValue"])["id"] for change in first["changes"]] == expected[:1]
    rest = []
    while first["hasMore"]:
        first = database.json("SELECT sync_poll(?, 1)", subscription)
        rest += [json.loads(change["pkValue"])["id"] for change in first["changes"]]
    assert expected[:1] + rest == expected
    assert len(database.sql("SELECT * FROM sync_subscriptions()")) == 1
    assert database.value("SELECT sync_unsubscribe(?)", subscription) is True
    with pg_error("InvalidArgument"):
        database.sql("SELECT sync_poll(?)", subscription)


@pytest.mark.parametrize("arguments", [
    "'person', '{\"id\":\"7\"}'", "'person', '\"7\"'", "'person', 'seven'", "'person', NULL, '{\"where\":{\"id\":\"7\"}}'",
])
def test_a_subscription_to_what_a_column_can_never_have_is_refused(database, arguments):
    with pg_error("InvalidArgument"):
        database.sql(f"SELECT sync_subscribe({arguments})")


def test_errors_have_the_sqlstate_of_the_contract_and_their_data_as_detail(database):
    with pg_error("HashMismatch") as raised:
        database.sql("SELECT sync_verify_hash('aa', 'bb')")
    assert raised.data == {"expected": "aa", "actual": "bb"}
    assert database.value("SELECT sync_verify_hash('AA', 'aa')") is True
    for kind, call in (
        ("InvalidArgument", "sync_fetch_changes(-1)"), ("InvalidArgument", "sync_fetch_changes(0, 0)"),
        ("InvalidArgument", "sync_fetch_changes(0, 1, 'nobody')"), ("InvalidArgument", "sync_track_table('person', '{\"what\": 1}')"),
        ("InvalidArgument", "sync_track_table(NULL)"), ("InvalidArgument", "sync_set_conflict_strategy('person', 'mine')"),
        ("InvalidArgument", "sync_set_conflict_strategy('person', 'custom', 'nothing')"), ("InvalidBatch", "sync_apply_batch('{}')"),
        ("TableNotTracked", "sync_hash('pg_class')"), ("TableNotFound", "sync_hash('nothing')"), ("TableNotFound", "sync_reconcile('nothing')"),
    ):
        with pg_error(kind):
            database.sql(f"SELECT {call}")
    with pytest.raises(psycopg.errors.UndefinedFunction):
        database.sql("SELECT sync_with('file.db')")


def test_the_state_and_the_status(database):
    database.sql("INSERT INTO person(id) VALUES (1), (2)")
    database.sql("DELETE FROM person WHERE id = 1")
    assert {name: database.state[name] for name in ("maxVersion", "minVersion", "entries", "lastServerVersion", "lastPushVersion")} == {
        "maxVersion": 3, "minVersion": 1, "entries": 3, "lastServerVersion": 0, "lastPushVersion": 0,
    }
    [table] = database.status["tables"]
    assert table == {"table": "person", "name": "person", "rows": 1, "entries": 3, "tombstones": 1}
    assert database.status["logBytes"] > 0


@pytest.mark.parametrize("isolation", ["REPEATABLE READ", "SERIALIZABLE"])
def test_an_apply_with_an_old_snapshot_overwrites_nothing_unseen(database, session, isolation):
    database.sql("INSERT INTO person VALUES (1, 'first')")
    other = session()
    change = {
        "version": 1, "tableName": "person", "pkValue": '{"id":1}', "operation": "Update", "payload": '{"id":1,"name":"older"}',
        "origin": ORIGIN, "timestamp": "2001-01-01T00:00:00.000Z",
    }
    batch = {"kind": "push", "originId": ORIGIN, "epoch": "e", "fromVersion": 0, "toVersion": 1, "lastServerVersion": 1, "changes": [change]}
    database.sql(f"BEGIN ISOLATION LEVEL {isolation}")
    database.sql("SELECT * FROM person")
    other.sql("UPDATE person SET name = 'newer'")
    with pytest.raises(psycopg.errors.SerializationFailure):
        database.apply(batch)
    database.sql("ROLLBACK")
    assert database.apply(batch)["conflicts"] == 1
    assert database.rows("person") == [(1, "newer", None)]
