"""Nothing that an attacker makes is ever called, and no path that one names is ever read.

In: the samples' registry, and a schema full of objects with the names that the extension's code
uses.  Out: failures that name the call that was captured.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import catalog
import psycopg
import pytest
import samples
from roles import acting, state


def plant(conn: Any) -> int:
    """Make schema evil: every function, operator and table whose name the extension's code uses."""
    functions = catalog.functions(conn)
    words = set(
        re.findall(r"\w+", " ".join(one.source for one in functions if one.language != "c"))
    )
    conn.execute("CREATE SCHEMA evil")
    builtins = conn.execute(
        """
        SELECT p.proname, pg_get_function_identity_arguments(p.oid), format_type(p.prorettype, NULL)
        FROM pg_proc p JOIN pg_type r ON r.oid = p.prorettype
        WHERE p.pronamespace = 'pg_catalog'::regnamespace AND p.prokind = 'f'
          AND p.proname = ANY (%s) AND NOT p.proretset AND r.typtype <> 'p' AND p.provariadic = 0
          AND NOT EXISTS (SELECT FROM unnest(p.proargtypes) a JOIN pg_type t ON t.oid = a
                          WHERE t.typtype = 'p')
        """,
        (sorted(words),),
    ).fetchall()
    own = [
        (one.name, ", ".join(one.types), "boolean")
        for one in functions
        if one.level != "internal" and not one.procedure
    ]
    made = 0
    for name, arguments, result in [*builtins, *own]:
        conn.execute(
            f'CREATE FUNCTION evil."{name}"({arguments}) RETURNS {result} LANGUAGE plpgsql AS '
            f"$$BEGIN RAISE EXCEPTION 'captured {name}'; END$$"
        )
        made += 1
    kinds = ("text", "float8", "float4", "integer", "bigint", "jsonb", "oid", "boolean", "name")
    for kind in kinds:
        conn.execute(
            f"CREATE FUNCTION evil.compare(a {kind}, b {kind}, OUT r boolean) LANGUAGE plpgsql AS "
            "$$BEGIN RAISE EXCEPTION 'captured an operator'; END$$"
        )
        for operator in ("=", "<>", "<", ">", "<=", ">=", "~", "!~", "~~"):
            conn.execute(
                f"CREATE OPERATOR evil.{operator} "
                f"(LEFTARG = {kind}, RIGHTARG = {kind}, FUNCTION = evil.compare)"
            )
    for table in catalog.tables(conn):
        name = table.split(".")[1]
        for schema in ("evil", "pg_temp"):
            conn.execute(f"CREATE TABLE {schema}.{name} (captured text)")
    conn.execute("CREATE TABLE evil.route_results (captured text)")
    return made


def test_objects_placed_first_in_the_search_path_are_never_used(sampled: Any) -> None:
    functions = catalog.functions(sampled)
    assert plant(sampled) >= 50
    path = "SET LOCAL search_path = evil, pg_temp, public, pg_catalog"
    sampled.execute(
        "CREATE FUNCTION public.control(x text) RETURNS text LANGUAGE plpgsql "
        "AS $$BEGIN RETURN btrim(x); END$$"
    )
    assert state(sampled, None, path, "SELECT public.control('x'::pg_catalog.text)") == "P0001"
    for function in functions:
        if function.level == "internal":
            continue
        # The arguments are worked out before, in the open.
        valid = samples.arguments(function)
        given = {
            slot: sampled.execute(f"SELECT quote_nullable(({valid[slot]})::{kind})").fetchone()[0]
            + f"::{kind}"
            for slot, kind in function.slots()
            if slot in valid
        }
        with acting(sampled, None):
            sampled.execute(path)
            call = function.sql(given)
            try:
                sampled.execute(call)
            except psycopg.Error as error:
                assert error.sqlstate == samples.REFUSED.get(function.key), (call, error)
    found = state(
        sampled,
        None,
        path,
        "SELECT agent_name FROM public.route_results r "
        "WHERE r.request OPERATOR(pg_catalog.=) 'debug my program'",
    )
    assert found is None


def test_overload_in_the_extension_schema_is_not_called_by_its_functions(sampled: Any) -> None:
    # Whoever may create in that schema can add a function of the same name with fewer arguments.
    sampled.execute(
        "CREATE FUNCTION public.ruvector_register_agent(name text, agent_type text) "
        "RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE EXCEPTION 'captured'; END$$"
    )
    sampled.execute("""SELECT ruvector_register_agent_full('{"name": "x", "agent_type": "api"}')""")
    assert sampled.execute("SELECT FROM tinydancer.agent WHERE name = 'x'").rowcount == 1


def test_nobody_below_superuser_makes_the_server_read_a_path(sampled: Any) -> None:
    encoders = Path(sampled.execute("SHOW tinydancer.encoder_dir").fetchone()[0])
    # A good file, where no id may lead: above the folder, and in one inside it.
    outside, inside = encoders.parent / "outside.tdenc", encoders / "folder"
    shutil.copy(encoders / "static-1.tdenc", outside)
    inside.mkdir()
    shutil.copy(outside, inside / "inside.tdenc")
    try:
        for encoder in (
            "../outside", str(outside), str(outside.with_suffix("")), "folder/inside", "./static-1",
            "/etc/passwd", "..", ".", "", "static-1.tdenc/../static-1", "static-1\n", "static-1%00",
        ):  # fmt: skip
            for role in ("td_none", "td_operator"):
                with acting(sampled, role), pytest.raises(psycopg.Error) as caught:
                    sampled.execute("SELECT ruvector_embed('debug my program', %s)", (encoder,))
                assert caught.value.sqlstate in ("22023", "42704"), (encoder, caught.value)
            with acting(sampled, "td_operator"):
                sampled.execute(
                    "UPDATE tinydancer.setting SET value = %s WHERE name = 'encoder'", (encoder,)
                )
                with pytest.raises(psycopg.Error) as caught:
                    sampled.execute("SELECT ruvector_embed('debug my program')")
                assert caught.value.sqlstate in ("22023", "42704"), (encoder, caught.value)
    finally:
        outside.unlink()
        shutil.rmtree(inside)
