"""Everybody gets what they may read and changes what they may write, by whatever function; nobody writes the log but by writing a table."""

import json

import psycopg
import pytest

from pg_replica import pg_error
from roles import client_functions, sync_user, writer
from test_apply import FUTURE, SENDER, change, push

ALL = "SELECT, INSERT, UPDATE, DELETE ON person"
DENIED = psycopg.errors.InsufficientPrivilege


def names(batch):
    return [json.loads(c["payload"] or "{}").get("name") for c in batch["changes"]]


def test_a_writer_with_rights_on_its_table_only_is_captured(database, session):
    me = session(writer(database, ALL))
    me.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    me.sql("UPDATE person SET name = 'c' WHERE id = 1")
    me.sql("DELETE FROM person WHERE id = 2")
    assert [entry["operation"] for entry in database.log()] == ["insert", "insert", "update", "delete"]


def test_a_truncate_by_a_writer_is_captured(database, session):
    me = session(writer(database, "INSERT, TRUNCATE ON person"))
    me.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    me.sql("TRUNCATE person")
    assert [entry["operation"] for entry in database.log()] == ["insert", "delete"]


def test_a_writer_is_captured_who_may_not_even_enter_the_extensions_schema(make_database):
    database = make_database("CREATE TABLE public.person(id bigint PRIMARY KEY)", schema="closed")
    database.sql("SET search_path = closed, public")
    database.track("person")
    with database.again(writer(database, "INSERT ON person")) as me:
        me.sql("INSERT INTO person VALUES (1)")
        with pytest.raises(DENIED):
            me.sql("SELECT closed.sync_fetch_changes()")
    assert len(database.log()) == 1


@pytest.mark.parametrize("make", [writer, sync_user])
def test_no_relation_of_ours_can_be_read_or_written(database, session, make):
    me = session(make(database, ALL))
    relations = database.sql("SELECT relname, relkind FROM pg_class WHERE relname LIKE '\\_sync\\_%' AND relkind IN ('r', 'v', 'S')")
    assert len(relations) > 20
    for relation, kind in relations:
        column = database.value("SELECT attname FROM pg_attribute WHERE attrelid = ?::regclass AND attnum = 1", relation)
        statements = [f"SELECT * FROM {relation}"]
        if kind != "S":
            statements += [f"DELETE FROM {relation}", f"INSERT INTO {relation} DEFAULT VALUES", f"UPDATE {relation} SET {column} = {column}"]
        else:
            statements += [f"SELECT nextval('{relation}')", f"SELECT setval('{relation}', 1)"]
        for statement in statements:
            # The log is joined for people to read: nobody writes to it.
            joined = (psycopg.errors.ObjectNotInPrerequisiteState,) if relation == "_sync_log" and "SELECT" not in statement else ()
            with pytest.raises((DENIED, *joined)):
                me.sql(statement)


def test_nothing_that_reads_or_changes_the_replica_is_for_public(database, session):
    me = session(writer(database, ALL))
    functions = database.sql(
        "SELECT p.oid::regprocedure::text, p.provolatile = 'i' FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e'"
        " AND d.classid = 'pg_proc'::regclass JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'pg_sync'"
    )
    assert len(functions) > 30
    for function, is_pure in functions:
        assert me.value("SELECT has_function_privilege(?, 'EXECUTE')", function) == is_pure, function
    assert database.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e', aclexplode(c.relacl) a WHERE a.grantee = 0"
        " AND c.relname LIKE '\\_sync%'"
    ) == []


def test_a_sync_user_may_call_what_the_readme_grants_and_no_more(database, session):
    me = session(sync_user(database, ALL))
    allowed = {name for (name,) in me.sql(
        "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.deptype = 'e' AND d.classid = 'pg_proc'::regclass"
        " JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'pg_sync' AND p.provolatile <> 'i' AND has_function_privilege(p.oid, 'EXECUTE')"
    )}
    assert allowed == set(client_functions())
    assert not allowed & {
        "sync_execute_untracked", "sync_track_table", "sync_untrack_table", "sync_regenerate_origin", "sync_purge_tombstones", "sync_compact",
        "sync_set_conflict_strategy", "sync_reconcile", "sync_remove_client", "sync_begin_resync", "_sync_capture", "_sync_follow_ddl",
    }


