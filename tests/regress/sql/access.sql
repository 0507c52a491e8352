-- Levels of access: who may be given what, and in which words it is refused.
\set SHOW_CONTEXT never
CREATE ROLE td_access;
CREATE ROLE "Td ""odd"" name";

-- What each level adds.  Functions of level owner and internal are granted to nobody.
SELECT level, object, privileges FROM tinydancer.access_rules() WHERE kind <> 'ROUTINE' ORDER BY level DESC, object COLLATE "C";
SELECT DISTINCT level FROM tinydancer.access_rules() ORDER BY 1;

-- Exactly one level, whichever way it changes.
SELECT tinydancer.grant_usage('td_access', 'operator');
SELECT has_table_privilege('td_access', 'tinydancer.agent', 'UPDATE') AS writes,
       has_table_privilege('td_access', 'tinydancer.agent', 'SELECT') AS reads;
SELECT tinydancer.grant_usage('td_access', 'viewer');
SELECT has_table_privilege('td_access', 'tinydancer.agent', 'UPDATE') AS writes,
       has_table_privilege('td_access', 'tinydancer.agent', 'SELECT') AS reads;
SELECT tinydancer.revoke_usage('td_access');
SELECT has_table_privilege('td_access', 'tinydancer.agent', 'SELECT') AS reads;
SELECT tinydancer.grant_usage(role := 'Td "odd" name', level := 'router');
SELECT has_table_privilege('Td "odd" name', 'route_results', 'SELECT') AS reads;
SELECT tinydancer.revoke_usage(role := 'Td "odd" name');

-- Refused.
SELECT tinydancer.grant_usage('td_acess', 'viewer');
SELECT tinydancer.grant_usage('"Td ""odd"" name"', 'viewer');
SELECT tinydancer.grant_usage('public', 'viewer');
SELECT tinydancer.revoke_usage('no such role at all');
SELECT tinydancer.grant_usage('td_access', 'viewr');
SELECT tinydancer.grant_usage('td_access', 'OPERATOR');
SELECT tinydancer.grant_usage('td_access', 'superuser');
SELECT tinydancer.grant_usage('td_access');
SELECT tinydancer.grant_usage(NULL, 'viewer');
SELECT tinydancer.grant_usage('', 'viewer');
SELECT tinydancer.revoke_usage(NULL);
-- None of them changed anything.
SELECT has_schema_privilege('td_access', 'tinydancer', 'USAGE') AS usage;

-- Not even an operator hands out access.
SELECT tinydancer.grant_usage('td_access', 'operator');
SET ROLE td_access;
SELECT tinydancer.grant_usage('td_access', 'operator');
SELECT tinydancer.revoke_usage('td_access');
RESET ROLE;
SELECT tinydancer.revoke_usage('td_access');
-- Nothing is left that would keep the roles from being dropped.
DROP ROLE td_access;
DROP ROLE "Td ""odd"" name";
