-- A nondeterministic collation would route another text than the one that was asked for.
-- collation_1.out is for servers built without ICU.
CREATE COLLATION no_case (provider = icu, locale = 'und-u-ks-level2', deterministic = false);
SELECT agent_name FROM route_results WHERE request COLLATE no_case = 'X';
CREATE TABLE log (body text COLLATE no_case);
SELECT agent_name FROM log JOIN route_results r ON r.request = log.body COLLATE no_case;
SELECT agent_name FROM route_results WHERE request COLLATE no_case IN ('X', 'Y');
SELECT agent_name FROM route_results WHERE request COLLATE "C" = 'X';
-- Nor may two pools or lists of agents be taken for equal.
SELECT agent_name FROM route_results WHERE request = 'X' AND pool = 'EAST' COLLATE no_case;
CREATE TABLE limits (excluded text[] COLLATE no_case);
SELECT agent_name FROM limits JOIN route_results r ON r.request = 'X' AND r.excluded_agents = limits.excluded;
