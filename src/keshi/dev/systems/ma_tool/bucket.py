"""How many calls may be made: a bucket of tokens that fills evenly."""

from __future__ import annotations

import math
import time
from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Bucket:
    """Each call takes a token. Serves several threads.

    Args:
        per_second: tokens that come back in a second, at least 1.
        burst: it holds so many, at least 1.
        clock: seconds, never going back.
    """

    def __init__(self, per_second: int, burst: int, clock: Callable[[], float] = time.monotonic) -> None:
        if per_second < 1 or burst < 1:
            raise ValueError("a bucket that gives nothing serves nobody: at least 1 call a second, and 1 at once")
        self._per_second = per_second
        self._burst = float(burst)
        self._clock = clock
        self._lock = Lock()
        self._left = self._burst
        self._at = clock()

    def take(self) -> int:
        """Take a token: 0, or the whole seconds until there will be one (RFC 9110, 10.2.3), and then none is taken."""
        with self._lock:
            self._fill()
            if self._left < 1:
                return max(1, math.ceil((1 - self._left) / self._per_second))
            self._left -= 1
            return 0

    def left(self) -> int:
        """Calls that could be made at once."""
        with self._lock:
            self._fill()
            return int(self._left)

    def _fill(self) -> None:
        now = self._clock()
        self._left = min(self._burst, self._left + (now - self._at) * self._per_second)
        self._at = now
