"""Tables tracked with `userTriggers: false`: what is applied fires no trigger of the user's, and all else is as ever."""

import json
import subprocess

import pytest

from cluster import bindir
from pg_replica import PgReplica
from test_apply import FUTURE, change, push

FIRED = """
CREATE TABLE fired(what text);
CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO fired VALUES (concat_ws(' ', TG_NAME, TG_OP));
  RETURN CASE TG_OP WHEN 'DELETE' THEN OLD ELSE NEW END;
END $$;
CREATE TABLE person(id bigint PRIMARY KEY, name text CHECK (name <> 'refused'), email text);
CREATE TRIGGER before_row BEFORE INSERT OR UPDATE OR DELETE ON person FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER after_row AFTER INSERT OR UPDATE OR DELETE ON person FOR EACH ROW EXECUTE FUNCTION fire();
CREATE TRIGGER before_all BEFORE INSERT OR UPDATE OR DELETE ON person EXECUTE FUNCTION fire();
CREATE TRIGGER after_all AFTER INSERT OR UPDATE OR DELETE ON person EXECUTE FUNCTION fire();
CREATE CONSTRAINT TRIGGER at_the_end AFTER INSERT OR UPDATE OR DELETE ON person DEFERRABLE INITIALLY DEFERRED
  FOR EACH ROW EXECUTE FUNCTION fire();
"""
KINDS = ["after_all", "after_row", "at_the_end", "before_all", "before_row"]


@pytest.fixture
def spared(make_database):
    database = make_database()
    database.script(FIRED)
    database.track("person", userTriggers=False)
    return database


def fired(database):
    """What has fired since the last look."""
    return sorted(what for (what,) in database.sql("DELETE FROM fired RETURNING what"))


def fires_for_writers(database):
    database.sql("INSERT INTO person VALUES (99, 'z', NULL)")
    inserted = fired(database)
    database.sql("DELETE FROM person WHERE id = 99")
    return inserted == [f"{kind} INSERT" for kind in KINDS] and fired(database) == [f"{kind} DELETE" for kind in KINDS]


def test_what_is_applied_fires_nothing_and_what_is_written_fires_all(spared):
    assert spared.apply(push(change(1, 1, "a"), change(2, 2, "b")))["applied"] == 2
    assert spared.apply(push(change(3, 1, "aa"), change(4, 2, None, "Delete")))["applied"] == 2
    assert spared.rows("person") == [(1, "aa", None)]
    assert fired(spared) == []
    assert fires_for_writers(spared)
    assert spared.apply(push(change(5, 3, "c")))["applied"] == 1
    assert fired(spared) == []


def test_what_is_applied_is_logged_with_its_label(spared):
    spared.apply(push(change(1, 1, "a"), change(2, 1, None, "Delete")))
    assert {entry["origin"] for entry in spared.log()} == {push(change(1, 1, "a"))["originId"]}


def test_a_row_that_is_refused_leaves_writers_their_triggers(spared):
    answer = spared.apply(push(change(1, 1, "refused"), change(2, 2, "b")))
    assert (answer["applied"], answer["rejected"]) == (1, 1)
    assert fired(spared) == []
    assert fires_for_writers(spared)


def test_the_triggers_fire_without_the_option_and_when_it_is_taken_back(make_database):
    database = make_database()
    database.script(FIRED)
    database.track("person")
    database.apply(push(change(1, 1, "a")))
    assert fired(database) == [f"{kind} INSERT" for kind in KINDS]
    assert database.track("person", userTriggers=False)["userTriggers"] is False
    database.apply(push(change(2, 2, "b")))
    assert fired(database) == []
    assert database.track("person", userTriggers=True)["userTriggers"] is True
    database.apply(push(change(3, 3, "c")))
    assert fired(database) == [f"{kind} INSERT" for kind in KINDS]


def test_what_logical_replication_fires_is_fired(spared):
    spared.sql("ALTER TABLE person ENABLE ALWAYS TRIGGER after_row")
    spared.sql("ALTER TABLE person ENABLE REPLICA TRIGGER before_all")
    spared.sql("ALTER TABLE person DISABLE TRIGGER before_row")
    spared.apply(push(change(1, 1, "a")))
    assert fired(spared) == ["after_row INSERT", "before_all INSERT"]


def test_a_change_of_the_table_by_one_of_its_own_triggers_changes_nothing(spared):
    """It makes the server forget what it knows of the table, in the middle of the statement."""
    spared.script("""
        CREATE FUNCTION disturb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          EXECUTE 'GRANT SELECT ON person TO PUBLIC'; EXECUTE 'REVOKE SELECT ON person FROM PUBLIC'; RETURN NEW;
        END $$;
        CREATE TRIGGER a_disturbing BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION disturb();
        ALTER TABLE person ENABLE ALWAYS TRIGGER a_disturbing;
    """)
    assert spared.apply(push(*(change(n, n, "a") for n in range(1, 20))))["applied"] == 19
    assert fired(spared) == []


