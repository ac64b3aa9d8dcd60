"""Threads with a bound, and what holds a lease goes first."""

import heapq
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from enum import IntEnum
from itertools import count
from typing import Any, TypeVar

from keshi.handlers.contract import boot_time

T = TypeVar("T")


class Urgency(IntEnum):
    """Whose turn it is: a task with a lease must not wait behind those that are still being located."""

    ACT = 0
    LOCATE = 1


class Pool:
    """A fixed number of threads over one queue. What is still queued when it ends is never begun."""

    def __init__(self, threads: int, name: str) -> None:
        self._queue: list[tuple[Urgency, int, Future[Any], Callable[[], Any]]] = []
        self._numbers = count()
        self._changed = threading.Condition()
        self._ended = False
        self._busy: dict[int, float] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(i,), name=f"{name}-{i}", daemon=True) for i in range(threads)
        ]
        for thread in self._threads:
            thread.start()

    def submit(self, urgency: Urgency, call: Callable[[], T]) -> "Future[T]":
        """Queue a call. Its future is cancelled if the pool ends before it is begun."""
        future: Future[T] = Future()
        with self._changed:
            if self._ended:
                _cancel(future)
                return future
            heapq.heappush(self._queue, (urgency, next(self._numbers), future, call))
            self._changed.notify()
        return future

    def oldest(self) -> float:
        """Seconds that the longest running call has been running."""
        since = min(list(self._busy.values()), default=None)
        return 0.0 if since is None else boot_time() - since

    def shutdown(self, seconds: float) -> bool:
        """Begin nothing more and wait for what runs.

        Returns:
            Whether all of it ended in this time.
        """
        end = boot_time() + seconds
        with self._changed:
            self._ended = True
            for *_, future, _call in self._queue:
                _cancel(future)
            self._queue.clear()
            self._changed.notify_all()
        for thread in self._threads:
            thread.join(max(0.0, end - boot_time()))
        return not any(t.is_alive() for t in self._threads)

    def _run(self, me: int) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._queue or self._ended)
                if self._ended:
                    return
                *_, future, call = heapq.heappop(self._queue)
            if not future.set_running_or_notify_cancel():
                continue
            self._busy[me] = boot_time()
            try:
                future.set_result(call())
            except BaseException as e:  # noqa: BLE001 - it is handed on; the thread has to live
                future.set_exception(e)
            finally:
                with suppress(KeyError):
                    del self._busy[me]


def _cancel(future: "Future[Any]") -> None:
    future.cancel()
    future.set_running_or_notify_cancel()  # tells those who wait for it