def test_the_log_cannot_be_forged_by_a_trigger_of_ones_own(database, session):
    """Who owns a table may not have it written to the log as another one, nor call the capture by themselves."""
    me = session(sync_user(database, ALL, "CREATE ON SCHEMA public"))
    me.sql("CREATE TABLE mine(id bigint PRIMARY KEY, name text, email text)")
    table_id = database.value("SELECT table_id FROM _sync_tables")
    with pytest.raises(DENIED):
        me.sql(f"CREATE TRIGGER mine_sync_insert AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION _sync_capture('{table_id}')")
    with pytest.raises(DENIED):
        me.sql("SELECT _sync_capture()")
    for name in ("sync_capture", "sync_caller", "sync_follow_ddl"):
        with pytest.raises(DENIED):
            me.sql(f"CREATE FUNCTION forged() RETURNS trigger LANGUAGE c AS '$libdir/pg_sync', '{name}'")
    # A trigger of a superuser's that names another table logs nothing either.
    database.sql(f"CREATE TRIGGER t AFTER INSERT ON mine FOR EACH ROW EXECUTE FUNCTION _sync_capture('{table_id}')")
    with pg_error("TableNotTracked"):
        me.sql("INSERT INTO mine VALUES (1, 'forged', NULL)")
    assert database.log() == []


def test_only_changes_of_tables_that_may_be_read_are_handed_out(make_database, cluster):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", "CREATE TABLE secret(id bigint PRIMARY KEY, name text)",
        track=["person", "secret"],
    )
    database.sql("INSERT INTO person VALUES (1, 'open', NULL)")
    database.sql("INSERT INTO secret VALUES (1, 'hidden')")
    database.sql("DELETE FROM secret")
    database.sql("INSERT INTO secret VALUES (2, 'hidden')")
    with database.again(sync_user(database, "SELECT ON person")) as me:
        batch = me.fetch()
        assert names(batch) == ["open"] and batch["toVersion"] == 4 and not batch["hasMore"]
        assert [c[1] for c in me.sql("SELECT * FROM sync_changes()")] == ["person"]
        assert [t[0] for t in me.sql("SELECT * FROM sync_tables()")] == ["person"]
        assert [t["table"] for t in me.status["tables"]] == ["person"]
        assert me.hash() == me.hash("person") == database.hash("person")
        with pg_error("PermissionDenied"):
            me.hash("secret")
        subscription = me.value("SELECT sync_subscribe('secret', NULL, '{\"fromVersion\":0}')")
        with pg_error("PermissionDenied"):
            me.sql("SELECT sync_poll(?)", subscription)
        assert "hidden" not in json.dumps(batch)
    with database.again(sync_user(database)) as me:
        assert me.fetch()["changes"] == [] and me.sql("SELECT * FROM sync_tables()") == []


