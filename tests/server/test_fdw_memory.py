"""A join of a million requests needs no more memory than one of a hundred thousand.

In: a registry of two agents and requests that are all different.  What is checked: what the server
says of the session's memory while the join runs, and the system afterwards.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

ROWS = 1_000_000
# The server's own, of all memory contexts, at some of the rows.
SAMPLED = """
SELECT l.i, (SELECT sum(total_bytes) FROM pg_backend_memory_contexts WHERE l.i > 0),
    r.agent_name IS NOT NULL
FROM generate_series(1, %s) l (i) JOIN route_results r ON r.request = 'request ' || l.i
WHERE l.i %% %s = 0 OR r.agent_name IS NULL
"""


def anonymous_kb(pid: int) -> int:
    """Kilobytes of a process that it shares with nobody and no file."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1])
    raise AssertionError("the system does not tell")


@pytest.mark.slow
@pytest.mark.parametrize("memoize", ["off", "on"])
def test_join_of_a_million_requests_runs_in_constant_memory(conn: Any, memoize: str) -> None:
    rows = ROWS if memoize == "off" else ROWS // 4
    conn.execute("SELECT ruvector_register_agent('a', 'api', description := 'translates texts')")
    conn.execute("SELECT ruvector_register_agent('b', 'llm', description := 'debugs programs')")
    conn.execute(f"SET enable_memoize = {memoize}")
    # The rows that Memoize remembers may not fill more than this.
    conn.execute("SET work_mem = '1MB'")
    conn.execute("SET hash_mem_multiplier = 1")
    # The series itself is kept in a file, not in memory, from work_mem on.
    conn.execute(SAMPLED % (rows // 10, rows // 10))
    before = anonymous_kb(conn.info.backend_pid)
    samples = conn.execute(SAMPLED % (rows, rows // 10)).fetchall()
    after = anonymous_kb(conn.info.backend_pid)
    assert [i for i, _, _ in samples] == [rows // 10 * n for n in range(1, 11)]
    assert all(decided for _, _, decided in samples)
    sizes = [int(size) for _, size, _ in samples]
    assert max(sizes[1:]) - sizes[0] < 256 * 1024
    assert after - before < 1024
