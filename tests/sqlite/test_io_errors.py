"""A disk that is full or fails: the call fails as a whole, nothing moves, and the same call works when the cause is gone."""

import os

import apsw
import pytest

from conftest import PERSON
from crafted import insert, pull
from replica import DRIVER_ERRORS, DRIVERS, Replica, load_extension

CHILD = "CREATE TABLE Note(Id INTEGER PRIMARY KEY, Owner INTEGER REFERENCES Person(Id), Text TEXT)"
CALLS = ("xWrite", "xSync", "xTruncate", "xRead")
MOST_CALLS = 5000
# Of the calls that are many, every so manieth fails in its turn.
STRIDE = int(os.environ.get("SYNC_DISK_STRIDE", "11"))


class FailingDisk(apsw.VFS):
    """The system's own files, of which one call fails: the `left`th from now of a kind."""

    def __init__(self):
        super().__init__("failing", "")
        self.kind, self.left = None, 0

    def fail(self, kind, left):
        self.kind, self.left = kind, left

    def due(self, kind):
        if kind != self.kind:
            return
        self.left -= 1
        if self.left == 0:
            raise apsw.FullError("no space") if kind == "xWrite" else apsw.IOError("the disk fails")

    def xOpen(self, name, flags):
        disk = self

        class File(apsw.VFSFile):
            def __init__(self):
                super().__init__("", name, flags)

        for kind in CALLS:
            setattr(File, kind, guarded(kind, disk))
        return File()


def guarded(kind, disk):
    def call(file, *arguments):
        disk.due(kind)
        return getattr(apsw.VFSFile, kind)(file, *arguments)

    return call


def batch():
    """A parent after its child, one row that nothing can take, and enough to fill some pages."""
    changes = [insert("Note", {"Id": 1, "Owner": 1, "Text": "first"}), insert("Person", {"Id": 1, "Name": "x", "Email": None})]
    changes.append(insert("Note", {"Id": 2, "Owner": 99, "Text": "nobody's"}))
    changes += [insert("Person", {"Id": number, "Name": "y" * 400, "Email": None}) for number in range(2, 60)]
    return pull(*changes)


def state(replica):
    rows = {table: replica.rows(table) for table in ("Person", "Note")}
    return rows, len(replica.log()), replica.cursor, len(replica.rejections())


@pytest.fixture
def new_database(tmp_path):
    def make(name):
        replica = Replica(tmp_path / name, "apsw")
        for statement in (PERSON, CHILD):
            replica.sql(statement)
        for table in ("Person", "Note"):
            replica.track(table)
        replica.sql("INSERT INTO Person VALUES (1000, 'mine', NULL)")
        return replica

    return make


@pytest.mark.skipif(DRIVERS != ("apsw",), reason="only apsw can be given a disk that fails")
@pytest.mark.parametrize("journal", ["delete", "wal"])
@pytest.mark.parametrize("kind", CALLS)
def test_whichever_call_of_the_disk_fails_nothing_is_half_applied(new_database, tmp_path, kind, journal):
    disk = FailingDisk()
    template = new_database("template.db")
    template.sql(f"PRAGMA journal_mode = {journal}")
    before = state(template)
    template.close()
    text = batch()
    failures = 0
    for call in range(1, MOST_CALLS, STRIDE if kind in ("xWrite", "xRead") else 1):
        path = tmp_path / f"{call}.db"
        path.write_bytes((tmp_path / "template.db").read_bytes())
        replica = Replica(path, "apsw", extension=False)
        replica.close()
        replica.connection = apsw.Connection(str(path), vfs="failing")
        load_extension(replica.connection)
        replica.sql("PRAGMA cache_size = 5")
        disk.fail(kind, call)
        try:
            replica.apply(text)
            failed = False
        except DRIVER_ERRORS as error:
            failed = True
            assert not str(error).startswith("sync:"), "it is the engine's own error"
        exhausted = disk.left > 0
        disk.fail(None, 0)
        assert replica.connection.in_transaction is False, "no transaction stays open"
        if failed:
            failures += 1
            after = state(replica)
            assert after == before or after[2] == 61, "before or after, never between"
        replica.apply(text)
        rows, _, cursor, rejections = state(replica)
        assert (len(rows["Person"]), len(rows["Note"]), cursor, rejections) == (60, 1, 61, 1)
        assert replica.value("PRAGMA integrity_check") == "ok"
        replica.close()
        path.unlink()
        if exhausted:
            break
    assert exhausted, "every call was tried"
    assert failures > 0 or kind in ("xTruncate", "xSync"), "the disk did fail"


def test_a_full_disk_moves_nothing_and_the_batch_is_taken_when_there_is_space(make_replica):
    replica = make_replica("r", PERSON, CHILD, track=["Person", "Note"])
    before = state(replica)
    pages = replica.value("PRAGMA page_count")
    replica.sql(f"PRAGMA max_page_count = {pages + 1}")
    with pytest.raises(DRIVER_ERRORS, match="full"):
        replica.apply(batch())
    assert state(replica) == before
    replica.sql("PRAGMA max_page_count = 100000")
    assert replica.apply(batch())["applied"] == 60
