"""Many commands, one after the other, with a bounded number under way: what became of each."""

import time
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, Literal, TypeAlias

from kafka import KafkaConsumer, KafkaProducer
from kafka.errors import KafkaError, KafkaTimeoutError

from keshi.client.answers import CLOSE_MS, Answer, Mark, Submitted, answer_of, assigned, go_to, place_of, polled
from keshi.client.errors import ClientError, NotOverError, NotSentError
from keshi.client.messages import HEADERS, SUBJECT_KINDS, Message
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.requests import RequestClosed, RequestRejected

Wait: TypeAlias = Literal["none", "accepted", "closed"]

SEND_SECONDS: Final = 40.0
"""Longer than the producer itself tries, which then says what went wrong."""
_AT_ONCE: Final = 200
_POLL_MS: Final = 50


class Reached(StrEnum):
    """How far a command has come."""

    SENT = "sent"
    ACCEPTED = "accepted"
    CLOSED = "closed"
    REJECTED = "rejected"
    NOT_SENT = "not_sent"
    NOT_OVER = "not_over"


@dataclass(frozen=True, slots=True)
class Result:
    """What became of one command of a stream.

    Attributes:
        index: Its place in the stream, from 0. Results come as they are known, not in this order.
        request_id: Of its request.
        reached: How far it has come.
        final: Nothing more is said of this command. Only with `steps` are there others.
        sent: Where it stands on `commands`, once Kafka has confirmed it.
        answer: The message on `requests` that says so: its rejection, its closure, its acceptance.
        error: Why it is not sent or not over, and what to do.
    """

    index: int
    request_id: str
    reached: Reached
    final: bool = True
    sent: Submitted | None = None
    answer: Answer | None = None
    error: ClientError | None = None


@dataclass(frozen=True, slots=True)
class StreamOptions:
    """How a stream is sent.

    Attributes:
        wait: For what, before a command counts as done.
        in_flight: Commands that are not done, at most. The next one is taken when one of them is.
        seconds: How long to wait for the answer to one command, from when Kafka has it.
        since: Listen from here on; by default from the moment the stream begins.
        steps: Also say what a command reaches on its way.
    """

    wait: Wait = "none"
    in_flight: int = 1000
    seconds: float = 60
    since: Mark | None = None
    steps: bool = False

    def __post_init__(self) -> None:
        if self.in_flight < 1 or self.seconds <= 0:
            raise ValueError("in_flight and seconds are greater than 0")

    def awaits(self, kind: str) -> bool:
        """Whether an answer to such a command is waited for.

        keshi says at once that it took a request, and when it is closed; a withdrawal shows in the closure alone, and
        a notice in nothing that is sent.
        """
        return kind in SUBJECT_KINDS if self.wait == "accepted" else self.wait == "closed" and kind != "RecordNotice"


@dataclass(slots=True, eq=False)
class _Flight:
    """One command under way."""

    index: int
    message: Message
    begun: float
    future: Any = None
    sent: Submitted | None = None
    confirmed: bool = False
    answer: Answer | None = None
    accepted: bool = False
    done: bool = False


