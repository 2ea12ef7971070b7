"""What a client sees of an error: what the error says, and nothing of how the extension is built."""

import json

import psycopg
import pytest

from cluster import Cluster
from pg_replica import PgReplica

PERSON = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"


@pytest.fixture(scope="module")
def replica():
    """In a server whose environment asks programs for stacks."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RUST_BACKTRACE", "full")
        cluster = Cluster()
    replica = PgReplica(cluster)
    replica.script(PERSON + "; INSERT INTO person VALUES (1, 'a', NULL)")
    replica.track("person")
    yield replica
    replica.close()
    cluster.close()


@pytest.mark.parametrize("statement", [
    "SELECT sync_fetch_changes(-1)", "SELECT sync_apply_batch('no JSON')", "SELECT sync_track_table('nothing')",
    "SELECT sync_apply_batch('{}', '{\"dryRun\":1}')",
])
def test_an_error_of_ours_has_no_detail_but_its_data(replica, statement):
    with pytest.raises(psycopg.Error, match="sync: ") as raised:
        replica.sql(statement)
    detail = raised.value.diag.message_detail
    assert detail is None or isinstance(json.loads(detail), dict)


def test_the_data_of_an_error_is_a_json_object(replica):
    batch = {"kind": "push", "originId": "a0000000-0000-4000-8000-000000000000", "fromVersion": 0, "toVersion": 1, "lastServerVersion": 10**9,
             "changes": []}
    with pytest.raises(psycopg.Error, match="EpochMismatch") as raised:
        replica.apply(batch)
    assert isinstance(json.loads(raised.value.diag.message_detail), dict)


def test_an_error_of_the_server_keeps_its_own_detail(replica):
    with pytest.raises(psycopg.errors.UniqueViolation) as raised:
        replica.sql("SELECT sync_execute_untracked('INSERT INTO person VALUES (1, ''b'', NULL)')")
    assert raised.value.diag.message_detail == "Key (id)=(1) already exists."
    with pytest.raises(psycopg.errors.NotNullViolation) as raised:
        replica.sql("INSERT INTO person VALUES (NULL, 'b', NULL)")
    assert raised.value.diag.message_detail == "Failing row contains (null, b, null)."


def test_a_failing_trigger_function_of_ours_has_no_stack(replica):
    replica.script("CREATE TABLE other(id int PRIMARY KEY); CREATE TRIGGER t AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION _sync_capture('999')")
    with pytest.raises(psycopg.Error, match="TableNotTracked") as raised:
        replica.sql("INSERT INTO other VALUES (1)")
    assert raised.value.diag.message_detail is None
