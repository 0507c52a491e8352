-- One decision
-- route_results is a foreign table: give it a request and it answers with an agent.
SELECT *
FROM route_results
WHERE request = 'Can my landlord keep the deposit because of a scratch on the floor?';
