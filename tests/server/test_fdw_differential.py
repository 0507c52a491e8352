"""Generated queries on route_results against ruvector_route() called row by row.

In: queries of fdw_shapes.py and settings of the planner.  What is
compared: the rows of the foreign table, whatever plan it got, with the rows of the function.
"""

from __future__ import annotations

import random
from collections import Counter
from typing import Any

import fdw_queries
import fdw_shapes
import psycopg
import pytest

QUERIES = 3000

OFF = (
    "enable_nestloop",
    "enable_hashjoin",
    "enable_mergejoin",
    "enable_memoize",
    "enable_material",
    "enable_seqscan",
    "enable_hashagg",
    "enable_sort",
)
# Plans that small tables do not get by themselves.
OTHERS = (
    {"join_collapse_limit": "1"},
    {"from_collapse_limit": "1"},
    {"geqo_threshold": "2"},
    {"enable_partitionwise_join": "on", "enable_partitionwise_aggregate": "on"},
    {"jit": "on", "jit_above_cost": "0", "jit_optimize_above_cost": "-1"},
    {"constraint_exclusion": "on"},
    {"work_mem": "64kB", "hash_mem_multiplier": "1"},
    {
        "parallel_setup_cost": "0",
        "parallel_tuple_cost": "0",
        "min_parallel_table_scan_size": "0",
        "max_parallel_workers_per_gather": "2",
    },
)
PLAN_CACHE_MODES = ("force_generic_plan", "force_custom_plan", "auto")


def rows(conn: Any, sql: str) -> list[str]:
    return sorted(str(row) for row in conn.execute(sql, prepare=False))


def executed(conn: Any, rng: random.Random, query: fdw_queries.Query) -> list[str]:
    """The rows of the foreign form, prepared or not."""
    if not query.parameters and rng.random() < 0.7:
        return rows(conn, query.foreign)
    mode = rng.choice(PLAN_CACHE_MODES)
    conn.execute(f"SET LOCAL plan_cache_mode = {mode}")
    types = ", ".join(kind for kind, _ in query.parameters)
    values = ", ".join(value for _, value in query.parameters)
    arguments = f"({values})" if values else ""
    conn.execute(f"PREPARE generated {f'({types})' if types else ''} AS {query.foreign}")
    try:
        # The sixth execution may take a generic plan.
        for _ in range(6 if mode == "auto" and rng.random() < 0.2 else 1):
            found = rows(conn, f"EXECUTE generated {arguments}")
        return found
    finally:
        if conn.info.transaction_status == psycopg.pq.TransactionStatus.INTRANS:
            conn.execute("DEALLOCATE generated")


def chosen_settings(rng: random.Random) -> dict[str, str]:
    settings = {name: "off" for name in OFF if rng.random() < 0.15}
    if rng.random() < 0.3:
        settings |= rng.choice(OTHERS)
    return settings


@pytest.mark.slow
def test_generated_queries_give_the_rows_of_the_function(
    conn: Any, request: pytest.FixtureRequest
) -> None:
    conn.execute(fdw_queries.SETUP)
    # A superuser is above row-level security.
    conn.execute("CREATE ROLE td_asks")
    try:
        conn.execute("GRANT SELECT ON ALL TABLES IN SCHEMA public TO td_asks")
        conn.execute("SELECT tinydancer.grant_usage('td_asks', 'viewer')")
        conn.execute("SET ROLE td_asks")
        compare(conn, random.Random(request.config.getoption("--seed")))
    finally:
        conn.execute("RESET ROLE")
        conn.execute("DROP OWNED BY td_asks")
        conn.execute("DROP ROLE td_asks")


def compare(conn: Any, rng: random.Random) -> None:
    with_rows = 0
    plans: Counter[str] = Counter()
    for number in range(QUERIES):
        query = fdw_shapes.generate(rng)
        settings = chosen_settings(rng)
        with conn.transaction(force_rollback=True):
            expected = rows(conn, query.function)
            for name, value in settings.items():
                conn.execute(f"SET LOCAL {name} = '{value}'")
            try:
                found = executed(conn, rng, query)
            except psycopg.Error as error:
                pytest.fail(f"query {number}: {error}\n{query}\n{settings}")
            if found != expected:
                plan = ""
                if not query.parameters:
                    plan = "\n".join(
                        row[0] for row in conn.execute(f"EXPLAIN (VERBOSE) {query.foreign}")
                    )
                pytest.fail(
                    f"query {number}: {query.foreign}\n{query.parameters}\n{settings}\n"
                    f"only the foreign table: {sorted(set(found) - set(expected))[:5]}\n"
                    f"only the function: {sorted(set(expected) - set(found))[:5]}\n"
                    f"{len(found)} and {len(expected)} rows\n{query.function}\n{plan}"
                )
            if number % 10 == 0 and not query.parameters:
                plan = "\n".join(row[0] for row in conn.execute(f"EXPLAIN {query.foreign}"))
                plans.update(node for node in ("Memoize", "Gather", "Semi", "Anti") if node in plan)
        with_rows += bool(expected)
    # Otherwise the comparison would say little.
    assert with_rows > QUERIES / 3
    assert set(plans) == {"Memoize", "Gather", "Semi", "Anti"}
