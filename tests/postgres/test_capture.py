"""Every change of a tracked table is in the log, whoever makes it and however, in the writer's own transaction."""

import io
import json

import psycopg
import pytest

from pg_replica import pg_error


def changes(database, after=0):
    """(operation, key, payload) of every log entry after a version."""
    return [
        (row["operation"], json.loads(row["pk_value"]), row["payload"] and json.loads(row["payload"]))
        for row in database.log() if row["version"] > after
    ]


def summary(database, after=0):
    """operation and key values, for keys of one column."""
    return [(operation, *key.values()) for operation, key, _ in changes(database, after)]


@pytest.mark.parametrize(
    "statement, expected",
    [
        ("INSERT INTO person(id, name) VALUES (1, 'a'), (2, 'b')", [("insert", 1), ("insert", 2)]),
        ("INSERT INTO person(id) SELECT generate_series(1, 3)", [("insert", 1), ("insert", 2), ("insert", 3)]),
        ("INSERT INTO person(id, name) VALUES (7, 'x') ON CONFLICT (id) DO UPDATE SET name = 'y'", [("update", 7)]),
        ("INSERT INTO person(id, name) VALUES (7, 'x') ON CONFLICT DO NOTHING", []),
        ("WITH gone AS (DELETE FROM person WHERE id = 7 RETURNING *) INSERT INTO person SELECT 8, name FROM gone",
         [("delete", 7), ("insert", 8)]),
        ("MERGE INTO person p USING (VALUES (7), (9)) v(id) ON p.id = v.id WHEN MATCHED THEN DELETE"
         " WHEN NOT MATCHED THEN INSERT (id) VALUES (v.id)", [("delete", 7), ("insert", 9)]),
        ("UPDATE person SET id = 70 WHERE id = 7", [("delete", 7), ("insert", 70)]),
        ("UPDATE person SET name = name", []),
        ("TRUNCATE person", [("delete", 7)]),
        ("DELETE FROM person", [("delete", 7)]),
    ],
)
def test_every_statement_is_captured(database, statement, expected):
    database.sql("INSERT INTO person(id, name) VALUES (7, 'seven')")
    database.sql(statement)
    assert sorted(summary(database, after=1)) == sorted(expected)


def test_copy_is_captured(database):
    with database.connection.cursor() as cursor, cursor.copy("COPY person(id, name) FROM STDIN") as copy:
        copy.write("1\ta\n2\t\\N\n")
    assert changes(database) == [
        ("insert", {"id": 1}, {"id": 1, "name": "a", "email": None}),
        ("insert", {"id": 2}, {"id": 2, "name": None, "email": None}),
    ]


def test_cascades_are_captured(make_database):
    database = make_database(
        "CREATE TABLE parent(id int PRIMARY KEY)",
        "CREATE TABLE child(id int PRIMARY KEY, parent int REFERENCES parent ON DELETE CASCADE ON UPDATE SET NULL)",
        track=["parent", "child"],
    )
    database.sql("INSERT INTO parent VALUES (1), (2)")
    database.sql("INSERT INTO child VALUES (1, 1), (2, 2)")
    database.sql("DELETE FROM parent WHERE id = 1")
    database.sql("UPDATE parent SET id = 3 WHERE id = 2")
    assert [(r["table_name"], r["operation"]) for r in database.log()][4:] == [
        ("parent", "delete"), ("child", "delete"), ("parent", "delete"), ("parent", "insert"), ("child", "update"),
    ]


def test_a_rollback_leaves_no_trace(database):
    database.sql("BEGIN")
    database.sql("INSERT INTO person(id) VALUES (1)")
    database.sql("SAVEPOINT s")
    database.sql("INSERT INTO person(id) VALUES (2)")
    database.sql("ROLLBACK TO s")
    database.sql("COMMIT")
    database.sql("BEGIN")
    database.sql("DELETE FROM person")
    database.sql("ROLLBACK")
    assert summary(database) == [("insert", 1)]


