-- What is a role's own, shown to that role: changes of its that wait, and its subscriptions. The core works on these.

CREATE VIEW _sync_rejections AS
SELECT
  id, table_name, pk_value, operation, payload, origin, timestamp, version, via, seen_version, searched_version,
  met_version, row_hash, contested, sender_seen, waits_for, kind, code, message, attempts, rejected_at
FROM _sync_rejections_data WHERE _sync_is_callers(role);
COMMENT ON VIEW _sync_rejections IS 'The changes that wait and are the caller''s.';

CREATE VIEW _sync_subscriptions AS
SELECT
  subscription_id, origin_id, subscription_type, table_name, filter, created_at, expires_at, last_version,
  served_version
FROM _sync_subscriptions_data WHERE _sync_is_callers(role);
COMMENT ON VIEW _sync_subscriptions IS 'The subscriptions that are the caller''s.';

-- Their columns are those of the tables behind them.
DO $$
DECLARE
  explained record;
BEGIN
  FOR explained IN
    SELECT shown.attrelid::pg_catalog.regclass AS view, shown.attname, pg_catalog.col_description(kept.attrelid, kept.attnum::integer) AS text
    FROM pg_catalog.pg_attribute AS shown JOIN pg_catalog.pg_attribute AS kept ON kept.attname OPERATOR(pg_catalog.=) shown.attname
    WHERE shown.attnum OPERATOR(pg_catalog.>) 0::smallint AND (
      shown.attrelid OPERATOR(pg_catalog.=) '_sync_rejections'::pg_catalog.regclass::pg_catalog.oid
        AND kept.attrelid OPERATOR(pg_catalog.=) '_sync_rejections_data'::pg_catalog.regclass::pg_catalog.oid
      OR shown.attrelid OPERATOR(pg_catalog.=) '_sync_subscriptions'::pg_catalog.regclass::pg_catalog.oid
        AND kept.attrelid OPERATOR(pg_catalog.=) '_sync_subscriptions_data'::pg_catalog.regclass::pg_catalog.oid)
  LOOP
    EXECUTE pg_catalog.format('COMMENT ON COLUMN %s.%I IS %L', explained.view, explained.attname, explained.text);
  END LOOP;
END
$$;
