"""Bad input is refused with its kind, and the database file is byte for byte what it was."""

import json

import pytest

from conftest import PERSON
from crafted import EPOCH, delete, insert, person, push, stamp, update
from hostile import MAX_NESTING, OUTCOMES_OF_OTHER_SEEDS, REFUSED, SEEDS, batch, changed, nested, refused, seed_name, text
from replica import sync_error

MAX_CHANGES = 10_000
MAX_BYTES = 64 * 1024 * 1024


@pytest.fixture
def fortress(make_replica):
    """A replica with three people, and things no batch may touch."""
    replica = make_replica(
        "fortress",
        PERSON,
        "CREATE TABLE Secret(Id INTEGER PRIMARY KEY AUTOINCREMENT, Word TEXT)",
        "CREATE VIEW Everyone AS SELECT * FROM Person",
        "INSERT INTO Person VALUES (1, 'Alice', NULL), (2, 'Bob', NULL), (3, 'Carol', NULL)",
        "INSERT INTO Secret(Word) VALUES ('sesame')",
        track=["Person"],
    )
    replica.apply(push(person(4, "Dan"), sender=EPOCH))
    return replica


def stored(replica):
    replica.sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return replica.path.read_bytes()


def assert_refused(replica, batch, *kinds):
    """Refused with one of these kinds; `batch` is text or its bytes."""
    before = stored(replica)
    argument = "CAST(? AS TEXT)" if isinstance(batch, bytes) else "?"
    with pytest.raises(Exception, match=rf"^sync: ({'|'.join(kinds)}): ."):
        replica.sql(f"SELECT sync_apply_batch({argument})", batch)
    assert stored(replica) == before
    assert replica.value("PRAGMA integrity_check") == "ok"


@pytest.mark.parametrize("case", REFUSED)
def test_a_hostile_batch_is_refused_and_changes_nothing(fortress, case):
    assert_refused(fortress, refused(case), REFUSED[case][1])


@pytest.mark.parametrize("case", REFUSED)
def test_in_wal_mode_too(fortress, case):
    fortress.sql("PRAGMA journal_mode = WAL")
    assert_refused(fortress, refused(case), REFUSED[case][1])


def test_every_hostile_batch_is_a_seed_of_the_fuzz_targets():
    seeds = {path.name: path.read_bytes() for path in SEEDS.iterdir() if path.name.split("--")[0] not in OUTCOMES_OF_OTHER_SEEDS}
    assert seeds == {seed_name(case): refused(case) for case in REFUSED}, "run python tests/hostile.py"


@pytest.mark.parametrize("seed", sorted(path.name for path in SEEDS.iterdir() if path.name.split("--")[0] in OUTCOMES_OF_OTHER_SEEDS))
def test_a_seed_that_is_a_batch_is_accepted_or_a_row_of_it_rejected(server, seed):
    result = server.json("SELECT sync_apply_batch(?)", (SEEDS / seed).read_text())
    assert (result["rejected"] > 0) == seed.startswith("rejected--")
    assert result["deferred"] == 0


@pytest.mark.parametrize("endless", [nested(1_000_000), "[" * 1_000_000, '{"changes":' * 100_000])
def test_nesting_without_end_is_refused(fortress, endless):
    assert_refused(fortress, endless, "LimitExceeded")
    assert_refused(fortress, text(changed(payload='{"Id":7,"Name":%s' % endless)), "LimitExceeded")
    assert_refused(fortress, text(changed(pkValue='{"Id":%s' % endless)), "LimitExceeded")


def test_the_limit_of_changes_is_exact(fortress):
    changes = [person(id) for id in range(10, 10 + MAX_CHANGES + 1)]
    assert_refused(fortress, text(push(*changes)), "LimitExceeded")
    assert fortress.apply(push(*changes[:-1]))["applied"] == MAX_CHANGES


def test_the_limit_of_bytes_is_exact(fortress):
    head = text(push(person(7, "Mallory")))
    fits = head.replace("Mallory", "M" * (MAX_BYTES - len(head) + len("Mallory")))
    assert_refused(fortress, fits.replace("MMM", "MMMM", 1), "LimitExceeded")
    assert fortress.apply(fits)["applied"] == 1


def test_the_limit_of_nesting_lets_the_allowed_depth_through(fortress):
    fits = batch(colour=json.loads(nested(MAX_NESTING - 1)))
    assert fortress.apply(fits)["applied"] == 1


@pytest.mark.parametrize("argument", ["NULL", "42", "1.5", "x'00ff'"])
def test_an_argument_that_is_no_text_is_refused(fortress, argument):
    before = stored(fortress)
    with pytest.raises(Exception, match="^sync: (InvalidArgument|InvalidBatch): "):
        fortress.sql(f"SELECT sync_apply_batch({argument})")
    assert stored(fortress) == before


SQL_AS_DATA = ["'; DROP TABLE Person; --", '"', "' OR '1'='1", "%s%n?1:x@y", "\\", "\0", "${jndi}", "x'00'"]


@pytest.mark.parametrize("data", SQL_AS_DATA)
def test_sql_in_a_value_is_data(fortress, data):
    assert fortress.apply(push(person(7, data)))["applied"] == 1
    assert fortress.sql("SELECT Name FROM Person WHERE Id = 7") == [(data,)]


@pytest.mark.parametrize("column", ["Name = 'x' --", '"Name"', "1=1 OR Id", "rowid", "Name\0", "_sync", "", "nаme"])
def test_an_unknown_column_is_rejected_and_touches_no_other(fortress, column):
    people = fortress.rows("Person")
    result = fortress.apply(push(insert("Person", {"Id": 7, column: "x"}), update("Person", {"Id": 1, column: "x"}), seen=1))
    assert [rejection["kind"] for rejection in result["rejections"]] == ["SchemaMismatch"] * 2
    assert fortress.rows("Person") == people


VALUES_OF_NO_KIND = [{"$blob": "zz"}, {"$blob": "abc"}, {"$blob": 1}, {"$real": "Huge"}, {"$colour": "red"}, {}, {"a": 1}, [], [1]]


@pytest.mark.parametrize("value", VALUES_OF_NO_KIND)
def test_a_value_of_no_kind_is_never_stored(fortress, value):
    people = fortress.rows("Person")
    try:
        result = fortress.apply(push(insert("Person", {"Id": 7, "Name": value})))
    except Exception as error:
        assert str(error).startswith("sync: InvalidBatch: ")
    else:
        assert [rejection["kind"] for rejection in result["rejections"]] == ["TypeMismatch"]
    assert fortress.rows("Person") == people


def test_a_forged_echo_changes_nothing(fortress):
    forged = [person(1, "Forged", origin=fortress.origin, at=stamp(minutes=1)), delete("Person", {"Id": 2}, origin=fortress.origin)]
    before = fortress.rows("Person")
    result = fortress.apply(push(*forged))
    assert (result["applied"], result["skipped"]) == (0, 2)
    assert fortress.rows("Person") == before


def test_an_error_names_no_other_data(fortress):
    with sync_error("TableNotTracked") as error:
        fortress.apply(changed(tableName="Secret"))
    assert "sesame" not in error.message