def test_partitions_and_rows_that_move_between_them(make_database):
    database = make_database(
        "CREATE TABLE m(id int, at int, note text, PRIMARY KEY (id, at)) PARTITION BY RANGE (at)",
        "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE m2(note text, at int NOT NULL, id int NOT NULL)",
        "ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20)",
        track=["m"],
    )
    database.sql("INSERT INTO m VALUES (1, 1, 'a')")
    database.sql("UPDATE m SET at = 11")
    database.sql("INSERT INTO m2 VALUES ('direct', 12, 2)")
    database.sql("CREATE TABLE m3 PARTITION OF m FOR VALUES FROM (20) TO (30)")
    database.sql("INSERT INTO m VALUES (3, 21, 'new')")
    assert changes(database) == [
        ("insert", {"id": 1, "at": 1}, {"id": 1, "at": 1, "note": "a"}),
        ("delete", {"id": 1, "at": 1}, None),
        ("insert", {"id": 1, "at": 11}, {"id": 1, "at": 11, "note": "a"}),
        ("insert", {"id": 2, "at": 12}, {"id": 2, "at": 12, "note": "direct"}),
        ("insert", {"id": 3, "at": 21}, {"id": 3, "at": 21, "note": "new"}),
    ]
    last = database.json("SELECT sync_fetch_changes()")["toVersion"]
    database.sql("TRUNCATE m")
    assert sorted(key["id"] for _, key, _ in changes(database, last)) == [1, 2, 3]


def test_a_trigger_of_the_users_that_fires_first_and_changes_the_row(make_database):
    database = make_database(
        "CREATE TABLE t(id int PRIMARY KEY, v int)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.v < 10 THEN UPDATE t SET v = 10 WHERE id = NEW.id; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER a_first AFTER INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION f()",
        track=["t"],
    )
    database.sql("INSERT INTO t VALUES (1, 1)")
    database.sql("INSERT INTO t VALUES (2, 1), (3, 20)")
    newest = {key["id"]: payload["v"] for _, key, payload in changes(database)}
    assert newest == {1: 10, 2: 10, 3: 20}


def test_a_trigger_that_fires_first_and_changes_nothing_hides_nothing(make_database):
    database = make_database(
        "CREATE TABLE t(id int PRIMARY KEY, v int)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF pg_trigger_depth() < 2 THEN UPDATE t SET v = v WHERE id = NEW.id; END IF; RETURN NULL; END $$",
        "CREATE TRIGGER a_first AFTER INSERT ON t FOR EACH ROW EXECUTE FUNCTION f()",
        track=["t"],
    )
    database.sql("INSERT INTO t VALUES (1, 1)")
    assert changes(database)[-1][1:] == ({"id": 1}, {"id": 1, "v": 1})


PUT_BACK = """
CREATE FUNCTION put_back() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'UPDATE' AND OLD.id = NEW.id OR OLD.name LIKE 'was %' THEN RETURN NULL; END IF;
  INSERT INTO person(id, name) VALUES (OLD.id, 'was ' || OLD.name);
  RETURN NULL;
END $$;
CREATE TRIGGER {name} AFTER DELETE OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION put_back();
"""


def newest(database):
    """The rows as the log has them: the newest entry of each key."""
    entries = {json.loads(entry["pk_value"])["id"]: entry for entry in database.log()}
    return {key: json.loads(entry["payload"])["name"] for key, entry in entries.items() if entry["operation"] != "delete"}


def held(database):
    return dict(database.sql("SELECT id, name FROM person"))


@pytest.mark.parametrize("name", ["first", "second"])
def test_a_row_that_a_trigger_puts_back_is_the_newest_entry_whoever_fires_first(make_database, name):
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text)", track=["person"])
    database.sql("INSERT INTO person VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    database.script(PUT_BACK.format(name={"first": "a_trigger", "second": "z_trigger"}[name]))
    database.sql("DELETE FROM person WHERE id = 1")
    database.sql("UPDATE person SET id = 20 WHERE id = 2")
    assert newest(database) == held(database) == {1: "was a", 2: "was b", 3: "c", 20: "b"}
    database.sql("DELETE FROM person")
    database.sql("DELETE FROM person")
    assert newest(database) == held(database) == {}


def test_a_row_that_a_trigger_changes_again_has_left_its_old_key(make_database):
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text)", track=["person"])
    database.sql("INSERT INTO person VALUES (1, 'a')")
    database.script("""
    CREATE FUNCTION mark() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      UPDATE person SET name = 'moved' WHERE id = NEW.id; RETURN NULL;
    END $$;
    CREATE TRIGGER a_trigger AFTER UPDATE OF id ON person FOR EACH ROW EXECUTE FUNCTION mark();
    """)
    database.sql("UPDATE person SET id = 2")
    assert newest(database) == held(database) == {2: "moved"}


