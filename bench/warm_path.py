"""Where each microsecond of a warm decision goes: a table for docs/performance.md.

Starts a throw-away server with the demo's agents, and runs prepared statements on one processor:
SELECT 1, a decision with text by function and by wrapper, a decision from a binary vector, and
classification from one.  The statements take turns; in half of them the session's time on the
processor is read from the system, in the others `perf record` notes which function it is in.  The
function's name says what it belongs to: that of ours by the source file that defines it, that of
Postgres by GROUPS.  Printed is a table in Markdown, microseconds a call: time on the processor,
shared out by the samples; bench/markdown.py puts it into the page.  What a compiler has inlined
counts for the function around it.

Needs perf, and the right to watch a processor: root, or kernel.perf_event_paranoid below 1.

    .venv/bin/python bench/warm_path.py [--pg 18] [--rounds 5] [--symbols]
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
from cold_start import cpu_ms
from decision import AGENTS, REQUEST
from figures import ROOT, processor
from join import FLOAT4_ARRAY, TEXT, float4_array, prepared

from tinydancer.server import temporary_cluster

PROFILE = ROOT / "build" / "bench" / "warm_path.md"

TURN_SECONDS = 0.6
SAMPLES_A_SECOND = 8000
STATEMENTS = {
    "`SELECT 1`": ("SELECT 1", ""),
    "function, text": ("SELECT agent_name FROM ruvector_route($1)", "text"),
    "wrapper, text": ("SELECT agent_name FROM route_results WHERE request = $1", "text"),
    "wrapper, vector": ("SELECT agent_name FROM route_results WHERE embedding = $1", "vector"),
    "classification, vector": ("SELECT ruvector_classify_request(embedding := $1)", "vector"),
}

# The kernel's files by what they do; its other files are scoring.
ENCODER, PRODUCTS, SCORING = (
    "kernel: text to vector",
    "kernel: products of vectors",
    "kernel: scores, decision, model",
)
KERNEL = {
    ENCODER: r"td_(text|embed|bert|encoder|file|hash|unicode)",
    PRODUCTS: r"td_(matvec|vec|topk|sketch)",
}
OURS = "ours around the kernel (`fdw/`)"
LIBRARY = "C library: copying, comparing, memory"
SYSTEM, FILES = "operating system: socket, switching", "operating system: looking for a file"
# The Linux kernel's functions that look up a path.
FILE_NAMES = (
    r".*path|.*_lookup|.*d_lookup|.*stat(x|at)?$|.*inode|ext4|xfs|btrfs|ovl|.*fillattr|dput|getname|"
    r"strncpy_from_user|generic_permission|step_into|complete_walk|walk_component|may_lookup|"
    r"cp_new_stat|security_inode|.*filename|.*getattr|terminate_walk|nd_jump_root|set_root|lockref"
)
# The C library's functions that do nothing but call the system.
CALLS = {"__send", "__libc_recv", "epoll_wait", "recv", "send"}
# Postgres's functions, the first that fits.
GROUPS = {
    "Postgres: values in and out": (
        r"array_|Array|CopyArray|float4|Receive|Output|Input|text|cstring|varstr|escape_json|numeric|"
        r".*[Jj]sonb|.*_var|make_result|get_min_scale|pg_.*_to_|construct_|pq_getmsg(float|int)|int4"
    ),
    "Postgres: foreign tables": r".*Foreign|.*Fdw",
    "Postgres: plan cache": (
        r".*CachedPlan|RevalidateCached|Acquire(Executor|Planner)|choose_custom|FetchPrepared|"
        r"ScanQuery|.*QueryLocks|PlanCache|BuildParamLog"
    ),
    "Postgres: executor": (
        r"Exec|Executor|standard_Exec|.*Portal|.*QueryDesc|.*ExprContext|.*Expr|.*Plan|.*TupleSlot|"
        r".*TupleDesc|slot_|tts_|heap_|nocache|populate_|expression_|.*walker|tuplestore|fmgr_|"
        r"get_(expr|typ|func|call)|FunctionCall|.*DestReceiver|.*Range|bms_|check_stack"
    ),
    "Postgres: protocol": (
        r"pq_|socket_|secure_|be_|internal_|.*Wait|.*Latch|Postgres|exec_|Socket|ReadyFor|printtup|"
        r"Send|.*Command|pgstat|.*StringInfo|ProcessClient|start_xact|finish_xact|ps_|set_ps|"
        r"check_log|.*timeout|GetCurrentTimestamp|forbidden|putmessage"
    ),
    "Postgres: transaction, locks, snapshot": (
        r".*Transaction|.*Xact|.*Xid|.*Lock|.*Snapshot|ProcArray|.*Resource|At(EO|Start)|smgr|"
        r"Relation(Decr|Incr|Close)|relation_|XLog|.*Trigger|.*Invalid|Accept"
    ),
    "Postgres: memory, caches": (
        r"AllocSet|palloc|pfree|repalloc|MemoryContext|.*Cache|.*List|list_|lappend|lcons|hash|.*Hash|"
        r"Relation|copyObject|_copy|new_|BumpAlloc|mcxt|GenerationAlloc|pstrdup|pnstrdup"
    ),
}
REST = "Postgres: the rest"
ROWS = [ENCODER, PRODUCTS, SCORING, OURS, *GROUPS, REST, LIBRARY, FILES, SYSTEM]


def source_of() -> dict[str, str]:
    """The file of each function of ours: its name begins a line there."""
    files = [*(ROOT / "fdw").glob("*.[ch]"), *(ROOT / "kernels" / "src").glob("*.[ch]")]
    result = {}
    for path in files:
        for name in re.findall(r"^(\w+)\(", path.read_text(), re.MULTILINE):
            result[name] = f"{path.parent.name}/{path.stem}"
    return result


def group(symbol: str, library: str, files: dict[str, str]) -> str:
    """What the time in a function belongs to."""
    name = symbol.partition(".")[0]
    if library.startswith("["):
        return FILES if re.match(FILE_NAMES, name) else SYSTEM
    if "tinydancer" in library:
        folder, _, file = files.get(name, "").partition("/")
        if folder == "fdw":
            return OURS
        return next((row for row, names in KERNEL.items() if re.match(names, file)), SCORING)
    if library.endswith("postgres"):
        return next((row for row, names in GROUPS.items() if re.match(names, name)), REST)
    return LIBRARY if symbol not in CALLS else SYSTEM


def run(call: Callable[[], None]) -> int:
    """Call it for a while; how often."""
    end = time.monotonic() + TURN_SECONDS
    calls = 0
    while time.monotonic() < end:
        for _ in range(50):
            call()
        calls += 50
    return calls


def sampled(
    call: Callable[[], None], pid: int, place: int, folder: Path
) -> Counter[tuple[str, str]]:
    """How often the session was seen in each function, with its library, while it was called."""
    data = folder / "perf.data"
    # A processor is watched, not a process: then nothing is switched on and off with the process.
    command = ["perf", "record", "-q", "-e", "cycles", "-F", str(SAMPLES_A_SECOND)]
    with subprocess.Popen(
        [*command, "-C", str(place), "-o", str(data)], stderr=subprocess.PIPE, text=True
    ) as perf:
        run(call)
        perf.send_signal(signal.SIGINT)
        _, said = perf.communicate()
    if not data.exists():
        raise PermissionError(said.strip() or "perf noted nothing")
    command = ["perf", "script", "-i", str(data), "--pid", str(pid), "-F", "ip,sym,dso"]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.findall(r"^\s*[0-9a-f]+ (.*) \(([^()]*)\)$", lines, re.MULTILINE)
    return Counter((symbol, library) for symbol, library in found)


def measure(
    conn: psycopg.Connection[Any], rounds: int, place: int
) -> tuple[dict[str, float], dict[str, Counter[tuple[str, str]]]]:
    """Microseconds of each statement on the processor; where it was seen."""
    row = conn.execute("SELECT ruvector_embed(%s)", [REQUEST]).fetchone()
    assert row is not None
    inputs = {
        "": ([], []),
        "text": ([TEXT], [REQUEST.encode()]),
        "vector": ([FLOAT4_ARRAY], [float4_array(row[0])]),
    }
    calls = {
        name: prepared(conn, f"run {i}", sql, *inputs[kind])
        for i, (name, (sql, kind)) in enumerate(STATEMENTS.items())
    }
    pid = conn.info.backend_pid
    taken: dict[str, list[float]] = {name: [] for name in calls}
    seen: dict[str, Counter[tuple[str, str]]] = {name: Counter() for name in calls}
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            for name, call in calls.items():
                before = cpu_ms(pid)
                times = run(call)
                taken[name].append((cpu_ms(pid) - before) * 1e3 / times)
                seen[name] += sampled(call, pid, place, Path(folder))
    return {name: statistics.median(values) for name, values in taken.items()}, seen


def table(
    taken: dict[str, float], seen: dict[str, Counter[tuple[str, str]]], files: dict[str, str]
) -> list[str]:
    """The table, in Markdown."""
    shares: dict[str, Counter[str]] = {}
    for name, samples in seen.items():
        shares[name] = Counter()
        for (symbol, library), number in samples.items():
            shares[name][group(symbol, library, files)] += number
    lines = [f"| µs a call | {' | '.join(taken)} |", f"|---|{'---|' * len(taken)}"]
    for row in ROWS:
        cells = [taken[name] * part[row] / part.total() for name, part in shares.items()]
        lines.append(f"| {row} | " + " | ".join(f"{cell:.2f}" for cell in cells) + " |")
    cells = [f"**{value:.1f}**" for value in taken.values()]
    return [*lines, "| together | " + " | ".join(cells) + " |"]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pg", default="18", help="server: 18, 16 or 15")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--symbols", action="store_true", help="the functions too, most time first")
    args = parser.parse_args()
    if shutil.which("perf") is None:
        print("not measured: there is no perf (Debian: apt-get install linux-perf)")
        return 0

    place = min(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {place})
    with (
        temporary_cluster(args.pg, extension=True) as cluster,
        cluster.connect(autocommit=True) as conn,
    ):
        for agent in json.loads(AGENTS.read_text()):
            conn.execute("SELECT ruvector_register_agent_full(%s)", [json.dumps(agent)])
        try:
            taken, seen = measure(conn, args.rounds, place)
        except PermissionError as error:
            print(f"not measured: {error}")
            return 0
    files = source_of()
    samples = min(counter.total() for counter in seen.values())
    lines = [
        f"Postgres {args.pg}, {processor()}; at least {samples:,} samples a column.",
        "",
        *table(taken, seen, files),
    ]
    print("\n".join(lines))
    PROFILE.parent.mkdir(parents=True, exist_ok=True)
    PROFILE.write_text("\n".join(lines) + "\n")
    if args.symbols:
        for name, counter in seen.items():
            print(f"\n{name}")
            for (symbol, library), number in counter.most_common(60):
                value = taken[name] * number / counter.total()
                what = group(symbol, library, files)
                print(f"{value:7.3f} us  {symbol:36} {Path(library).name:18} {what}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
