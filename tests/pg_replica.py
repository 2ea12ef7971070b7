"""A PostgreSQL database as a replica: the interface of `Replica`, over psycopg."""

import contextlib

import psycopg

from replica import Replica, data_at_end, quoted

SQLSTATES = {
    "NotInitialized": "55000", "TableNotFound": "42P01", "TableNotTracked": "55000", "UnsupportedTable": "0A000",
    "InvalidArgument": "22023", "InvalidBatch": "22023", "LimitExceeded": "54000", "HashMismatch": "22000",
    "FullResyncRequired": "55000", "EpochMismatch": "55000", "UnresolvedConflict": "40000", "SchemaMismatch": "42804",
    "PermissionDenied": "42501",
}


class PgReplica(Replica):
    """A database with the extension, and one connection to it. Parameters are written `?`, as for `Replica`."""

    def __init__(self, cluster, database=None, schema=None, user="postgres"):
        self.cluster = cluster
        self.database = database or cluster.create_database()
        self.connection = cluster.connect(self.database, user)
        if database is None:
            if schema:
                self.sql(f"CREATE SCHEMA {quoted(schema)}")
            self.sql("CREATE EXTENSION pg_sync" + (f" SCHEMA {quoted(schema)}" if schema else ""))

    def again(self, user="postgres"):
        """Another session in the same database."""
        return PgReplica(self.cluster, self.database, user=user)

    def sql(self, query, *args):
        if args:
            cursor = self.connection.execute(query.replace("%", "%%").replace("?", "%s"), args)
        else:
            cursor = self.connection.execute(query)
        return [tuple(row) for row in cursor.fetchall()] if cursor.description else []

    def script(self, statements):
        self.connection.execute(statements)

    def many(self, query, rows):
        with self.connection.cursor() as cursor:
            cursor.executemany(query.replace("?", "%s"), rows)

    def records(self, query, *args):
        cursor = self.connection.execute(query.replace("%", "%%").replace("?", "%s"), args) if args else self.connection.execute(query)
        names = [column.name for column in cursor.description]
        return [dict(zip(names, row)) for row in cursor.fetchall()]

    @contextlib.contextmanager
    def transaction(self, begin="BEGIN"):
        with super().transaction(begin):
            yield self

    def begin(self):
        self.sql("BEGIN")

    def attempt(self, query, *args):
        """As in the base class; what fails leaves the transaction as it was."""
        in_transaction = self.connection.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS
        if in_transaction:
            self.sql("SAVEPOINT attempt")
        try:
            self.sql(query, *args)
        except psycopg.Error as error:
            if "constraint" not in str(error).lower():
                raise
            if in_transaction:
                self.sql("ROLLBACK TO attempt")

    def check_whole(self):
        """Every foreign key holds, also those that were checked late."""
        for child, parent, columns, keys in self.sql(
            "SELECT c.conrelid::regclass::text, c.confrelid::regclass::text,"
            " array(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.conrelid AND attnum = ANY (c.conkey)),"
            " array(SELECT quote_ident(attname) FROM pg_attribute WHERE attrelid = c.confrelid AND attnum = ANY (c.confkey))"
            " FROM pg_constraint c WHERE c.contype = 'f'"
        ):
            joined = " AND ".join(f"p.{key} = c.{column}" for column, key in zip(columns, keys))
            orphans = f"SELECT count(*) FROM {child} c WHERE c.{columns[0]} IS NOT NULL AND NOT EXISTS (SELECT 1 FROM {parent} p WHERE {joined})"
            assert self.value(orphans) == 0, f"a foreign key of {child} is violated"

    def rows(self, table):
        keys = self.sql(
            "SELECT a.attname FROM pg_index i JOIN pg_attribute a ON a.attrelid = i.indrelid AND a.attnum = ANY (i.indkey)"
            " WHERE i.indrelid = ?::regclass AND i.indisprimary ORDER BY array_position(i.indkey::int2[], a.attnum)",
            quoted(table),
        )
        order = ", ".join(quoted(name) for (name,) in keys)
        return self.sql(f"SELECT * FROM {quoted(table)} ORDER BY {order}")

    def log(self, table=None):
        return self.records(
            "SELECT version, table_name, pk_value, operation, payload, origin, timestamp FROM _sync_log"
            " WHERE ?::text IS NULL OR table_name = ? ORDER BY version",
            table, table,
        )


@contextlib.contextmanager
def pg_error(kind):
    """The body must fail with `sync: <kind>: ...` and the contract's SQLSTATE."""
    with pytest_raises() as raised:
        yield raised
    message = raised.value.diag.message_primary
    assert message.startswith(f"sync: {kind}: "), message
    assert raised.value.sqlstate == SQLSTATES[kind]
    raised.data = data_at_end(raised.value.diag.message_detail or "")


def pytest_raises():
    import pytest

    return pytest.raises(psycopg.Error)