@pytest.mark.parametrize("statements", [
    ["UPDATE person SET id = id + 1"],
    ["UPDATE person SET id = 4 - id"],
    ["UPDATE person SET id = id % 3 + 1"],
    ["SET CONSTRAINTS ALL DEFERRED", "UPDATE person SET id = 2 WHERE name = 'a'", "UPDATE person SET id = 1 WHERE name = 'b'"],
    ["SET CONSTRAINTS ALL DEFERRED", "INSERT INTO person VALUES (1, 'new')", "DELETE FROM person WHERE name = 'a'"],
    ["SET CONSTRAINTS ALL DEFERRED", "INSERT INTO person VALUES (1, 'new')", "DELETE FROM person WHERE name = 'new'"],
])
@pytest.mark.parametrize("partitions", ["", " PARTITION BY RANGE (id)"])
def test_keys_that_are_checked_late_and_pass_from_row_to_row(make_database, statements, partitions):
    database = make_database("CREATE TABLE person(id bigint, name text, PRIMARY KEY (id) DEFERRABLE)" + partitions)
    if partitions:
        database.sql("CREATE TABLE low PARTITION OF person FOR VALUES FROM (0) TO (3)")
        database.sql("CREATE TABLE high PARTITION OF person FOR VALUES FROM (3) TO (100)")
    database.track("person")
    database.sql("INSERT INTO person VALUES (1, 'a'), (2, 'b'), (3, 'c')")
    with database.transaction():
        for statement in statements:
            database.sql(statement)
    assert newest(database) == held(database)
    assert database.value("SELECT sync_reconcile('person')") == 0


def test_what_logical_replication_writes_is_captured(database):
    database.sql("SET session_replication_role = replica")
    database.sql("INSERT INTO person(id) VALUES (1)")
    database.sql("UPDATE person SET name = 'x'")
    database.sql("DELETE FROM person")
    assert [operation for operation, *_ in summary(database)] == ["insert", "update", "delete"]


ALL_TYPES = """CREATE TABLE t(id int PRIMARY KEY, f4 real, f8 double precision, n numeric, ts timestamp, tz timestamptz, d date, ti time,
 iv interval, b bytea, j json, jb jsonb, a real[], tza timestamptz[], r tstzrange, bo boolean, u uuid)"""
ROW = """INSERT INTO t VALUES (1, 0.1, 0.1::float8 + 0.2, 10.50, '2024-05-06 07:08:09.123', '2024-05-06 07:08:09.123456+02',
 '2024-05-06', '07:08:09.5', '1 day 02:00:00', '\\x00ff', '{"b": 1,  "a":2}', '{"b": 1, "a": 2}', '{0.1,NULL}', '{2024-05-06 07:00+00}',
 '[2024-05-06 07:00+00,)', true, 'A0EEBC99-9C0B-4EF8-BB6D-6BB9BD380A11')"""
EXPECTED = (
    '{"id":1,"f4":0.1,"f8":0.30000000000000004,"n":10.50,"ts":"2024-05-06T07:08:09.123","tz":"2024-05-06T05:08:09.123456Z",'
    '"d":"2024-05-06","ti":"07:08:09.5","iv":"P1DT2H","b":{"$blob":"00ff"},"j":"{\\"b\\": 1,  \\"a\\":2}",'
    '"jb":"{\\"a\\": 2, \\"b\\": 1}","a":"[0.1,null]","tza":"[\\"2024-05-06T07:00:00.000Z\\"]",'
    '"r":"[\\"2024-05-06 07:00:00+00\\",)","bo":true,"u":"a0eebc99-9c0b-4ef8-bb6d-6bb9bd380a11"}'
)


@pytest.mark.parametrize(
    "settings",
    [
        "",
        "SET DateStyle = 'German, DMY'; SET TimeZone = 'Asia/Kathmandu'; SET IntervalStyle = 'sql_standard';"
        " SET bytea_output = 'escape'; SET extra_float_digits = -15; SET search_path = ''",
    ],
    ids=["plain", "odd"],
)
def test_a_payload_depends_on_no_setting(make_database, settings):
    database = make_database(ALL_TYPES, track=["t"])
    if settings:
        database.script("CREATE SCHEMA x")
    database.sql(ROW)
    odd = database.again()
    odd.script(settings)
    odd.sql("DELETE FROM public.t")
    odd.sql(ROW.replace("INTO t", "INTO public.t").replace("07:08:09.123'", "07:08:09.123'"))
    odd.close()
    first, _, last = (row["payload"] for row in database.log())
    assert first == EXPECTED
    assert last == EXPECTED


