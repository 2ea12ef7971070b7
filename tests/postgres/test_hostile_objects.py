"""Objects of somebody else's that have our names, or the server's, are never taken for ours, nor is their code run on our behalf."""

import json
import pathlib
import re
import subprocess

import psycopg
import pytest

import cluster as cluster_module
from pg_replica import PgReplica, pg_error
from roles import sync_user, writer
from test_apply import FUTURE, change, push

PERSON = "CREATE TABLE public.person(id bigint PRIMARY KEY, name varchar(50), email text)"
TYPES = ("bigint", "integer", "smallint", "text", "varchar", "name", '"char"', "oid", "regclass", "boolean", "bigint[]", "text[]")
OPERATORS = ("=", "<>", "<", ">", "<=", ">=", "+", "*", "||")
FUNCTIONS = (
    "to_char(timestamp, text)", "to_char(timestamp, varchar)", "count(bigint)", "coalesce(bigint, bigint)", "format(text, regprocedure)",
    "pg_extension_config_dump(text, text)", "hashtextextended(text, integer)", "concat_ws(text, bigint, name)", "gen_random_uuid()",
    "to_regclass(text)", "pg_has_role(oid, text)", "unnest(bigint[])", "max(bigint)", "_sync_caller(text)", "sync_fetch_changes(integer)",
)


def script():
    folder = pathlib.Path(subprocess.check_output([cluster_module.PG_CONFIG, "--sharedir"], text=True).strip())
    [path] = (folder / "extension").glob("pg_sync--*.sql")
    return path.read_text(encoding="utf-8")


def set_traps(database, schema, owner):
    """Operators and functions of an attacker's that note who runs them, with types that fit better than the server's."""
    database.sql(f"CREATE SCHEMA IF NOT EXISTS {schema}")
    database.sql(f"GRANT ALL ON SCHEMA {schema} TO {owner}")
    database.sql("CREATE TABLE IF NOT EXISTS public.caught(what text, by_user text)")
    database.sql("GRANT ALL ON public.caught TO PUBLIC")
    database.sql(f"SET ROLE {owner}")
    note = "BEGIN INSERT INTO public.caught SELECT '%s', current_user; RETURN NULL; END"
    for operator in OPERATORS:
        for left in TYPES:
            for right in TYPES if operator in ("=", "<>") else dict.fromkeys((left, "interval", "integer")):
                result = "boolean" if operator in ("=", "<>", "<", ">", "<=", ">=") else left
                number = database.value("SELECT count(*) FROM pg_catalog.pg_operator")
                database.script(
                    f"CREATE FUNCTION {schema}.trap{number}(a {left}, b {right}) RETURNS {result} LANGUAGE plpgsql"
                    f" AS $$ {note % (operator + left.replace(chr(34), '') + right.replace(chr(34), ''))} $$;"
                    f"CREATE OPERATOR {schema}.{operator} (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = {schema}.trap{number})"
                )
    for function in FUNCTIONS:
        name = function.replace("coalesce(", '"coalesce"(')
        database.sql(f"CREATE FUNCTION {schema}.{name} RETURNS text LANGUAGE plpgsql AS $$ {note % function} $$")
    database.sql(f"CREATE DOMAIN {schema}.text AS integer")
    database.sql("RESET ROLE")


def assert_nothing_caught(database):
    assert database.sql("SELECT * FROM public.caught") == []


def exercise(database, person="person"):
    """Every kind of call, as a session with this search path."""
    database.track(person)
    database.sql("INSERT INTO public.person VALUES (1::bigint, 'a', NULL), (2::bigint, 'b', NULL)")
    answer = database.apply(push(change(1, 1, "c", stamp=FUTURE), change(2, 3, "d", "Insert"), change(3, 2, None, "Delete", stamp=FUTURE), seen=2))
    assert answer["applied"] == 3, answer
    assert len(database.fetch()["changes"]) == 5 and len(database.sql("SELECT * FROM sync_changes()")) == 5
    subscription = database.value("SELECT sync_subscribe('public.person', NULL, '{\"fromVersion\":0}')")
    assert len(database.json("SELECT sync_poll(?)", subscription)["changes"]) == 5
    database.hash()
    for call in ("sync_state()", "sync_status()", "sync_fetch_local_changes()", "sync_reconcile('public.person')", "sync_compact()", "sync_retry()"):
        database.sql(f"SELECT {call}")
    for table in ("sync_tables()", "sync_conflicts()", "sync_rejections()", "sync_check_table('public.person')"):
        database.sql(f"SELECT * FROM {table}")
    database.sql("ALTER TABLE public.person ADD COLUMN more text")
    database.sql("TRUNCATE public.person")


