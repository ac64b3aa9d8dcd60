"""Where the time goes: py-spy on processes of keshi, and the ledger's own count of its statements."""

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psycopg

from bench.progress import BenchError
from bench.stack import ROOT

DIRECTORY = ROOT / ".cache" / "profile"
_PY_SPY = ROOT / ".cache" / "py-spy" / "bin" / "py-spy"
_INSTALL = "python3 -m venv .cache/py-spy && .cache/py-spy/bin/pip install py-spy"
_RATE = 250
_SHOWN = 40
_END_SECONDS = 20.0
_STATEMENTS = """
SELECT round(total_exec_time::numeric) AS ms, calls, rows, left(regexp_replace(query, '\\s+', ' ', 'g'), 110) AS query
FROM pg_stat_statements WHERE dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY total_exec_time DESC LIMIT 14
"""


class Profiler:
    """Records processes side by side, and tells of each which functions took its time.

    Args:
        pids: Of the processes, by the names of their parts.
        ledger_dsn: Of a ledger whose server counts statements (`pg_stat_statements`).
        idle: Record waiting, too: where the time of a clock goes, and not that of the processor.
    """

    def __init__(self, pids: Mapping[str, int], ledger_dsn: str, *, idle: bool = False) -> None:
        found = str(_PY_SPY) if _PY_SPY.exists() else shutil.which("py-spy")
        if found is None:
            raise BenchError(f"py-spy is not there; it takes: {_INSTALL}")
        self._py_spy = found
        self._pids = pids
        self._what = ("--idle", "--threads") if idle else ("--gil",)
        self._ledger = psycopg.connect(ledger_dsn, autocommit=True)
        self._ledger.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        DIRECTORY.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def recording(self) -> Iterator[None]:
        """Record while the block runs."""
        self._ledger.execute("SELECT pg_stat_statements_reset()")
        running = {name: self._start(name, pid) for name, pid in self._pids.items()}
        try:
            yield
        finally:
            for process in running.values():
                process.send_signal(signal.SIGINT)
            for process in running.values():
                process.wait(_END_SECONDS)

    def close(self) -> None:
        """Let go of the ledger."""
        self._ledger.close()

    def _start(self, name: str, pid: int) -> subprocess.Popen[bytes]:
        self._file(name).unlink(missing_ok=True)
        argv = (
            *(self._py_spy, "record", "--pid", str(pid), "--rate", str(_RATE), *self._what, "--nonblocking"),
            *("--format", "raw", "--output", str(self._file(name))),
        )
        with (DIRECTORY / f"{name}.log").open("wb") as log:
            return subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603 - built here

    @staticmethod
    def _file(name: str) -> Path:
        return DIRECTORY / f"{name}.folded"

    def show(self) -> str:
        """What the newest record says."""
        texts = [self._statements()]
        for name in self._pids:
            if not self._file(name).exists():
                log = (DIRECTORY / f"{name}.log").read_text(encoding="utf-8", errors="replace")
                raise BenchError(f"py-spy could not record {name}: {log.strip()[-300:]}")
            texts.append(f"--- {name}: {self._file(name)}\n{summary(self._file(name).read_text(encoding='utf-8'))}")
        return "\n".join(texts)

    def _statements(self) -> str:
        rows = self._ledger.execute(_STATEMENTS).fetchall()
        lines = (f"  {ms:>8} ms {calls:>8} calls {number:>9} rows  {query}" for ms, calls, number, query in rows)
        return "\n".join(("--- statements of the ledger", *lines))


def summary(folded: str, shown: int = _SHOWN) -> str:
    """The functions that took most, of folded stacks (`a;b;c 12` a line): with what they call, and by themselves."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, number = line.rpartition(" ")
        if not number.isdecimal():
            continue  # py-spy reads the memory of a process that goes on: now and then it reads a name wrongly
        functions = [_function(frame) for frame in stack.split(";")]
        own[functions[-1]] += int(number)
        for function in set(functions):
            total[function] += int(number)
    everything = sum(own.values()) or 1
    parts = (("functions with all they call", total, shown * 2), ("functions by themselves", own, shown))
    return "\n".join(
        f"  {title}, of {everything} samples\n"
        + "\n".join(f"  {100 * n / everything:6.1f} %  {name}" for name, n in counted.most_common(most))
        for title, counted, most in parts
    )


def _function(frame: str) -> str:
    """`name (path:12)` without the line: one function is one entry."""
    name, _, place = frame.partition(" (")
    path = place.rpartition(":")[0]
    return f"{name} ({'/'.join(path.split('/')[-3:])})" if path else name
