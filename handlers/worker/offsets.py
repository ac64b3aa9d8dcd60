"""Up to where a partition is done: the one offset that may be committed."""

from threading import Lock


class Watermark:
    """Offsets of one partition in the order in which they came, and which of them are done.

    Attributes:
        next: The offset to be read next.
        redelivered_below: Messages below this offset had been begun by some worker before.
    """

    def __init__(self, start: int, redelivered_below: int = 0) -> None:
        self.next = start
        self.redelivered_below = redelivered_below
        self._pending: dict[int, None] = {}  # in the order of offsets, for they come so
        self._lock = Lock()

    def take(self, offset: int) -> None:
        """A message was read. What was jumped over holds no message."""
        with self._lock:
            if offset < self.next:
                raise ValueError("an offset below what was read already")
            self._pending[offset] = None
            self.next = offset + 1

    def done(self, offset: int) -> None:
        """All of this message is reported, or needs no report."""
        with self._lock:
            self._pending.pop(offset, None)

    @property
    def low(self) -> int:
        """All below this is done: what a new owner has to begin with."""
        with self._lock:
            return next(iter(self._pending), self.next)
