"""Capture follows the definitions of tracked tables, a dump keeps everything, and nothing of it is in the way."""

import json
import subprocess

import pytest

from cluster import bindir
from pg_replica import PgReplica, pg_error

PERSON = "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)"


def payloads(database):
    return [entry["payload"] and json.loads(entry["payload"]) for entry in database.log()]


def test_a_column_that_is_added_renamed_and_dropped(database):
    database.sql("INSERT INTO person VALUES (1, 'a', 'e')")
    database.sql("ALTER TABLE person ADD COLUMN age int DEFAULT 7")
    database.sql("INSERT INTO person VALUES (2, 'b', 'e', 8)")
    database.sql("ALTER TABLE person RENAME COLUMN name TO \"Full name\"")
    database.sql("ALTER TABLE person RENAME COLUMN id TO key")
    database.sql("UPDATE person SET email = 'f' WHERE key = 2")
    database.sql("DELETE FROM person WHERE key = 2")
    database.sql("ALTER TABLE person DROP COLUMN email")
    database.sql("INSERT INTO person VALUES (3, 'c')")
    assert payloads(database) == [
        {"key": 1, "Full name": "a"},
        {"key": 2, "Full name": "b", "age": 8},
        {"key": 2, "Full name": "b", "age": 8},
        None,
        {"key": 3, "Full name": "c", "age": 7},
    ]
    assert database.log()[3]["pk_value"] == '{"key":2}'
    assert database.json("SELECT columns FROM sync_tables()") == ["key", "Full name", "age"]


def test_a_default_that_differs_from_row_to_row_is_logged(database):
    database.sql("INSERT INTO person(id) VALUES (1), (2)")
    database.sql("ALTER TABLE person ADD COLUMN mark uuid DEFAULT gen_random_uuid()")
    held = {key: str(mark) for key, mark in database.sql("SELECT id, mark FROM person")}
    assert {p["id"]: p.get("mark") for p in payloads(database)} == held


def test_a_column_of_another_type_is_logged_anew(database):
    database.sql("INSERT INTO person(id, name) VALUES (1, '7')")
    database.sql("ALTER TABLE person ALTER name TYPE int USING name::int")
    assert payloads(database)[-1]["name"] == 7


def test_a_table_that_is_renamed_and_moved_to_another_schema(database):
    database.sql("CREATE SCHEMA s")
    database.sql("ALTER TABLE person RENAME TO people")
    database.sql("ALTER TABLE people SET SCHEMA s")
    database.sql("INSERT INTO s.people VALUES (1)")
    assert database.sql("SELECT table_name, name FROM sync_tables()") == [("s.people", "person")]
    assert [change["tableName"] for change in database.fetch()["changes"]] == ["person"]
    assert database.value("SELECT sync_untrack_table('s.people')") is True


def test_a_table_that_is_dropped_and_made_again(database):
    database.sql("INSERT INTO person(id) VALUES (1)")
    database.sql("DROP TABLE person")
    assert database.sql("SELECT * FROM sync_tables()") == []
    database.sql("CREATE TABLE person(id bigint PRIMARY KEY, name text)")
    database.sql("INSERT INTO person VALUES (2, 'x')")
    assert len(database.log()) == 1
    database.track("person")
    database.sql("INSERT INTO person VALUES (3, 'y')")
    assert [(entry["operation"], json.loads(entry["pk_value"])["id"]) for entry in database.log()] == [
        ("insert", 1), ("insert", 2), ("delete", 1), ("insert", 3),
    ]


def test_who_comes_after_a_column_was_dropped_gets_the_rows_without_it(database, make_database):
    database.sql("INSERT INTO person SELECT n, 'name ' || n, 'email' FROM generate_series(1, 2500) AS n")
    database.sql("ALTER TABLE person DROP COLUMN email")
    late = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text)", track=["person"])
    late.pull(database)
    assert late.sql("SELECT * FROM sync_rejections()") == []
    assert late.rows("person") == database.rows("person") and late.hash() == database.hash()
    assert database.value("SELECT sync_reconcile('person')") == 0


def test_a_column_that_is_excluded_later_is_in_no_entry(database):
    database.sql("INSERT INTO person VALUES (1, 'a', 'secret')")
    database.track("person", exclude=["email"])
    database.sql("UPDATE person SET name = 'b'")
    assert payloads(database) == [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}]
    database.track("person", exclude=[])
    assert payloads(database)[-1] == {"id": 1, "name": "b", "email": "secret"}


