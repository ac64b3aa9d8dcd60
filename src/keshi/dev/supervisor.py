"""Many parts as one: started in order, watched, ended in the reverse order whatever happens."""

import signal
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any, Protocol, Self, TypeVar

from keshi.dev.errors import PartDiedError
from keshi.dev.processes import Part, PartSpec

_ENDING_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_POLL_SECONDS = 0.2


class Running(Protocol):
    """What can be supervised: a part, a broker, a database server."""

    @property
    def name(self) -> str: ...

    @property
    def pid(self) -> int: ...

    def running(self) -> bool: ...

    def obituary(self) -> str: ...

    def stop(self, seconds: float | None = None) -> None: ...

    def kill(self) -> None: ...


R = TypeVar("R", bound=Running)


class Stopped(SystemExit):
    """SIGTERM, SIGINT or SIGHUP came; unwinds to the supervisor, then ends the process."""

    def __init__(self, number: int) -> None:
        super().__init__(128 + number)
        self.number = number


class Supervisor:
    """Owns parts as a context manager; entering it in the main thread also takes over the signals.

    The first Ctrl-C or SIGTERM raises `Stopped` in the main thread, which leaves the `with` block and
    ends each part gracefully; the second, while they are ending, kills what is left.
    """

    def __init__(self) -> None:
        self._parts: list[Running] = []
        self._before: dict[signal.Signals, Any] = {}
        self._ending = False
        self._hurry = False

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _ENDING_SIGNALS:
                self._before[number] = signal.signal(number, self._on_signal)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.stop_all()
        finally:
            for number, handler in self._before.items():
                signal.signal(number, handler)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        if not self._ending:
            self._ending = True
            raise Stopped(number)
        self._hurry = True
        for part in self._parts:
            part.kill()

    def start(self, spec: PartSpec, ready: Callable[[], bool] | None = None, seconds: float = 30.0) -> Part:
        """Start a part and wait until `ready()` is true.

        Raises:
            PartDiedError: it ended first; the message has the end of its log.
            NotReadyError: it was not ready within `seconds`.
        """
        part = self.add(Part(spec))
        part.start()
        if ready is not None:
            part.wait_ready(ready, seconds)
        return part

    def add(self, part: R) -> R:
        """Take over a part that is started elsewhere: it is ended with the others.

        Add it before it is started, so that a signal in between does not leave it behind.
        """
        self._parts.append(part)
        return part

    @property
    def pids(self) -> dict[str, int]:
        """The pid of each running part by its name."""
        return {part.name: part.pid for part in self._parts if part.running()}

    def check(self) -> None:
        """Raise `PartDiedError` for the first part that no longer runs."""
        for part in self._parts:
            if not part.running():
                raise PartDiedError(part.obituary())

    def watch(self, seconds: float | None = None) -> None:
        """Return when `seconds` have passed (None: never); raise when a part dies or a signal comes."""
        deadline = None if seconds is None else time.monotonic() + seconds
        while deadline is None or time.monotonic() < deadline:
            self.check()
            time.sleep(_POLL_SECONDS)

    def stop_all(self) -> None:
        """End all parts in the reverse order of their start; one that fails to end harms no other."""
        self._ending = True
        errors: list[Exception] = []
        for part in reversed(self._parts):
            try:
                part.stop(0.0 if self._hurry else None)
            except Exception as error:  # noqa: BLE001 - the others must be ended first; raised below
                errors.append(error)
        if errors:
            raise ExceptionGroup("some parts could not be ended", errors)
