"""PostgreSQL: a change that was announced and hidden by an older open transaction arrives when that one ends, however it ends."""

import json

import pytest


@pytest.fixture
def database(make_database):
    return make_database("postgres")


def key(change):
    return json.loads(change["pkValue"])["Id"]


@pytest.mark.parametrize("end", ["COMMIT", "ROLLBACK"])
def test_an_older_transaction_holds_back_and_lets_go(subscribe, database, end):
    older, newer = database.again(), database.again()
    stream = subscribe()
    older.begin()
    older.sql("""INSERT INTO "Person" VALUES ('older', NULL, NULL)""")
    newer.sql("""INSERT INTO "Person" VALUES ('newer', NULL, NULL)""")
    assert stream.wait(1, 0.5) == [], "the older one may still commit a smaller version"
    older.sql(end)
    expected = ["older", "newer"] if end == "COMMIT" else ["newer"]
    assert [key(change) for change in stream.wait(len(expected), 3)] == expected
    older.close()
    newer.close()
