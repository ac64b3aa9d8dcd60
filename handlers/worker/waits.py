"""Tasks that were told to wait: kept aside, in nobody's way, and brought back when their time has come."""

import heapq
import threading
from collections.abc import Callable
from itertools import count
from typing import Final, Generic, TypeVar

from keshi.handlers.contract import boot_time

TOGETHER: Final = 0.02
"""Seconds. What is due within this time comes back as one list, for one call."""

T = TypeVar("T")


class WaitQueue(Generic[T]):
    """What is due when. Knows no clock and no thread."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, T]] = []
        self._numbers = count()

    def __len__(self) -> int:
        return len(self._heap)

    def push(self, due: float, item: T) -> None:
        """Keep an item until `due`."""
        heapq.heappush(self._heap, (due, next(self._numbers), item))

    def pop_due(self, now: float) -> list[T]:
        """All items whose time has come, the earliest first; those that follow at once come along."""
        due: list[T] = []
        while self._heap and self._heap[0][0] <= (now if not due else now + TOGETHER):
            due.append(heapq.heappop(self._heap)[2])
        return due

    def next_due(self) -> float | None:
        """When the next item is due."""
        return self._heap[0][0] if self._heap else None


class Waits(Generic[T]):
    """A thread that brings back what is due.

    Args:
        on_due: Gets the items that are due together. Must be quick and must not raise.
        name: Of the thread.
    """

    def __init__(self, on_due: Callable[[list[T]], None], name: str) -> None:
        self._queue: WaitQueue[T] = WaitQueue()
        self._changed = threading.Condition()
        self._ended = False
        self._on_due = on_due
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def __len__(self) -> int:
        return len(self._queue)

    def push(self, seconds: float, item: T) -> None:
        """Bring the item back after this time."""
        with self._changed:
            self._queue.push(boot_time() + seconds, item)
            self._changed.notify()

    def close(self) -> None:
        """Bring nothing back any more."""
        with self._changed:
            self._ended = True
            self._changed.notify()
        self._thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                due = self._queue.pop_due(boot_time())
                if not due and not self._ended:
                    at = self._queue.next_due()
                    self._changed.wait(None if at is None else max(0.001, at - boot_time()))
                if self._ended:
                    return
            if due:
                self._on_due(due)
