-- The tables of sqlite_sync. Every statement can be run again. Stamps are milliseconds since 1970, UTC.

-- Cursors, identities and settings of this replica.
CREATE TABLE IF NOT EXISTS _sync_state (
  key TEXT PRIMARY KEY,
  value TEXT NOT NULL
) WITHOUT ROWID;

-- The original's suppression flag. It cannot be set: nothing here can switch capture off.
CREATE TABLE IF NOT EXISTS _sync_session (
  id INTEGER PRIMARY KEY CHECK (id = 1),
  sync_active INTEGER NOT NULL CHECK (sync_active = 0)
);
INSERT OR IGNORE INTO _sync_session (id, sync_active) VALUES (1, 0);

-- Replicas by small numbers: who made a change (origin), who delivered it (via).
CREATE TABLE IF NOT EXISTS _sync_origins (
  id INTEGER PRIMARY KEY,
  origin TEXT NOT NULL UNIQUE,
  -- newest stamp of this origin that was received
  newest_stamp INTEGER NOT NULL DEFAULT 0
);

-- What is tracked, and how.
CREATE TABLE IF NOT EXISTS _sync_tables (
  table_id INTEGER PRIMARY KEY,
  -- the table's name here
  table_name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  -- its name on the wire
  name TEXT NOT NULL UNIQUE COLLATE NOCASE,
  -- JSON: columns, key, excluded columns, foreign keys
  definition TEXT NOT NULL,
  conflict_strategy TEXT NOT NULL,
  -- SQL expression over :local and :remote
  resolver TEXT,
  -- 0: untracked since; its log entries are still served
  tracked INTEGER NOT NULL,
  -- layout of new log entries
  layout INTEGER NOT NULL
);

-- What c1, c2, ... of a log entry hold: one layout per set of columns that a table has had.
CREATE TABLE IF NOT EXISTS _sync_layouts (
  layout INTEGER PRIMARY KEY,
  table_id INTEGER NOT NULL,
  -- JSON array of column names
  columns TEXT NOT NULL
);

-- The log: one entry per changed row, in native values. _sync_log shows it as JSON.
CREATE TABLE IF NOT EXISTS _sync_log_data (
  version INTEGER PRIMARY KEY,
  layout INTEGER NOT NULL,
  -- 0 insert, 1 update, 2 delete, 3 first part of a wide entry, 4 void
  operation INTEGER NOT NULL,
  -- _sync_origins.id of the replica that made the change
  origin INTEGER NOT NULL,
  -- never decreases along the log
  clock INTEGER NOT NULL,
  -- the author's stamp; NULL for a local change: its clock
  stamp INTEGER,
  -- neighbour that delivered it: 0 the server, else _sync_origins.id; NULL for a local change
  via INTEGER,
  -- 1: won a conflict here, so its author is told
  contested INTEGER
);
INSERT OR IGNORE INTO _sync_log_data (version, layout, operation, origin, clock) VALUES (0, 0, 4, 1, 0);

