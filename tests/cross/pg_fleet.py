"""The fleet of the random histories with one PostgreSQL database in it; the others are SQLite, as in `fleet`."""

import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "sqlite"))

from fleet import ORIGINS, YEAR_2040_MS, Fleet, everything  # noqa: E402
from ledger import KEY_LENGTHS  # noqa: E402

from pg_replica import PgReplica  # noqa: E402

SCHEMA = """
CREATE TABLE parent(id text PRIMARY KEY, name text, code bigint UNIQUE);
CREATE TABLE child(id bigint PRIMARY KEY, parent text REFERENCES parent(id) ON DELETE {on_delete} {when}, note text, amount double precision);
CREATE TABLE link(a text, b bigint, weight double precision, data bytea, PRIMARY KEY(a, b));
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'a constraint of this replica alone'; END $$;
"""
REFUSE = "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON link FOR EACH ROW WHEN (NEW.weight > 0.6) EXECUTE FUNCTION refuse()"
STATE = ("_sync_state", "_sync_rejections", "_sync_received", "_sync_unseen", "_sync_peers", "_sync_conflicts", "_sync_clients")


class PgFleet(Fleet):
    """`postgres` is the number of the replica that is a PostgreSQL database: 0 is the server."""

    def __init__(self, history, folder, cluster, postgres=0):
        self.cluster, self.postgres = cluster, postgres
        super().__init__(history, folder)

    def found(self, number, folder):
        if number != self.postgres:
            return super().found(number, folder)
        replica = PgReplica(self.cluster)
        when = "" if self.history.foreign_keys else "DEFERRABLE"
        replica.script(SCHEMA.format(on_delete=self.history.on_delete, when=when))
        with self.ledger.watch(replica):
            for write in self.history.preloaded[number]:
                replica.attempt(*write)
        replica.sql("SELECT sync_init(?)", ORIGINS[number])
        for table in KEY_LENGTHS:
            replica.track(table, conflict=self.history.strategy)
        if number in self.history.refusing:
            replica.sql(REFUSE)
        return replica

    def close(self):
        super().close()
        with self.cluster.connect() as connection:
            connection.execute(f"DROP DATABASE {self.replicas[self.postgres].database} WITH (FORCE)")

    def turn_clock(self, replica, ahead_ms):
        if not isinstance(replica, PgReplica):
            super().turn_clock(replica, ahead_ms)
            return
        self.writes += 1
        at_least = YEAR_2040_MS + self.writes + ahead_ms if self.history.frozen_clock else 0
        replica.sql(
            "WITH turned AS (UPDATE _sync_log_data SET clock = greatest(clock + ?, ?)"
            " WHERE version = (SELECT max(version) FROM _sync_log_data) RETURNING clock)"
            " SELECT setval('_sync_clock', clock) FROM turned",
            0 if self.history.frozen_clock else ahead_ms,
            at_least,
        )

    def whole(self, replica):
        if not isinstance(replica, PgReplica):
            return super().whole(replica)
        return everything(replica), [replica.sql(f"SELECT * FROM {table} ORDER BY 1, 2") for table in STATE]

    def stop_refusing(self, replica):
        if not isinstance(replica, PgReplica):
            super().stop_refusing(replica)
        else:
            replica.sql("DROP TRIGGER IF EXISTS refuse ON link")
