"""Whether the host still lives, for a probe that asks from any thread."""

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from keshi.orchestrator.stream.port import Lane


@dataclass(frozen=True, slots=True)
class Vitals:
    """A moment's picture. Seconds since, or None where nothing is going on.

    Attributes:
        loop: Since the event loop last ran the watch.
        call: Since the engine call that is running now began.
        lag: Since the lane that waits longest had records and did not move.
        away: Since there was a settled assignment.
        failed: Why the host stops, a class name, or None.
        lanes: Next offset of each lane in hand.
        behind: Records on the broker that each lane in hand has still to take, as last seen.
    """

    loop: float
    call: float | None
    lag: float | None
    away: float | None
    failed: str | None
    lanes: Mapping[Lane, int]
    behind: Mapping[Lane, int]


class Heartbeat:
    """Updated by every engine call and every turn of the stream; read by health checks.

    Args:
        stall_seconds: An engine call, the event loop or a lane that stands still for longer is a stall.
        join_seconds: An assignment that does not come for longer is one too.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        stall_seconds: float = 60.0,
        join_seconds: float = 120.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stall = stall_seconds
        self._join = join_seconds
        self._clock = clock
        self._lock = threading.Lock()
        self._turned_at = clock()
        self._called_at: float | None = None
        self._away_since: float | None = clock()
        self._waiting: dict[Lane, float] = {}
        self._lanes: dict[Lane, int] = {}
        self._ends: dict[Lane, int] = {}
        self._failed: str | None = None
        self.calls = 0
        self.records = 0

    def turn(self) -> None:
        """The event loop runs."""
        self._turned_at = self._clock()

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Around an engine call, in the thread that makes it."""
        self._called_at = self._clock()
        try:
            yield
        finally:
            self._called_at = None
            self.calls += 1

    def moved(self, lane: Lane, next_offset: int) -> None:
        """A lane has this next offset now."""
        with self._lock:
            if next_offset != self._lanes.get(lane):
                self._waiting.pop(lane, None)
            self._lanes[lane] = next_offset

    def ends(self, lane: Lane, offset: int) -> None:
        """The log of a lane ends before this offset."""
        with self._lock:
            self._ends[lane] = offset

    def waits(self, lane: Lane, since: float | None) -> None:
        """A lane has records and does not move (since a moment of the clock), or has none (None)."""
        with self._lock:
            if since is None or lane not in self._lanes:
                self._waiting.pop(lane, None)
            else:
                self._waiting[lane] = since

    def dropped(self, lane: Lane) -> None:
        """A lane is no longer in hand."""
        with self._lock:
            self._waiting.pop(lane, None)
            self._lanes.pop(lane, None)
            self._ends.pop(lane, None)

    def away(self) -> None:
        """The assignment is gone or unsettled."""
        if self._away_since is None:
            self._away_since = self._clock()

    def settled(self) -> None:
        """The assignment stands (it may be empty: a spare)."""
        self._away_since = None

    def fail(self, why: str) -> None:
        """The host is about to stop."""
        self._failed = self._failed or why

    def vitals(self) -> Vitals:
        """What there is to know now."""
        now = self._clock()
        called, away = self._called_at, self._away_since
        with self._lock:
            oldest = min(self._waiting.values(), default=None)
            lanes = dict(self._lanes)
            behind = {x: max(0, end - lanes[x]) for x, end in self._ends.items() if x in lanes}
        return Vitals(
            loop=now - self._turned_at,
            call=None if called is None else now - called,
            lag=None if oldest is None else now - oldest,
            away=None if away is None else now - away,
            failed=self._failed,
            lanes=lanes,
            behind=behind,
        )

    def healthy(self) -> bool:
        """False when a supervisor should start the process again."""
        now = self.vitals()
        stalls = (now.loop, now.call or 0.0, now.lag or 0.0)
        return now.failed is None and max(stalls) <= self._stall and (now.away or 0.0) <= self._join

    def ready(self) -> bool:
        """True when an assignment stands and nothing stalls."""
        return self.vitals().away is None and self.healthy()
