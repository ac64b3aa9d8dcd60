"""From bytes to a message, or to one clear reason with its field. Nothing a sender chose is repeated."""

import json
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from keshi.schemas.base import IS_REQUEST_ID, MAX_SAFE_INTEGER, Model
from keshi.schemas.binary import HeaderFault, Headers, attributes, is_binary, size_of
from keshi.schemas.envelope import Attributes, Envelope
from keshi.schemas.requests import RejectionCode

M = TypeVar("M", bound=BaseModel)

NOT_JSON = "not_json"
NOT_A_CLOUDEVENT = "not_a_cloudevent"
TOO_LARGE = "too_large"
EMPTY = "empty"

_CODES = {
    "missing": RejectionCode.FIELD_MISSING,
    "extra_forbidden": RejectionCode.FIELD_UNKNOWN,
}


class Unreadable(Exception):  # noqa: N818 - it is a finding, not a failure of ours
    """A message that cannot be read: `reason` (a stable code), `field` if the schema knows it.

    `request_id` is set where the sender can be told.
    """

    def __init__(self, reason: str, field: str | None = None, request_id: str | None = None, detail: str = "") -> None:
        super().__init__(reason)
        self.reason = reason
        self.field = field
        self.request_id = request_id
        self.detail = detail or reason


def read(
    raw: bytes | None, models: Mapping[str, type[M]], *, limit: int, headers: Headers = ()
) -> tuple[Envelope[Any], M]:
    """Read one CloudEvent, in structured or binary mode, whose type is one of `models`.

    Args:
        raw: The value of the Kafka record.
        models: What is taken, CloudEvents type → model.
        limit: Bytes that are read, at most; in binary mode with the headers.
        headers: Of the record. Without any it is taken as structured.

    Raises:
        Unreadable: with the first reason found.
    """
    if not raw:
        raise Unreadable(EMPTY)
    if headers and is_binary(headers):
        return _read_binary(raw, headers, models, limit)
    if len(raw) > limit:
        raise Unreadable(TOO_LARGE)
    if len(models) == 1:
        (only,) = models
        with suppress(ValidationError):  # it is nearly always that one, and its type need not be looked at first
            envelope = _envelope(models[only]).model_validate_json(raw)
            if envelope.type == only:
                return envelope, envelope.data
    kind = _kind(raw)
    model = models.get(kind) if kind else None
    if model is None:
        raise _why_not(raw, kind)
    try:
        envelope = _envelope(model).model_validate_json(raw)
    except ValidationError as e:
        raise _explain(_tree(raw), model, e) from None
    return envelope, envelope.data


def _read_binary(raw: bytes, headers: Headers, models: Mapping[str, type[M]], limit: int) -> tuple[Envelope[Any], M]:
    if len(raw) + size_of(headers) > limit:
        raise Unreadable(TOO_LARGE)
    try:
        said = attributes(headers)
    except HeaderFault as e:
        raise _faulty(raw, e) from None
    model = models.get(said["type"])
    if model is None:
        raise _unknown_type(_binary_tree(raw))
    try:
        head = Attributes.model_validate_json(json.dumps(said))
    except ValidationError as e:
        raise _explain(said | _binary_tree(raw), model, e) from None
    try:
        data = model.model_validate_json(raw)
    except ValidationError as e:
        tree = _binary_tree(raw)
        raise _explain(tree if tree["data"] is not None else None, model, e, ("data",)) from None
    return _envelope(model).model_construct(**dict(head), data=data), data


def _faulty(raw: bytes, fault: HeaderFault) -> Unreadable:
    """Headers that cannot be read: the sender is told, if the data says whose request it is."""
    field = fault.attribute if fault.attribute in Attributes.model_fields else None
    request_id = _request_id(_binary_tree(raw))
    reason = RejectionCode.FIELD_INVALID if request_id else NOT_A_CLOUDEVENT
    return Unreadable(reason, field, request_id, fault.detail)


class _Peek(BaseModel):
    type: str


def _kind(raw: bytes) -> str | None:
    try:
        return _Peek.model_validate_json(raw).type
    except ValidationError:
        tree = _tree(raw)
        kind = tree.get("type") if isinstance(tree, dict) else None
        return kind if isinstance(kind, str) else None


_ENVELOPES: dict[type[BaseModel], type[Envelope[Any]]] = {}