def test_a_writer_needs_rights_on_the_table_only(database, session):
    database.script(
        "DROP ROLE IF EXISTS writer; CREATE ROLE writer LOGIN; GRANT INSERT, UPDATE, DELETE, SELECT, TRUNCATE ON person TO writer"
    )
    writer = session("writer")
    writer.sql("INSERT INTO person(id) VALUES (1)")
    writer.sql("UPDATE person SET name = 'x'")
    writer.sql("TRUNCATE person")
    assert [operation for operation, *_ in summary(database)] == ["insert", "update", "delete"]
    for statement in (
        "SELECT * FROM _sync_log", "DELETE FROM _sync_log_data", "SELECT sync_fetch_changes()", "SELECT sync_purge_tombstones()",
        "SELECT nextval('_sync_versions')",
    ):
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            writer.sql(statement)


def test_objects_in_the_way_change_nothing(database, session):
    database.script(
        "CREATE SCHEMA evil; GRANT USAGE ON SCHEMA evil TO PUBLIC;"
        "CREATE TABLE evil._sync_log_data(version bigint); CREATE TABLE evil._sync_tables(table_id bigint);"
        "CREATE FUNCTION evil.owns(text, text) RETURNS boolean LANGUAGE plpgsql AS"
        " $$ BEGIN RAISE 'run as %', current_user; END $$;"
        "CREATE OPERATOR evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = evil.owns)"
    )
    writer = session()
    writer.sql("SET search_path = evil, public, pg_catalog")
    writer.sql("INSERT INTO public.person(id) VALUES (1)")
    assert len(writer.json("SELECT public.sync_fetch_changes()")["changes"]) == 1
    assert writer.value("SELECT count(*) FROM evil._sync_log_data") == 0


def test_nobody_can_fake_a_change_with_the_trigger_function(database, session):
    database.script("CREATE TABLE other(id bigint PRIMARY KEY, name text, email text)")
    database.script("CREATE TRIGGER x AFTER INSERT ON other FOR EACH ROW EXECUTE FUNCTION _sync_capture('1')")
    with pytest.raises(psycopg.Error, match="TableNotTracked"):
        database.sql("INSERT INTO other VALUES (1)")
    assert summary(database) == []


def test_a_key_of_several_columns_and_columns_that_are_generated(make_database):
    database = make_database(
        "CREATE TABLE t(b int, a text, n int GENERATED ALWAYS AS IDENTITY, twice int GENERATED ALWAYS AS (b * 2) STORED, PRIMARY KEY (a, b))",
        track=["t"],
    )
    database.sql("INSERT INTO t(b, a) VALUES (1, 'x')")
    assert database.log()[0]["pk_value"] == '{"b":1,"a":"x"}'
    assert database.log()[0]["payload"] == '{"b":1,"a":"x","n":1}'


def test_names_that_need_quotes_and_names_of_63_bytes(make_database):
    names = ['Or"der', "select", "x" * 63, "é" * 31, "With Space"]
    database = make_database()
    for name in names:
        quoted = '"' + name.replace('"', '""') + '"'
        database.sql(f'CREATE TABLE {quoted}("Id" int PRIMARY KEY, "it\'s" text, "{name[:40].replace(chr(34), "")}" int)')
        answer = database.json("SELECT sync_track_table(?)", quoted)
        assert answer["table"] == name
        database.sql(f"INSERT INTO {quoted} VALUES (1, 'x', 2)")
        database.sql(f"UPDATE {quoted} SET \"Id\" = 2")
        database.sql(f"DELETE FROM {quoted}")
        assert [entry["operation"] for entry in database.log(name)] == ["insert", "delete", "insert", "delete"]
        assert database.hash(quoted)


def test_tables_of_other_schemas_and_the_same_name_twice(make_database):
    database = make_database("CREATE SCHEMA s", "CREATE TABLE s.t(id int PRIMARY KEY)", "CREATE TABLE t(id int PRIMARY KEY)")
    assert database.json("SELECT sync_track_table('s.t')")["name"] == "s.t"
    assert database.json("SELECT sync_track_table('t')")["name"] == "t"
    database.sql("INSERT INTO s.t VALUES (1)")
    database.sql("INSERT INTO t VALUES (2)")
    assert [(c["tableName"], c["pkValue"]) for c in database.fetch()["changes"]] == [("s.t", '{"id":1}'), ("t", '{"id":2}')]


