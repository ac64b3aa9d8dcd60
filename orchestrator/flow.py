"""What workers have in hand of one partition, as far as this process sent it: how much more is worth beginning."""

from collections import deque
from typing import Final

SLOW_SECONDS: Final = 10.0
"""A task that takes longer than this holds nothing up: its system is slow, or nobody works there."""


class OnTheWay:
    """Counts tasks that were sent and not reported, the oldest first. A guess, for the sake of order: never a fact."""

    def __init__(self) -> None:
        self._sent: deque[tuple[float, int]] = deque()
        self._tasks = 0

    def sent(self, tasks: int, now: float) -> None:
        """So many went to workers."""
        if tasks:
            self._sent.append((now, tasks))
            self._tasks += tasks

    def reported(self, tasks: int) -> None:
        """So many came back, which may be others: those that came by another process, or twice."""
        while tasks and self._sent:
            at, some = self._sent.popleft()
            back = min(tasks, some)
            self._tasks -= back
            tasks -= back
            if some > back:
                self._sent.appendleft((at, some - back))

    def count(self, now: float) -> int:
        """How many are on their way; `now` by the same clock, in seconds."""
        while self._sent and self._sent[0][0] < now - SLOW_SECONDS:
            self._tasks -= self._sent.popleft()[1]
        return self._tasks
