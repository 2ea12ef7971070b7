"""On tables with row-level security everybody gets the changes of the rows that the policies show to them, and no trace of the others."""

import json

import pytest

from cluster import is_built_with
from pg_replica import pg_error
from roles import sync_user
from test_apply import FUTURE, SENDER, change, push

NOTE = "CREATE TABLE note(id bigint PRIMARY KEY, name text, email text)"
OWN = ("ALTER TABLE note ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON note USING (name = current_user)")
ALL = "SELECT, INSERT, UPDATE, DELETE ON note"


@pytest.fixture
def notes(make_database):
    """Every note is its owner's, whose name it has."""
    return make_database(NOTE, *OWN, track=["note"])


@pytest.fixture
def people(notes):
    opened = [notes.again(sync_user(notes, ALL)) for _ in range(2)]
    for person in opened:
        person.name = person.value("SELECT current_user")
    yield opened
    for person in opened:
        person.close()


def seen(batch):
    """What a batch says, without versions: (operation, key, text)."""
    return [
        (c["operation"], json.loads(c["pkValue"])["id"], c["payload"] and json.loads(c["payload"])["email"]) for c in batch["changes"]
    ]


def test_everybody_gets_their_own_changes(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob'), (3, 'nobody', 'secret')", ann.name, bob.name)
    notes.sql("UPDATE note SET email = email || '!'")
    assert seen(ann.fetch()) == [("Insert", 1, "ann!"), ("Update", 1, "ann!")]
    assert seen(bob.fetch()) == [("Insert", 2, "bob!"), ("Update", 2, "bob!")]
    assert len(notes.fetch()["changes"]) == 6
    for person in people:
        batch = person.fetch()
        assert batch["toVersion"] == 6 and not batch["hasMore"]
        assert person.value("SELECT sync_hash_batch(?)", person.fetch_text()) == batch["hash"]
        assert len(person.sql("SELECT * FROM sync_changes()")) == 2
        assert person.status["tables"] == [{"table": "note", "name": "note", "rows": 1, "entries": 2, "tombstones": 0}]
        assert person.sql("SELECT entries FROM sync_tables()") == [(2,)]
        assert "secret" not in person.fetch_text()


def test_a_delete_is_told_to_who_saw_the_row(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    before = ann.fetch()["toVersion"]
    notes.sql("DELETE FROM note")
    assert seen(ann.fetch(before)) == [("Delete", 1, None)]
    assert seen(bob.fetch(before)) == [("Delete", 2, None)]
    assert ann.sql("SELECT pk_value FROM sync_changes(?)", before) == [('{"id":1}',)]


def test_a_truncate_is_told_to_who_saw_the_rows(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    notes.sql("TRUNCATE note")
    assert seen(ann.fetch(2)) == [("Delete", 1, None)]


def test_a_row_that_is_given_away_is_gone_for_who_had_it(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'from ann')", ann.name)
    notes.sql("UPDATE note SET name = ?, email = 'now for bob'", bob.name)
    assert seen(ann.fetch(1)) == [("Delete", 1, None)]
    assert seen(ann.fetch()) == [("Delete", 1, None)], "a new replica is told the key that was ann's, and nothing else"
    assert seen(bob.fetch()) == [("Insert", 1, "now for bob"), ("Update", 1, "now for bob")], "nothing of what it was before"
    assert "from ann" not in bob.fetch_text() and "now for bob" not in ann.fetch_text()
    notes.sql("UPDATE note SET email = 'a secret of bob'")
    assert seen(ann.fetch(2)) == [], "what happens to it then is not ann's business"
    notes.sql("DELETE FROM note")
    assert seen(ann.fetch(2)) == [] and seen(bob.fetch(2)) == [("Delete", 1, None)] * 2


def test_a_key_that_changes_hands_with_the_row(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'x')", ann.name)
    notes.sql("UPDATE note SET id = 2, name = ?", bob.name)
    assert seen(ann.fetch(1)) == [("Delete", 1, None)] and seen(bob.fetch(1)) == [("Insert", 2, "x")]


def test_replicas_of_different_people_converge_to_what_they_may_see(notes, people, make_database):
    ann, bob = people
    replicas = [make_database(NOTE, track=["note"]) for _ in people]
    for step in range(30):
        owner = (ann, bob)[step % 2].name
        notes.sql("INSERT INTO note VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET name = excluded.name, email = excluded.email", step % 7, owner, f"v{step}")
        if step % 5 == 0:
            notes.sql("DELETE FROM note WHERE id = ?", (step * 3) % 7)
        if step % 3 == 0:
            for person, replica in zip(people, replicas):
                replica.pull(person, size=2)
    for person, replica in zip(people, replicas):
        replica.pull(person, size=2)
        assert replica.rows("note") == person.sql("SELECT * FROM note ORDER BY id")
        assert replica.hash() == person.hash()


def test_a_batch_ends_where_its_size_says(notes, people):
    ann, bob = people
    for n in range(1200):
        notes.sql("INSERT INTO note VALUES (?, ?, 'x')", n, ann.name if n % 2 else bob.name)
    batch = ann.fetch(0, 10)
    assert len(batch["changes"]) == 10 and batch["hasMore"]
    keys, cursor = [], 0
    while True:
        batch = ann.fetch(cursor, 100)
        keys += [key for _, key, _ in seen(batch)]
        cursor = batch["toVersion"]
        if not batch["hasMore"]:
            break
    assert keys == list(range(1, 1200, 2))


def test_subscriptions_serve_what_the_policies_show(notes, people):
    ann, bob = people
    whole = ann.value("SELECT sync_subscribe('note')")
    theirs = ann.value("SELECT sync_subscribe('note', '2')")
    where = ann.value("SELECT sync_subscribe('note', NULL, ?)", json.dumps({"where": {"email": "bob"}}))
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    notes.sql("DELETE FROM note WHERE id = 2")
    assert [json.loads(c["pkValue"])["id"] for c in ann.json("SELECT sync_poll(?)", whole)["changes"]] == [1]
    for subscription in (theirs, where):
        assert ann.json("SELECT sync_poll(?)", subscription)["changes"] == []


def test_no_hash_of_a_hidden_key_is_left_out_by_name(notes, people):
    """`excluded` names rows that an origin has made: not to somebody else who gives that origin's name."""
    ann, bob = people
    bob.apply(push(change(1, 2, bob.name, "Insert", table="note")))
    batch = ann.fetch(0, 1000, SENDER)
    assert batch["changes"] == [] and "excluded" not in batch
    assert len(bob.fetch(0, 1000, SENDER)["excluded"]) == 1


def test_apply_keeps_to_the_policies_and_goes_on(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'bob')", bob.name)
    answer = ann.apply(push(
        change(1, 1, ann.name, stamp=FUTURE, table="note"), change(2, 2, ann.name, "Insert", table="note"),
        change(3, 3, bob.name, "Insert", table="note"), change(4, 1, None, "Delete", stamp=FUTURE, table="note"), seen=1,
    ))
    assert answer["applied"] == 1, answer
    codes = {(r["version"], r["code"]) for r in answer["rejections"]}
    assert (3, "42501") in codes and {version for version, _ in codes} >= {1, 3}
    assert notes.rows("note") == [(1, bob.name, "bob"), (2, ann.name, None)]


def test_a_delete_of_a_row_that_is_hidden_is_refused_and_not_logged(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'bob')", bob.name)
    answer = ann.apply(push(change(1, 1, None, "Delete", stamp=FUTURE, table="note"), change(2, 9, None, "Delete", table="note"), seen=1))
    assert [(r["version"], r["code"]) for r in answer["rejections"]] == [(1, "42501")]
    assert [(e["operation"], e["pk_value"]) for e in notes.log()] == [("insert", '{"id":1}'), ("delete", '{"id":9}')]


def test_conflicts_are_shown_where_both_sides_may_be_seen(notes, people):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    old = "2001-01-01T00:00:00.000Z"
    notes.apply(push(change(1, 1, ann.name, stamp=old, table="note"), change(2, 2, bob.name, stamp=old, table="note")))
    assert [c["pk_value"] for c in ann.conflicts()] == ['{"id":1}'] and [c["pk_value"] for c in bob.conflicts()] == ['{"id":2}']
    assert len(notes.conflicts()) == 2


def test_hashes_are_of_the_rows_that_may_be_seen(notes, people, make_database):
    ann, bob = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    same = make_database(NOTE, track=["note"])
    same.sql("INSERT INTO note VALUES (1, ?, 'ann')", ann.name)
    assert ann.hash() == same.hash() != bob.hash()


def test_a_policy_that_looks_into_other_tables(make_database):
    database = make_database(
        NOTE, "CREATE TABLE member(note bigint, person text)", "GRANT SELECT ON member TO PUBLIC", "ALTER TABLE note ENABLE ROW LEVEL SECURITY",
        "CREATE POLICY members ON note USING (EXISTS (SELECT 1 FROM member WHERE note = note.id AND person = current_user))", track=["note"],
    )
    database.sql("INSERT INTO note VALUES (1, 'a', 'shared'), (2, 'b', 'secret')")
    with database.again(sync_user(database, ALL)) as ann:
        database.sql("INSERT INTO member VALUES (1, ?)", ann.value("SELECT current_user"))
        assert seen(ann.fetch()) == [("Insert", 1, "shared")]
        database.sql("DELETE FROM note")
        assert seen(ann.fetch(2)) == [("Delete", 1, None)]


def test_restrictive_policies_and_those_of_other_roles(make_database):
    database = make_database(NOTE, "ALTER TABLE note ENABLE ROW LEVEL SECURITY", track=["note"])
    ann, bob = (database.again(sync_user(database, ALL)) for _ in range(2))
    with ann, bob:
        database.sql(f"CREATE POLICY mine ON note FOR SELECT TO {ann.value('SELECT current_user')} USING (true)")
        database.sql("CREATE POLICY short ON note AS RESTRICTIVE FOR SELECT USING (length(email) < 5)")
        database.sql("INSERT INTO note VALUES (1, 'a', 'yes'), (2, 'a', 'too long')")
        database.sql("DELETE FROM note")
        assert seen(ann.fetch()) == [("Delete", 1, None)]
        assert ann.fetch()["toVersion"] == 4
        assert seen(bob.fetch()) == [], "no policy shows anything to bob"


def test_partitions_keep_what_the_policies_of_the_table_ask_for(make_database):
    database = make_database(
        "CREATE TABLE note(id bigint, name text, email text, PRIMARY KEY (id)) PARTITION BY RANGE (id)",
        "CREATE TABLE low(email text, name text, id bigint NOT NULL)", "ALTER TABLE note ATTACH PARTITION low FOR VALUES FROM (0) TO (10)",
        *OWN, track=["note"],
    )
    with database.again(sync_user(database, ALL)) as ann:
        name = ann.value("SELECT current_user")
        database.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, 'other', 'secret')", name)
        database.sql("DELETE FROM note")
        assert seen(ann.fetch()) == [("Delete", 1, None)]


def test_a_policy_over_columns_that_are_not_synced(make_database):
    database = make_database(
        "CREATE TABLE note(id bigint PRIMARY KEY, name text, email text, owner text, kind text GENERATED ALWAYS AS (lower(owner)) STORED)",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON note USING (kind = current_user)",
    )
    database.track("note", exclude=["owner"])
    with database.again(sync_user(database, ALL)) as ann:
        database.sql("INSERT INTO note VALUES (1, 'a', 'ann', ?), (2, 'b', 'secret', 'other')", ann.value("SELECT current_user").upper())
        assert seen(ann.fetch()) == [("Insert", 1, "ann")]
        database.sql("DELETE FROM note")
        assert seen(ann.fetch(2)) == [("Delete", 1, None)]
        assert "owner" not in database.fetch_text()


def test_what_was_deleted_before_the_policies_came_is_not_told(make_database):
    database = make_database(NOTE, track=["note"])
    database.sql("INSERT INTO note VALUES (1, 'a', 'x')")
    database.sql("DELETE FROM note")
    for statement in OWN:
        database.sql(statement)
    with database.again(sync_user(database, ALL)) as ann:
        assert seen(ann.fetch()) == []
        name = ann.value("SELECT current_user")
        database.sql("INSERT INTO note VALUES (3, ?, 'x')", name)
        database.sql("DELETE FROM note")
        database.sql("DROP POLICY own ON note")
        database.sql("CREATE POLICY other ON note USING (email IS NULL)")
        assert seen(ann.fetch()) == [], "what the new policy asks for was not kept: it is not taken for NULL"


def test_a_column_that_policies_ask_for_is_renamed(notes, people):
    ann, _ = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, 'other', 'secret')", ann.name)
    notes.sql("DELETE FROM note")
    notes.sql("ALTER TABLE note RENAME COLUMN name TO owner")
    assert seen(ann.fetch(2)) == [("Delete", 1, None)]


def test_a_policy_over_the_whole_row_hides_what_is_gone(make_database):
    database = make_database(
        NOTE, "CREATE FUNCTION is_mine(note) RETURNS boolean LANGUAGE sql AS 'SELECT $1.name = current_user'",
        "ALTER TABLE note ENABLE ROW LEVEL SECURITY", "CREATE POLICY own ON note USING (is_mine(note))", track=["note"],
    )
    with database.again(sync_user(database, ALL)) as ann:
        database.sql("INSERT INTO note VALUES (1, ?, 'ann')", ann.value("SELECT current_user"))
        assert seen(ann.fetch()) == [("Insert", 1, "ann")]
        database.sql("DELETE FROM note")
        assert seen(ann.fetch()) == []


def test_an_owner_under_force_is_shown_what_the_policies_show(notes):
    owner = sync_user(notes)
    notes.sql(f"ALTER TABLE note OWNER TO {owner}")
    with notes.again(owner) as me:
        notes.sql("INSERT INTO note VALUES (1, ?, 'mine'), (2, 'other', 'theirs')", owner)
        assert len(me.fetch()["changes"]) == 2, "an owner is above the policies"
        notes.sql("ALTER TABLE note FORCE ROW LEVEL SECURITY")
        assert seen(me.fetch()) == [("Insert", 1, "mine")]
        notes.sql(f"GRANT EXECUTE ON FUNCTION sync_reconcile, sync_track_table, sync_fetch_local_changes TO {owner}")
        assert me.value("SELECT sync_reconcile('note')") == 0, "rows that are hidden are not taken for deleted"
        assert json.loads(me.value("SELECT sync_track_table('note')"))["backfilled"] == 0
        with pg_error("PermissionDenied"):
            me.fetch_local()
    assert len(notes.log()) == 2


def test_capture_follows_a_retyped_column_whatever_the_caller_sees(notes, people):
    """A definition that is followed at a caller's call is followed for all rows."""
    ann, bob = people
    notes.sql("CREATE TYPE mood AS ENUM ('good')")
    notes.sql("ALTER TABLE note ADD COLUMN mood mood")
    notes.sql("INSERT INTO note VALUES (1, ?, 'ann'), (2, ?, 'bob')", ann.name, bob.name)
    notes.sql("DROP TYPE mood CASCADE")
    ann.fetch()
    assert [entry["operation"] for entry in notes.log()] == ["insert", "insert"]


def test_row_security_switched_off_by_the_caller_is_an_error(notes, people):
    ann, _ = people
    notes.sql("INSERT INTO note VALUES (1, 'other', 'secret')")
    ann.sql("SET row_security = off")
    with pytest.raises(Exception) as raised:
        ann.fetch()
    assert raised.value.sqlstate == "42501"


def test_the_log_knows_no_more_of_a_row_than_its_policies_ask(notes, people):
    ann, _ = people
    notes.sql("INSERT INTO note VALUES (1, ?, 'long text')", ann.name)
    notes.sql("DELETE FROM note")
    assert notes.sql("SELECT image FROM _sync_log_data ORDER BY version") == [(None,), (json.dumps({"name": ann.name}, separators=(",", ":")),)]


def test_however_many_entries_are_looked_at_together_the_same_is_shown(notes, people):
    """Rows of several owners, changed, moved and deleted, in pages of any size; by the rows themselves and what was seen of them before."""
    ann, bob = people
    notes.sql(
        "INSERT INTO note SELECT g, CASE g % 3 WHEN 0 THEN ? WHEN 1 THEN ? ELSE 'nobody' END, 'n' || g FROM generate_series(1, 1500) g",
        ann.name, bob.name,
    )
    notes.sql("UPDATE note SET name = ? WHERE id % 7 = 0", bob.name)
    notes.sql("DELETE FROM note WHERE id % 11 = 0")
    owners = dict(notes.sql("SELECT id, name FROM note"))
    for person in people:
        whole = seen(person.fetch(size=10_000))
        for size in (7, 40, 700):
            cursor, pages, more = 0, [], True
            while more:
                batch = person.fetch(cursor, size)
                cursor, more = batch["toVersion"], batch["hasMore"]
                pages += seen(batch)
            assert pages == whole
        shown = {key for operation, key, text in whole if operation != "Delete"}
        assert shown == {key for key, owner in owners.items() if owner == person.name}
        assert all(owners.get(key) != person.name for operation, key, text in whole if operation == "Delete")


@pytest.mark.skipif(not is_built_with("icu"), reason="only ICU has collations by which different texts are equal")
def test_a_row_under_another_spelling_of_its_key_is_another_row(make_database):
    """Also to its type, by which both are equal: what was logged under the old spelling is gone."""
    notes = make_database(
        "CREATE COLLATION caseless (provider = icu, locale = 'und-u-ks-level2', deterministic = false)",
        "CREATE TABLE note(id text COLLATE caseless PRIMARY KEY, name text, email text)", *OWN, track=["note"],
    )
    ann = notes.again(sync_user(notes, ALL))
    name = ann.value("SELECT current_user")
    notes.sql("INSERT INTO note VALUES ('A', ?, 'first'), ('b', ?, 'other')", name, name)
    notes.sql("UPDATE note SET id = 'a' WHERE id = 'A'")
    changes = ann.fetch()["changes"]
    assert {(c["operation"], c["pkValue"], c["payload"] is None) for c in changes} >= {("Insert", '{"id":"a"}', False)}
    assert {c["operation"] for c in changes if c["pkValue"] == '{"id":"A"}'} == {"Delete"}
    assert all(json.loads(c["pkValue"])["id"] == json.loads(c["payload"])["id"] for c in changes if c["payload"])
    ann.close()