def test_a_thousand_columns(make_database):
    columns = ", ".join(f"c{n} int" for n in range(999))
    database = make_database(f"CREATE TABLE t(id int PRIMARY KEY, {columns})", track=["t"])
    database.sql("INSERT INTO t(id, c998) VALUES (1, 7)")
    payload = json.loads(database.log()[0]["payload"])
    assert len(payload) == 1000 and payload["c998"] == 7


def test_a_new_column_is_captured_at_once_and_a_dropped_one_no_more(database):
    database.sql("ALTER TABLE person ADD COLUMN age int DEFAULT 1")
    database.sql("INSERT INTO person(id, age) VALUES (1, 30)")
    database.sql("ALTER TABLE person DROP COLUMN email")
    database.sql("INSERT INTO person(id) VALUES (2)")
    assert [payload for _, _, payload in changes(database)] == [
        {"id": 1, "name": None, "age": 30}, {"id": 2, "name": None, "age": 1},
    ]
    assert database.json("SELECT columns FROM sync_tables()") == ["id", "name", "age"]


def test_large_values_are_stored_whole(database):
    text = "x☂" * 400_000
    database.sql("INSERT INTO person(id, name) VALUES (1, ?)", text)
    database.sql("UPDATE person SET email = 'e'")
    database.sql("UPDATE person SET email = 'e'")
    assert [payload["name"] == text for _, _, payload in changes(database)] == [True, True]


def test_stamps_are_of_the_statement_and_never_go_back(database, session):
    database.sql("BEGIN")
    database.sql("INSERT INTO person(id) VALUES (1)")
    database.sql("SELECT pg_sleep(0.05)")
    database.sql("INSERT INTO person(id) VALUES (2)")
    database.sql("COMMIT")
    session().sql("INSERT INTO person(id) VALUES (3)")
    stamps = [entry["timestamp"] for entry in database.log()]
    assert stamps == sorted(stamps) and stamps[0] < stamps[1]


def test_a_table_is_the_one_that_its_name_means_here(make_database):
    database = make_database('CREATE TABLE "Person"(id int PRIMARY KEY)', "CREATE TABLE person(id int PRIMARY KEY)")
    assert database.track('"Person"')["table"] == "Person"
    for call in ("hash", "reconcile", "subscribe"):
        with pg_error("TableNotTracked"):
            database.sql(f"SELECT sync_{call}('person')")
    assert database.value("SELECT sync_untrack_table('person')") is False
    # On the wire no case tells them apart.
    with pg_error("InvalidArgument") as error:
        database.track("person")
    assert '"Person"' in str(error.value)
    assert database.track("person", name="somebody")["table"] == "person"
    database.script('INSERT INTO person VALUES (1); INSERT INTO "Person" VALUES (2)')
    changes = [(c["tableName"], c["pkValue"]) for c in database.fetch()["changes"]]
    assert changes == [("somebody", '{"id":1}'), ("Person", '{"id":2}')]
    assert database.value("SELECT sync_untrack_table('person')") is True
    assert database.value("SELECT string_agg(table_name, ',') FROM sync_tables()") == "Person"


def test_a_table_that_took_the_place_of_one_of_another_case_goes_on_with_its_log(make_database):
    database = make_database('CREATE TABLE "Person"(id int PRIMARY KEY)', track=['"Person"'])
    database.sql('INSERT INTO "Person" VALUES (1)')
    database.script('DROP TABLE "Person"; CREATE TABLE person(id int PRIMARY KEY)')
    with pg_error("TableNotTracked"):
        database.hash("person")
    answer = database.track("person")
    assert (answer["table"], answer["name"]) == ("person", "Person")
    database.sql("INSERT INTO person VALUES (2)")
    assert {c["tableName"] for c in database.fetch()["changes"]} == {"Person"}
    assert database.hash("person") == database.hash()


def test_a_dot_in_a_name_is_none_between_two(make_database):
    database = make_database("CREATE SCHEMA a", "CREATE TABLE a.b(id int PRIMARY KEY)", 'CREATE TABLE "a.b"(id int PRIMARY KEY)')
    assert database.track('"a.b"')["name"] == "a.b"
    with pg_error("InvalidArgument"):
        database.track("a.b")
    assert database.track("a.b", name="ab")["name"] == "ab"
    database.script('INSERT INTO a.b VALUES (1); INSERT INTO "a.b" VALUES (2), (3)')
    assert [c["tableName"] for c in database.fetch()["changes"]] == ["ab", "a.b", "a.b"]
    assert database.value("SELECT json_agg(rows) FROM json_to_recordset(sync_status()::json->'tables') AS t(rows int)") == [2, 1]
    assert database.value("SELECT sync_untrack_table('\"a.b\"')") is True
    database.script('INSERT INTO a.b VALUES (4); INSERT INTO "a.b" VALUES (5)')
    assert [c["pk_value"] for c in database.log()][3:] == ['{"id":4}']


