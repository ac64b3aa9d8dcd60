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
        how: `kill`, `stop` (SIGSTOP, and SIGCONT after a time) or `server`.
    """

    name: str
    failpoint: str
    how: str = "kill"


WORKER = (
    *(Point(f"worker.{at}", f"worker.{at}") for at in ("after_locate", "after_begin", "mid_act", "after_act")),
    Point("worker.after_report", "worker.after_report"),
    Point("worker.frozen_in_mid_act", "worker.mid_act", "stop"),
)
ORCHESTRATOR = (
    *(
        Point(f"orchestrator.{at}", f"orchestrator.{at}")
        for at in ("after_intake_commit", "mid_cycle", "after_cycle_commit", "after_produce")
    ),
    Point("orchestrator.frozen_in_mid_cycle", "orchestrator.mid_cycle", "stop"),
    Point("api.mid_begin", "api.mid_begin"),
)
SERVERS = (Point("broker", "kafka", "server"), Point("ledger", "ledger", "server"))
POINTS = (*WORKER, *ORCHESTRATOR, *SERVERS)


def there(points: Iterable[Point], parts: Container[str]) -> tuple[Point, ...]:
    """Without the servers that do not run: a ledger that is a file has none."""
    return tuple(p for p in points if p.how != "server" or p.failpoint in parts)


class Armoury:
    """The directory in which failpoints are armed, and what became of them."""

    def __init__(self, directory: Path, frozen_seconds: float) -> None:
        self.directory = directory
        self.hits: Counter[str] = Counter()
        self.hits_with_withdrawal: Counter[str] = Counter()
        self._frozen_seconds = frozen_seconds
        self._thaws: dict[int, threading.Timer] = {}

    def arm(self, point: Point) -> None:
        """Let the next process that comes there die or freeze."""
        draft = self.directory / f".{point.failpoint}.new"
        draft.write_text(point.how, encoding="ascii")
        draft.rename(self.directory / point.failpoint)

    def disarm(self, point: Point) -> None:
        """Take back what nobody has hit."""
        (self.directory / point.failpoint).unlink(missing_ok=True)

    def hit(self, point: Point) -> int | None:
        """The process that has hit the armed point since, once; one that froze is woken after its time."""
        for file in self.directory.glob(f"{point.failpoint}.hit.*"):
            pid = int(file.name.rpartition(".")[2])
            file.unlink()
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
