"""What processes take: CPU time and memory from /proc, each with all its children."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_KIB = 1024.0
_GONE = (FileNotFoundError, ProcessLookupError)


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one part at one moment.

    Attributes:
        cpu: seconds that it and its children, those that have ended included, have run.
        rss: MiB that it and its children hold now; what they share counts once.
        peak: MiB that it held at most. The kernel knows it of one process; of a server with many it is `rss`.
    """

    cpu: float
    rss: float
    peak: float


def usage(pids: Mapping[str, int]) -> dict[str, Usage]:
    """Of each part by its name. A part that has ended is left out."""
    children = _children()
    found: dict[str, Usage] = {}
    for name, pid in pids.items():
        try:
            found[name] = _usage(_tree(pid, children))
        except _GONE:
            continue
    return found


def _usage(pids: list[int]) -> Usage:
    cpu = own = shared = 0.0
    for pid in pids:
        first = pid == pids[0]
        try:
            cpu += _cpu(pid, ended=first)
            memory = _memory(pid)
        except _GONE:
            if first:
                raise
            continue  # it has just ended; its parent has its time
        own += memory.get("RssAnon", 0.0)
        shared = max(shared, memory.get("RssFile", 0.0) + memory.get("RssShmem", 0.0))
    rss = own + shared
    return Usage(cpu, rss, rss if len(pids) > 1 else _memory(pids[0]).get("VmHWM", 0.0))


def _cpu(pid: int, *, ended: bool) -> float:
    """Fields 14 to 17 of proc_pid_stat(5): of the process itself, and of children that ended."""
    fields = _stat(pid)
    return sum(int(ticks) for ticks in fields[11 : 15 if ended else 13]) / _TICKS


def _stat(pid: int) -> list[str]:
    """From the third field on: the second may hold anything."""
    text = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace")
    return text.rpartition(")")[2].split()


def _memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    pairs = (line.split() for line in lines if line.endswith(" kB"))
    return {name.rstrip(":"): int(number) / _KIB for name, number, _ in pairs}


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for pid in _pids():
        try:
            children.setdefault(int(_stat(pid)[1]), []).append(pid)
        except _GONE:
            continue
    return children


def _pids() -> Iterator[int]:
    return (int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit())


def _tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found