def test_the_install_script_takes_nothing_of_the_schema_it_is_installed_into(cluster):
    database = PgReplica(cluster, cluster.create_database())
    with database:
        mallory = writer(database)
        set_traps(database, "shared", mallory)
        database.sql("CREATE EXTENSION pg_sync SCHEMA shared")
        foreign = database.sql(
            "SELECT pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0) FROM pg_depend d"
            " JOIN pg_proc p ON d.refclassid = 'pg_proc'::regclass AND d.refobjid = p.oid WHERE p.proname LIKE 'trap%' AND d.deptype = 'n'"
            " AND d.classid <> 'pg_operator'::regclass"
        ) + database.sql(
            "SELECT pg_describe_object(d.classid, d.objid, 0), pg_describe_object(d.refclassid, d.refobjid, 0) FROM pg_depend d"
            " JOIN pg_operator o ON d.refclassid = 'pg_operator'::regclass AND d.refobjid = o.oid WHERE o.oprnamespace = 'shared'::regnamespace"
        )
        assert foreign == []
        database.sql("SELECT * FROM shared._sync_log")
        assert_nothing_caught(database)


def test_a_superuser_with_a_hostile_search_path_runs_nobody_elses_code(cluster):
    database = PgReplica(cluster)
    with database:
        database.sql(PERSON)
        set_traps(database, "evil", writer(database))
        database.sql("SET search_path = evil, public, pg_catalog")
        exercise(database)
        assert_nothing_caught(database)


def test_in_a_schema_with_traps_the_functions_run_nobody_elses_code(cluster):
    database = PgReplica(cluster, cluster.create_database())
    with database:
        database.sql(PERSON)
        set_traps(database, "shared", writer(database))
        database.sql("CREATE EXTENSION pg_sync SCHEMA shared")
        database.sql("SET search_path = shared, public")
        exercise(database)
        assert_nothing_caught(database)


def test_a_caller_cannot_bend_the_policies_by_a_search_path(make_database):
    database = make_database(
        "CREATE TABLE note(id bigint PRIMARY KEY, name text, email text)", "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY own ON note USING (name = current_user AND id = id)", track=["note"],
    )
    role = sync_user(database, "SELECT ON note", f"CREATE ON DATABASE {database.database}")
    database.sql("INSERT INTO note VALUES (1, ?, 'mine'), (2, 'other', 'secret')", role)
    database.sql("DELETE FROM note WHERE id = 2")
    with database.again(role) as me:
        me.sql("CREATE SCHEMA evil")
        for left, right in (("bigint", "bigint"), ("text", "name"), ("text", "text"), ("name", "name")):
            me.script(
                f"CREATE FUNCTION evil.yes(a {left}, b {right}) RETURNS boolean LANGUAGE sql AS 'SELECT true';"
                f"CREATE OPERATOR evil.= (LEFTARG = {left}, RIGHTARG = {right}, FUNCTION = evil.yes)"
            )
        me.sql("SET search_path = evil, public, pg_catalog")
        assert [(c["pkValue"], json.loads(c["payload"])["email"]) for c in me.fetch()["changes"]] == [('{"id":1}', "mine")]


def test_functions_in_policies_find_what_they_find_in_a_query(make_database):
    """The policy is read on a safe path; what it calls runs on the caller's, as always."""
    database = make_database(
        "CREATE TABLE note(id bigint PRIMARY KEY, name text, email text)", "CREATE TABLE allowed(name text)", "GRANT SELECT ON allowed TO PUBLIC",
        "CREATE FUNCTION is_allowed(n text) RETURNS boolean LANGUAGE plpgsql STABLE AS 'BEGIN RETURN EXISTS (SELECT 1 FROM allowed a WHERE a.name = n); END'",
        "INSERT INTO allowed VALUES ('open')", "ALTER TABLE note ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON note USING (is_allowed(name))",
        track=["note"],
    )
    database.sql("INSERT INTO note VALUES (1, 'open', 'x'), (2, 'closed', 'secret'), (3, 'open', 'y')")
    database.sql("DELETE FROM note WHERE id > 1")
    with database.again(sync_user(database, "SELECT ON note")) as me:
        assert [(c["operation"], c["pkValue"]) for c in me.fetch()["changes"]] == [("Insert", '{"id":1}'), ("Delete", '{"id":3}')]


