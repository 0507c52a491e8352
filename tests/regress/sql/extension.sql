-- What CREATE EXTENSION makes, and who may use it.
SELECT p.proname, pg_get_function_identity_arguments(p.oid) LIKE '%real[]%' AS takes_vector, l.lanname AS language,
       p.provolatile AS volatile, p.proparallel AS parallel,
       has_function_privilege('public', p.oid, 'EXECUTE') AS public
FROM pg_depend d
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'tinydancer'
JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
JOIN pg_language l ON l.oid = p.prolang
WHERE d.deptype = 'e'
ORDER BY p.pronamespace::regnamespace::text COLLATE "C", p.proname COLLATE "C", 2, 4;

-- Every function and table says what it is.
SELECT p.proname FROM pg_depend d
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'tinydancer'
JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
WHERE obj_description(p.oid, 'pg_proc') IS NULL;
SELECT c.relname FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tinydancer' AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND obj_description(c.oid, 'pg_class') IS NULL;

-- Functions written in SQL or plpgsql pin their search_path.
SELECT p.proname FROM pg_depend d
JOIN pg_extension e ON e.oid = d.refobjid AND e.extname = 'tinydancer'
JOIN pg_proc p ON p.oid = d.objid AND d.classid = 'pg_proc'::regclass
JOIN pg_language l ON l.oid = p.prolang
WHERE l.lanname <> 'c' AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false);

-- Every table and sequence is dumped, but for the empty one and what is made from the usage log.
SELECT c.relname, c.relkind FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
WHERE n.nspname = 'tinydancer' AND c.relkind IN ('r', 'p', 'S')
  AND NOT EXISTS (SELECT FROM pg_extension e WHERE e.extname = 'tinydancer' AND c.oid = ANY (e.extconfig))
ORDER BY 1;

-- Triggers that tell other sessions fire for replicated rows too.
SELECT tgrelid::regclass::text AS table, tgname, tgenabled FROM pg_trigger
WHERE tgname LIKE 'bump_epoch%' ORDER BY tgrelid::regclass::text COLLATE "C", tgname;

-- An ordinary user may route and not write, and reads no table.
CREATE ROLE td_plain;
SET ROLE td_plain;
SELECT agent_name FROM ruvector_route('anything');
SELECT ruvector_register_agent('x', 'api');
SELECT ruvector_remove_agent('x');
SELECT * FROM tinydancer.agent;
SELECT agent_name FROM route_results WHERE request = 'anything';
SET tinydancer.encoder_dir = '/tmp';
RESET ROLE;
GRANT SELECT ON route_results TO td_plain;
SET ROLE td_plain;
SELECT agent_name FROM route_results WHERE request = 'anything';
RESET ROLE;
REVOKE SELECT ON route_results FROM td_plain;
DROP ROLE td_plain;

-- The trigger function is only a trigger.
SELECT tinydancer.bump_epoch();
