-- Run once by the container of PostgreSQL, in its database.
CREATE EXTENSION pg_sync;
