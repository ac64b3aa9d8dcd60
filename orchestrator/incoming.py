"""Reading the topic `reports`: one bad report in a list harms no other. And what is kept of what cannot be read."""

import json
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from keshi.orchestrator.cycle import belongs_here
from keshi.orchestrator.stream.port import Record
from keshi.schemas.binary import is_binary
from keshi.schemas.reading import NOT_JSON, Unreadable, read
from keshi.schemas.reports import Report, TasksReported

MAX_REPORT_BYTES = 1_048_576
_TYPES = {"keshi.TasksReported.v1": TasksReported}
_REPORT: TypeAdapter[Any] = TypeAdapter(Report)


@dataclass(frozen=True, slots=True)
class BadPart:
    """Something in a message that could not be taken: why, and its bytes (to be sealed)."""

    reason: str
    field: str | None
    payload: bytes


def whole(record: Record) -> bytes:
    """A record as it is kept when it cannot be taken: in binary mode its headers are a part of the message."""
    value = record.value or b""
    if not is_binary(record.headers):
        return value
    lines = (f"{name}: ".encode("utf-8", "surrogatepass") + (text or b"") for name, text in record.headers)
    return b"\n".join((*lines, b"", value))


def read_reports(raw: bytes | None, partition: int, partitions: int) -> tuple[list[Report], list[BadPart]]:
    """The reports of one record, and what in it could not be read."""
    try:
        _, data = read(raw, _TYPES, limit=MAX_REPORT_BYTES)
        found = list(data.reports)
        bad: list[BadPart] = []
    except Unreadable as u:
        found, bad = _one_by_one(raw or b"", u)
    good: list[Report] = []
    strays: list[Report] = []
    for r in found:
        (good if belongs_here(r.request_id, partition, partitions) else strays).append(r)
    bad.extend(BadPart("wrong_partition", None, r.model_dump_json().encode()) for r in strays)
    return good, bad


def _one_by_one(raw: bytes, why: Unreadable) -> tuple[list[Report], list[BadPart]]:
    whole = BadPart(str(why.reason), why.field, raw)
    if why.reason == NOT_JSON or len(raw) > MAX_REPORT_BYTES:
        return [], [whole]
    try:
        tree = json.loads(raw)
        parts = tree["data"]["reports"] if tree["type"] in _TYPES else None
    except (ValueError, RecursionError, KeyError, TypeError):
        return [], [whole]
    if not isinstance(parts, list) or not parts:
        return [], [whole]
    found: list[Report] = []
    bad: list[BadPart] = []
    for part in parts:
        try:
            found.append(_REPORT.validate_json(json.dumps(part)))
        except (ValidationError, ValueError):
            bad.append(BadPart("report_invalid", None, json.dumps(part).encode("utf-8", "surrogatepass")))
    return (found, bad) if bad else ([], [whole])
