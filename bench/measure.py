"""The measurements. Each of keshi ends with a look into the systems: what was to go is gone, and nothing else is."""

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass, field
from itertools import count

from bench import raw
from bench.people import People
from bench.progress import BenchError, Progress
from bench.sender import Sender, Wire
from bench.stack import SYSTEMS, Stack, StackOptions
from bench.traffic import Traffic
from bench.watch import usage
from bench.wire import Keshi
from keshi.runtime.kafka import LINGER_MS
from keshi.runtime.settings import KafkaSettings

EXPECTED_PER_SECOND = 900
"""People made for each second of a closed loop. When they do not suffice, the bench fails and says so."""
SENDER = "sender"
"""What the bench itself takes stands under this name, apart from keshi's parts."""


@dataclass(frozen=True)
class Measured:
    """What one measurement gave.

    Attributes:
        per_second: closures.
        cpu_ms: by part, milliseconds of CPU time for one closure.
        p50_ms: from a command to its closure, half of them are faster.
        p95_ms: and all but one in twenty.
        closed: closures that the above rests on.
        messages: by topic, messages for one closure.
    """

    per_second: float
    cpu_ms: dict[str, float] = field(default_factory=dict)
    p50_ms: float = 0.0
    p95_ms: float = 0.0
    closed: int = 0
    messages: dict[str, float] = field(default_factory=dict)


def _no_profile() -> AbstractContextManager[None]:
    return nullcontext()


@dataclass
class Bench:
    """What measurements share.

    Attributes:
        profile: records processes of keshi while a measurement's time runs.
        numbers: names of requests of the raw limit.
    """

    stack: Stack
    options: StackOptions
    people: People
    progress: Progress
    profile: Callable[[], AbstractContextManager[None]] = _no_profile
    numbers: Iterator[int] = field(default_factory=lambda: count(1))

    def closed_loop(self, in_flight: int, seconds: float, warmup: float) -> Measured:
        """Closures per second while so many requests are kept open."""
        self.people.ensure(int((seconds + warmup) * EXPECTED_PER_SECOND) + in_flight)
        with self._keshi(LINGER_MS) as sender:
            sender.keep(iter(self.people), in_flight, warmup)
            return self._timed(sender, lambda: sender.keep(iter(self.people), in_flight, seconds))

    def bulk(self, number: int) -> Measured:
        """Closures per second from the first command to the last closure, all commands sent at once."""
        self.people.ensure(number)
        with self._keshi(LINGER_MS) as sender:

            def all_of_them() -> None:
                sender.at_once(iter(self.people), number)
                sender.drain()

            return self._timed(sender, all_of_them)

    def open_loop(self, per_second: float, seconds: float) -> Measured:
        """From command to closure at a fixed rate."""
        self.people.ensure(int(per_second * seconds) + 1)
        with self._keshi(0) as sender:

            def paced() -> None:
                sender.pace(iter(self.people), per_second, seconds)
                sender.drain()

            return self._timed(sender, paced)

    def raw_limit(self, in_flight: int, seconds: float, warmup: float) -> Measured:
        """Groups of 18 messages per second, so many groups kept on their way."""
        with (
            raw.running(self.stack, self.options) as (kafka, pids),
            self._sender(kafka, raw.Raw(), LINGER_MS) as sender,
        ):
            sender.keep(self.numbers, in_flight, warmup)
            pids |= {"kafka": self.stack.pids["kafka"]}
            return self._timed(sender, lambda: sender.keep(self.numbers, in_flight, seconds), kafka, pids)

    def _timed(
        self,
        sender: Sender,
        what: Callable[[], None],
        kafka: KafkaSettings | None = None,
        pids: Mapping[str, int] | None = None,
    ) -> Measured:
        pids = pids or self.stack.pids
        with Traffic(kafka or self.stack.kafka, SYSTEMS) as traffic, self.profile():
            before, own, closed, began = usage(pids), time.process_time(), sender.closed, time.monotonic()
            what()
            seconds, closed = time.monotonic() - began, sender.closed - closed
            own, after = time.process_time() - own, usage(pids)
            messages = traffic.since()
        if not closed:
            raise BenchError(f"nothing was closed within {seconds:.0f} s")
        latencies = sorted(sender.latencies[-closed:])
        spent = {name: after[name].cpu - was.cpu for name, was in before.items() if name in after} | {SENDER: own}
        return Measured(
            per_second=closed / seconds,
            cpu_ms={name: 1000 * cpu / closed for name, cpu in spent.items()},
            p50_ms=1000 * statistics.median(latencies),
            p95_ms=1000 * latencies[int(len(latencies) * 0.95)],
            closed=closed,
            messages={topic: number / closed for topic, number in messages.items()},
        )

    @contextmanager
    def _keshi(self, linger_ms: int) -> Iterator[Sender]:
        with self._sender(self.stack.kafka, Keshi(), linger_ms) as sender:
            yield sender
        self.stack.supervisor.check()
        if wrong := self.people.wrong():
            raise BenchError(wrong)

    @contextmanager
    def _sender(self, kafka: KafkaSettings, wire: Wire, linger_ms: int) -> Iterator[Sender]:
        with Sender(kafka, wire, self.progress, linger_ms) as sender:
            yield sender
            sender.drain()
            if sender.closed != sender.sent:
                raise BenchError(f"{sender.sent} commands were sent and {sender.closed} requests closed")
