-- What a client of this database needs, granted at once. Roles belong to the cluster, so the extension makes none.

CREATE FUNCTION sync_grant_client(role text) RETURNS bigint LANGUAGE plpgsql SET search_path = pg_catalog, pg_temp AS $$
DECLARE
  called CONSTANT pg_catalog.name[] := ARRAY[
    'sync_fetch_changes', 'sync_changes', 'sync_apply_batch', 'sync_register_client', 'sync_state', 'sync_status', 'sync_tables', 'sync_hash',
    'sync_conflicts', 'sync_rejections', 'sync_retry', 'sync_discard',
    'sync_subscribe', 'sync_unsubscribe', 'sync_poll', 'sync_subscriptions'];
  function pg_catalog.regprocedure;
BEGIN
  PERFORM FROM pg_catalog.pg_roles AS r WHERE r.rolname::pg_catalog.text OPERATOR(pg_catalog.=) role;
  IF NOT FOUND THEN
    RAISE EXCEPTION USING ERRCODE = '22023', MESSAGE = pg_catalog.format('sync: InvalidArgument: there is no role %I; create it first', role);
  END IF;
  EXECUTE pg_catalog.format('GRANT USAGE ON SCHEMA %s TO %I', '@extschema@'::pg_catalog.regnamespace, role);
  FOR function IN
    SELECT p.oid FROM pg_catalog.pg_proc AS p
    JOIN pg_catalog.pg_depend AS d ON d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass::pg_catalog.oid
      AND d.objid OPERATOR(pg_catalog.=) p.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'::pg_catalog."char"
    JOIN pg_catalog.pg_extension AS e ON e.oid OPERATOR(pg_catalog.=) d.refobjid
      AND d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass::pg_catalog.oid
    WHERE e.extname OPERATOR(pg_catalog.=) 'pg_sync'::pg_catalog.name AND p.proname OPERATOR(pg_catalog.=) ANY (called)
  LOOP
    EXECUTE pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %I', function, role);
  END LOOP;
  RETURN pg_catalog.cardinality(called);
END
$$;
COMMENT ON FUNCTION sync_grant_client(text) IS
  'Grants a role the functions that a client calls here, and nothing on any table; returns their number. Call it again after an update.';
