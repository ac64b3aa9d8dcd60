"""CloudEvents 1.0: the attributes of a message, and its structured form (CloudEvents Kafka binding, section 3.3)."""

from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

import orjson
from pydantic import BaseModel, StringConstraints

from keshi.schemas.base import Model, Moment, Traceparent

CONTENT_TYPE = "application/cloudevents+json; charset=UTF-8"
MAX_COMMAND_BYTES = 262_144
"""A command is a few kilobytes; anything past this is quarantined unread."""

D = TypeVar("D", bound=BaseModel)

_Attribute = Annotated[str, StringConstraints(min_length=1, max_length=256, pattern=r"^[^\x00-\x1f\x7f]+$")]


class Attributes(Model):
    """All of a CloudEvent but its data. `subject` and `tracestate` are accepted from senders and never copied on."""

    specversion: Literal["1.0"] = "1.0"
    id: _Attribute
    source: _Attribute
    type: _Attribute
    subject: _Attribute | None = None
    time: Moment | None = None
    datacontenttype: Literal["application/json"] = "application/json"
    dataschema: _Attribute | None = None
    traceparent: Traceparent | None = None
    tracestate: Annotated[str, StringConstraints(max_length=512, pattern=r"^[^\x00-\x1f\x7f]*$")] | None = None


class Envelope(Attributes, Generic[D]):
    """One CloudEvent."""

    data: D


def wrap(
    data: BaseModel,
    *,
    kind: str,
    id: str,  # noqa: A002 - the name in the standard
    source: str,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> bytes:
    """Serialise `data` as one structured CloudEvent.

    `id` is deterministic for everything that keshi sends, so that receivers can drop repeats.
    """
    text = data.model_dump_json(exclude_none=True).encode()
    return enveloped(text, kind=kind, id=id, source=source, time=time, traceparent=traceparent)


def enveloped(
    data: bytes,
    *,
    kind: str,
    id: str,  # noqa: A002 - the name in the standard
    source: str,
    time: datetime | None = None,
    traceparent: str | None = None,
) -> bytes:
    """The same for data that are JSON already."""
    body: dict[str, Any] = {
        "specversion": "1.0",
        "id": id,
        "source": source,
        "type": f"keshi.{kind}.v1",
        "time": time or datetime.now(UTC),
        "datacontenttype": "application/json",
    }
    if traceparent:
        body["traceparent"] = traceparent
    head = orjson.dumps(body, option=orjson.OPT_UTC_Z)
    return head[:-1] + b',"data":' + data + b"}"