def test_another_table_in_the_place_of_one_has_its_columns_in_another_order(database):
    database.sql("INSERT INTO person VALUES (1, 'a', 'e')")
    database.sql("DROP TABLE person")
    database.sql("CREATE TABLE person(id bigint PRIMARY KEY, email text, name text, age int)")
    database.sql("INSERT INTO person VALUES (1, 'e', 'a', 7)")
    database.track("person")
    assert payloads(database) == [{"id": 1, "name": "a", "email": "e"}, {"id": 1, "email": "e", "name": "a", "age": 7}]


LOW = "CREATE TABLE low PARTITION OF m FOR VALUES FROM (0) TO (10)"


@pytest.mark.parametrize("low", [LOW, LOW + " PARTITION BY RANGE (id); CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5)"])
@pytest.mark.parametrize("how", ["DROP TABLE {}", "ALTER TABLE m DETACH PARTITION low"])
def test_the_rows_of_a_partition_that_is_dropped_are_deleted_with_a_trace(make_database, low, how):
    database = make_database("CREATE TABLE m(id int PRIMARY KEY) PARTITION BY RANGE (id)")
    database.script(low)
    database.script("CREATE TABLE high PARTITION OF m FOR VALUES FROM (10) TO (20)")
    database.track("m")
    database.sql("INSERT INTO m VALUES (1), (2), (11)")
    database.sql(how.format("lowest" if "lowest" in low else "low"))
    assert sorted(json.loads(entry["pk_value"])["id"] for entry in database.log() if entry["operation"] == "delete") == [1, 2]
    database.sql("INSERT INTO m VALUES (12)")
    assert len(database.log()) == 6


@pytest.mark.parametrize("column", ["label", "label[]", "named", "pair"])
def test_a_label_of_an_enumeration_that_is_renamed_is_logged_anew(make_database, column):
    value = {"label": "'open'", "label[]": "ARRAY['open', 'closed']::label[]", "named": "'open'", "pair": "ROW('open', 1)::pair"}[column]
    database = make_database(
        "CREATE TYPE label AS ENUM ('open', 'closed')", "CREATE DOMAIN named AS label", "CREATE TYPE pair AS (a label, b int)",
        f"CREATE TABLE t(id int PRIMARY KEY, v {column})", "CREATE TABLE u(id int PRIMARY KEY)", track=["t", "u"],
    )
    database.sql(f"INSERT INTO t VALUES (1, {value}), (2, NULL)")
    database.sql("ALTER TYPE label ADD VALUE 'third'")
    assert len(database.log()) == 2
    database.sql("ALTER TYPE label RENAME VALUE 'open' TO 'active'")
    [*_, last] = database.log()
    assert len(database.log()) == 3 and "active" in last["payload"]
    assert database.value("SELECT sync_reconcile('t')") == 0


def test_a_label_that_is_renamed_sends_no_new_columns_default(make_database):
    database = make_database("CREATE TYPE label AS ENUM ('open', 'closed')", "CREATE TABLE t(id int PRIMARY KEY, v label)", track=["t"])
    database.sql("INSERT INTO t VALUES (1, 'open'), (2, 'closed')")
    database.sql("ALTER TABLE t ADD COLUMN n int DEFAULT 7")
    database.sql("ALTER TYPE label RENAME VALUE 'open' TO 'active'")
    assert [entry["pk_value"] for entry in database.log()][2:] == ['{"id":1}']
    assert database.value("SELECT sync_reconcile('t')") == 1


def test_a_table_takes_the_place_of_another(database, make_database):
    """What was under its name is renamed, and the clients get the differences."""
    client = make_database(PERSON, track=["person"])
    database.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    client.pull(database)
    database.sql("CREATE TABLE green(LIKE person INCLUDING ALL)")
    database.sql("INSERT INTO green SELECT * FROM person WHERE id = 1")
    warned = []
    database.connection.add_notice_handler(lambda notice: warned.append(notice.message_primary))
    with database.transaction():
        database.sql("ALTER TABLE person RENAME TO blue")
        database.sql("ALTER TABLE green RENAME TO person")
    assert [message for message in warned if "person" in message and "blue" in message]
    with pg_error("InvalidArgument"):
        database.track("person")
    database.sql("SELECT sync_untrack_table('blue')")
    assert database.track("person")["backfilled"] == 1
    database.sql("INSERT INTO person VALUES (3, 'c', NULL)")
    assert [(c["operation"], c["tableName"]) for c in database.fetch(2)["changes"]] == [("Delete", "person"), ("Insert", "person")]
    client.pull(database)
    assert client.rows("person") == database.rows("person") and client.hash() == database.hash()
    assert database.track("blue")["name"] == "blue"


