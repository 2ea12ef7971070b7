"""Bad input is refused with its kind, and the database is what it was."""

import psycopg
import pytest

from crafted import EPOCH, person, push
from hostile import OUTCOMES_OF_OTHER_SEEDS, REFUSED, SEEDS, refused
from pg_replica import SQLSTATES

# A table of SQLite's own is no table here.
NO_SUCH_TABLE = {"TableNotTracked", "TableNotFound"}


@pytest.fixture(scope="module")
def fortress(cluster):
    """A replica with three people, and things no batch may touch."""
    from pg_replica import PgReplica

    replica = PgReplica(cluster)
    replica.script(
        'CREATE TABLE "Person"("Id" bigint PRIMARY KEY, "Name" text, "Email" text);'
        'CREATE TABLE "Secret"("Id" bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, "Word" text);'
        'CREATE VIEW "Everyone" AS SELECT * FROM "Person";'
        "INSERT INTO \"Person\" VALUES (1, 'Alice', NULL), (2, 'Bob', NULL), (3, 'Carol', NULL);"
        "INSERT INTO \"Secret\"(\"Word\") VALUES ('sesame')"
    )
    replica.track('"Person"')
    replica.apply(push(person(4, "Dan"), sender=EPOCH))
    yield replica
    replica.close()


def stored(replica):
    """Everything in the database."""
    tables = [name for (name,) in replica.sql("SELECT oid::regclass::text FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace")]
    return {table: sorted(map(repr, replica.sql(f"SELECT * FROM {table}"))) for table in tables}


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_batch_is_refused_and_changes_nothing(fortress, case):
    batch, before = refused(case), stored(fortress)
    try:
        text = batch.decode() if isinstance(batch, bytes) else batch
        is_text = "\0" not in text
    except UnicodeDecodeError:
        is_text = False
    with pytest.raises(psycopg.Error) as raised:
        fortress.sql("SELECT sync_apply_batch(convert_from(?, 'UTF8'))", batch if isinstance(batch, bytes) else batch.encode())
    if is_text:
        kind = raised.value.diag.message_primary.split(": ")[1]
        wanted = REFUSED[case][1]
        assert kind == wanted or {kind, wanted} <= NO_SUCH_TABLE, raised.value
        assert raised.value.sqlstate == SQLSTATES[kind]
    assert stored(fortress) == before


@pytest.mark.parametrize("seed", sorted(path.name for path in SEEDS.iterdir() if path.name.split("--")[0] in OUTCOMES_OF_OTHER_SEEDS))
def test_a_seed_that_is_a_batch_is_accepted_or_a_row_of_it_rejected(make_database, seed):
    server = make_database('CREATE TABLE "Person"("Id" bigint PRIMARY KEY, "Name" text, "Email" text)', track=['"Person"'])
    result = server.json("SELECT sync_apply_batch(?)", (SEEDS / seed).read_text())
    assert result["rejected"] > 0 or not seed.startswith("rejected--")
    assert result["deferred"] == 0
