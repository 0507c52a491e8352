"""The Multicorn door: the foreign tables for servers that may load Multicorn2 and no other module.

Each class is a foreign data wrapper of Multicorn2, named in the option ``wrapper`` of a server::

    CREATE SERVER routes FOREIGN DATA WRAPPER multicorn
        OPTIONS (wrapper 'tinydancer.multicorn.RouteResults', dsn 'host=db dbname=app');
    IMPORT FOREIGN SCHEMA tinydancer FROM SERVER routes INTO public;

They decide in the process of the backend, with the kernel that the Postgres module shares, from a
copy of the registry in the database that ``dsn`` names.  docs/doors.md says what they cost, what
they need and what Multicorn cannot do.  Quals and options come in, rows come out; called by
Multicorn2, and by tests that speak its protocol.
"""

from tinydancer.multicorn.tables import (
    RequestClasses,
    RouteCandidates,
    RouteResults,
    SemanticMatches,
)

__all__ = ["RequestClasses", "RouteCandidates", "RouteResults", "SemanticMatches"]
