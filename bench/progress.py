"""Lines on standard error that say where the bench stands."""

import sys
import time

_EVERY_SECONDS = 5.0


class BenchError(Exception):
    """What was measured is worth nothing. The message says why."""


class Progress:
    """One measurement at a time: what it is, and every few seconds how far it has come."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._what = ""
        self._base = (0.0, 0)
        self._next = 0.0

    def say(self, line: str) -> None:
        """Show a line, with the seconds since the start."""
        sys.stderr.write(f"{time.monotonic() - self._began:6.1f} s  {line}\n")
        sys.stderr.flush()

    def begin(self, what: str, count: int = 0) -> None:
        """A measurement begins; `count` is what `at` would say now."""
        self.say(what)
        now = time.monotonic()
        self._what, self._base, self._next = what, (now, count), now + _EVERY_SECONDS

    def at(self, count: int) -> None:
        """So many so far. May be called as often as one likes."""
        now = time.monotonic()
        if now < self._next:
            return
        at, before = self._base
        self.say(f"  {self._what}: {count} closed, {(count - before) / (now - at):.0f}/s")
        self._base, self._next = (now, count), now + _EVERY_SECONDS
