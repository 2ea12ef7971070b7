-- Who may use the gateway. Only hashes of the tokens are kept.
CREATE SCHEMA IF NOT EXISTS sync_api;

CREATE TABLE sync_api.tokens (
    name text PRIMARY KEY,
    hash text NOT NULL UNIQUE,
    origin text,
    relay boolean NOT NULL DEFAULT false,
    role text,
    created_at timestamptz NOT NULL DEFAULT now(),
    expires_at timestamptz,
    revoked_at timestamptz
);

COMMENT ON TABLE sync_api.tokens IS 'Who may use the gateway of pg_sync.';
COMMENT ON COLUMN sync_api.tokens.name IS 'What the token is called in lists and logs.';
COMMENT ON COLUMN sync_api.tokens.hash IS 'SHA-256 of the token, in hex.';
COMMENT ON COLUMN sync_api.tokens.origin IS 'The client''s origin id; without one the token may read, and push nothing.';
COMMENT ON COLUMN sync_api.tokens.relay IS 'It pushes changes that others made.';
COMMENT ON COLUMN sync_api.tokens.role IS 'The role under which its statements run.';
COMMENT ON COLUMN sync_api.tokens.created_at IS 'When it was made.';
COMMENT ON COLUMN sync_api.tokens.expires_at IS 'When it ends; NULL: never.';
COMMENT ON COLUMN sync_api.tokens.revoked_at IS 'When it was ended; NULL: it is valid.';
