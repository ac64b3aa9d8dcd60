"""Lines of an export: a request as the API wrote it, or one row for each outcome in each system (RFC 4180)."""

import csv
import io
import json
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from keshi.orchestrator.views import Exported
from keshi.schemas.outcomes import CategoryOutcome

COLUMNS: Final = (
    *("request_id", "number", "action", "regime", "ground", "requested_by", "status", "verdict"),
    *("withdrawn", "superseded_by"),
    *("arrived", "accepted", "due", "closed", "late", "notified"),
    *("system", "task", "category", "outcome", "count", "decided_by", "outcome_ground", "until", "reason"),
    "hash",
)
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")
"""What a spreadsheet takes for a formula, or for the end of the cell before one."""


def header() -> str:
    """The first line."""
    return _csv(COLUMNS)


def rows_of(one: Exported) -> Iterator[str]:
    """The rows of one request: one for each outcome; of a task without one yet, its status."""
    request, record = one.request, one.closure
    common = {
        "request_id": request.request_id,
        "number": one.number,
        "action": request.action,
        "regime": one.regime,
        "ground": one.ground,
        "requested_by": one.requested_by.kind,
        "status": request.status,
        "verdict": request.verdict,
        "withdrawn": request.withdrawn,
        "superseded_by": request.superseded_by,
        "arrived": request.arrived_at,
        "accepted": request.accepted_at,
        "due": request.due_at,
        "closed": request.closed_at,
        "late": request.closed_at > request.due_at if request.closed_at else request.overdue,
        "notified": one.notified_at,
        "hash": record.hash if record else request.closure_hash,
    }
    for system, task, outcomes in _systems(one):
        for outcome in outcomes or (None,):
            row = {**common, "system": system, "task": task, **_outcome(outcome)}
            yield _csv([_cell(row.get(name)) for name in COLUMNS])


def _systems(one: Exported) -> Iterator[tuple[str, str, tuple[CategoryOutcome, ...]]]:
    if one.closure is not None:
        yield from ((s.system, "ended", s.outcomes) for s in one.closure.systems)
    else:
        yield from ((t.system, t.status.value, t.outcomes) for t in one.request.tasks)


def _outcome(outcome: CategoryOutcome | None) -> dict[str, Any]:
    if outcome is None:
        return {}
    return {
        "category": outcome.category,
        "outcome": outcome.outcome,
        "count": outcome.count,
        "decided_by": outcome.decided_by,
        "outcome_ground": outcome.ground,
        "until": outcome.until,
        "reason": outcome.reason,
    }


def _cell(value: Any) -> str:
    """A value as text that no spreadsheet takes for a formula."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    text = value.isoformat().replace("+00:00", "Z") if isinstance(value, datetime) else str(value)
    return f"'{text}" if text.startswith(_FORMULA) else text


def _csv(cells: Any) -> str:
    line = io.StringIO()
    csv.writer(line).writerow(cells)
    return line.getvalue()


def line_of(page: str) -> Iterator[str]:
    """The requests of a page, each as one line of JSON with the same values in the same order."""
    for one in json.loads(page)["requests"]:
        yield json.dumps(one, ensure_ascii=False, separators=(",", ":"))
