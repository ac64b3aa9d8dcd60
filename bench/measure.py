"""The measurements. Each ends with a look into the systems: what was to go is gone, and nothing else is."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

from bench.people import People
from bench.progress import BenchError, Progress
from bench.sender import Sender
from bench.stack import Stack
from bench.watch import Usage, usage

EXPECTED_PER_SECOND = 1_000
"""So many people are made for each second of a closed loop; when they do not suffice, the bench fails and says so."""


@dataclass(frozen=True)
class Measured:
    """What one measurement gave.

    Attributes:
        per_second: closures.
        cpu_ms: by part, milliseconds of CPU time for one closure.
        p50_ms: from a command to its closure, half of them are faster.
        p95_ms: and all but one in twenty.
        count: closures that the above rests on.
    """

    per_second: float
    cpu_ms: Mapping[str, float] = field(default_factory=dict)
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    count: int = 0


@dataclass(frozen=True)
class Bench:
    """What measurements share."""

    stack: Stack
    people: People
    progress: Progress
    pids: Callable[[], Mapping[str, int]]

    def closed_loop(self, in_flight: int, seconds: float, warmup: float, during: Callable[[float], None] | None = None) -> Measured:
        """Closures per second while so many requests are kept open. `during` is told when the measured time begins."""
        self.people.ensure(int((seconds + warmup) * EXPECTED_PER_SECOND) + in_flight)
        persons = iter(self.people)
        with self._sender(5) as sender:
            sender.keep(persons, in_flight, warmup)
            if during:
                during(seconds)
            return self._timed(sender, lambda: sender.keep(persons, in_flight, seconds))

    def bulk(self, number: int) -> Measured:
        """Closures per second from the first command to the last closure, all commands sent at once."""
        self.people.ensure(number)
        persons = iter(self.people)
        with self._sender(5) as sender:

            def all_of_them() -> None:
                for _ in range(number // 500):
                    sender.send(next(persons) for _ in range(500))
                    sender.poll(0)
                sender.send(next(persons) for _ in range(number % 500))
                sender.drain()

            return self._timed(sender, all_of_them)

    def open_loop(self, per_second: float, seconds: float) -> Measured:
        """From command to closure at a fixed rate."""
        self.people.ensure(int(per_second * seconds) + 1)
        persons = iter(self.people)
        with self._sender(0) as sender:  # as keshi.client sends

            def paced() -> None:
                sender.pace(persons, per_second, seconds)
                sender.drain()

            return self._timed(sender, paced)

    def _timed(self, sender: Sender, what: Callable[[], None]) -> Measured:
        before, count, began = usage(self.pids()), sender.closed, time.monotonic()
        what()
        seconds, closed, after = time.monotonic() - began, sender.closed - count, usage(self.pids())
        if not closed:
            raise BenchError(f"nothing was closed within {seconds:.0f} s")
        ordered = sorted(sender.latencies[count : count + closed])
        return Measured(
            per_second=closed / seconds,
            cpu_ms={name: 1000 * (after[name].cpu - was.cpu) / closed for name, was in before.items() if name in after},
            p50_ms=1000 * statistics.median(ordered),
            p95_ms=1000 * ordered[int(len(ordered) * 0.95)],
            count=closed,
        )

    @contextmanager
    def _sender(self, linger_ms: int) -> Iterator[Sender]:
        with Sender(self.stack.kafka, self.progress, linger_ms) as sender:
            yield sender
            sender.drain()
            self.stack.supervisor.check()
            if sender.closed != sender.sent:
                raise BenchError(f"{sender.sent} commands were sent and {sender.closed} requests closed")
        if wrong := self.people.wrong():
            raise BenchError(wrong)


def memory(pids: Mapping[str, int]) -> dict[str, Usage]:
    """What each part holds and held at most, MiB."""
    return usage(pids)
