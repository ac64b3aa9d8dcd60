"""Commands on their way: what is sent, under which name."""

from dataclasses import dataclass, field
from typing import Final, TypeAlias

from pydantic import TypeAdapter, ValidationError

from keshi.schemas.base import Reference, RequestId
from keshi.schemas.commands import ACTIONS, RecordNotice, SubjectCommand, WithdrawRequest
from keshi.schemas.envelope import CONTENT_TYPE, wrap

Command: TypeAlias = SubjectCommand | WithdrawRequest | RecordNotice
"""What a DSAR system can send."""

HEADERS: Final = [("content-type", CONTENT_TYPE.encode())]
SUBJECT_KINDS: Final = frozenset(model.__name__ for model in ACTIONS)
_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)
_REFERENCE: TypeAdapter[str] = TypeAdapter(Reference)


@dataclass(frozen=True, slots=True)
class Message:
    """One command as it goes over the wire.

    Attributes:
        request_id: In its canonical form; the Kafka key.
        kind: Name of the command, such as `EraseSubject`.
        value: The CloudEvent (structured mode, JSON). None: it was sent before, and is only listened for.
    """

    request_id: str
    kind: str
    value: bytes | None = field(repr=False)


def canonical_request_id(text: str) -> str:
    """The one form of a request id: UUIDs in small letters, ULIDs in capitals.

    Raises:
        ValueError: it is neither a UUID nor a ULID. Its text repeats nothing.
    """
    try:
        return _REQUEST_ID.validate_python(text)
    except ValidationError:
        raise ValueError("a request id is a UUID or a ULID") from None


def reference(text: str) -> str:
    """A reference, `kind:id`, as it was given.

    Raises:
        ValueError: it is none. Its text repeats nothing.
    """
    try:
        return _REFERENCE.validate_python(text)
    except ValidationError:
        raise ValueError("a notice is a reference, `kind:id`") from None


def event_of(command: Command, *, source: str, traceparent: str | None = None) -> bytes:
    """A command as the CloudEvent that is sent. Its id says the same of the same command."""
    kind = type(command).__name__
    return wrap(command, kind=kind, id=f"{command.request_id}/{kind}", source=source, traceparent=traceparent)


def message_of(command: "Command | Message", *, source: str, traceparent: str | None = None) -> Message:
    """A command made ready; a message stays as it is."""
    if isinstance(command, Message):
        return command
    value = event_of(command, source=source, traceparent=traceparent)
    return Message(command.request_id, type(command).__name__, value)
