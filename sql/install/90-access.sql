-- Who may do what: three levels of access, given to roles by tinydancer.grant_usage().
--
-- What a level may do is worked out from the catalog each time, so that an object which an upgrade
-- adds has its level without being named here; see "Access" in CONTRIBUTING.md for the rule.

CREATE FUNCTION tinydancer.access_rules(
    OUT level text, OUT kind text, OUT object text, OUT privileges text)
    RETURNS SETOF record
    LANGUAGE sql STABLE PARALLEL SAFE ROWS 100 SET search_path = pg_catalog, pg_temp
AS $$
    WITH member AS (
        SELECT d.classid, d.objid, e.extnamespace
        FROM pg_depend d
        JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND d.refobjid = e.oid
        WHERE e.extname = 'tinydancer' AND d.deptype = 'e')
    SELECT CASE
               -- Called by the server alone.
               WHEN p.prorettype IN ('trigger'::regtype, 'event_trigger'::regtype, 'fdw_handler'::regtype)
                    OR EXISTS (SELECT FROM pg_foreign_data_wrapper w WHERE w.fdwvalidator = p.oid)
                   THEN 'internal'
               -- Whoever hands out access has all of it, and logs are dropped by nobody else.
               WHEN p.proname IN ('grant_usage', 'revoke_usage', 'grantee',
                                  'drop_log_partitions', 'make_log_partition') THEN 'owner'
               -- What applications write while they route; SECURITY DEFINER, so that the logs and
               -- the budgets can be written in no other way.
               WHEN p.proname IN ('ruvector_dispatch', 'ruvector_record_usage', 'ruvector_update_agent_metrics')
                   THEN 'router'
               WHEN p.provolatile = 'v' AND p.proparallel = 'u' THEN 'operator'
               ELSE 'viewer'
           END,
           'ROUTINE', i.identity, 'EXECUTE'
    FROM member m
    JOIN pg_proc p ON m.classid = 'pg_proc'::regclass AND p.oid = m.objid,
         LATERAL pg_identify_object(m.classid, m.objid, 0) i
    UNION ALL
    -- A partition is read through its parent.
    SELECT 'viewer', 'TABLE', i.identity, 'SELECT'
    FROM member m
    JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
         LATERAL pg_identify_object(m.classid, m.objid, 0) i
    WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND NOT c.relispartition
    UNION ALL
    -- The registry, whose tables tell other sessions of a change, and the caps on spending.
    SELECT 'operator', 'TABLE', i.identity, 'INSERT, UPDATE, DELETE'
    FROM member m
    JOIN pg_class c ON m.classid = 'pg_class'::regclass AND c.oid = m.objid,
         LATERAL pg_identify_object(m.classid, m.objid, 0) i
    WHERE c.relkind = 'r' AND NOT c.relispartition
      AND (c.relname = 'budget'
           OR EXISTS (SELECT FROM pg_trigger t WHERE t.tgrelid = c.oid AND t.tgname = 'bump_epoch'))
    UNION ALL
    SELECT 'viewer', 'SCHEMA', quote_ident(n.nspname), 'USAGE'
    FROM member m JOIN pg_namespace n ON m.classid = 'pg_namespace'::regclass AND n.oid = m.objid
    UNION ALL
    -- The schema of the public functions, where not everybody may use it.
    SELECT DISTINCT 'viewer', 'SCHEMA', quote_ident(n.nspname), 'USAGE'
    FROM member m JOIN pg_namespace n ON n.oid = m.extnamespace
    WHERE NOT has_schema_privilege('public', n.oid, 'USAGE')
    UNION ALL
    -- For foreign tables of one's own, which route as route_results does.
    SELECT 'router', 'FOREIGN SERVER', quote_ident(s.srvname), 'USAGE'
    FROM member m JOIN pg_foreign_server s ON m.classid = 'pg_foreign_server'::regclass AND s.oid = m.objid
$$;
COMMENT ON FUNCTION tinydancer.access_rules() IS
    'What each level of tinydancer.grant_usage() may do, worked out from the catalog; nothing of level '
    'owner or internal is granted';

-- The oid of a role whose access may be changed, or the error that says why not.
CREATE FUNCTION tinydancer.grantee(role text, function text) RETURNS oid
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known text[];
    guess text;
    owner oid := (SELECT e.extowner FROM pg_extension e WHERE e.extname = 'tinydancer');
    found_role oid;
