"""Logical replication of the registry reaches a subscriber's decisions.

In: a publisher and a subscriber, two databases of one cluster.  The apply worker writes with
session_replication_role = replica, where ordinary triggers rest.
"""

from __future__ import annotations

from typing import Any

import pytest
from psycopg import sql

from tinydancer.server import wait_for

ROUTE = "SELECT agent_name FROM route_results WHERE request = 'translate this into french'"


def routed(conn: Any) -> str | None:
    row = conn.execute(ROUTE).fetchone()
    return row[0] if row else None


@pytest.fixture
def subscriber(db: Any) -> Any:
    name = f"{db.name}_sub"
    with db.connect() as publisher:
        publisher.execute(f"CREATE DATABASE {name}")
        db.cluster.create_extension(name)
        with db.cluster.connect(name, autocommit=True) as conn:
            # Built-in rows are on both sides already.
            publisher.execute("DELETE FROM tinydancer.setting")
            publisher.execute(
                "CREATE PUBLICATION registry FOR TABLE tinydancer.agent, tinydancer.agent_phrase, "
                "tinydancer.setting, tinydancer.policy WHERE (NOT builtin)"
            )
            # In one cluster the slot must be made first: CREATE SUBSCRIPTION would wait for itself.
            publisher.execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", (name,))
            conn.execute(
                sql.SQL(
                    "CREATE SUBSCRIPTION {} CONNECTION {} PUBLICATION registry "
                    "WITH (create_slot = false, slot_name = {})"
                ).format(sql.Identifier(name), sql.Literal(db.conninfo), sql.Literal(name))
            )
            yield conn
            conn.execute(f"DROP SUBSCRIPTION {name}")
        publisher.execute(f"DROP DATABASE {name} WITH (FORCE)")


def test_replicated_registry_reaches_the_subscribers_decisions(db: Any, subscriber: Any) -> None:
    assert routed(subscriber) is None
    with db.connect() as publisher:
        register = (
            "SELECT ruvector_register_agent(name := %s, agent_type := 'api', cost_per_call := 0, "
            "avg_latency_ms := 10, quality_score := %s, description := 'translate texts')"
        )
        publisher.execute(register, ("a", 0.5))
        wait_for(lambda: routed(subscriber) == "a", what="the first agent on the subscriber")
        publisher.execute(register, ("b", 0.9))
        wait_for(lambda: routed(subscriber) == "b", what="the better agent on the subscriber")
        publisher.execute("SELECT ruvector_remove_agent('b')")
        wait_for(lambda: routed(subscriber) == "a", what="the removal on the subscriber")
        publisher.execute("TRUNCATE tinydancer.agent CASCADE")
        wait_for(lambda: routed(subscriber) is None, what="the truncation on the subscriber")


def test_replicated_switch_of_the_encoder_reaches_the_subscribers_decisions(
    db: Any, subscriber: Any
) -> None:
    by_vector = "SELECT agent_name FROM ruvector_route(NULL, embedding := '{1,0,0}')"

    def active() -> str:
        return str(subscriber.execute("SELECT id FROM tinydancer.active_encoder()").fetchone()[0])

    with db.connect() as publisher:
        publisher.execute(
            "SELECT ruvector_register_agent('a', 'api', description := 'translate texts')"
        )
        wait_for(lambda: routed(subscriber) == "a", what="the agent on the subscriber")
        publisher.execute("CALL tinydancer.use_encoder('external', 3)")
        publisher.execute(
            "SELECT ruvector_register_agent('b', 'api', description := 'translate texts', "
            "embedding := '{1,0,0}')"
        )
        wait_for(lambda: active() == "external", what="the switch on the subscriber")
        wait_for(
            lambda: subscriber.execute(by_vector).fetchone() == ("b",),
            what="the vector on the subscriber",
        )
        publisher.execute("SELECT ruvector_remove_agent('b')")
        publisher.execute("CALL tinydancer.use_encoder('static')")
        wait_for(lambda: active() == "static-1", what="the switch back on the subscriber")
        wait_for(lambda: routed(subscriber) == "a", what="the agent's vectors on the subscriber")
