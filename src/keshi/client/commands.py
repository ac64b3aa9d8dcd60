"""The client of a DSAR system: sends commands, and listens for what became of them."""

from collections.abc import Callable, Generator, Iterable
from contextlib import closing, suppress
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self, TypeVar
from weakref import WeakSet, finalize

from kafka.errors import KafkaError

from keshi.client import answers, listening
from keshi.client.answers import Answer, Mark, Submitted
from keshi.client.errors import NotSentError
from keshi.client.listening import Heard
from keshi.client.messages import (
    HEADERS,
    Command,
    Message,
    canonical_request_id,
    event_of,
    message_of,
    reference,
)
from keshi.client.stream import SEND_SECONDS, Result, Stream, StreamOptions, Wait, not_confirmed
from keshi.runtime.kafka import close_producer, new_producer
from keshi.runtime.settings import KafkaSettings, load
from keshi.schemas.commands import RecordNotice, SubjectCommand, WithdrawRequest
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.requests import RequestAccepted, RequestClosed, RequestOverdue, RequestRejected

T = TypeVar("T")

__all__ = ["Client", "canonical_request_id", "event_of"]


class Client:
    """Sends commands to keshi, and hears what became of them. Synchronous; serves several threads.

    To be closed, or used with `with`. Settings come from the environment (`KESHI_KAFKA_BOOTSTRAP` and the like), or
    are given.

    ```python
    from keshi.client import Client, EraseSubject, KafkaSettings, RequestClosed

    command = EraseSubject.model_validate(
        {
            "request_id": "01KN33YH80E7QZ3V5W9T2B4M6A",  # yours: a UUID or ULID, a new one for each request
            "identifiers": [{"type": "email", "value": "aoi@customer.example"}],
            "regime": "appi",
            "ground": "appi.35-5",
            "requested_by": {"kind": "person"},
            "assessed": {"by": "staff:kato", "at": now},
            "arrived": {"at": now, "channel": "channel:web-form"},
        },
        strict=False,
    )
    with Client(KafkaSettings(bootstrap="broker.example:9092")) as keshi:
        mark = keshi.mark()                     # before sending, so that no answer is missed
        sent = keshi.submit(command)            # Kafka has it
        answer = keshi.wait(command.request_id, 60, since=mark, command=sent)
        if isinstance(answer, RequestClosed):
            print(answer.closure.verdict)
    ```

    Each command is safe to repeat: under its request id there is one request, one closure, and one answer.

    Args:
        settings: Where the broker is; None reads the environment.
        source: Names the sender (CloudEvents `source`, a URI).

    Raises:
        ConfigurationError: no broker answers, or a setting is wrong.
    """

    def __init__(self, settings: KafkaSettings | None = None, source: str = "urn:keshi:client") -> None:
        self._settings = settings or load(KafkaSettings)
        self._source = source
        self._producer = new_producer(self._settings, "keshi-client", linger_ms=0)
        self._iterated: WeakSet[Generator[Any, None, None]] = WeakSet()
        # A consumer that is closed only while Python ends waits for ever: its thread has ended before. So at exit, too.
        finalize(self, _end, self._iterated)

    # --- sending

    def submit(self, command: SubjectCommand, *, traceparent: str | None = None) -> Submitted:
        """Send a command, and wait until Kafka has it. A repeat is answered with the closure that exists.

        Args:
            command: What is asked for.
            traceparent: W3C trace context to go on with.

        Returns:
            Where it stands.

        Raises:
            NotSentError: Kafka did not confirm it in time.
        """
        return self._send(command, traceparent)

    def withdraw(self, request_id: str, *, traceparent: str | None = None) -> Submitted:
        """Take a request back: what has not begun will not begin, and the record says what had.

        A withdrawal that comes before its command waits for it. One that comes after the closure is rejected
        (`already_closed`).

        Raises:
            NotSentError: Kafka did not confirm it in time.
            ValueError: no request id.
        """
        return self._send(WithdrawRequest(request_id=canonical_request_id(request_id)), traceparent)

    def record_notice(self, request_id: str, notice: str, notified_at: datetime | None = None) -> Submitted:
        """Say that the person was told the result.

        Args:
            request_id: Of the request.
            notice: A reference to what was sent (`kind:id`), never its text.
            notified_at: When, with a zone; None: now.

        Raises:
            NotSentError: Kafka did not confirm it in time.
            ValueError: no request id, or no reference.
        """
        told = RecordNotice(
            request_id=canonical_request_id(request_id),
            notified_at=notified_at or datetime.now(UTC),
            notice=reference(notice),
        )
        return self._send(told, None)

    def submit_many(
        self,
        commands: Iterable[Command | Message],
        *,
        wait: Wait = "none",
        in_flight: int = 1000,
        seconds: float = 60,
        since: Mark | None = None,
        steps: bool = False,
    ) -> Generator[Result, None, None]:
        """Send many, with a bounded number under way, and say of each what became of it.

        Nothing is sent before the first result is asked for. The commands are taken one by one as there is room, so
        that they may come from a generator. Results come as they are known: `Result.index` says of which command.
        One that fails does not keep the others: look at `Result.reached` and `Result.error`.

        ```python
        for result in keshi.submit_many(commands, wait="accepted"):
            if result.reached is Reached.REJECTED:
                print(result.request_id, result.answer.code, result.answer.field)
        ```

        Args:
            commands: What is asked for; commands of one request stay in their order.
            wait: `none`: Kafka has it. `accepted`: keshi has it, and said so, or rejected it. `closed`: it is over.
                A notice is never answered, and a withdrawal only by the closure: they count as done once sent.
            in_flight: Commands that are not done, at most. With `closed` it bounds how many are carried out at a time.
            seconds: How long to wait for each answer, from when Kafka has the command.
            since: Listen from here on, for answers to what was sent before; by default from now on.
            steps: Also say what each reaches on its way; those results are not `final`. One may be passed over.

        Raises:
            UnreadableAnswerError: this version cannot read an answer to one of them.
            KafkaRefusedError: `requests` must not be read.
            ConfigurationError: no broker answers, or a topic is missing.
            ValueError: a bound is not greater than 0.
        """
        options = StreamOptions(wait, in_flight, seconds, since, steps)
        stream = Stream(self._settings.topic("commands"), self._producer, options)
        return self._followed(stream.run(self._settings, (message_of(c, source=self._source) for c in commands)))

    # --- listening

    def mark(self) -> Mark:
        """The end of `requests` now: `wait` from here sees every answer to what is sent later."""
        return answers.mark(self._settings)

    def wait(
        self,
        request_id: str,
        seconds: float,
        *,
        since: Mark | None = None,
        command: Submitted | None = None,
        heard: Callable[[Answer], None] | None = None,
    ) -> RequestClosed | RequestRejected:
        """Listen until a request is closed, or a command of it rejected.

        Args:
            request_id: Of the request.
            seconds: How long, at most.
            since: From here on (`mark`); None reads all that the broker still has, which can take its time.
            command: Only the rejection of this one counts; None takes the newest answer that there is.
            heard: Called with what is answered on the way: that it was accepted, that it is overdue.

        Raises:
            NotOverError: neither came in time. The request goes on.
            UnreadableAnswerError: this version cannot read the answer.
            KafkaRefusedError: `requests` must not be read.
            ValueError: no request id.
        """
        name = canonical_request_id(request_id)
        answer = answers.wait_for(
            self._settings, name, seconds, until="closed", since=since, command=command, heard=heard
        )
        assert isinstance(answer, RequestClosed | RequestRejected)
        return answer

    def wait_accepted(
        self, request_id: str, seconds: float, *, since: Mark | None = None, command: Submitted | None = None
    ) -> RequestAccepted | RequestOverdue | RequestClosed | RequestRejected:
        """Listen until a request is accepted, or a command of it rejected; a closed one was accepted.

        Arguments and errors are those of `wait`.
        """
        name = canonical_request_id(request_id)
        return answers.wait_for(self._settings, name, seconds, until="accepted", since=since, command=command)

    def listen(
        self, group: str | None = None, *, since: Mark | None = None, idle_seconds: float | None = None
    ) -> Generator[Heard, None, None]:
        """Everything that keshi answers, about all requests, each once.

        Repeats are dropped: what says nothing newer than an earlier message did, by the sequence of the request's
        state. That is remembered for the last 100,000 requests and while the iteration lasts; after a restart some may
        come again, so let what you do be safe to repeat.

        ```python
        for heard in keshi.listen(since=my_database.mark()):
            my_database.keep(heard.answer, str(heard.mark))  # both in one transaction: none is lost or dealt with twice
        ```

        Args:
            group: Consumer group, which names the listener for life. All who listen with it share the messages; what
                was read is marked as dealt with when the next is asked for. Let 100 messages not take five minutes.
            since: Without a group: from here on (`mark`, `Heard.mark`); None begins with the oldest that is there.
            idle_seconds: End when nothing came for so long; None listens on.

        Raises:
            UnreadableAnswerError: this version cannot read an answer; it is not passed over.
            KafkaRefusedError: `requests` must not be read.
            ConfigurationError: no broker answers, or the topic is missing.
            ValueError: both a group and a mark.
        """
        heard = listening.listen(self._settings, group=group, since=since, idle_seconds=idle_seconds)
        return self._followed(heard)

    def closures(
        self, group: str | None = None, *, since: Mark | None = None, idle_seconds: float | None = None
    ) -> Generator[RequestClosed, None, None]:
        """Every closure, one after the other. The same closure has the same `closure.hash`.

        Arguments and errors are those of `listen`.
        """
        heard = listening.listen(self._settings, group=group, since=since, idle_seconds=idle_seconds)
        return self._followed(_closures(heard))

    # --- ending

    def close(self) -> None:
        """Let go of the connections, also of what is still iterated. What is on its way is given up after 5 s."""
        _end(self._iterated)
        close_producer(self._producer, 5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def _followed(self, source: Generator[T, None, None]) -> Generator[T, None, None]:
        """An iteration that ends with this client, and keeps it alive."""
        followed = self._follow(source)
        self._iterated.add(followed)
        return followed

    def _follow(self, source: Generator[T, None, None]) -> Generator[T, None, None]:
        with closing(source):
            yield from source

    def _send(self, command: Command, traceparent: str | None) -> Submitted:
        message = message_of(command, source=self._source, traceparent=traceparent)
        value, topic = message.value or b"", self._settings.topic("commands")
        if len(value) > MAX_COMMAND_BYTES:
            raise NotSentError(f"the command has {len(value)} bytes; up to {MAX_COMMAND_BYTES} can be sent")
        try:
            future = self._producer.send(topic, value=value, key=message.request_id.encode(), headers=HEADERS)
            meta = future.get(timeout=SEND_SECONDS)
        except KafkaError as e:
            raise NotSentError(not_confirmed(topic, e)) from None
        return Submitted(meta.partition, meta.offset)


def _closures(heard: Generator[Heard, None, None]) -> Generator[RequestClosed, None, None]:
    with closing(heard):
        for one in heard:
            if isinstance(one.answer, RequestClosed):
                yield one.answer


def _end(iterated: WeakSet[Generator[Any, None, None]]) -> None:
    for one in list(iterated):
        with suppress(ValueError):  # another thread is in it, and ends it
            one.close()