def test_a_table_is_renamed_to_the_name_of_one_that_is_not_tracked_any_more(make_database):
    database = make_database(PERSON, "CREATE TABLE other(id bigint PRIMARY KEY)", track=["person", "other"])
    database.sql("INSERT INTO other VALUES (1)")
    database.sql("DROP TABLE other")
    database.sql("ALTER TABLE person RENAME TO other")
    database.sql("INSERT INTO other VALUES (7)")
    assert database.sql("SELECT table_name, name FROM sync_tables()") == [("other", "person")]
    assert [c["tableName"] for c in database.fetch()["changes"]] == ["other", "person"]


def test_a_new_partition_is_truncated_with_a_trace(make_database):
    database = make_database("CREATE TABLE m(id int PRIMARY KEY) PARTITION BY RANGE (id)", track=["m"])
    database.sql("CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)")
    database.sql("INSERT INTO m VALUES (1)")
    database.sql("TRUNCATE m1")
    assert [entry["operation"] for entry in database.log()] == ["insert", "delete"]


def test_rows_that_come_and_go_with_a_partition_are_logged(make_database):
    database = make_database(
        "CREATE TABLE m(id int PRIMARY KEY) PARTITION BY RANGE (id)",
        "CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (10)",
        "CREATE TABLE m2(id int PRIMARY KEY)",
        "INSERT INTO m2 VALUES (11)",
        track=["m"],
    )
    database.sql("INSERT INTO m VALUES (1)")
    database.sql("ALTER TABLE m ATTACH PARTITION m2 FOR VALUES FROM (10) TO (20)")
    database.sql("INSERT INTO m VALUES (12)")
    database.sql("ALTER TABLE m DETACH PARTITION m1")
    database.sql("INSERT INTO m1 VALUES (2)")
    database.sql("TRUNCATE m1")
    log = [(entry["operation"], json.loads(entry["pk_value"])["id"]) for entry in database.log()]
    assert log == [("insert", 1), ("insert", 11), ("insert", 12), ("delete", 1)]


def test_ddl_that_is_rolled_back_is_undone_here_too(database):
    database.sql("BEGIN")
    database.sql("ALTER TABLE person RENAME COLUMN name TO title")
    database.sql("ROLLBACK")
    database.sql("INSERT INTO person VALUES (1, 'a')")
    assert payloads(database) == [{"id": 1, "name": "a", "email": None}]


def test_other_ddl_is_not_disturbed(database, session):
    database.script(
        "DROP ROLE IF EXISTS maker; CREATE ROLE maker LOGIN; GRANT CREATE ON SCHEMA public TO maker"
    )
    maker = session("maker")
    maker.sql("CREATE TABLE mine(id int PRIMARY KEY)")
    maker.sql("ALTER TABLE mine ADD COLUMN x int")
    maker.sql("CREATE TABLE copy AS SELECT * FROM mine")
    maker.sql("DROP TABLE mine")


def test_the_owner_of_a_table_may_alter_it_without_rights_on_sync(database, session):
    database.script(
        "DROP ROLE IF EXISTS keeper; CREATE ROLE keeper LOGIN; GRANT CREATE ON SCHEMA public TO keeper; ALTER TABLE person OWNER TO keeper"
    )
    keeper = session("keeper")
    keeper.sql("INSERT INTO person VALUES (1, 'a')")
    keeper.sql("ALTER TABLE person RENAME COLUMN name TO title")
    assert payloads(database) == [{"id": 1, "title": "a", "email": None}]


def test_without_the_extension_the_tables_work(database):
    database.sql("INSERT INTO person(id) VALUES (1)")
    database.sql("DROP EXTENSION pg_sync CASCADE")
    database.sql("INSERT INTO person(id) VALUES (2)")
    database.sql("ALTER TABLE person ADD COLUMN x int")
    assert database.value("SELECT count(*) FROM person") == 2
    database.sql("CREATE EXTENSION pg_sync")
    assert database.track("person")["backfilled"] == 2


