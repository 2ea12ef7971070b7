"""What the extension registers is the contract's list, and what changes state cannot hide in a schema."""

import re

import pytest

from replica import DRIVER_ERRORS

# name: (fewest arguments, most arguments)
READING = {
    "sync_version": (0, 0),
    "sync_fetch_changes": (0, 3),
    "sync_state": (0, 0),
    "sync_status": (0, 0),
    "sync_last_server_version": (0, 0),
    "sync_last_push_version": (0, 0),
    "sync_resolve_conflict": (2, 3),
    "sync_safe_purge_version": (0, 0),
    "sync_hash": (0, 1),
    "sync_hash_batch": (1, 1),
    "sync_verify_hash": (2, 2),
    "sync_canonical_json": (1, 1),
}
CHANGING = {
    "sync_init": (0, 1),
    "sync_regenerate_origin": (0, 0),
    "sync_track_table": (1, 2),
    "sync_untrack_table": (1, 1),
    "sync_acknowledge_push": (1, 1),
    "sync_apply_batch": (1, 2),
    "sync_begin_resync": (0, 0),
    "sync_set_conflict_strategy": (2, 3),
    "sync_retry": (0, 0),
    "sync_discard": (1, 1),
    "sync_register_client": (1, 2),
    "sync_remove_client": (1, 1),
    "sync_purge_tombstones": (0, 1),
    "sync_compact": (0, 0),
    "sync_reconcile": (1, 1),
    "sync_execute_untracked": (1, 1),
    "sync_subscribe": (1, 3),
    "sync_unsubscribe": (1, 1),
    "sync_poll": (1, 2),
    "sync_with": (1, 2),
}
# Folds what a neighbour has not seen before it answers, so it may or may not count as changing.
EITHER = {"sync_fetch_local_changes": (0, 1)}
NETWORK = {"sync_pull": (1, 2), "sync_push": (1, 2)}
CONTRACT = {**READING, **CHANGING, **EITHER}
SETS = {
    "sync_check_table",
    "sync_tables",
    "sync_changes",
    "sync_conflicts",
    "sync_rejections",
    "sync_clients",
    "sync_stale_clients",
    "sync_subscriptions",
}
SET_COLUMNS = {
    "sync_check_table('Person')": ["severity", "code", "message", "fix"],
    "sync_tables()": ["table_name", "name", "primary_key", "columns", "conflict_strategy", "entries"],
    "sync_changes()": ["version", "table_name", "pk_value", "operation", "payload", "origin", "timestamp"],
    "sync_conflicts()": ["id", "table_name", "pk_value", "local_change", "remote_change", "winner", "strategy", "detected_at"],
    "sync_rejections()": [
        "id", "table_name", "pk_value", "operation", "payload", "origin", "timestamp", "kind", "code", "message", "attempts",
        "rejected_at",
    ],
    "sync_clients()": ["origin_id", "last_sync_version", "last_sync_timestamp", "created_at"],
    "sync_stale_clients()": ["origin_id", "last_sync_version", "last_sync_timestamp", "created_at"],
    "sync_subscriptions()": [
        "subscription_id", "origin_id", "subscription_type", "table_name", "filter", "created_at", "expires_at", "last_version",
    ],
}


def added_by_extension(open_replica, query):
    bare = open_replica("bare", extension=False).sql(query)
    loaded = open_replica("loaded").sql(query)
    return set(loaded) - set(bare)


def test_the_registered_functions_are_those_of_the_contract(open_replica):
    added = added_by_extension(open_replica, "SELECT name, narg FROM pragma_function_list")
    assert {name for name, _ in added} - set(NETWORK) == set(CONTRACT)


def test_every_function_takes_the_contracts_arguments(open_replica):
    added = added_by_extension(open_replica, "SELECT name, narg FROM pragma_function_list")
    for name, (fewest, most) in CONTRACT.items():
        counts = {narg for found, narg in added if found == name}
        assert counts == {-1} or counts == set(range(fewest, most + 1)), name


def test_the_registered_sets_are_those_of_the_contract(open_replica):
    added = added_by_extension(open_replica, "SELECT name FROM pragma_module_list")
    assert {name for (name,) in added} == SETS


@pytest.mark.parametrize("call", SET_COLUMNS)
def test_a_set_has_the_contracts_columns(server, call):
    server.sql(f"CREATE TEMP TABLE answer AS SELECT * FROM {call}")
    names = [name for (name,) in server.sql("SELECT name FROM pragma_table_info('answer')")]
    assert names == SET_COLUMNS[call]


def test_a_set_is_an_ordinary_table_in_a_query(server):
    server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")
    joined = "SELECT t.name, p.Name FROM sync_tables() AS t, Person AS p WHERE t.table_name = 'Person'"
    assert server.sql(joined) == [("Person", "Alice")]


@pytest.mark.parametrize("name", CHANGING)
def test_a_function_that_changes_state_cannot_be_called_from_a_view(server, name):
    fewest, _ = CHANGING[name]
    server.sql(f"CREATE VIEW hidden AS SELECT {name}({', '.join(['NULL'] * fewest)})")
    with pytest.raises(DRIVER_ERRORS, match="unsafe use of"):
        server.sql("SELECT * FROM hidden")


@pytest.mark.parametrize("name", CHANGING)
def test_a_function_that_changes_state_cannot_be_called_from_a_trigger(server, name):
    fewest, _ = CHANGING[name]
    call = f"{name}({', '.join(['NULL'] * fewest)})"
    server.sql(f"CREATE TRIGGER hidden AFTER INSERT ON Person BEGIN SELECT {call}; END")
    with pytest.raises(DRIVER_ERRORS, match="unsafe use of"):
        server.sql("INSERT INTO Person VALUES (1, 'Alice', NULL)")


def test_the_version_is_a_semantic_version(open_replica):
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", open_replica("any").value("SELECT sync_version()"))


@pytest.mark.parametrize("name", sorted(CONTRACT))
def test_a_wrong_number_of_arguments_is_refused(server, name):
    _, most = CONTRACT[name]
    with pytest.raises(DRIVER_ERRORS):
        server.sql(f"SELECT {name}({', '.join(['NULL'] * (most + 1))})")
