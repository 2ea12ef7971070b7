"""Applying batches while others write: the rule decides, nothing is overwritten unseen, and nothing half-way stays."""

import hashlib
import json
import threading
import time
import uuid

import psycopg
import pytest

from pg_replica import pg_error

SENDER = str(uuid.UUID(int=7))
FUTURE = "2999-01-01T00:00:00.000Z"


def change(version, key, name, operation="Update", stamp=None, table="person"):
    stamp = stamp or time.strftime("%Y-%m-%dT%H:%M:%S.000Z", time.gmtime())
    payload = None if operation == "Delete" else json.dumps({"id": key, "name": name, "email": None})
    return {
        "version": version, "tableName": table, "pkValue": json.dumps({"id": key}), "operation": operation,
        "payload": payload, "origin": SENDER, "timestamp": stamp,
    }


def push(*changes, seen=0, sender=SENDER):
    versions = [c["version"] for c in changes]
    return {
        "kind": "push", "originId": sender, "epoch": "e", "fromVersion": versions[0] - 1, "toVersion": versions[-1],
        "lastServerVersion": seen, "changes": list(changes),
    }


class Background(threading.Thread):
    """A statement in another session, which may have to wait."""

    def __init__(self, body):
        super().__init__(daemon=True)
        self.body, self.answer, self.error = body, None, None
        self.start()

    def run(self):
        try:
            self.answer = self.body()
        except Exception as error:
            self.error = error

    def result(self):
        self.join(30)
        assert not self.is_alive(), "it waits for ever"
        if self.error:
            raise self.error
        return self.answer


def waits(database, seconds=0.5):
    """Does a session of this database wait for a lock?"""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if database.value("SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"):
            return True
        time.sleep(0.02)
    return False


def test_an_uncommitted_newer_edit_is_not_overwritten_by_an_older_push(database, session):
    database.sql("INSERT INTO person VALUES (1, 'first', NULL)")
    writer, server = session(), session()
    writer.sql("BEGIN")
    writer.sql("UPDATE person SET name = 'newer' WHERE id = 1")
    apply = Background(lambda: server.apply(push(change(1, 1, "older", stamp="2001-01-01T00:00:00.000Z"), seen=1)))
    assert waits(database)
    writer.sql("COMMIT")
    assert apply.result()["conflicts"] == 1
    assert database.rows("person") == [(1, "newer", None)]


def test_an_uncommitted_insert_of_the_same_key_is_not_overwritten_unseen(database, session):
    writer, server = session(), session()
    writer.sql("BEGIN")
    writer.sql("INSERT INTO person VALUES (1, 'local', NULL)")
    apply = Background(lambda: server.apply(push(change(1, 1, "remote", "Insert", stamp="2001-01-01T00:00:00.000Z"))))
    assert waits(database)
    writer.sql("COMMIT")
    assert apply.result()["conflicts"] == 1
    assert database.rows("person") == [(1, "local", None)]


def test_an_insert_that_is_rolled_back_leaves_the_row_to_the_push(database, session):
    writer, server = session(), session()
    writer.sql("BEGIN")
    writer.sql("INSERT INTO person VALUES (1, 'local', NULL)")
    apply = Background(lambda: server.apply(push(change(1, 1, "remote", "Insert"))))
    assert waits(database)
    writer.sql("ROLLBACK")
    assert apply.result()["applied"] == 1
    assert database.rows("person") == [(1, "remote", None)]


def test_a_delete_of_a_row_that_is_being_inserted(database, session):
    writer, server = session(), session()
    writer.sql("BEGIN")
    writer.sql("INSERT INTO person VALUES (1, 'local', NULL)")
    apply = Background(lambda: server.apply(push(change(1, 1, None, "Delete", stamp="2001-01-01T00:00:00.000Z"))))
    assert waits(database)
    writer.sql("COMMIT")
    apply.result()
    assert database.rows("person") == [(1, "local", None)]
    newest = database.log()[-1]
    assert newest["operation"] == "insert", "the log says what the table says"


