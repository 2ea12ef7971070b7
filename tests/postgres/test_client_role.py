"""`sync_grant_client`: a role may be a client of this database, and nothing else."""

import subprocess

import psycopg
import pytest

from cluster import bindir
from pg_replica import PgReplica, pg_error
from roles import client_functions, writer
from test_apply import change, push

DENIED = psycopg.errors.InsufficientPrivilege


@pytest.fixture
def group(database):
    role = writer(database)
    database.sql(f"ALTER ROLE {role} NOLOGIN")
    assert database.value("SELECT sync_grant_client(?)", role) == len(client_functions())
    return role


def member(database, group, *grants):
    role = writer(database, *grants)
    database.sql(f"GRANT {group} TO {role}")
    return role


def loop(me):
    """What a client's program calls here."""
    assert me.apply(push(change(1, 1, "a")))["applied"] == 1
    batch = me.fetch(0, 1000, "11111111-1111-4111-8111-111111111111")
    assert [c["operation"] for c in batch["changes"]] == ["Insert"]
    me.sql("SELECT sync_register_client('11111111-1111-4111-8111-111111111111', ?)", batch["toVersion"])
    assert me.hash() and me.state["maxVersion"] == 1
    subscription = me.value("SELECT sync_subscribe('person', NULL, '{\"fromVersion\":0}')")
    assert len(me.json("SELECT sync_poll(?)", subscription)["changes"]) == 1
    assert me.value("SELECT sync_unsubscribe(?)", subscription)


def test_a_member_with_rights_on_its_table_does_the_whole_loop(database, session, group):
    me = session(member(database, group, "SELECT, INSERT, UPDATE, DELETE ON person"))
    loop(me)


def test_a_member_without_rights_on_a_table_reads_and_changes_nothing(database, session, group):
    database.sql("INSERT INTO person VALUES (5, 'hidden', NULL)")
    me = session(member(database, group))
    assert me.fetch()["changes"] == [] and me.sql("SELECT * FROM sync_tables()") == []
    answer = me.apply(push(change(1, 1, "a")))
    assert (answer["applied"], answer["rejections"][0]["code"]) == (0, "42501")
    for call in ["sync_track_table('person')", "sync_purge_tombstones()", "sync_acknowledge_push(1)", "sync_grant_client(current_user::text)"]:
        with pytest.raises(DENIED):
            me.sql(f"SELECT {call}")


def test_granting_again_changes_nothing_and_a_role_that_is_not_there_is_named(database, group):
    assert database.value("SELECT sync_grant_client(?)", group) == len(client_functions())
    for nobody in ["nobody's \"role\"", "public"]:
        with pg_error("InvalidArgument"):
            database.sql("SELECT sync_grant_client(?)", nobody)


def test_a_schema_of_its_own_and_a_name_that_needs_quotes(make_database):
    database = make_database("CREATE TABLE public.person(id bigint PRIMARY KEY, name text, email text)", schema="Sync it")
    database.sql('SET search_path = "Sync it", public')
    database.track("person")
    database.sql('DROP ROLE IF EXISTS "a ""Role"""')
    database.sql('CREATE ROLE "a ""Role""" LOGIN')
    database.sql("SELECT sync_grant_client('a \"Role\"')")
    database.sql('GRANT SELECT, INSERT, UPDATE, DELETE ON public.person TO "a ""Role"""')
    with database.again('a "Role"') as me:
        me.sql('SET search_path = "Sync it", public')
        loop(me)


def restore(cluster, dump):
    """The restored database, and what psql complained of."""
    name = cluster.create_database()
    command = [bindir() / "psql", "-qX", "-h", str(cluster.folder), "-U", "postgres", "-f", dump, name]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return PgReplica(cluster, name), [line for line in done.stderr.splitlines() if "ERROR" in line]


def test_a_dump_keeps_the_grants_and_is_restored_without_the_role_too(database, cluster, group, tmp_path):
    role = member(database, group, "SELECT, INSERT, UPDATE, DELETE ON person")
    dump = tmp_path / "dump"
    subprocess.run([bindir() / "pg_dump", "-h", str(cluster.folder), "-U", "postgres", "-f", dump, database.database], check=True)
    restored, errors = restore(cluster, dump)
    assert errors == []
    with restored, restored.again(role) as me:
        loop(me)
    for other in [restored, database]:
        with other.again() as owner:
            owner.sql(f"DROP OWNED BY {role}, {group}")
    database.sql(f"DROP ROLE {role}")
    database.sql(f"DROP ROLE {group}")
    restored, errors = restore(cluster, dump)
    assert errors and all("does not exist" in error for error in errors), errors
    with restored:
        loop(restored)


def test_the_role_outlives_the_extension(database, group):
    database.sql("DROP EXTENSION pg_sync")
    assert database.value("SELECT count(*) FROM pg_roles WHERE rolname = ?", group) == 1
    database.sql("CREATE EXTENSION pg_sync")
    assert not database.value("SELECT has_function_privilege(?, 'sync_hash(text)', 'EXECUTE')", group)
