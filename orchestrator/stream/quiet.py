"""Keeps the libraries' logs from quoting records, and from filling the disk while the broker is away."""

import logging
import threading
import time

# Below these levels they may quote what they carry.
_LEVELS = {
    "faust": logging.ERROR,
    "mode": logging.ERROR,
    "aiokafka": logging.ERROR,
    "aiokafka.cluster": logging.CRITICAL,
    # It raises what it has to say.
    "kafka": logging.CRITICAL,
}
# Filters hold for the logger they are put on, not for those below it.
_TALKATIVE = (
    "aiokafka",
    "aiokafka.conn",
    "aiokafka.consumer.fetcher",
    "aiokafka.consumer.group_coordinator",
)
_SECONDS = 30.0


class Seldom(logging.Filter):
    """Lets the same message of the same place through once in a while."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._seconds = seconds
        self._lock = threading.Lock()
        self._said: dict[tuple[str, int], float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this one is let through."""
        place, now = (record.pathname, record.lineno), time.monotonic()
        with self._lock:
            if now - self._said.get(place, -self._seconds) < self._seconds:
                return False
            self._said[place] = now
        return True


def quiet_libraries() -> None:
    """Set this up for the process."""
    for name, level in _LEVELS.items():
        logging.getLogger(name).setLevel(level)
    seldom = Seldom(_SECONDS)
    for name in _TALKATIVE:
        logging.getLogger(name).addFilter(seldom)