def test_a_row_that_is_deleted_while_the_push_waits(database, session):
    database.sql("INSERT INTO person VALUES (1, 'first', NULL)")
    writer, server = session(), session()
    writer.sql("BEGIN")
    writer.sql("DELETE FROM person")
    apply = Background(lambda: server.apply(push(change(1, 1, "older", stamp="2001-01-01T00:00:00.000Z"), seen=1)))
    assert waits(database)
    writer.sql("COMMIT")
    assert apply.result()["conflicts"] == 1
    assert database.rows("person") == []


@pytest.mark.parametrize("newer_first", [True, False])
def test_two_pushes_of_one_row_leave_the_winner(database, session, newer_first):
    database.sql("INSERT INTO person VALUES (1, 'first', NULL)")
    one, two = session(), session()
    older = push(change(1, 1, "older", stamp="2001-01-01T00:00:00.000Z"), seen=1)
    newer = push(change(1, 1, "newer", stamp="2002-01-01T00:00:00.000Z") | {"origin": str(uuid.UUID(int=8))}, seen=1, sender=str(uuid.UUID(int=8)))
    first, second = (newer, older) if newer_first else (older, newer)
    one.sql("BEGIN")
    one.apply(first)
    apply = Background(lambda: two.apply(second))
    assert waits(database)
    one.sql("COMMIT")
    apply.result()
    assert database.rows("person") == [(1, "newer", None)]


def test_writers_and_pushes_together_lose_nothing(database, session):
    """Local writers and pushes of the same rows: afterwards the newest log entry of every row is what the table holds."""
    rows, rounds = 20, 30

    def write(number):
        writer = session()
        for n in range(rounds):
            key = (n * 7 + number) % rows
            try:
                writer.sql("INSERT INTO person VALUES (?, ?, NULL) ON CONFLICT (id) DO UPDATE SET name = excluded.name", key, f"w{number}.{n}")
                if n % 5 == number:
                    writer.sql("DELETE FROM person WHERE id = ?", key)
            except psycopg.errors.DeadlockDetected:
                pass

    def apply(number):
        server = session()
        sender = str(uuid.UUID(int=100 + number))
        version = 0
        for n in range(rounds):
            changes = []
            for place in range(5):
                version += 1
                key = (n * 3 + place * 2 + number) % rows
                operation = "Delete" if place == 4 else "Update"
                changes.append(change(version, key, f"p{number}.{n}.{place}", operation) | {"origin": sender})
            batch = push(*changes, sender=sender)
            for _ in range(5):
                try:
                    server.apply(batch)
                    break
                except psycopg.errors.DeadlockDetected:
                    continue

    workers = [Background(lambda n=n: write(n)) for n in range(3)] + [Background(lambda n=n: apply(n)) for n in range(3)]
    for worker in workers:
        worker.join(100)
        assert not worker.is_alive()
        assert worker.error is None, worker.error
    newest = {}
    for entry in database.log():
        newest[json.loads(entry["pk_value"])["id"]] = entry["payload"] and json.loads(entry["payload"])["name"]
    held = {key: name for key, name, _ in database.rows("person")}
    assert held == {key: name for key, name in newest.items() if name is not None}


def test_a_failing_batch_moves_nothing(database):
    before = database.state, database.sql("SELECT * FROM _sync_received")
    with pg_error("InvalidBatch"):
        database.apply(push(change(1, 1, "a", "Insert"), change(2, 2, "b", "Nonsense")))
    with pg_error("TableNotFound"):
        database.apply(push(change(1, 1, "a", "Insert"), change(2, 2, "b", table="nothing")))
    with pg_error("TableNotFound"):
        database.apply(push(change(1, 1, "a", "Insert", table='person"; DROP TABLE person; --')))
    with pg_error("TableNotTracked"):
        database.apply(push(change(1, 1, "a", "Insert", table="_sync_state")))
    assert (database.state, database.sql("SELECT * FROM _sync_received")) == before
    assert database.rows("person") == []