def test_columns_that_differ_in_case_only_are_refused(make_database):
    database = make_database('CREATE TABLE x("Name" int PRIMARY KEY, name text)')
    with pg_error("UnsupportedTable") as error:
        database.track("x")
    assert '"Name"' in str(error.value) and '"name"' in str(error.value)
    [(severity, code)] = database.sql("SELECT severity, code FROM sync_check_table('x')")
    assert (severity, code) == ("error", "UnsupportedTable")


def test_a_trigger_of_the_users_with_a_name_of_ours_is_left_alone(make_database):
    database = make_database(
        "CREATE TABLE x(id int PRIMARY KEY)",
        "CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END'",
        "CREATE TRIGGER x_sync_update BEFORE INSERT ON x FOR EACH ROW EXECUTE FUNCTION f()",
    )
    with pg_error("UnsupportedTable") as error:
        database.track("x")
    assert "x_sync_update" in str(error.value)
    assert database.sql("SELECT * FROM sync_tables()") == []


@pytest.mark.parametrize("tracked, other", [("p", "p1"), ("p1", "p")])
def test_a_partition_and_its_table_are_not_both_tracked(make_database, tracked, other):
    database = make_database(
        "CREATE TABLE p(id int PRIMARY KEY) PARTITION BY RANGE (id)", "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (0) TO (10)", track=[tracked],
    )
    with pg_error("UnsupportedTable") as error:
        database.track(other)
    assert "partition" in str(error.value)
    database.sql("INSERT INTO p VALUES (1)")
    assert [c["tableName"] for c in database.fetch()["changes"]] == [tracked]


def test_strings_of_the_old_style_change_nothing(make_database):
    database = make_database("SET standard_conforming_strings = off", "CREATE TABLE x(id int PRIMARY KEY)", track=["x"])
    database.sql("ALTER TABLE x ADD COLUMN v text")
    database.sql("INSERT INTO x VALUES (1, 'a')")
    assert [json.loads(c["payload"]) for c in database.log()] == [{"id": 1, "v": "a"}]
    assert database.value("SELECT sync_untrack_table('x')") is True


@pytest.mark.parametrize(
    "create, name, kind",
    [
        ("CREATE TABLE x(a int)", "x", "UnsupportedTable"),
        ("CREATE VIEW x AS SELECT 1 AS id", "x", "UnsupportedTable"),
        ("CREATE TEMP TABLE x(id int PRIMARY KEY)", "x", "UnsupportedTable"),
        ("SELECT 1", "_sync_state", "UnsupportedTable"),
        ("SELECT 1", "pg_catalog.pg_class", "UnsupportedTable"),
        ("SELECT 1", "nothing", "TableNotFound"),
        ("SELECT 1", "no such name;", "TableNotFound"),
    ],
)
def test_what_cannot_be_tracked_is_refused_with_the_reason(make_database, create, name, kind):
    database = make_database(create)
    with pg_error(kind):
        database.track(name)
    assert database.sql("SELECT * FROM sync_tables()") == []


def test_rows_from_before_are_logged_when_tracking_begins_and_untracking_stops_it(make_database):
    database = make_database("CREATE TABLE t(id int PRIMARY KEY)", "INSERT INTO t SELECT generate_series(1, 5)")
    assert database.track("t")["backfilled"] == 5
    assert database.track("t")["backfilled"] == 0
    assert database.value("SELECT sync_untrack_table('t')") is True
    assert database.value("SELECT sync_untrack_table('t')") is False
    database.sql("INSERT INTO t VALUES (6)")
    assert len(database.log()) == 5
    assert database.track("t")["backfilled"] == 1


def test_tracking_is_the_owners_right(database, session):
    database.script("DROP ROLE IF EXISTS guest; CREATE ROLE guest LOGIN; GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA public TO guest")
    database.sql("CREATE TABLE t(id int PRIMARY KEY)")
    from pg_replica import pg_error

    with pg_error("PermissionDenied"):
        session("guest").track("t")
