"""What dumps keep beyond the simple case (see test_ddl.py), and what is left without the extension."""

import subprocess

import pytest

from cluster import bindir
from pg_replica import PgReplica, pg_error

TABLES = """
CREATE TABLE parent(id bigint PRIMARY KEY, name text);
CREATE TABLE child(id bigint PRIMARY KEY, parent bigint REFERENCES parent(id), secret text);
"""
PARTITIONED = """
CREATE TABLE m(id int PRIMARY KEY, note text) PARTITION BY RANGE (id);
CREATE TABLE m1 PARTITION OF m FOR VALUES FROM (0) TO (100);
CREATE TABLE m2 PARTITION OF m FOR VALUES FROM (100) TO (200);
"""


@pytest.fixture
def filled(make_database):
    database = make_database()
    database.script(TABLES + PARTITIONED)
    database.track("parent")
    database.track("child", exclude=["secret"], conflict="merge", name="kid")
    database.track("m")
    database.script(
        "INSERT INTO parent VALUES (1, 'a'), (2, 'b'); INSERT INTO child VALUES (1, 1, 's'), (2, 2, 's'); INSERT INTO m VALUES (1, 'x'), (101, 'y');"
        "UPDATE m SET id = 150 WHERE id = 1; DELETE FROM child WHERE id = 2"
    )
    return database


def run(cluster, program, *arguments):
    """A program of the server's clients; what it prints."""
    command = [bindir() / program, "-h", str(cluster.folder), "-U", "postgres", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def tracked(database):
    return database.sql("SELECT * FROM sync_tables() ORDER BY table_name")


def triggers(database):
    return database.sql(
        "SELECT tgrelid::regclass::text, tgname, tgenabled, pg_get_triggerdef(oid) FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1, 2"
    )


def writes_are_captured(database):
    before = len(database.log())
    database.script(
        "INSERT INTO parent VALUES (9, 'z'); INSERT INTO child VALUES (9, 9, 's'); INSERT INTO m VALUES (9, 'm'); TRUNCATE m2"
    )
    return [entry["operation"] for entry in database.log()][before:] == ["insert", "insert", "insert", "delete", "delete"]


def test_a_dump_that_is_restored_by_several_at_once(filled, cluster, tmp_path):
    run(cluster, "pg_dump", "-Fd", "-f", tmp_path / "dump", filled.database)
    name = cluster.create_database()
    run(cluster, "pg_restore", "-j", "4", "--exit-on-error", "-d", name, tmp_path / "dump")
    restored = PgReplica(cluster, name)
    assert restored.log() == filled.log() and restored.hash() == filled.hash()
    assert tracked(restored) == tracked(filled) and triggers(restored) == triggers(filled)
    assert restored.state["epoch"] != filled.state["epoch"]
    assert writes_are_captured(restored)
    restored.sql("DROP EXTENSION pg_sync")
    assert triggers(restored) == []
    restored.close()


def test_a_dump_that_is_restored_over_the_database_it_is_of(filled, cluster, make_database, tmp_path):
    # pg_restore --clean cannot drop the keys of partitions.
    filled.sql("DROP TABLE m")
    client = make_database()
    client.script(TABLES + PARTITIONED)
    for table, name in (("parent", "parent"), ("child", "kid"), ("m", "m")):
        client.track(table, name=name)
    run(cluster, "pg_dump", "-Fc", "-f", tmp_path / "dump", filled.database)
    log, epoch, before = filled.log(), filled.state["epoch"], tracked(filled)
    filled.sql("INSERT INTO parent VALUES (3, 'not in the dump')")
    client.pull(filled)
    filled.close()
    run(cluster, "pg_restore", "--clean", "--if-exists", "--exit-on-error", "-d", filled.database, tmp_path / "dump")
    restored = filled.again()
    assert restored.log() == log and tracked(restored) == before
    assert restored.state["epoch"] != epoch
    restored.sql("INSERT INTO parent VALUES (4, 'after')")
    assert len(restored.log()) == len(log) + 1
    with pg_error("EpochMismatch"):
        client.pull(restored)
    client.sql("SELECT sync_begin_resync()")
    client.pull(restored)
    assert client.rows("parent") == restored.rows("parent") and len(client.rows("parent")) == 3
    restored.close()


def test_the_extension_is_dropped_without_asking_for_more(filled):
    filled.sql("DROP EXTENSION pg_sync")
    assert triggers(filled) == []
    filled.script("INSERT INTO parent VALUES (3, 'c'); UPDATE m SET note = 'z'; DELETE FROM child; TRUNCATE m; ALTER TABLE m ADD COLUMN x int")
    assert len(filled.rows("parent")) == 3
    assert filled.sql("SELECT evtname FROM pg_event_trigger") == []


def test_what_others_made_of_the_extension_is_not_dropped_with_it(filled):
    filled.sql("CREATE VIEW mine AS SELECT * FROM sync_tables()")
    with pytest.raises(Exception, match="other objects depend on it"):
        filled.sql("DROP EXTENSION pg_sync")
    assert writes_are_captured(filled)