def test_foreign_keys_and_cascades_hold_and_what_they_cause_is_a_local_write(make_database):
    database = make_database()
    database.script(FIRED + """
        CREATE TABLE visit(id bigint PRIMARY KEY, name text, email bigint REFERENCES person(id) ON DELETE CASCADE);
        CREATE TRIGGER visit_row AFTER INSERT OR DELETE ON visit FOR EACH ROW EXECUTE FUNCTION fire();
    """)
    database.track("person", userTriggers=False)
    database.track("visit", userTriggers=False)

    def visit(version, key, person):
        payload = json.dumps({"id": key, "name": None, "email": person})
        return {**change(version, key, None, table="visit"), "payload": payload}

    answer = database.apply(push(visit(1, 1, 1), visit(2, 2, 7), change(3, 1, "a")))
    assert (answer["applied"], answer["rejected"] + answer["deferred"]) == (2, 1)
    assert [r["pk_value"] for r in database.records("SELECT * FROM sync_rejections()")] == ['{"id": 2}']
    assert fired(database) == []
    database.apply(push(change(4, 1, None, "Delete", stamp=FUTURE)))
    assert database.rows("visit") == []
    assert fired(database) == ["visit_row DELETE"]
    person, visit = database.log()[-2:]
    assert (person["table_name"], visit["table_name"]) in [("person", "visit"), ("visit", "person")]
    assert database.value("SELECT sync_init()") in {person["origin"], visit["origin"]}


def test_a_write_that_a_trigger_of_another_table_makes_fires_all(make_database):
    database = make_database()
    database.script(FIRED + """
        CREATE TABLE visit(id bigint PRIMARY KEY, name text, email text);
        CREATE FUNCTION write_person() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          INSERT INTO person (id, name, email) VALUES (NEW.id, 'by trigger', NULL); RETURN NULL;
        END $$;
        CREATE TRIGGER visit_row AFTER INSERT ON visit FOR EACH ROW EXECUTE FUNCTION write_person();
    """)
    database.track("person", userTriggers=False)
    database.track("visit")
    database.apply(push(change(1, 1, "a"), change(2, 5, "b", table="visit")))
    assert fired(database) == [f"{kind} INSERT" for kind in KINDS]


def test_partitions_spare_their_triggers_too(make_database):
    database = make_database()
    partitioned = FIRED.replace("email text);", "email text) PARTITION BY RANGE (id);")
    database.script(partitioned + """
        CREATE TABLE low PARTITION OF person FOR VALUES FROM (0) TO (10) PARTITION BY RANGE (id);
        CREATE TABLE lowest PARTITION OF low FOR VALUES FROM (0) TO (5);
        CREATE TABLE lower(email text, gone int, name text, id bigint PRIMARY KEY);
        ALTER TABLE lower DROP COLUMN gone;
        ALTER TABLE lower ADD CONSTRAINT person_name_check CHECK (name <> 'refused');
        ALTER TABLE low ATTACH PARTITION lower FOR VALUES FROM (5) TO (10);
        CREATE TABLE high PARTITION OF person FOR VALUES FROM (10) TO (100);
        CREATE TRIGGER own BEFORE INSERT OR UPDATE OR DELETE ON high FOR EACH ROW EXECUTE FUNCTION fire();
    """)
    database.track("person", userTriggers=False)
    answer = database.apply(push(*(change(n, key, "a") for n, key in enumerate([1, 2, 7, 8, 50, 51, 200], 1))))
    assert (answer["applied"], answer["rejected"]) == (6, 1)
    database.apply(push(change(8, 1, "b"), change(9, 8, "b"), change(10, 50, "b"), change(11, 51, None, "Delete")))
    assert [row[:2] for row in database.rows("person")] == [(1, "b"), (2, "a"), (7, "a"), (8, "b"), (50, "b")]
    assert fired(database) == []
    database.sql("INSERT INTO person VALUES (60, 'z', NULL)")
    assert fired(database) == sorted([f"{kind} INSERT" for kind in [*KINDS, "own"]])


def test_the_option_stays_when_the_table_is_tracked_again_altered_or_restored(spared, cluster, tmp_path):
    assert spared.track("person")["userTriggers"] is False
    spared.sql("ALTER TABLE person RENAME COLUMN email TO mail")
    spared.sql("ALTER TABLE person RENAME TO people")
    run = [bindir() / "pg_dump", "-h", str(cluster.folder), "-U", "postgres", "-f", tmp_path / "dump", spared.database]
    subprocess.run(run, check=True)
    name = cluster.create_database()
    subprocess.run(
        [bindir() / "psql", "-qX", "-v", "ON_ERROR_STOP=1", "-h", str(cluster.folder), "-U", "postgres", "-f", tmp_path / "dump", name],
        check=True, stdout=subprocess.DEVNULL,
    )
    restored = PgReplica(cluster, name)
    for database in [spared, restored]:
        row = {**change(1, 1, "a"), "payload": json.dumps({"id": 1, "name": "a", "mail": None})}
        assert database.apply(push(row))["applied"] == 1
        assert fired(database) == []
    restored.close()


def test_a_delete_that_a_trigger_makes_an_update_of_is_refused_and_the_row_is_as_it_was(make_database):
    database = make_database("CREATE TABLE person(id bigint PRIMARY KEY, name text, email text)", track=["person"])
    database.apply(push(change(1, 1, "a"), change(2, 2, "b")))
    database.script("""
        CREATE FUNCTION soft_delete() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          UPDATE person SET name = 'gone' WHERE id = OLD.id; RETURN NULL;
        END $$;
        CREATE TRIGGER soft_delete BEFORE DELETE ON person FOR EACH ROW EXECUTE FUNCTION soft_delete();
    """)
    result = database.apply(push(change(3, 1, None, "Delete"), change(4, 3, "c")))
    assert (result["applied"], result["rejected"]) == (1, 1)
    assert database.sql("SELECT id, name FROM person ORDER BY id") == [(1, "a"), (2, "b"), (3, "c")]
    assert [entry["operation"] for entry in database.log()] == ["insert", "insert", "insert"]
