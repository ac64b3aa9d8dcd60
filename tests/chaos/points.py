"""The points at which a process is killed or frozen, and how often each was hit."""

import os
import signal
import threading
from collections import Counter
from collections.abc import Container, Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Point:
    """Where, and what happens there.

    Attributes:
        name: what the report calls it.
        failpoint: the failpoint that is armed, or the part that is killed from outside.
        how: `kill`, `stop` (SIGSTOP, and SIGCONT after a time) or `outside`.
        system: whose worker; empty for what serves all of them.
    """

    name: str
    failpoint: str
    how: str = "kill"
    system: str = ""


SYSTEMS = ("billing", "crm", "call_recordings", "ma_tool", "affiliates")
WORKER = {
    system: (
        *(
            Point(f"worker.{at}", f"worker.{at}", system=system)
            for at in ("after_locate", "after_begin", "mid_act", "after_act", "after_report")
        ),
        Point("worker.frozen_in_mid_act", "worker.mid_act", "stop", system),
    )
    for system in SYSTEMS
}
"""By system."""
ORCHESTRATOR = (
    *(
        Point(f"orchestrator.{at}", f"orchestrator.{at}")
        for at in ("after_intake_commit", "mid_cycle", "after_cycle_commit", "after_produce")
    ),
    Point("orchestrator.frozen_in_mid_cycle", "orchestrator.mid_cycle", "stop"),
    Point("api.mid_begin", "api.mid_begin"),
)
SERVERS = (Point("broker", "kafka", "outside"), Point("ledger", "ledger", "outside"))
POINTS = (*(point for points in WORKER.values() for point in points), *ORCHESTRATOR, *SERVERS)


def there(points: Iterable[Point], parts: Container[str]) -> tuple[Point, ...]:
    """Without the servers that do not run: a ledger that is a file has none."""
    return tuple(p for p in points if p.how != "outside" or p.failpoint in parts)


class Armoury:
    """The directory in which failpoints are armed, and what became of them."""

    def __init__(self, directory: Path, frozen_seconds: float) -> None:
        self.directory = directory
        self.hits: Counter[Point] = Counter()
        self.hits_with_withdrawal: Counter[Point] = Counter()
        self._frozen_seconds = frozen_seconds
        self._armed: dict[Point, Path] = {}
        self._aimed_at: dict[Point, set[int]] = {}
        self._thaws: dict[int, threading.Timer] = {}

    def arm(self, point: Point, pid: int | None = None) -> None:
        """Let the next process that comes there die or freeze, or, with a pid, that one alone."""
        self._take_back(point)
        armed = self.directory / (point.failpoint if pid is None else f"{point.failpoint}.{pid}")
        if pid is not None:
            self._aimed_at.setdefault(point, set()).add(pid)
        draft = armed.with_name(f".{armed.name}.new")
        draft.write_text(point.how, encoding="ascii")
        draft.rename(armed)
        self._armed[point] = armed

    def disarm(self, point: Point) -> None:
        """Take back what nobody has hit."""
        self._take_back(point)
        self._aimed_at.pop(point, None)

    def _take_back(self, point: Point) -> None:
        if point in self._armed:
            self._armed.pop(point).unlink(missing_ok=True)

    def hit(self, point: Point) -> int | None:
        """The process that has hit the armed point since, once; one that froze is woken after its time."""
        for file in self.directory.glob(f"{point.failpoint}.hit.*"):
            pid = int(file.name.rpartition(".")[2])
            if pid not in self._aimed_at.get(point, {pid}):
                continue  # another system's worker, at a point of its own
            file.unlink()
            self.disarm(point)
            if point.how == "stop":
                timer = threading.Timer(self._frozen_seconds, _wake, (pid,))
                self._thaws[pid] = timer
                timer.start()
            return pid
        return None

    def wake_all(self) -> None:
        """Let nothing stay frozen."""
        for pid, timer in self._thaws.items():
            timer.cancel()
            _wake(pid)
        self._thaws = {}

    def frozen(self) -> bool:
        """Whether some process still has to be woken."""
        return any(timer.is_alive() for timer in self._thaws.values())


def _wake(pid: int) -> None:
    try:
        os.kill(pid, signal.SIGCONT)
    except ProcessLookupError:
        return