def test_the_extension_can_be_made_again_in_one_session(make_database):
    database = make_database("CREATE TABLE t(id int PRIMARY KEY)", track=["t"])
    for number in range(3):
        database.sql("INSERT INTO t VALUES (?)", number)
        database.sql("DROP EXTENSION pg_sync CASCADE")
        database.sql("CREATE EXTENSION pg_sync")
        database.track("t")
        assert len(database.log()) == number + 1


@pytest.mark.parametrize("format_", ["plain", "custom"])
def test_a_dump_keeps_log_state_and_tracking_and_a_restored_copy_has_another_epoch(make_database, cluster, format_):
    database = make_database(
        "CREATE SCHEMA s", "CREATE TABLE s.t(id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text)", track=["s.t"]
    )
    database.sql("INSERT INTO s.t(name) VALUES ('a'), ('b')")
    database.sql("DELETE FROM s.t WHERE id = 1")
    database.sql("SELECT sync_register_client('00000000-0000-0000-0000-000000000001', 2)")
    before = database.state
    name = cluster.create_database()
    where = ["-h", str(cluster.folder), "-U", "postgres"]
    if format_ == "plain":
        dump = subprocess.check_output([bindir() / "pg_dump", *where, database.database])
        subprocess.run(
            [bindir() / "psql", *where, "-v", "ON_ERROR_STOP=1", "-q", "-d", name], input=dump, check=True, stdout=subprocess.DEVNULL
        )
    else:
        dump = subprocess.check_output([bindir() / "pg_dump", *where, "-Fc", database.database])
        subprocess.run([bindir() / "pg_restore", *where, "--exit-on-error", "-d", name], input=dump, check=True)
    restored = PgReplica(cluster, name)
    after = restored.state
    assert after["originId"] == before["originId"] and after["epoch"] != before["epoch"]
    assert after["maxVersion"] == before["maxVersion"] and restored.log() == database.log()
    assert restored.hash() == database.hash()
    assert restored.sql("SELECT count(*) FROM sync_clients()") == [(1,)]
    restored.sql("INSERT INTO s.t(name) VALUES ('c')")
    [new] = restored.log()[len(database.log()):]
    assert new["version"] > before["maxVersion"]
    assert restored.state["epoch"] == after["epoch"]
    restored.close()


def test_a_copied_database_has_another_epoch(make_database, cluster):
    database = make_database("CREATE TABLE t(id int PRIMARY KEY)", track=["t"])
    epoch, name = database.state["epoch"], f"{database.database}_copy"
    database.close()
    with cluster.connect() as connection:
        connection.execute(f"CREATE DATABASE {name} TEMPLATE {database.database}")
    copy = PgReplica(cluster, name)
    assert copy.state["epoch"] != epoch
    copy.close()


def test_a_given_origin_id_is_kept_for_good(make_database):
    database = make_database()
    origin = "0a000000-0000-4000-8000-000000000001"
    assert database.value("SELECT sync_init(?)", origin.upper()) == origin
    assert database.value("SELECT sync_init()") == origin
    with pg_error("InvalidArgument"):
        database.sql("SELECT sync_init(?)", "0b000000-0000-4000-8000-000000000001")
    with pg_error("InvalidArgument"):
        database.sql("SELECT sync_init('nonsense')")
    assert database.value("SELECT sync_regenerate_origin()") != origin


def test_every_table_and_column_of_ours_is_explained(make_database):
    database = make_database()
    assert database.sql(
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e'"
        " JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0"
        " WHERE c.relkind IN ('r', 'v') AND col_description(c.oid, a.attnum) IS NULL"
    ) == []
    assert database.sql(
        "SELECT c.relname FROM pg_class c JOIN pg_depend d ON d.objid = c.oid AND d.deptype = 'e'"
        " WHERE c.relkind IN ('r', 'v') AND obj_description(c.oid) IS NULL"
    ) == []


def test_an_untracked_statement_is_not_logged(database):
    assert database.value("SELECT sync_execute_untracked('INSERT INTO person(id) VALUES (1), (2)')") == 2
    assert database.log() == []
    database.sql("INSERT INTO person(id) VALUES (3)")
    assert len(database.log()) == 1
    assert database.value("SELECT sync_reconcile('person')") == 2
    for statement in ("COMMIT", "SELECT 1; SELECT 2", ""):
        with pg_error("InvalidArgument"):
            database.sql("SELECT sync_execute_untracked(?)", statement)
