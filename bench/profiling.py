"""Where the time goes: py-spy on the processes of keshi while they work. README.md says how to get it."""

import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Mapping
from pathlib import Path

from bench.progress import BenchError
from bench.stack import ROOT

PLACES = (ROOT / ".cache" / "py-spy" / "bin" / "py-spy",)
_RATE = 100
_SHOWN = 30


class Profiler:
    """Records parts side by side, and shows for each which functions took the time.

    Args:
        directory: Takes a file of folded stacks for each part (`NAME.folded`).
    """

    def __init__(self, directory: Path) -> None:
        found = next((str(p) for p in PLACES if p.exists()), None) or shutil.which("py-spy")
        if found is None:
            raise BenchError("py-spy is not there: python3 -m venv .cache/py-spy && .cache/py-spy/bin/pip install py-spy")
        self._py_spy = found
        self._directory = directory
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        directory.mkdir(parents=True, exist_ok=True)

    def start(self, pids: Mapping[str, int], seconds: float) -> None:
        """Record for so long; returns at once."""
        for name, pid in pids.items():
            argv = [
                *(self._py_spy, "record", "--pid", str(pid), "--rate", str(_RATE), "--duration", str(max(1, int(seconds)))),
                *("--format", "raw", "--gil", "--nonblocking", "--output", str(self._directory / f"{name}.folded")),
            ]
            with (self._directory / f"{name}.log").open("wb") as log:
                self._running[name] = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log)  # noqa: S603

    def show(self) -> str:
        """Wait for the records, and tell what is in them."""
        texts = []
        for name, process in self._running.items():
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                process.wait(10)
            path = self._directory / f"{name}.folded"
            if not path.exists():
                log = (self._directory / f"{name}.log").read_text(errors="replace")
                raise BenchError(f"py-spy could not record {name}: {log.strip()[-300:]}")
            texts.append(f"--- {name}: {path}\n{summary(path.read_text(encoding='utf-8'))}")
        return "\n".join(texts)


def summary(folded: str, shown: int = _SHOWN) -> str:
    """The functions that took most, of folded stacks (`a;b;c 12` a line): with and without what they call."""
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, count = line.rpartition(" ")
        frames = stack.split(";")
        functions = [_function(frame) for frame in frames]
        own[functions[-1]] += int(count)
        for function in set(functions):
            total[function] += int(count)
    everything = sum(own.values()) or 1
    parts = (("functions with all they call", total), ("functions themselves", own))
    return "\n".join(
        f"  {title}\n" + "\n".join(f"  {100 * n / everything:6.1f} %  {name}" for name, n in counted.most_common(shown))
        for title, counted in parts
    )


def _function(frame: str) -> str:
    """`name (path:12)` without the line: one function is one entry."""
    name, _, place = frame.partition(" (")
    path = place.rpartition(":")[0]
    return f"{name} ({'/'.join(path.split('/')[-3:])})" if path else name
