"""The client of a DSAR system: sends commands, and listens for what became of them."""

from collections.abc import Iterator
from datetime import UTC, datetime
from types import TracebackType
from typing import Self

from pydantic import TypeAdapter, ValidationError

from keshi.client import answers
from keshi.client.answers import Mark, Submitted
from keshi.client.errors import NotSentError
from keshi.runtime.kafka import Outgoing, close_producer, new_producer, send_all
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.base import Reference, RequestId
from keshi.schemas.commands import RecordNotice, SubjectCommand, WithdrawRequest
from keshi.schemas.envelope import MAX_COMMAND_BYTES, wrap
from keshi.schemas.requests import RequestClosed, RequestRejected

_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)
SEND_SECONDS = 30.0


def canonical_request_id(text: str) -> str:
    """The one form of a request id: UUIDs in small letters, ULIDs in capitals.

    Raises:
        ValueError: it is neither a UUID nor a ULID. Its text repeats nothing.
    """
    try:
        return _REQUEST_ID.validate_python(text)
    except ValidationError:
        raise ValueError("a request id is a UUID or a ULID") from None


def event_of(
    command: SubjectCommand | WithdrawRequest | RecordNotice, *, source: str, traceparent: str | None = None
) -> bytes:
    """A command as the CloudEvent that is sent. Its id says the same of the same command."""
    kind = type(command).__name__
    return wrap(command, kind=kind, id=f"{command.request_id}/{kind}", source=source, traceparent=traceparent)


class Client:
    """Sends commands. Serves several threads; to be closed, or used with `with`.

    ```python
    with Client(load(KafkaSettings)) as keshi:
        mark = keshi.mark()
        sent = keshi.submit(command)
        answer = keshi.wait(command.request_id, 60, since=mark, command=sent)
    ```

    Args:
        settings: Where the broker is.
        source: Names the sender (CloudEvents `source`, a URI).

    Raises:
        ConfigurationError: no broker answers.
    """

    def __init__(self, settings: KafkaSettings, source: str = "urn:keshi:client") -> None:
        self._settings = settings
        self._source = source
        self._producer = new_producer(settings, "keshi-client", linger_ms=0)

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
        """Take a request back: what has not begun will not begin.

        Raises:
            NotSentError: Kafka did not confirm it in time.
            ValueError: no request id.
        """
        return self._send(WithdrawRequest(request_id=canonical_request_id(request_id)), traceparent)

    def record_notice(self, request_id: str, notice: str, notified_at: datetime | None = None) -> Submitted:
        """Say that the person was told the result. `notice` is a reference (`kind:id`), never a text.

        Raises:
            NotSentError: Kafka did not confirm it in time.
            ValueError: no request id, or no reference.
        """
        try:
            notice = _REFERENCE.validate_python(notice)
        except ValidationError:
            raise ValueError("a notice is a reference, `kind:id`") from None
        at = notified_at or datetime.now(UTC)
        return self._send(
            RecordNotice(request_id=canonical_request_id(request_id), notified_at=at, notice=notice), None
        )

    def mark(self) -> Mark:
        """The end of `requests` now: `wait` from here sees every answer to what is sent later."""
        return answers.mark(self._settings)

    def wait(
        self, request_id: str, seconds: float, *, since: Mark | None = None, command: Submitted | None = None
    ) -> RequestClosed | RequestRejected:
        """Listen until a request is closed, or a command of it rejected.

        Args:
            request_id: Of the request.
            seconds: How long, at most.
            since: From here on (`mark`); None reads all that the broker still has, which can take its time.
            command: Only the rejection of this one counts; None takes the newest answer that there is.

        Raises:
            NotOverError: neither came in time. The request goes on.
            UnreadableAnswerError: this version cannot read the answer.
            ValueError: no request id.
        """
        return answers.wait_for(self._settings, canonical_request_id(request_id), seconds, since=since, command=command)

    def closures(self, group: str, *, idle_seconds: float | None = None) -> Iterator[RequestClosed]:
        """Every closure, one after the other, shared by all who listen with this group.

        What was read is marked as dealt with when the next ones are asked for: after a crash some come again.
        The same closure has the same `closure.hash`.

        Args:
            group: Consumer group; names the listener for life.
            idle_seconds: End when nothing came for so long; None listens on.

        Raises:
            UnreadableAnswerError: this version cannot read an answer; it is not passed over.
        """
        return answers.closures(self._settings, group, idle_seconds)

    def close(self) -> None:
        """Let go of the connections."""
        close_producer(self._producer, 5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: type[BaseException] | None, __: BaseException | None, ___: TracebackType | None) -> None:
        self.close()

    def _send(self, command: SubjectCommand | WithdrawRequest | RecordNotice, traceparent: str | None) -> Submitted:
        value = event_of(command, source=self._source, traceparent=traceparent)
        if len(value) > MAX_COMMAND_BYTES:
            raise NotSentError(f"the command has {len(value)} bytes; up to {MAX_COMMAND_BYTES} can be sent")
        topic = self._settings.topic("commands")
        (sent,) = send_all(self._producer, [Outgoing(topic, value, command.request_id.encode())], SEND_SECONDS)
        if sent is None:
            raise NotSentError(
                f"Kafka did not confirm the command: see that topic {topic} exists (`keshi topics apply`), and send "
                f"the same again with its request id; a repeat does no harm"
            )
        return Submitted(sent.partition, sent.offset)
