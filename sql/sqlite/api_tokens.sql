-- Who may use the gateway. Only hashes of the tokens are kept.
CREATE TABLE IF NOT EXISTS _sync_api_tokens (
    name TEXT PRIMARY KEY NOT NULL,           -- what the token is called in lists and logs
    hash TEXT NOT NULL UNIQUE,                -- SHA-256 of the token, in hex
    origin TEXT,                              -- the client's origin id; NULL: it may read, and push nothing
    relay INTEGER NOT NULL DEFAULT 0,         -- 1: it pushes changes that others made
    role TEXT,                                -- PostgreSQL's only
    created_at TEXT NOT NULL DEFAULT (strftime('%Y-%m-%dT%H:%M:%fZ', 'now')),
    expires_at TEXT,                          -- NULL: never
    revoked_at TEXT                           -- NULL: it is valid
);