def test_a_deadlock_fails_the_whole_batch_and_it_can_be_sent_again(database, session):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    writer, server = session(), session()
    server.sql("SET deadlock_timeout = '100ms'")
    writer.sql("SET deadlock_timeout = '10s'")
    batch = push(change(1, 1, "x", stamp=None), change(2, 2, "y"), seen=2)
    writer.sql("BEGIN")
    writer.sql("UPDATE person SET email = 'w' WHERE id = 2")
    apply = Background(lambda: server.apply(batch))
    assert waits(database)
    blocked = Background(lambda: writer.sql("UPDATE person SET email = 'w' WHERE id = 1"))
    with pytest.raises(psycopg.errors.DeadlockDetected):
        apply.result()
    blocked.result()
    writer.sql("COMMIT")
    assert database.rejections() == [] and database.sql("SELECT * FROM _sync_received") == []
    assert server.apply(batch)["conflicts"] == 2


def test_a_dry_run_leaves_nothing(database):
    answer = database.apply(push(change(1, 1, "a", "Insert")), dryRun=True)
    assert answer["applied"] == 1
    assert database.rows("person") == [] and database.log() == []
    assert database.apply(push(change(1, 1, "a", "Insert")))["applied"] == 1


def test_an_apply_inside_a_transaction_of_the_callers_is_undone_with_it(database):
    database.sql("BEGIN")
    assert database.apply(push(change(1, 1, "a", "Insert")))["applied"] == 1
    database.sql("ROLLBACK")
    assert database.rows("person") == [] and database.log() == [] and database.sql("SELECT * FROM _sync_received") == []


def test_a_label_outlives_neither_an_error_nor_its_row(database, session):
    database.script(
        "CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.name = 'bad' THEN RAISE 'no'; END IF; RETURN NEW; END $$;"
        "CREATE TRIGGER z AFTER INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION refuse()"
    )
    answer = database.apply(push(change(1, 1, "good", "Insert"), change(2, 2, "bad", "Insert"), change(3, 3, "good", "Insert")))
    assert (answer["applied"], answer["rejected"]) == (2, 1)
    database.sql("INSERT INTO person VALUES (2, 'fine', NULL)")
    assert [entry["origin"] == SENDER for entry in database.log()] == [True, True, False]


def test_identity_columns_go_on_above_what_was_applied(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text, email text,"
        " twice text GENERATED ALWAYS AS (name || name) STORED)",
        track=["person"],
    )
    assert database.apply(push(change(1, 41, "a", "Insert")))["applied"] == 1
    database.sql("INSERT INTO person(name) VALUES ('b')")
    assert database.rows("person") == [(41, "a", None, "aa"), (42, "b", None, "bb")]


def test_keys_in_any_order_and_cycles_where_they_can_wait(make_database):
    database = make_database(
        "CREATE TABLE person(id bigint PRIMARY KEY, name text, email text, friend bigint REFERENCES person DEFERRABLE)", track=["person"]
    )
    changes = [
        change(n, n, "x", "Insert") | {"payload": json.dumps({"id": n, "friend": n % 3 + 1})} for n in (1, 2, 3)
    ]
    assert database.apply(push(*changes))["applied"] == 3
    orphan = change(4, 4, "x", "Insert") | {"payload": json.dumps({"id": 4, "friend": 5})}
    answer = database.apply(push(orphan))
    assert (answer["applied"], answer["deferred"]) == (0, 1)
    parent = change(5, 5, "x", "Insert")
    assert database.apply(push(parent))["applied"] == 2
    assert [key for key, *_ in database.rows("person")] == [1, 2, 3, 4, 5]


@pytest.mark.parametrize("rights, codes", [
    ("SELECT", ["42501", "42501", "42501"]), ("SELECT, DELETE", ["42501", "42501"]), ("SELECT, UPDATE", ["42501", "42501"]),
    ("INSERT, UPDATE, DELETE", ["42501", "42501", "42501"]), ("SELECT, INSERT, UPDATE, DELETE", []),
])
def test_whatever_rights_are_missing_the_rows_wait(database, session, rights, codes):
    role = "may_" + rights.lower().replace(", ", "_")
    database.script(
        f"CREATE ROLE {role} LOGIN; GRANT {rights} ON person TO {role}; GRANT EXECUTE ON FUNCTION sync_apply_batch TO {role};"
        "INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)"
    )
    batch = push(change(1, 1, "x"), change(2, 2, None, "Delete"), change(3, 3, "y", "Insert"), seen=2)
    answer = session(role).apply(batch)
    assert [rejection["code"] for rejection in answer["rejections"]] == codes


