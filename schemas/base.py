"""What every model at a border shares: closed, frozen, strict; text without NUL; times with a zone."""

import hashlib
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import cache
from typing import Annotated, Any, ClassVar, Final, ParamSpec, TypeVar

import orjson
import rfc8785
from pydantic import AfterValidator, AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

P = ParamSpec("P")
M = TypeVar("M", bound=BaseModel)

MAX_SAFE_INTEGER = 2**53 - 1
"""Largest integer that every JSON reader keeps exactly (RFC 8259, section 6)."""

_UUID = r"[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}"
_ULID = r"[0-7][0-9A-HJKMNP-TV-Za-hjkmnp-tv-z]{25}"


class Model(BaseModel):
    """Base of all messages: unknown fields are refused, nothing is coerced, nothing changes."""

    model_config: ClassVar[ConfigDict] = ConfigDict(
        extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, ser_json_timedelta="iso8601"
    )


def made(model: Callable[P, M], *_: P.args, **fields: P.kwargs) -> M:
    """A model of what is known to fit: values that were checked when they came in are not checked again."""
    blank, names = _blank(model)
    found: M = _filled(model, {**blank, **fields}, names)
    return found


def changed(model: M, fields: Mapping[str, Any]) -> M:
    """A copy with other values in these fields. They are not checked."""
    found: M = _filled(type(model), {**model.__dict__, **fields}, model.__pydantic_fields_set__)
    return found


def _filled(model: Any, members: dict[str, Any], names: set[str]) -> Any:
    new = _new(model)
    _set(new, "__dict__", members)
    _set(new, "__pydantic_fields_set__", names)
    _set(new, "__pydantic_extra__", None)
    _set(new, "__pydantic_private__", None)
    return new


_new: Final = object.__new__
_set: Final = object.__setattr__


@cache
def _blank(model: Any) -> tuple[dict[str, Any], set[str]]:
    """All fields in their order, with their defaults; those that are made anew each time have to be given."""
    fields = model.model_fields
    missing = {n for n, f in fields.items() if f.is_required() or f.default_factory}
    return {n: ... if n in missing else f.default for n, f in fields.items()}, set(fields)


def _no_nul(text: str) -> str:
    if "\x00" in text:
        raise ValueError("must not contain NUL")
    return text


def _canonical_request_id(text: str) -> str:
    return text.lower() if "-" in text else text.upper()


RequestId = Annotated[
    str,
    StringConstraints(pattern=rf"^(?:{_UUID}|{_ULID})$"),
    AfterValidator(_canonical_request_id),
    Field(description="UUID or ULID chosen by the sender; names the request for life."),
]

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,62}$")]
"""A system, a data category or a purpose, as the inventory calls it."""

RuleId = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9]*(?:[.-][a-z0-9]+){0,7}$", max_length=80)]
"""A ground in a dated rule file, such as `appi.35-1` or `gdpr.17`."""

Reference = Annotated[
    str,
    StringConstraints(pattern=r"^[a-z][a-z0-9-]{0,31}:[A-Za-z0-9][A-Za-z0-9._-]{0,79}$"),
    Field(description="An opaque reference, `kind:id`. Never an e-mail address, a phone number or a name."),
]

Code = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,63}$")]
"""A stable word of ours that programs may compare."""

FreeText = Annotated[str, StringConstraints(min_length=1, max_length=2000), AfterValidator(_no_nul)]
"""Text that a person wrote. It is sealed as soon as it is accepted."""

RecordReference = Annotated[str, StringConstraints(min_length=1, max_length=200), AfterValidator(_no_nul)]
"""One record in a system, as that system names it (`4711`). Travels only over HTTP, kept only sealed."""

Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]
"""SHA-256 or HMAC-SHA-256, hexadecimal."""

Sealed = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]+$", max_length=200_000)]
"""Compact JWE (RFC 7516), `alg=dir`, `enc=A256GCM`."""

Traceparent = Annotated[str, StringConstraints(pattern=r"^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$")]
"""W3C Trace Context, version 00."""

Count = Annotated[int, Field(ge=0, le=MAX_SAFE_INTEGER)]
Moment = AwareDatetime
Language = Annotated[str, StringConstraints(pattern=r"^[a-z]{2,3}(?:-[A-Z]{2})?$")]
Country = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}$")]


def canonical(data: Any) -> bytes:
    """Canonical JSON (RFC 8785) of plain data or of a model. What a model does not have is left out, as on the wire."""
    if isinstance(data, BaseModel):
        data = data.model_dump(mode="json", exclude_none=True)
    if _simple(data):
        # orjson writes these alike, in a fraction of the time; a test holds it against the other.
        with suppress(TypeError):  # a lone surrogate: the other says so in its own words
            return orjson.dumps(data, option=orjson.OPT_SORT_KEYS)
    return bytes(rfc8785.dumps(data))


def canonical_object(members: Mapping[str, bytes]) -> bytes:
    """The canonical JSON of an object from that of its members; their names are ASCII."""
    return orjson.dumps({name: orjson.Fragment(text) for name, text in members.items()}, option=orjson.OPT_SORT_KEYS)


_PLAIN: Final = frozenset({str, bool, type(None)})


def _simple(data: Any) -> bool:
    """Whether no rule of RFC 8785 is needed here but the order of keys in ASCII: no float, no large integer."""
    kind = type(data)
    if kind is dict:
        for name, value in data.items():
            if type(name) is not str or not name.isascii() or not (type(value) in _PLAIN or _simple(value)):
                return False
        return True
    if kind is list or kind is tuple:
        return all(type(value) in _PLAIN or _simple(value) for value in data)
    if kind is int:
        return bool(-MAX_SAFE_INTEGER <= data <= MAX_SAFE_INTEGER)
    return kind in _PLAIN


def sha256(data: Any) -> str:
    """Hexadecimal SHA-256 of the canonical JSON of `data`."""
    return hashlib.sha256(canonical(data)).hexdigest()


IS_REQUEST_ID = re.compile(rf"^(?:{_UUID}|{_ULID})$")
