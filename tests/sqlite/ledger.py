"""What the applications of a fleet wrote, kept apart from the engine, and what must be true of the replicas when all is quiet.

The ledger compares rows itself and asks the engine only for its hashes and its rejections.
"""

import collections
import contextlib
import json

KEY_LENGTHS = {"parent": 1, "child": 1, "link": 2}


class Ledger:
    """Every value an application gave a row, and every row an application deleted."""

    def __init__(self, on_delete):
        self.on_delete = on_delete
        self.values = collections.defaultdict(lambda: collections.defaultdict(set))
        self.deleted = set()

    @contextlib.contextmanager
    def watch(self, replica):
        """Note what the body, a write of an application, did to the replica's rows."""
        before = rows_by_key(replica)
        yield
        after = rows_by_key(replica)
        self.deleted |= before.keys() - after.keys()
        for key, row in after.items():
            if before.get(key) != row:
                for column, value in enumerate(row):
                    self.values[key][column].add(value)

    def check(self, replicas, rejections_allowed=True):
        """The replicas agree, but for rows that wait in `sync_rejections()`; nothing is lost and nothing invented."""
        rows = [rows_by_key(replica) for replica in replicas]
        rejected = {key for replica in replicas for key in rejected_keys(replica)}
        keys = set().union(*rows)
        differing = {key for key in keys if len({table.get(key) for table in rows}) > 1}

        assert rejections_allowed or not rejected, f"a change is still rejected without a cause: {rejections(replicas)}"
        assert differing <= rejected, (
            f"rows differ: {[(key, [table.get(key) for table in rows]) for key in sorted(differing - rejected, key=str)]}"
            f" rejections {rejections(replicas)}"
        )
        hashes = {replica.hash() for replica in replicas}
        assert (len(hashes) == 1) == (not differing), f"the hashes contradict the rows: {hashes} {differing}"
        self.check_nothing_lost(keys | rejected)
        for table in rows:
            self.check_nothing_invented(table)
        for replica in replicas:
            replica.check_whole()

    def check_nothing_lost(self, keys):
        never_deleted = self.values.keys() - self.deleted
        if self.on_delete == "CASCADE":
            never_deleted = {key for key in never_deleted if key[0] != "child"}
        assert never_deleted <= keys, f"rows are lost that nobody deleted: {sorted(never_deleted - keys, key=str)}"

    def check_nothing_invented(self, rows):
        for key, row in rows.items():
            for column, value in enumerate(row):
                if value is None and self.on_delete == "SET NULL" and (key[0], column) == ("child", 1):
                    continue
                assert value in self.values[key][column], f"a value nobody wrote: {key} column {column} is {value!r}"


def rows_by_key(replica):
    """(table, key) -> row, of all tables."""
    return {
        (table, row[:length]): row for table, length in KEY_LENGTHS.items() for row in replica.rows(table)
    }


def rejected_keys(replica):
    for rejection in replica.rejections():
        yield rejection["table_name"], tuple(json.loads(rejection["pk_value"]).values())


def rejections(replicas):
    return [
        (number, entry["table_name"], entry["pk_value"], entry["operation"], entry["payload"], entry["message"])
        for number, replica in enumerate(replicas)
        for entry in replica.rejections()
    ]
