"""The database of the registry, and this process's copy of what it holds.

In: a connection string.  Out: what decides, matches and classifies, as new as the last commit.
Called by tables.py.

A process has one connection for each connection string, in autocommit: the copy is checked at the
beginning of each scan by one call of tinydancer.registry_version(), and read again when that says
so.  A connection that was cut is opened again once; what fails then is the error.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from importlib.metadata import version
from typing import Any, TypeVar

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tinydancer import db
from tinydancer.errors import ForeignTableError
from tinydancer.registry import StoredRouter, Version, read_router, read_scales, read_version
from tinydancer.registry_classes import StoredClassifier, read_classifier
from tinydancer.registry_routes import StoredMatcher, read_matcher

__all__ = ["Source", "conninfo_of", "source"]

Answer = TypeVar("Answer")

# A backend that waits in libpq or Python does not answer a cancel: nothing may wait for long.  They
# are defaults; the connection string, and settings of the role or the database, go before them.
CONNECT_TIMEOUT = 5  # seconds
LOCK_TIMEOUT = "5s"
STATEMENT_TIMEOUT = "30s"

_NOT_IN_PREREQUISITE_STATE = "55000"
_CONNECTION_FAILURE = "HV00N"
_INVALID_OPTION = "HV00D"

# Other objects of the database must not stand in for those that queries name without a schema.
_SETTINGS = """
SELECT set_config('search_path', 'pg_catalog, pg_temp', false)
UNION ALL
SELECT set_config(s.name, s.value, false)
FROM (VALUES ('lock_timeout', %s), ('statement_timeout', %s)) AS s (name, value)
WHERE current_setting(s.name) = '0'
"""


def conninfo_of(options: Mapping[str, str]) -> str:
    """The connection string of the options dsn, user and password, with our defaults.

    Raises:
        ForeignTableError: if dsn is missing or is none; it may have a password and is not shown.
    """
    if not options.get("dsn", "").strip():
        raise ForeignTableError(
            _INVALID_OPTION,
            'option "dsn" is missing',
            "It names the database that has the registry.",
            "ALTER SERVER ... OPTIONS (ADD dsn 'host=... dbname=...').",
        )
    try:
        given = conninfo_to_dict(options["dsn"])
    except psycopg.Error:
        raise ForeignTableError(
            _INVALID_OPTION,
            'option "dsn" is not a connection string',
            "libpq takes keywords with values, or a URI.",
            "Write host=db.example.org dbname=app, and user and password into the user mapping.",
        ) from None
    parts: dict[str, Any] = {"connect_timeout": CONNECT_TIMEOUT, "application_name": "tinydancer"}
    parts.update(given)
    parts.update({name: options[name] for name in ("user", "password") if name in options})
    parts["client_encoding"] = "UTF8"
    return make_conninfo(**parts)


class Source:
    """One database as this process sees it.

    Args:
        conninfo: libpq's; may have a password, and is shown to nobody.
    """

    def __init__(self, conninfo: str) -> None:
        self._conninfo = conninfo
        self._connection: psycopg.Connection[Any] | None = None
        self._router: tuple[tuple[str, str], StoredRouter] | None = None
        self._matcher: tuple[str, StoredMatcher] | None = None
        self._classifier: tuple[str, StoredClassifier] | None = None
        # As the connection's role and database have them set.
        self.cost_scale = 0.001
        self.latency_scale = 1000.0

    def close(self) -> None:
        """End the connection; the next question opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def ask(self, question: Callable[[psycopg.Connection[Any]], Answer]) -> Answer:
        """Ask the database; once more on a new connection when the old one turns out to be cut.

        Raises:
            psycopg.Error: the server refused.
            ForeignTableError: it cannot be reached, or lacks what is needed.
        """
        if self._connection is not None:
            try:
                return question(self._connection)
            except psycopg.OperationalError:
                # Cancelled, timed out and the like are answers of a connection that is alive.
                if not self._connection.broken and not self._connection.closed:
                    raise
                self._connection = None
        self._connection = self._connect()
        return question(self._connection)

    def _connect(self) -> psycopg.Connection[Any]:
        try:
            connection: psycopg.Connection[Any] = psycopg.connect(self._conninfo, autocommit=True)
        except psycopg.Error as error:
            # libpq names host, port and user, and no password.
            raise ForeignTableError(
                _CONNECTION_FAILURE,
                "could not connect to the database of the registry",
                str(error).strip(),
                "Check the options dsn, user and password of the server and the user mapping.",
            ) from None
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: psycopg.Connection[Any]) -> None:
        """See that the other side is what this one is made for, and set it up."""
        theirs = db.extension_version(connection)
        name = connection.info.dbname
        if theirs is None:
            raise ForeignTableError(
                _NOT_IN_PREREQUISITE_STATE,
                f'database "{name}" lacks the extension "{db.EXTENSION}"',
                "The registry is in its tables.",
                "CREATE EXTENSION tinydancer there, or name another database in the option dsn.",
            )
        ours = version("tinydancer")
        if theirs != ours:
            raise ForeignTableError(
                _NOT_IN_PREREQUISITE_STATE,
                f'extension "{db.EXTENSION}" of database "{name}" is of another version',
                f"It is {theirs}, the Python package of this server is {ours}.",
                "ALTER EXTENSION tinydancer UPDATE there, or install the same version here.",
            )
        connection.execute(_SETTINGS, (LOCK_TIMEOUT, STATEMENT_TIMEOUT))
        self.cost_scale, self.latency_scale = read_scales(connection)

    def _version(self) -> Version:
        return self.ask(read_version)

    def router(self) -> StoredRouter:
        """The agents as they are now."""
        version = self._version()
        now = version.registry, version.models
        if self._router is None or self._router[0] != now:
            self._router = now, self.ask(read_router)
        return self._router[1]

    def matcher(self) -> StoredMatcher:
        """The semantic routes as they are now."""
        now = self._version().routes
        if self._matcher is None or self._matcher[0] != now:
            self._matcher = now, self.ask(read_matcher)
        return self._matcher[1]

    def classifier(self) -> StoredClassifier:
        """The task classifier as it is now."""
        now = self._version().models
        if self._classifier is None or self._classifier[0] != now:
            self._classifier = now, self.ask(read_classifier)
        return self._classifier[1]

    def known_agents(self) -> int | None:
        """How many agents the copy has, None when there is none yet; asks nobody."""
        return None if self._router is None else len(self._router[1].agents)


_sources: dict[tuple[int, str], Source] = {}


def source(conninfo: str) -> Source:
    """The process's one source of a connection string; a forked process has its own."""
    return _sources.setdefault((os.getpid(), conninfo), Source(conninfo))