def _envelope(model: type[BaseModel]) -> type[Envelope[Any]]:
    if model not in _ENVELOPES:
        _ENVELOPES[model] = Envelope[model]  # type: ignore[valid-type] # chosen at run time from a table
    return _ENVELOPES[model]


def _tree(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except (ValueError, RecursionError):
        return None


def _binary_tree(raw: bytes) -> dict[str, Any]:
    """The data of a message in binary mode where it would stand in a structured one."""
    return {"data": _tree(raw)}


def _request_id(tree: Any) -> str | None:
    data = tree.get("data") if isinstance(tree, dict) else None
    found = data.get("request_id") if isinstance(data, dict) else None
    if isinstance(found, str) and IS_REQUEST_ID.fullmatch(found):
        return found.lower() if "-" in found else found.upper()
    return None


def _why_not(raw: bytes, kind: str | None) -> Unreadable:
    tree = _tree(raw)
    if tree is None:
        return Unreadable(NOT_JSON)
    if not isinstance(tree, dict) or tree.get("specversion") != "1.0" or kind is None:
        return Unreadable(NOT_A_CLOUDEVENT)
    return _unknown_type(tree)


def _unknown_type(tree: dict[str, Any]) -> Unreadable:
    return Unreadable(
        RejectionCode.TYPE_UNKNOWN, "type", _request_id(tree), "this type or version of message is not known"
    )


def _explain(
    tree: dict[str, Any] | None, model: type[BaseModel], error: ValidationError, above: tuple[str, ...] = ()
) -> Unreadable:
    """Why a message is none.

    Args:
        tree: The whole message; None where it is no JSON.
        model: Of its data.
        error: What was found.
        above: Where in the message that stands which the error is about.
    """
    if tree is None:
        return Unreadable(NOT_JSON)
    request_id = _request_id(tree)
    for path, value in _leaves(tree):
        if isinstance(value, str) and any(c == "\x00" or "\ud800" <= c <= "\udfff" for c in value):
            field = _known(path, model)
            return Unreadable(
                RejectionCode.TEXT_INVALID, field, request_id, "text must not contain NUL or lone surrogates"
            )
        if isinstance(value, int) and abs(value) > MAX_SAFE_INTEGER:
            field = _known(path, model)
            return Unreadable(RejectionCode.NUMBER_TOO_LARGE, field, request_id, "integers end at 2^53 - 1")
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    at = (*above, *first["loc"])
    if not request_id and "data" not in at:
        return Unreadable(NOT_A_CLOUDEVENT, _known(at, model))
    code = _CODES.get(first["type"], RejectionCode.FIELD_INVALID)
    if "identifiers" in at and code is RejectionCode.FIELD_INVALID:
        code = RejectionCode.IDENTIFIER_INVALID
    if first["type"] == "extra_forbidden":
        at = at[:-1]
        return Unreadable(code, _known(at, model), request_id, "a field that this version of the message does not have")
    detail = first["msg"] if first["type"] in {"missing", "value_error"} else f"not valid: {first['type']}"
    return Unreadable(code, _known(at, model), request_id, detail[:400])


def _leaves(tree: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], Any]]:
    stack = [(path, tree)]
    while stack:
        at, node = stack.pop()
        if isinstance(node, dict):
            stack.extend(((*at, k), v) for k, v in node.items())
            yield from (((*at, "?"), k) for k in node)
        elif isinstance(node, list):
            stack.extend(((*at, i), v) for i, v in enumerate(node))
        else:
            yield at, node


def _known(path: tuple[Any, ...], model: type[BaseModel]) -> str | None:
    """`path` as far as the schema knows its names: a sender's own words are never repeated."""
    names = _names(model) | Envelope.model_fields.keys()
    known: list[str] = []
    for step in path:
        if isinstance(step, int):
            known.append(str(step))
        elif step in names:
            known.append(step)
        else:
            break
    return ".".join(known) or None


@cache
def _names(model: type[BaseModel]) -> frozenset[str]:
    schema = model.model_json_schema()
    parts = [schema, *schema.get("$defs", {}).values()]
    return frozenset(name for part in parts for name in part.get("properties", {}))


__all__ = ["EMPTY", "NOT_A_CLOUDEVENT", "NOT_JSON", "TOO_LARGE", "Model", "Unreadable", "read"]