def test_a_resolver_is_the_one_its_table_has_whatever_the_callers_search_path(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)",
        "CREATE FUNCTION keep(local jsonb, remote jsonb) RETURNS jsonb LANGUAGE sql AS 'SELECT local'",
    )
    database.track("person", conflict="custom", resolver="keep")
    database.sql("INSERT INTO person VALUES (1, 'mine', NULL)")
    role = sync_user(database, "SELECT, INSERT, UPDATE, DELETE ON person", f"CREATE ON DATABASE {database.database}")
    with database.again(role) as me:
        me.sql("CREATE SCHEMA evil")
        me.sql("CREATE FUNCTION evil.keep(local jsonb, remote jsonb) RETURNS jsonb LANGUAGE plpgsql AS 'BEGIN RAISE ''%'', local; END'")
        me.sql("SET search_path = evil, public")
        me.apply(push(change(1, 1, "theirs")))
    assert database.rows("person") == [(1, "mine", None)]


def test_temporary_tables_of_our_names_are_not_ours(database, session):
    me = session(sync_user(database, "SELECT, INSERT ON person"))
    for (relation,) in database.sql("SELECT relname FROM pg_class WHERE relname LIKE '\\_sync\\_%' AND relkind IN ('r', 'v')"):
        me.sql(f"CREATE TEMPORARY TABLE {relation} (version bigint, key text, value text)")
    me.sql("CREATE TEMPORARY TABLE person(id bigint PRIMARY KEY, name text, email text)")
    me.sql("INSERT INTO person VALUES (7, 'temporary', NULL)")
    me.sql("INSERT INTO public.person VALUES (1, 'a', NULL)")
    assert len(me.fetch()["changes"]) == 1 and len(database.log()) == 1
    assert me.apply(push(change(1, 2, "b", "Insert")))["applied"] == 1
    assert [key for key, *_ in database.rows("person")] == [1, 2]
    with pg_error("TableNotTracked"):
        me.hash("person")


def test_what_is_there_already_is_not_adopted(cluster):
    database = PgReplica(cluster, cluster.create_database())
    with database:
        mallory = writer(database, f"CREATE ON DATABASE {database.database}")
        database.script(f"SET ROLE {mallory}; CREATE SCHEMA taken; RESET ROLE")
        for made in ("TABLE taken._sync_state(key text)", "FUNCTION taken._sync_caller() RETURNS text LANGUAGE sql AS 'SELECT 1::text'",
                     "FUNCTION taken.sync_version() RETURNS text LANGUAGE sql AS 'SELECT 1::text'"):
            database.script(f"SET ROLE {mallory}; CREATE {made}; RESET ROLE")
            with pytest.raises(psycopg.Error, match="already exists"):
                database.sql("CREATE EXTENSION pg_sync SCHEMA taken")
            database.sql("DROP " + re.match(r"\w+ [\w.]+(\(\))?", made)[0])
        database.sql("CREATE EXTENSION pg_sync SCHEMA taken")


def test_casts_of_a_tables_owner_are_not_run(make_database):
    """A cast is code of whoever made the type: values are read by the type's own functions."""
    database = make_database("CREATE TABLE public.caught(by_user text)", "GRANT ALL ON caught TO PUBLIC")
    mallory = sync_user(database, "CREATE ON SCHEMA public", "EXECUTE ON ALL FUNCTIONS IN SCHEMA public")
    with database.again(mallory) as me:
        me.script(
            "CREATE TYPE mood AS ENUM ('good', 'bad');"
            "CREATE FUNCTION spell(m mood) RETURNS text LANGUAGE plpgsql AS $$ BEGIN INSERT INTO caught VALUES (current_user); RETURN 'x'; END $$;"
            "CREATE CAST (mood AS text) WITH FUNCTION spell(mood);"
            "CREATE TABLE parent(m mood PRIMARY KEY);"
            "CREATE TABLE child(m mood PRIMARY KEY REFERENCES parent DEFERRABLE)"
        )
        for table in ("parent", "child"):
            me.sql("SELECT sync_track_table(?)", table)
        me.sql("INSERT INTO parent VALUES ('good')")
        me.sql("INSERT INTO child VALUES ('good')")
        row = {"version": 1, "tableName": "child", "pkValue": '{"m":"bad"}', "operation": "Insert", "payload": '{"m":"bad"}',
               "origin": "00000000-0000-0000-0000-000000000007", "timestamp": FUTURE}
        assert me.apply(push(row))["deferred"] == 1
        me.sql("SELECT sync_reconcile('child')")
        me.sql("SELECT sync_hash()")
        me.sql("TRUNCATE child, parent")
        me.fetch()
    database.hash()
    database.sql("SELECT sync_reconcile('child')")
    assert database.sql("SELECT by_user FROM caught") == []