-- Replicas that pull from here and how far they are.
CREATE TABLE IF NOT EXISTS _sync_clients (
  origin_id TEXT PRIMARY KEY,
  last_sync_version INTEGER NOT NULL,
  last_sync_timestamp TEXT NOT NULL,
  created_at TEXT NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_sync_clients_version ON _sync_clients (last_sync_version);

-- How far the log was searched for entries that a neighbour has not seen.
CREATE TABLE IF NOT EXISTS _sync_peers (
  -- 0 the server, else _sync_origins.id
  peer INTEGER PRIMARY KEY,
  -- the search began above this version
  folded_from INTEGER NOT NULL,
  folded_to INTEGER NOT NULL
);

-- The newest entry of every row that a neighbour has not seen.
CREATE TABLE IF NOT EXISTS _sync_unseen (
  peer INTEGER NOT NULL,
  row_hash BLOB NOT NULL,
  version INTEGER NOT NULL,
  -- 1: it is the neighbour's own, which won over what it had not seen; the neighbour is told
  won INTEGER NOT NULL,
  -- 1: a change of the neighbour's has caused it here, and the row held nothing unseen before
  caused INTEGER NOT NULL,
  PRIMARY KEY (peer, row_hash)
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_sync_unseen_version ON _sync_unseen (peer, version);

-- Which versions of a sender's log were received by pushes.
CREATE TABLE IF NOT EXISTS _sync_received (
  sender INTEGER NOT NULL,
  epoch TEXT NOT NULL,
  -- from_version < version <= to_version
  from_version INTEGER NOT NULL,
  to_version INTEGER NOT NULL,
  newest_stamp INTEGER NOT NULL,
  PRIMARY KEY (sender, epoch, from_version)
) WITHOUT ROWID;

-- The marks of a sender's batches, of those that were received and of those that it had handed out before them.
CREATE TABLE IF NOT EXISTS _sync_marks (
  sender INTEGER NOT NULL,
  -- where the batch ends
  version INTEGER NOT NULL,
  mark TEXT NOT NULL,
  PRIMARY KEY (sender, version)
) WITHOUT ROWID;

-- The batches handed out for the server since the last one that is known to have arrived.
CREATE TABLE IF NOT EXISTS _sync_pushes (
  to_version INTEGER PRIMARY KEY,
  -- a random UUID: a copy of this database, or a later state of it, has another one
  mark TEXT NOT NULL
);

-- Every conflict: both sides, who won and by which strategy.
CREATE TABLE IF NOT EXISTS _sync_conflicts (
  id INTEGER PRIMARY KEY,
  table_name TEXT NOT NULL,
  pk_value TEXT NOT NULL,
  local_change TEXT NOT NULL,
  remote_change TEXT NOT NULL,
  -- local, remote or merged
  winner TEXT NOT NULL,
  strategy TEXT NOT NULL,
  detected_at TEXT NOT NULL
);

-- Changes that could not be applied yet, whole, with the reason.
CREATE TABLE IF NOT EXISTS _sync_rejections (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  -- wire name
  table_name TEXT NOT NULL,
  pk_value TEXT NOT NULL,
  operation TEXT NOT NULL,
  payload TEXT,
  origin TEXT NOT NULL,
  timestamp TEXT NOT NULL,
  -- version in the sender's log
  version INTEGER NOT NULL,
  via INTEGER NOT NULL,
  -- the sender had seen this log up to here
  seen_version INTEGER NOT NULL,
  -- the log was searched up to here for what the sender had not seen of the row
  searched_version INTEGER NOT NULL,
  -- the newest of it
  met_version INTEGER,
  row_hash BLOB NOT NULL,
  -- 1: it won a conflict at the neighbour, so its author is told
  contested INTEGER NOT NULL,
  -- what the sender had applied of this log for the row, if that was less than it had received
  sender_seen INTEGER,
  -- row_hash of the missing row of a foreign key
  waits_for BLOB,
  kind TEXT NOT NULL,
  code TEXT NOT NULL,
  message TEXT NOT NULL,
  attempts INTEGER NOT NULL,
  rejected_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS idx_sync_rejections_row ON _sync_rejections (row_hash);

-- The server's rows as far as a full resync has fetched them: the newest entry of each.
CREATE TABLE IF NOT EXISTS _sync_resync_rows (
  row_hash BLOB PRIMARY KEY,
  -- in the server's log
  version INTEGER NOT NULL,
  -- 0: deleted
  alive INTEGER NOT NULL,
  stamp INTEGER NOT NULL,
  -- JSON; NULL if this replica made or delivered it itself
  change TEXT
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_sync_resync_version ON _sync_resync_rows (version);

-- Stored subscriptions and how far each was served.
CREATE TABLE IF NOT EXISTS _sync_subscriptions (
  subscription_id TEXT PRIMARY KEY,
  origin_id TEXT NOT NULL,
  subscription_type TEXT NOT NULL CHECK (subscription_type = 'record' OR subscription_type = 'table' OR subscription_type = 'query'),
  table_name TEXT NOT NULL,
  filter TEXT,
  created_at TEXT NOT NULL,
  expires_at TEXT,
  -- acknowledged
  last_version INTEGER NOT NULL,
  -- served by the last poll, acknowledged by the next
  served_version INTEGER NOT NULL
) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS idx_subscriptions_table ON _sync_subscriptions (table_name);
CREATE INDEX IF NOT EXISTS idx_subscriptions_origin ON _sync_subscriptions (origin_id);
