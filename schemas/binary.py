"""CloudEvents 1.0 in binary mode: attributes in Kafka headers, data as the value (CloudEvents Kafka binding, 3.2).

A message is in binary mode if it has `ce_` headers and no `content-type` that says otherwise. One without headers, as
a console producer sends it, is in structured mode.
"""

from collections.abc import Sequence
from typing import Final

PREFIX: Final = "ce_"
CONTENT_TYPE: Final = "content-type"
_STRUCTURED: Final = "application/cloudevents"
_JSON: Final = "application/json"
_NEEDED: Final = ("specversion", "type")

Headers = Sequence[tuple[str, bytes | None]]
"""The headers of one record, in their order: names may come twice, values may be absent."""


class HeaderFault(Exception):  # noqa: N818 - a finding
    """A header that cannot be read; `attribute` is as the sender wrote it, the text repeats nothing."""

    def __init__(self, attribute: str, detail: str) -> None:
        super().__init__(detail)
        self.attribute = attribute
        self.detail = detail


def is_binary(headers: Headers) -> bool:
    """Whether these are the headers of a CloudEvent in binary mode."""
    if not any(name.startswith(PREFIX) for name, _ in headers):
        return False
    types = [(value or b"").strip().lower() for name, value in headers if name.lower() == CONTENT_TYPE]
    return not types or not all(t.startswith(_STRUCTURED.encode()) for t in types)


def size_of(headers: Headers) -> int:
    """Bytes of all names and values."""
    return sum(len(name.encode("utf-8", "surrogatepass")) + len(value or b"") for name, value in headers)


def attributes(headers: Headers) -> dict[str, str]:
    """The attributes that headers give, unjudged; headers of others are left out.

    Raises:
        HeaderFault: one is there twice, or is no text; one is missing that says how to read the rest.
    """
    found: dict[str, str] = {}
    for name, value in headers:
        attribute = _attribute(name)
        if attribute is None:
            continue
        if attribute in found:
            raise HeaderFault(attribute, "this header is there more than once")
        try:
            found[attribute] = (value or b"").decode()
        except UnicodeDecodeError:
            raise HeaderFault(attribute, "this header is not UTF-8") from None
    for needed in _NEEDED:
        if needed not in found:
            raise HeaderFault(needed, f"binary mode needs the header {PREFIX}{needed}")
    if "datacontenttype" in found:
        found["datacontenttype"] = _plain(found["datacontenttype"])
    return found


def _attribute(name: str) -> str | None:
    if name.lower() == CONTENT_TYPE:
        return "datacontenttype"
    return name[len(PREFIX) :] if name.startswith(PREFIX) else None


def _plain(media_type: str) -> str:
    """`application/json` for all that means the same. JSON between systems is UTF-8 (RFC 8259, section 8.1)."""
    kind, *parameters = (part.strip().lower() for part in media_type.split(";"))
    return _JSON if kind == _JSON and set(parameters) <= {"", "charset=utf-8", 'charset="utf-8"'} else media_type