def test_the_install_script_names_everything_with_its_schema():
    text = re.sub(r"--[^\n]*|/\*.*?\*/", " ", script(), flags=re.DOTALL)
    assert "OR REPLACE" not in text.upper() and "IF NOT EXISTS" not in text.upper()
    assert "SECURITY DEFINER" not in text.upper(), "no function of ours runs as its owner; one that did would have to set its search_path"
    body = re.sub(r"COMMENT ON [^;]*?IS\s+'(?:[^']|'')*';", "", text)
    body = re.sub(r"'(?:[^']|'')*'", "''", body)
    # What PL/pgSQL writes with an equals sign.
    body = re.sub(r"\b(?:ERRCODE|MESSAGE|search_path) =", "", body)
    named = re.sub(r"OPERATOR\(pg_catalog\.[^)]+\)", " ", body)
    # Defaults of arguments, casts, and the star of RETURNS TABLE aside, no operator is left.
    assert re.findall(r"(?<![:=<>!])(?:=|<>|<=|>=|\|\||\+|\*|/|~)(?![:=>])", named) == []
    assert re.findall(r"\b(?:LIKE|ILIKE|IN|BETWEEN|SIMILAR|CASE)\b(?!\s*$)", re.sub(r"FOR \w+ IN|WHEN TAG IN", "", named)) == []
    words = {
        "table", "function", "check", "key", "values", "identity", "in", "name", "default", "with", "array", "any", "coalesce", "as", "unique",
        "returns", "returning", "tag", "varchar", "index", "operator", "and",
    }
    body = re.sub(r"CREATE FUNCTION \w+", "", body)
    calls = set(re.findall(r"(?<![\w.\"])([a-z_]\w*)\s*\(", body, flags=re.IGNORECASE))
    assert {call for call in calls if call.lower() not in words and not call.startswith(("_sync_", "idx_"))} == set()


def test_no_function_of_ours_takes_names_from_its_callers_search_path(database):
    """C has no names to take; what is written in SQL sets a path that nobody else can put anything into."""
    functions = database.sql(
        "SELECT p.proname, l.lanname, p.prosecdef, p.proconfig FROM pg_proc p JOIN pg_language l ON l.oid = p.prolang"
        " JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'"
        " JOIN pg_extension e ON e.oid = d.refobjid WHERE e.extname = 'pg_sync'"
    )
    assert len(functions) > 30
    for name, language, is_definer, settings in functions:
        assert not is_definer, name
        assert language == "c" or settings == ["search_path=pg_catalog, pg_temp"], name


def test_what_is_for_public_is_what_works_on_its_arguments_alone(database):
    """The pure functions, and nothing else: no table, no sequence, no schema, no default for what is made later."""
    public = database.sql(
        "SELECT p.proname FROM pg_proc p JOIN pg_depend d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'"
        " JOIN pg_extension e ON e.oid = d.refobjid, aclexplode(coalesce(p.proacl, acldefault('f', p.proowner))) a"
        " WHERE e.extname = 'pg_sync' AND a.grantee = 0 ORDER BY 1"
    )
    assert [name for (name,) in public] == [
        "sync_canonical_json", "sync_hash_batch", "sync_resolve_conflict", "sync_verify_hash", "sync_version",
    ]
    assert database.sql("SELECT * FROM pg_default_acl") == []
    assert not re.search(r"\bGRANT\s", re.sub(r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'", " ", script(), flags=re.DOTALL).upper())