def test_a_row_that_may_be_seen_but_not_updated_waits(database, session):
    database.script(
        "DROP ROLE IF EXISTS viewer; CREATE ROLE viewer LOGIN; GRANT ALL ON person TO viewer; GRANT EXECUTE ON FUNCTION sync_apply_batch TO viewer;"
        "INSERT INTO person VALUES (1, 'theirs', NULL), (2, 'theirs', NULL); ALTER TABLE person ENABLE ROW LEVEL SECURITY;"
        "CREATE POLICY see ON person FOR SELECT USING (true); CREATE POLICY own ON person FOR UPDATE USING (name = current_user);"
        "CREATE POLICY make ON person FOR INSERT WITH CHECK (true)"
    )
    answer = session("viewer").apply(push(change(1, 1, "x"), change(2, 2, None, "Delete"), seen=2))
    assert (answer["applied"], len(answer["rejections"])) == (0, 2)
    assert len(database.rows("person")) == 2


def codes(server):
    return [(json.loads(key)["id"], code) for key, code in server.sql("SELECT pk_value, code FROM sync_rejections() ORDER BY id")]


def test_a_row_that_a_trigger_puts_back_when_an_apply_deletes_it(database):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL)")
    database.script("""
    CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
      INSERT INTO person VALUES (OLD.id, 'kept ' || OLD.name); RETURN NULL;
    END $$;
    CREATE TRIGGER a_trigger AFTER DELETE ON person FOR EACH ROW EXECUTE FUNCTION keep();
    """)
    answer = database.apply(push(change(1, 1, None, "Delete"), seen=1))
    assert answer["rejected"] == 0
    [*_, sent] = database.fetch(1, exclude=SENDER)["changes"]
    assert json.loads(sent["payload"])["name"] == "kept a" and database.rows("person") == [(1, "kept a", None)]


