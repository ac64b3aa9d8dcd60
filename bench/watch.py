"""What processes take: CPU time and memory from /proc, each with all its children."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0


@dataclass(frozen=True, slots=True)
class Usage:
    """Of one part at one moment.

    Attributes:
        cpu: seconds that it and its children, those that have ended included, have run.
        rss: MiB that it and its children hold now; what they share counts once.
        peak: MiB that its own process held at most. A server of many processes has no such number: then `rss`.
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
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _usage(pids: list[int]) -> Usage:
    cpu = own = shared = 0.0
    for pid in pids:
        try:
            cpu += _cpu(pid, ended=pid == pids[0])
            memory = _memory(pid)
        except (FileNotFoundError, ProcessLookupError):
            if pid == pids[0]:
                raise
            continue  # it has just ended; its parent has its time
        own += memory.get("RssAnon", 0.0)
        shared = max(shared, memory.get("RssFile", 0.0) + memory.get("RssShmem", 0.0))
    rss = own + shared
    return Usage(cpu, rss, rss if len(pids) > 1 else _memory(pids[0]).get("VmHWM", 0.0))


def _cpu(pid: int, *, ended: bool) -> float:
    """Fields 14 to 17 of proc_pid_stat(5): of the process itself, and of children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
    return sum(int(ticks) for ticks in fields[11 : 15 if ended else 13]) / _TICKS


def _memory(pid: int) -> dict[str, float]:
    lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii", errors="replace").splitlines()
    return {name: int(rest.split()[0]) / _MIB for name, _, rest in (line.partition(":") for line in lines) if rest.endswith("kB")}


def _children() -> dict[int, list[int]]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if not entry.isdigit():
            continue
        try:
            stat = Path(f"/proc/{entry}/stat").read_text(encoding="ascii", errors="replace")
        except (FileNotFoundError, ProcessLookupError):
            continue
        parent = int(stat.rpartition(")")[2].split()[1])
        children.setdefault(parent, []).append(int(entry))
    return children


def _tree(pid: int, children: Mapping[int, list[int]]) -> list[int]:
    found = [pid]
    for parent in found:
        found.extend(children.get(parent, ()))
    return found
