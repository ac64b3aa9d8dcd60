"""Keeps one part running: started again when it dies by itself, as Kubernetes would, but not without end."""

import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from threading import Event, RLock, Thread
from typing import Protocol

from keshi.dev.errors import DevError
from keshi.dev.supervisor import Running

Say = Callable[[str], None]

_POLL_SECONDS = 0.1
_WINDOW_SECONDS = 60.0


class Startable(Running, Protocol):
    """What can be started again."""

    def start(self) -> None: ...


@dataclass(frozen=True)
class KeepOptions:
    """When a part is started again.

    Attributes:
        restart: whether it is at all.
        a_minute: so often; after that it waits until the minute is over.
        say: told what happens, in lines for people.
    """

    restart: bool
    a_minute: int
    say: Say


class Keeper:
    """One part and whether it is meant to run. All calls are safe from several threads."""

    def __init__(self, part: Startable, options: KeepOptions) -> None:
        self.part = part
        self._options = options
        self._wanted = False
        self._reported = False
        self._revived: deque[float] = deque(maxlen=max(1, options.a_minute))
        self._lock = RLock()
        self._closing = Event()
        self._thread = Thread(target=self._keep, name=f"keep-{part.name}", daemon=True)

    @property
    def down(self) -> bool:
        """Whether it should run and does not."""
        return self._wanted and not self.part.running()

    def start(self) -> None:
        """Start it now, unless it runs; from here on it is kept."""
        with self._lock:
            if self._closing.is_set():
                raise DevError(f"{self.part.name} is not started: everything is being ended")
            if not self.part.running():
                self.part.start()
            self._wanted, self._reported = True, False
        if not self._thread.is_alive():
            self._thread.start()

    def stop(self, seconds: float | None = None) -> None:
        """End it gracefully; it stays down until `start`."""
        with self._lock:
            self._wanted = False
            self.part.stop(seconds)

    def kill(self) -> None:
        """End it with SIGKILL; it stays down until `start`."""
        with self._lock:
            self._wanted = False
            self.part.kill()

    def let_go(self) -> None:
        """Start it no more. Returns at once."""
        self._closing.set()

    def join(self) -> None:
        """Wait until nothing here can start it any more; its part has to be ended first."""
        if self._thread.is_alive():
            self._thread.join()

    def _keep(self) -> None:
        while not self._closing.wait(_POLL_SECONDS):
            with self._lock:
                if not self.down:
                    continue
                if not self._reported:
                    self._reported = True
                    self._options.say(self.part.obituary())
                if self._options.restart and self._may_start():
                    self._revive()

    def _may_start(self) -> bool:
        full = len(self._revived) == self._revived.maxlen
        return not full or time.monotonic() - self._revived[0] >= _WINDOW_SECONDS

    def _revive(self) -> None:
        self._revived.append(time.monotonic())
        if self._closing.is_set():
            return
        try:
            self.part.start()
        except (DevError, OSError) as error:
            self._options.say(f"{self.part.name} could not be started again: {error}")
            return
        self._reported = False
        self._options.say(f"{self.part.name} was started again (pid {self.part.pid})")
        if not self._may_start():
            wait = _WINDOW_SECONDS - (time.monotonic() - self._revived[0])
            self._options.say(f"{self.part.name} dies too often: its next start waits up to {wait:.0f} s")