LONG = "".join(hashlib.sha256(bytes([n % 256, n // 256])).hexdigest() for n in range(300))


@pytest.mark.parametrize("name, code, statement", [
    (LONG, "54000", "CREATE INDEX ON person(name)"),
    ("[" * 50000, "54001", "ALTER TABLE person ALTER name TYPE json USING name::json"),
    ("feature", "0A000", None), ("state", "55000", None), ("own", "ZZ123", None), ("cursor", "24000", None),
])
def test_what_the_server_refuses_for_whatever_reason_is_the_rows(database, name, code, statement):
    """And holds up no other."""
    if statement:
        database.sql(statement)
    else:
        database.script(f"""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$;
        CREATE TRIGGER refuse BEFORE INSERT ON person FOR EACH ROW WHEN (NEW.name = '{name}') EXECUTE FUNCTION refuse();
        """)
    answer = database.apply(push(change(1, 1, name), change(2, 2, "2")))
    assert (answer["applied"], answer["rejected"]) == (1, 1)
    assert codes(database) == [(1, code)] and database.value("SELECT count(*) FROM person") == 1


@pytest.mark.parametrize("code", ["40001", "40P01", "53100", "55P03", "57014", "58030"])
def test_what_concerns_the_whole_call_moves_nothing(database, code):
    database.script(f"""
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$;
    CREATE TRIGGER refuse BEFORE INSERT ON person FOR EACH ROW WHEN (NEW.id = 2) EXECUTE FUNCTION refuse();
    """)
    with pytest.raises(psycopg.Error) as raised:
        database.apply(push(change(1, 1, "a"), change(2, 2, "b")))
    assert raised.value.sqlstate == code
    assert database.rows("person") == [] and codes(database) == []


LATE = {
    "unique": ("CONSTRAINT late UNIQUE (name) DEFERRABLE INITIALLY DEFERRED", "a", "23505"),
    "exclusion": ("CONSTRAINT late EXCLUDE USING btree (name WITH =) DEFERRABLE", "a", "23P01"),
    "trigger": (None, "refused", "P0001"),
}


@pytest.fixture(params=LATE)
def late(request, make_database):
    """A table with a constraint that is checked late, a name that breaks it, and the code of that."""
    constraint, name, code = LATE[request.param]
    database = make_database(f"CREATE TABLE person(id bigint PRIMARY KEY, name text, email text{', ' + constraint if constraint else ''})")
    if not constraint:
        database.script("""
        CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF NEW.name = 'refused' THEN RAISE 'no'; END IF; RETURN NULL;
        END $$;
        CREATE CONSTRAINT TRIGGER late AFTER INSERT OR UPDATE ON person DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse();
        """)
    database.track("person")
    database.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    return database, name, code


@pytest.mark.parametrize("rows", [5, 40])
def test_a_row_that_breaks_a_constraint_that_is_checked_late_waits_alone(late, rows):
    server, name, code = late
    changes = [change(n, 100 + n, name if n == 3 else f"row {n}") for n in range(1, rows + 1)]
    answer = server.apply(push(*changes, seen=2))
    assert (answer["applied"], answer["rejected"]) == (rows - 1, 1)
    assert codes(server) == [(103, code)]
    assert server.apply(push(change(rows + 1, 200, "later"), seen=2))["applied"] == 1
    server.sql("UPDATE person SET name = 'free' WHERE id = 1")
    server.sql("DROP TRIGGER IF EXISTS late ON person")
    assert server.json("SELECT sync_retry()")["applied"] == 1 and codes(server) == []


def test_rows_swap_their_values_under_a_constraint_that_is_checked_late(late):
    server, _, _ = late
    answer = server.apply(push(change(1, 1, "b"), change(2, 2, "a"), seen=2))
    assert (answer["applied"], answer["rejected"]) == (2, 0)
    assert server.rows("person") == [(1, "b", None), (2, "a", None)]


def test_a_delete_that_a_table_which_is_not_tracked_refuses_late_waits(database):
    database.sql("INSERT INTO person VALUES (1, 'a', NULL), (2, 'b', NULL)")
    database.sql("CREATE TABLE other(person bigint REFERENCES person DEFERRABLE INITIALLY DEFERRED)")
    database.sql("INSERT INTO other VALUES (1)")
    answer = database.apply(push(change(1, 1, None, "Delete"), change(2, 2, None, "Delete"), seen=2))
    assert (answer["applied"], answer["deferred"]) == (1, 1)
    assert codes(database) == [(1, "23503")] and database.rows("person") == [(1, "a", None)]


def test_what_the_caller_has_left_broken_for_now_is_no_row_s(late):
    server, name, code = late
    with pytest.raises(psycopg.Error) as raised, server.transaction():
        server.sql("SET CONSTRAINTS ALL DEFERRED")
        server.sql("INSERT INTO person VALUES (3, ?, NULL)", name)
        assert server.apply(push(change(1, 4, "fine"), seen=2))["applied"] == 1
    assert raised.value.sqlstate == code


NORMALISES = """
CREATE TABLE person(id text PRIMARY KEY, name text, email text);
CREATE FUNCTION normalise() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id = lower(NEW.id); RETURN NEW; END $$;
CREATE TRIGGER normalise BEFORE INSERT OR UPDATE ON person FOR EACH ROW EXECUTE FUNCTION normalise();
"""


def test_a_row_that_a_trigger_gives_another_key_waits_and_says_so(make_database):
    server = make_database()
    server.script(NORMALISES)
    server.track("person")
    answer = server.apply(push(change(1, "Bob", "b"), change(2, "eve", "e")))
    assert (answer["applied"], answer["rejected"]) == (1, 1)
    [(message,)] = server.sql("SELECT message FROM sync_rejections()")
    assert "another key" in message and '{"id":"Bob"}' in message
    assert server.rows("person") == [("eve", "e", None)]
    assert [change["pkValue"] for change in server.fetch()["changes"]] == ['{"id":"eve"}']
