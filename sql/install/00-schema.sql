-- Schema of everything but the public functions and foreign tables.
-- complain if the script is sourced in psql rather than run by CREATE EXTENSION
\echo Use "CREATE EXTENSION tinydancer" to load this file. \quit

CREATE SCHEMA tinydancer;
COMMENT ON SCHEMA tinydancer IS 'Registry, policies, models, settings and logs of Tiny Dancer';