def test_a_column_that_may_not_be_read_makes_the_table_unavailable_unless_excluded(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', 'secret@example.com')")
    me = session(sync_user(database, "SELECT (id, name) ON person"))
    for call in ("sync_fetch_changes()", "sync_hash()", "sync_hash('person')"):
        with pg_error("PermissionDenied") as raised:
            me.sql(f"SELECT {call}")
        assert '"email"' in str(raised.value)
    with pg_error("PermissionDenied"):
        me.sql("SELECT * FROM sync_changes()")
    assert me.sql("SELECT * FROM sync_tables()") == [] and me.status["tables"] == []
    database.track("person", exclude=["email"])
    database.sql("UPDATE person SET name = 'b', email = 'other-secret'")
    batch = me.fetch()
    assert names(batch) == ["a", "b"], "what was synced before is handed out without the column"
    assert "secret" not in json.dumps(batch) and "secret" not in str(me.sql("SELECT * FROM sync_changes()"))
    assert me.value("SELECT sync_hash_batch(?)", me.fetch_text()) == batch["hash"]
    assert me.hash() == database.hash()


def test_a_dropped_column_is_not_handed_out_to_who_could_not_read_it(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', 'secret')")
    me = session(sync_user(database, "SELECT (id, name) ON person"))
    database.sql("ALTER TABLE person DROP COLUMN email")
    assert names(me.fetch()) == ["a"] and "secret" not in me.fetch_text()


def test_a_table_that_is_gone_is_not_served_to_who_makes_another_of_its_name(database, session):
    database.sql("INSERT INTO person VALUES (1, 'secret', NULL)")
    me = session(sync_user(database, "CREATE ON SCHEMA public"))
    database.sql("DROP TABLE person")
    me.sql("CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)")
    assert me.fetch()["changes"] == [] and me.sql("SELECT * FROM sync_changes()") == []
    assert names(database.fetch()) == ["secret"]


def test_apply_runs_with_the_callers_rights(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    me = session(sync_user(database, "SELECT, INSERT ON person"))
    answer = me.apply(push(
        change(1, 1, "changed", stamp=FUTURE), change(2, 2, None, "Delete", stamp=FUTURE), change(3, 3, "new", "Insert"),
        change(4, 9, None, "Delete"), seen=2,
    ))
    assert [r["code"] for r in answer["rejections"]] == ["42501"] * 3 and answer["applied"] == 1
    assert database.rows("person") == [(1, "a", None), (2, "b", None), (3, "new", None)]


def test_an_apply_without_any_right_is_refused_row_by_row(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", "CREATE TABLE other(id bigint PRIMARY KEY, name text, email text)",
        track=["person", "other"],
    )
    with database.again(sync_user(database, "SELECT, INSERT, UPDATE ON person")) as me:
        answer = me.apply(push(change(1, 1, "a", "Insert"), change(2, 1, "x", "Insert", table="other"), change(3, 2, "b", "Insert")))
        assert (answer["applied"], [r["code"] for r in answer["rejections"]]) == (2, ["42501"])
    assert database.rows("other") == []


def test_what_was_refused_to_one_role_is_not_applied_with_the_rights_of_another(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    weak, strong = session(sync_user(database, "SELECT ON person")), session(sync_user(database, ALL))
    weak.apply(push(change(1, 1, "forged", stamp=FUTURE), seen=1))
    assert len(weak.rejections()) == 1
    for other in (strong, database):
        other.sql("SELECT sync_retry()")
    strong.apply(push(change(1, 2, "b", "Insert"), sender="00000000-0000-4000-8000-000000000008"))
    assert database.rows("person") == [(1, "a", None), (2, "b", None)]
    assert strong.rejections() == [], "nor shown to another"
    assert not strong.value("SELECT sync_discard(?)", weak.rejections()[0]["id"])
    assert len(database.rejections()) == 1 and database.status["rejections"] == 1, "a superuser sees what waits"
    database.sql(f"GRANT {ALL} TO {weak.value('SELECT current_user')}")
    weak.sql("SELECT sync_retry()")
    assert database.rows("person") == [(1, "forged", None), (2, "b", None)]


def test_what_waits_for_one_role_is_not_forgotten_when_another_has_looked(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)",
        "CREATE TABLE child(id bigint PRIMARY KEY REFERENCES person, name text, email text)", track=["person", "child"],
    )
    other = "00000000-0000-4000-8000-000000000008"
    with database.again(sync_user(database, ALL, "SELECT, INSERT ON child")) as one, database.again(sync_user(database, ALL, "SELECT, INSERT ON child")) as two:
        assert one.apply(push(change(1, 1, "a", "Insert", table="child")))["deferred"] == 1
        assert two.apply(push(change(1, 1, "parent", "Insert"), sender=other))["applied"] == 1
        assert two.apply(push(change(2, 2, "b", "Insert", table="child"), sender=other))["deferred"] == 1
        assert one.apply(push(change(2, 7, "more", "Insert")))["applied"] == 2
        assert [key for key, *_ in database.rows("child")] == [1]


def test_subscriptions_are_those_of_who_made_them(database, session):
    one, two = session(sync_user(database, ALL)), session(sync_user(database, ALL))
    subscription = one.value("SELECT sync_subscribe('person', '7')")
    assert two.sql("SELECT * FROM sync_subscriptions()") == [] and not two.value("SELECT sync_unsubscribe(?)", subscription)
    with pg_error("InvalidArgument"):
        two.sql("SELECT sync_poll(?)", subscription)
    assert len(database.sql("SELECT * FROM sync_subscriptions()")) == 1
    assert one.value("SELECT sync_unsubscribe(?)", subscription)


def test_conflicts_are_shown_to_who_may_read_the_table(database, session):
    database.sql("INSERT INTO person VALUES (1, 'mine', 'secret')")
    reader, blind = session(sync_user(database, ALL)), session(sync_user(database))
    partly = session(sync_user(database, "SELECT (id, name) ON person"))
    assert database.apply(push(change(1, 1, "theirs", stamp="2001-01-01T00:00:00.000Z")))["conflicts"] == 1
    assert len(database.conflicts()) == len(reader.conflicts()) == 1
    assert blind.conflicts() == [] and partly.conflicts() == []
    database.track("person", exclude=["email"])
    assert partly.conflicts() == [], "the sides have a column that it may not read"


def test_a_push_is_fetched_by_who_may_read_everything(make_database):
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY)", "CREATE TABLE secret(id bigint PRIMARY KEY)", track=["person", "secret"])
    database.sql("INSERT INTO secret VALUES (1)")
    role = sync_user(database, "SELECT ON person", "EXECUTE ON FUNCTION sync_fetch_local_changes")
    with database.again(role) as me:
        with pg_error("PermissionDenied"):
            me.fetch_local()
        database.sql(f"GRANT SELECT ON secret TO {role}")
        assert len(me.fetch_local()["changes"]) == 1


def test_how_a_table_is_synced_is_its_owners_to_say(database, session):
    database.sql("CREATE FUNCTION mine(local jsonb, remote jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT local'")
    me = session(sync_user(database, ALL, "EXECUTE ON ALL FUNCTIONS IN SCHEMA public"))
    for call in (
        "sync_set_conflict_strategy('person', 'server_wins')", "sync_set_conflict_strategy('person', 'custom', 'mine')",
        "sync_track_table('person', '{\"exclude\":[\"email\"]}')", "sync_untrack_table('person')", "sync_reconcile('person')",
        "sync_execute_untracked('DELETE FROM person')",
    ):
        with pg_error("PermissionDenied"):
            me.sql(f"SELECT {call}")
    database.sql(f"ALTER TABLE person OWNER TO {me.value('SELECT current_user')}")
    assert me.value("SELECT sync_set_conflict_strategy('person', 'server_wins')") == "server_wins"
    me.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    assert me.value("SELECT sync_execute_untracked('UPDATE person SET name = ''b''')") == 1
    assert me.value("SELECT sync_reconcile('person')") == 1


def test_a_definition_that_has_changed_is_followed_whoever_calls_next(database, session):
    """A dropped type takes a column with it past the event trigger's commands."""
    database.sql("CREATE TYPE mood AS ENUM ('good')")
    database.sql("ALTER TABLE person ADD COLUMN mood mood")
    me = session(sync_user(database, "SELECT, INSERT ON person"))
    database.sql("DROP TYPE mood CASCADE")
    me.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    assert [json.loads(c["payload"]) for c in me.fetch()["changes"]] == [{"id": 1, "name": "a", "email": None}]


def test_a_definer_function_gives_the_rights_of_its_owner(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    reader = sync_user(database, "SELECT ON person")
    database.sql("CREATE FUNCTION through() RETURNS text LANGUAGE sql SECURITY DEFINER SET search_path = public AS 'SELECT sync_fetch_changes()'")
    database.sql(f"ALTER FUNCTION through() OWNER TO {reader}")
    database.sql("GRANT EXECUTE ON FUNCTION through() TO PUBLIC")
    me = session(writer(database))
    assert names(me.json("SELECT through()")) == ["a"]
    database.sql(f"REVOKE ALL ON person FROM {reader}")
    assert names(me.json("SELECT through()")) == []


def test_who_may_only_push_does_not_move_the_cursor_of_this_replica(database, session):
    role = sync_user(database, ALL)
    me = session(role)
    pull = push(change(1, 1, "a", "Insert")) | {"kind": "pull"}
    with pg_error("PermissionDenied"):
        me.apply(pull)
    assert database.cursor == 0 and database.rows("person") == []
    database.sql(f"GRANT EXECUTE ON FUNCTION sync_acknowledge_push TO {role}")
    me.apply(pull)
    assert database.cursor == 1


def test_a_sender_is_the_name_it_gives_itself(database, session):
    """Who may push may push as any replica: an origin is no credential."""
    me = session(sync_user(database, ALL))
    me.apply(push(change(1, 1, "a", "Insert")))
    assert database.log()[0]["origin"] == SENDER


def test_what_one_role_brings_lets_what_waits_for_another_succeed(make_database):
    """A role tries again what is its own: what other roles have brought since is looked at as well."""
    database = make_database(
        "CREATE TABLE parent(id bigint PRIMARY KEY, name text, email text)",
        "CREATE TABLE child(id bigint PRIMARY KEY, name text, email bigint REFERENCES parent(id) DEFERRABLE)",
        track=["parent", "child"],
    )
    grants = ("SELECT, INSERT, UPDATE ON parent", "SELECT, INSERT, UPDATE ON child")
    first, second = sync_user(database, *grants), sync_user(database, *grants)
    other = "00000000-0000-0000-0000-000000000008"

    def child(version, key, parent):
        return {**change(version, key, None, table="child"), "payload": json.dumps({"id": key, "name": None, "email": parent})}

    def of_other(*changes):
        return push(*({**each, "origin": other} for each in changes), sender=other)

    with database.again(first) as one, database.again(second) as two:
        assert one.apply(push(child(1, 1, 1)))["deferred"] == 1
        # What waits for the second role makes its next apply note how far it has looked.
        assert two.apply(of_other(change(1, 1, "a", table="parent"), child(2, 2, 99)))["deferred"] == 1
        assert two.apply(of_other(change(3, 3, "c", table="parent")))["applied"] == 1
        assert database.rows("child") == []
        assert one.apply(push(change(2, 2, "b", table="parent")))["applied"] == 2
        assert [key for key, *_ in database.rows("child")] == [1]
        assert one.sql("SELECT * FROM sync_rejections()") == []
