"""Standing by: where a ledger lets one orchestrator work at a time, another waits here until it may."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

import structlog

from keshi.orchestrator.ledger.port import Ledger

LOOK_SECONDS: Final = 0.5

log = structlog.get_logger()


class Watch:
    """What a probe sees of a process that may have to stand by first: alive, and not ready.

    `live` and `ready` are asked from any thread; they become those of the work when it begins.
    """

    def __init__(self) -> None:
        self._live: Callable[[], bool] = lambda: True
        self._ready: Callable[[], bool] = lambda: False
        self._word = "starting"

    def live(self) -> bool:
        """Whether it need not be started again."""
        return self._live()

    def ready(self) -> bool:
        """Whether it does its work."""
        return self._ready()

    def word(self) -> str:
        """What it is doing, in a word for people."""
        return self._word

    def stands_by(self) -> None:
        """Another works; this one waits."""
        self._word = "standing by"

    def works(self, live: Callable[[], bool], ready: Callable[[], bool]) -> None:
        """The work begins, and answers for itself."""
        self._live, self._ready, self._word = live, ready, "working"


def stand_by(ledger: Ledger, watch: Watch) -> bool:
    """Wait until this process may own lanes. Belongs in the main thread.

    Returns:
        False where SIGTERM or SIGINT ended the wait.
    """
    if ledger.on_duty():
        return True
    watch.stands_by()
    log.info("standing_by", reason="another orchestrator works on this ledger")
    with _stopped() as stop:
        while not stop.wait(LOOK_SECONDS):
            if ledger.on_duty():
                log.info("taking_over")
                return True
    return False


@contextmanager
def _stopped() -> Iterator[threading.Event]:
    stop = threading.Event()
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in numbers}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