BEGIN
    PERFORM tinydancer.require_value(grantee.role, 'role', grantee.function);
    -- Without this a GRANT of somebody else would give nothing, with a warning only.
    IF NOT pg_has_role(owner, 'USAGE') THEN
        RAISE EXCEPTION 'permission denied to change the access of role "%"', grantee.role
            USING ERRCODE = 'insufficient_privilege',
                  DETAIL = format('The extension belongs to role "%s", not to "%s".', pg_get_userbyid(owner), current_user),
                  HINT = format('Ask role "%s" or a superuser.', pg_get_userbyid(owner));
    END IF;
    SELECT r.oid INTO found_role FROM pg_roles r WHERE r.rolname = grantee.role;
    IF NOT FOUND THEN
        known := ARRAY(SELECT r.rolname::text FROM pg_roles r WHERE r.rolname !~ '^pg_' ORDER BY 1 LIMIT 1000);
        guess := tinydancer.closest(grantee.role, known);
        RAISE EXCEPTION 'role "%" does not exist', grantee.role
            USING ERRCODE = 'undefined_object',
                  DETAIL = format('%s() takes a name as pg_roles has it, without quotes.', grantee.function),
                  HINT = coalesce('Perhaps you meant "' || guess || '".', 'CREATE ROLE makes one.');
    END IF;
    IF found_role = owner THEN
        RAISE EXCEPTION 'cannot change the access of role "%"', grantee.role
            USING ERRCODE = 'invalid_grant_operation',
                  DETAIL = 'It owns the extension and may do everything with it.',
                  HINT = 'Name a role that applications or people log in with.';
    END IF;
    RETURN found_role;
END
$$;
COMMENT ON FUNCTION tinydancer.grantee(text, text) IS
    'The role whose access is changed; raises the errors of tinydancer.grant_usage() and tinydancer.revoke_usage()';

CREATE FUNCTION tinydancer.revoke_usage(role text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    r record;
BEGIN
    PERFORM tinydancer.grantee(revoke_usage.role, 'tinydancer.revoke_usage');
    -- Two sessions that change the privileges of one object at the same time fail in the catalog.
    LOCK TABLE tinydancer.epoch IN SHARE ROW EXCLUSIVE MODE;
    FOR r IN SELECT DISTINCT a.kind, a.object FROM tinydancer.access_rules() a ORDER BY 1, 2 LOOP
        EXECUTE format('REVOKE ALL ON %s %s FROM %I', r.kind, r.object, revoke_usage.role);
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.revoke_usage(text) IS
    'Takes every privilege on the extension''s objects from a role';

CREATE FUNCTION tinydancer.grant_usage(role text, level text DEFAULT NULL) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    levels CONSTANT text[] := ARRAY['viewer', 'router', 'operator'];
    reached integer;
    guess text;
    r record;
BEGIN
    PERFORM tinydancer.grantee(grant_usage.role, 'tinydancer.grant_usage');
    PERFORM tinydancer.require_value(grant_usage.level, 'level', 'tinydancer.grant_usage');
    reached := array_position(levels, grant_usage.level);
    IF reached IS NULL THEN
        guess := tinydancer.closest(lower(grant_usage.level), levels);
        RAISE EXCEPTION 'unknown level "%"', grant_usage.level
            USING ERRCODE = 'invalid_parameter_value',
                  DETAIL = format('Known levels are %s; each may do what those before it may.', array_to_string(levels, ', ')),
                  HINT = coalesce('Perhaps you meant "' || guess || '".',
                                  'A viewer reads, a router also dispatches and records usage, an operator also '
                                  'changes the registry.');
    END IF;
    -- Exactly this level, whatever the role had before.
    PERFORM tinydancer.revoke_usage(grant_usage.role);
    FOR r IN
        SELECT a.kind, a.object, a.privileges FROM tinydancer.access_rules() a
        WHERE array_position(levels, a.level) <= reached
        ORDER BY 1, 2, 3
    LOOP
        EXECUTE format('GRANT %s ON %s %s TO %I', r.privileges, r.kind, r.object, grant_usage.role);
    END LOOP;
    RETURN true;
END
$$;
COMMENT ON FUNCTION tinydancer.grant_usage(text, text) IS
    'Gives a role exactly one level of access: viewer (reads), router (also dispatches and records usage) or '
    'operator (also changes the registry and the budgets); call it again after an upgrade';

REVOKE ALL ON FUNCTION tinydancer.revoke_usage(text) FROM PUBLIC;
REVOKE ALL ON FUNCTION tinydancer.grant_usage(text, text) FROM PUBLIC;
