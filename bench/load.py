"""Clients that keep a server busy and can be paused: what bench/concurrency.py takes turns with.

In: a cluster, the statements of a workload with their weights, a number of clients.  A load is
pgbench with prepared statements; its sessions stay open from turn to turn, so that neither
connecting nor the first call of a session is in a turn.  Paused, all its programs are stopped and
its sessions wait for them.  Out: every transaction, with the time of its end and its latency.

With no more clients than processors each client has a processor for itself and its session, as in
the other benchmarks: a client and a session that wake each other across processors spend their time
on waking, which is a figure of the machine.  With more clients the system's scheduler places them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import psycopg

from tinydancer.server import Server

SETTLE_SECONDS = 0.05  # at the start of a turn, not measured
END_SECONDS = 20
PR_SET_PDEATHSIG = 1


class Load:
    """Clients that run the statements of one workload whenever it is their turn."""

    def __init__(
        self, cluster: Server, folder: Path, name: str, statements: Mapping[str, int], clients: int
    ) -> None:
        self.name = name
        self.statements = list(statements)
        self.pids: list[int] = []  # of its sessions
        self._cluster = cluster
        self._prefix = folder / name.replace(" ", "_").replace(",", "")
        self._programs: list[subprocess.Popen[bytes]] = []
        self._turns: list[tuple[float, float]] = []
        self._scripts: list[str] = []
        for number, (statement, weight) in enumerate(statements.items()):
            path = Path(f"{self._prefix}-{number}.sql")
            path.write_text(statement + "\n")
            self._scripts += ["-f", f"{path}@{weight}"]
        processors = sorted(os.sched_getaffinity(0))
        if clients <= len(processors):
            self._start(1, [{processors[i]} for i in range(clients)])
        else:
            self._start(clients, [set(processors)])

    def _start(self, clients: int, places: list[set[int]]) -> None:
        """One pgbench with so many clients on each place; its sessions inherit the place."""
        postmaster = int((self._cluster.data / "postmaster.pid").read_text().split()[0])
        everywhere = os.sched_getaffinity(postmaster)
        libc = ctypes.CDLL(None)
        with self._cluster.connect(autocommit=True) as conn:
            for number, place in enumerate(places):

                def confine(place: set[int] = place) -> None:
                    os.sched_setaffinity(0, place)
                    # A stopped program would outlive its parent.
                    libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)

                application = f"{self._prefix.name}-{number}"
                command = [
                    *(str(self._cluster.bindir / "pgbench"), "--no-vacuum", "-M", "prepared"),
                    *("-c", str(clients), "-j", str(min(clients, len(place))), "-T", "3600"),
                    *("-l", "--log-prefix", f"{self._prefix}-{number}", *self._scripts),
                ]
                os.sched_setaffinity(postmaster, place)
                program = subprocess.Popen(
                    command,
                    env=self._cluster.environment() | {"PGAPPNAME": application},
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.PIPE,
                    preexec_fn=confine,
                )
                self._programs.append(program)
                self._wait_for_sessions(conn, application, clients, program)
                os.sched_setaffinity(postmaster, everywhere)

    def _wait_for_sessions(
        self,
        conn: psycopg.Connection[Any],
        application: str,
        clients: int,
        program: subprocess.Popen[bytes],
    ) -> None:
        """Until all sessions are at work, and then until each has read what it keeps."""
        query = (
            "SELECT pid FROM pg_stat_activity "
            "WHERE application_name = %s AND query_start IS NOT NULL AND query <> ''"
        )
        while program.poll() is None:
            rows = conn.execute(query, [application]).fetchall()
            if len(rows) == clients:
                time.sleep(0.3 + 0.003 * clients)
                self.pids += [pid for (pid,) in rows]
                program.send_signal(signal.SIGSTOP)
                return
            time.sleep(0.02)
        assert program.stderr is not None
        raise RuntimeError(f"pgbench ended: {program.stderr.read().decode()}")

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """The clients work while the block runs."""
        for program in self._programs:
            program.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            for program in self._programs:
                program.send_signal(signal.SIGSTOP)

    def turn(self, seconds: float) -> None:
        """Work for a while, and remember when."""
        with self.running():
            time.sleep(SETTLE_SECONDS)
            start = time.time()
            time.sleep(seconds)
            self._turns.append((start, time.time()))

    def end(self) -> tuple[list[float], npt.NDArray[np.float64]]:
        """Transactions a second of each turn; and of all turns a row each: microseconds, script."""
        for program in self._programs:
            program.send_signal(signal.SIGCONT)
            # What ends a run of pgbench when its time is over: it writes the rest of its log.
            program.send_signal(signal.SIGALRM)
        for program in self._programs:
            _, said = program.communicate(timeout=END_SECONDS)
            if program.returncode != 0:
                raise RuntimeError(f"pgbench ended with {program.returncode}: {said.decode()}")
        parts = [
            np.loadtxt(path, usecols=(2, 3, 4, 5), ndmin=2)
            for path in self._prefix.parent.glob(f"{self._prefix.name}-*.*")
            if path.suffix != ".sql" and path.stat().st_size > 0
        ]
        lines = np.concatenate(parts)
        latency, script, ended = lines[:, 0], lines[:, 1], lines[:, 2] + lines[:, 3] / 1e6
        rates, kept = [], []
        for start, end in self._turns:
            inside = (ended >= start) & (ended < end)
            rates.append(inside.sum() / (end - start))
            # Begun in the turn: the others were paused in between.
            begun = inside & (ended - latency / 1e6 >= start - SETTLE_SECONDS)
            kept.append(np.column_stack([latency[begun], script[begun]]))
        return rates, np.concatenate(kept)

    def kill(self) -> None:
        """End it whatever state it is in."""
        for program in self._programs:
            if program.poll() is None:
                program.kill()
            program.communicate()