@dataclass(slots=True)
class Stream:
    """Sends the commands of one stream. Serves one thread.

    Args:
        topic: Full name of `commands`.
        producer: Idempotent, acks=all.
        options: How.
    """

    topic: str
    producer: KafkaProducer
    options: StreamOptions
    _under_way: int = 0
    _sending: deque[_Flight] = field(default_factory=deque)
    _expiring: deque[tuple[float, _Flight]] = field(default_factory=deque)
    _awaited: dict[str, list[_Flight]] = field(default_factory=dict)
    _early: dict[str, list[RequestRejected]] = field(default_factory=dict)
    _results: deque[Result] = field(default_factory=deque)

    def run(self, settings: KafkaSettings, messages: Iterable[Message]) -> Generator[Result, None, None]:
        """See `Client.submit_many`."""
        consumer = _from(settings, self.options.since) if self.options.wait != "none" else None
        source, more = enumerate(messages), True
        try:
            while more or self._under_way:
                more = more and self._fill(source)
                self._settle()
                if consumer is not None:
                    self._listen(consumer, 0 if more and self._room else _POLL_MS)
                elif self._sending and not (more and self._room):
                    _await(self._sending[0])
                self._expire()
                while self._results:
                    yield self._results.popleft()
        finally:
            if consumer is not None:
                consumer.close(autocommit=False, timeout_ms=CLOSE_MS)

    @property
    def _room(self) -> int:
        return self.options.in_flight - self._under_way

    # --- sending

    def _fill(self, source: Iterator[tuple[int, Message]]) -> bool:
        for _ in range(min(self._room, _AT_ONCE)):
            index, message = next(source, (0, None))
            if message is None:
                return False
            self._begin(_Flight(index, message, time.monotonic()))
        return True

    def _begin(self, flight: _Flight) -> None:
        self._under_way += 1
        if self.options.awaits(flight.message.kind):
            self._awaited.setdefault(flight.message.request_id, []).append(flight)
        value = flight.message.value
        if value is None:
            self._confirm(flight)
        elif len(value) > MAX_COMMAND_BYTES:
            self._failed(flight, f"the command has {len(value)} bytes; up to {MAX_COMMAND_BYTES} can be sent")
        else:
            try:
                key = flight.message.request_id.encode()
                flight.future = self.producer.send(self.topic, value=value, key=key, headers=HEADERS)
            except KafkaError as e:
                self._failed(flight, not_confirmed(self.topic, e))
            else:
                self._sending.append(flight)

    def _settle(self) -> None:
        late = time.monotonic() - SEND_SECONDS
        while self._sending and (self._sending[0].future.is_done or self._sending[0].begun < late):
            flight = self._sending.popleft()
            error = flight.future.exception if flight.future.is_done else KafkaTimeoutError()
            if error is not None:
                self._failed(flight, not_confirmed(self.topic, error))
            else:
                flight.sent = Submitted(flight.future.value.partition, flight.future.value.offset)
                self._confirm(flight)

    def _confirm(self, flight: _Flight) -> None:
        flight.confirmed = True
        if not self.options.awaits(flight.message.kind):
            self._finish(flight, Reached.SENT)
            return
        if self.options.steps and flight.sent is not None:
            self._say(flight, Reached.SENT, final=False)
        early = self._early.get(flight.message.request_id, ())
        rejected = next((r for r in early if _is_of(r, flight)), None)
        if rejected:
            flight.answer = rejected
            self._finish(flight, Reached.REJECTED)
        else:
            self._expiring.append((time.monotonic() + self.options.seconds, flight))
            self._advance(flight)

    # --- listening

    def _listen(self, consumer: KafkaConsumer, wait_ms: int) -> None:
        for record in polled(consumer, wait_ms):
            key = (record.key or b"").decode(errors="replace")
            if key in self._awaited:
                answer = answer_of(record.value)
                if answer is not None:
                    self._heard(key, answer)

    def _heard(self, request_id: str, answer: Answer) -> None:
        flights = list(self._awaited[request_id])
        if not isinstance(answer, RequestRejected):
            for flight in flights:
                flight.answer = answer
                self._advance(flight)
            return
        for flight in flights:
            if _is_of(answer, flight):
                flight.answer = answer
                self._finish(flight, Reached.REJECTED)
                return
        if any(not flight.confirmed for flight in flights):
            # It may be the answer to one whose place is not known yet.
            self._early.setdefault(request_id, []).append(answer)

    def _advance(self, flight: _Flight) -> None:
        if flight.answer is None or not flight.confirmed or flight.done:
            return
        if isinstance(flight.answer, RequestClosed):
            self._finish(flight, Reached.CLOSED)
        elif self.options.wait == "accepted":
            self._finish(flight, Reached.ACCEPTED)
        elif not flight.accepted:
            flight.accepted = True
            if self.options.steps:
                self._say(flight, Reached.ACCEPTED, final=False)

    # --- results

    def _expire(self) -> None:
        now = time.monotonic()
        while self._expiring and (self._expiring[0][1].done or self._expiring[0][0] <= now):
            _, flight = self._expiring.popleft()
            if not flight.done:
                wanted, seconds = self.options.wait, self.options.seconds
                error = NotOverError(f"not {wanted} within {seconds:g} s: it goes on, and can be waited for again")
                self._finish(flight, Reached.NOT_OVER, error)

    def _failed(self, flight: _Flight, why: str) -> None:
        self._finish(flight, Reached.NOT_SENT, NotSentError(why))

    def _finish(self, flight: _Flight, reached: Reached, error: ClientError | None = None) -> None:
        flight.done = True
        self._under_way -= 1
        name = flight.message.request_id
        if name in self._awaited:
            left = [f for f in self._awaited[name] if f is not flight]
            if left:
                self._awaited[name] = left
            else:
                del self._awaited[name]
                self._early.pop(name, None)
        self._say(flight, reached, final=True, error=error)

    def _say(self, flight: _Flight, reached: Reached, *, final: bool, error: ClientError | None = None) -> None:
        name, answer = flight.message.request_id, flight.answer
        self._results.append(Result(flight.index, name, reached, final, flight.sent, answer, error))


def _is_of(rejected: RequestRejected, flight: _Flight) -> bool:
    """Whether it was this command that was rejected. Where a send was repeated, Kafka may not say its offset (-1)."""
    place = place_of(rejected)
    return flight.sent is not None and flight.sent in {place, Submitted(place.partition, -1)}


def not_confirmed(topic: str, error: BaseException) -> str:
    """The one line for a command of which Kafka did not say that it has it."""
    return (
        f"Kafka did not confirm the command ({type(error).__name__}): see that topic {topic} exists (`keshi topics "
        f"apply`) and that this user may write to it; then send the same again, with its request id: that does no harm"
    )


def _from(settings: KafkaSettings, since: Mark | None) -> KafkaConsumer:
    consumer, partitions = assigned(settings)
    if since is None:
        since = Mark({p.partition: o for p, o in consumer.end_offsets(partitions).items()})
    go_to(consumer, partitions, since)
    return consumer


def _await(flight: _Flight) -> None:
    """Wait a while for one send to end; how it ended, `_settle` sees."""
    with suppress(KafkaError):
        flight.future.get(timeout=_POLL_MS / 1000)
