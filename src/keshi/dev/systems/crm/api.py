"""The CRM's API: a call in, a reply out. What HTTP needs around it is in `server`.

| call | answer |
| --- | --- |
| `POST /v1/contacts:search` `{email: […], phone: […], customer_id: […], limit, after}` | contacts with any |
| `GET /v1/contacts/{id}/duplicates`, `/cards`, `/activities` (`?limit=&after=`) | a page of them |
| `POST /v1/records:read` `{refs: ["contacts:P-000001", …]}` | `found` (records by ref) and `gone` (refs) |
| `GET /v1/{contacts,cards,activities}/{id}` | the record |
| `PATCH /v1/{kind}/{id}` `{status, suspended_by}` | the record as it is now |
| `DELETE /v1/{kind}/{id}` | 204 |

A page is `{"items": […], "next": "…" | null}`; the next one is asked for with `after` set to `next`.
Values to search by travel in the body, never in an address, because addresses end up in logs. An error is
`{"code": …, "message": …}`: 400 `bad_request`, 401 `unauthorized`, 404 `gone` or `no_such_path`, 405
`no_such_method`, 409 `has_children` or `suspended_by_other`, 413 `too_large`, 500 `internal`, 503 `stopping`.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn
from urllib.parse import parse_qsl

from keshi.dev.systems.crm.store import KINDS, SEARCHABLE, ConflictError, GoneError, Row, Store

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_BODY = 256 * 1024
MAX_PAGE = 200
MAX_VALUES = 100
MAX_REFS = 1_000
MAX_TEXT = 1_000


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    query: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back; `route` is the pattern that matched, fit for a log."""

    status: int
    payload: dict[str, Any] | None = field(default=None, repr=False)
    route: str = "?"


class BadRequestError(Exception):
    """The call does not say what it must; the message names own fields only, never a sent value."""


def failure(status: int, code: str, message: str, route: str = "?") -> Reply:
    return Reply(status, {"code": code, "message": message}, route)


def answer(store: Store, call: Call, *, before_write: Callable[[], None]) -> Reply:
    """Carries out one call.

    Args:
        store: the records.
        call: what was asked.
        before_write: called once before each change (tests slow a write with it).
    """
    fitting = ((name, m, methods) for name, pattern, methods in _ROUTES if (m := re.fullmatch(pattern, call.path)))
    route, match, methods = next(fitting, ("?", None, {}))
    if match is None:
        return failure(404, "no_such_path", "there is no such path")
    run = methods.get(call.method)
    if run is None:
        return failure(405, "no_such_method", f"this path takes {', '.join(methods)}", route)
    if call.method in {"PATCH", "DELETE"}:
        before_write()
    try:
        payload = run(store, match.groupdict(), call)
    except BadRequestError as error:
        return failure(400, "bad_request", str(error), route)
    except GoneError:
        return failure(404, "gone", "there is no such record", route)
    except ConflictError as error:
        return failure(409, error.code, str(error), route)
    return Reply(204 if payload is None else 200, payload, route)


def _health(_store: Store, _at: dict[str, str], _call: Call) -> Row:
    return {"status": "ok"}


def _search(store: Store, _at: dict[str, str], call: Call) -> Row:
    body = _object(call, {*SEARCHABLE, "limit", "after"})
    wanted = {name: _texts(body[name], name, MAX_VALUES) for name in SEARCHABLE if name in body}
    if not any(wanted.values()):
        raise BadRequestError(f"name at least one value of {', '.join(SEARCHABLE)}")
    limit, after = _limit(body.get("limit", 50)), _text(body.get("after", ""), "after")
    return _page(store.search(wanted, after=after, limit=limit + 1), limit)


def _children(store: Store, at: dict[str, str], call: Call) -> Row:
    fields = dict(parse_qsl(call.query, keep_blank_values=True))
    if not fields.keys() <= {"limit", "after"}:
        raise BadRequestError("the query takes limit and after")
    given = fields.get("limit", "50")
    limit, after = _limit(int(given) if re.fullmatch(r"[0-9]{1,6}", given) else None), fields.get("after", "")
    after = _text(after, "after")
    if at["kind"] == "duplicates":
        return _page(store.duplicates(at["id"], after=after, limit=limit + 1), limit)
    return _page(store.children(at["kind"], at["id"], after=after, limit=limit + 1), limit)


def _read(store: Store, _at: dict[str, str], call: Call) -> Row:
    refs = _texts(_object(call, {"refs"}).get("refs"), "refs", MAX_REFS)
    ids: dict[str, list[str]] = {kind: [] for kind in KINDS}
    for ref in refs:
        kind, _, record_id = ref.partition(":")
        if kind not in ids:
            raise BadRequestError(f"a ref starts with one of {', '.join(KINDS)} and a colon")
        ids[kind].append(record_id)
    found = {f"{kind}:{row['id']}": row for kind, some in ids.items() if some for row in store.read(kind, some)}
    return {"found": found, "gone": [ref for ref in refs if ref not in found]}


def _get(store: Store, at: dict[str, str], _call: Call) -> Row:
    return store.get(at["kind"], at["id"])


def _patch(store: Store, at: dict[str, str], call: Call) -> Row:
    body = _object(call, {"status", "suspended_by"})
    status, marker = body.get("status"), _text(body.get("suspended_by"), "suspended_by")
    if status not in {"active", "suspended"} or not marker:
        raise BadRequestError("give status (active or suspended) and suspended_by (who asks)")
    return store.mark(at["kind"], at["id"], status, marker)


def _delete(store: Store, at: dict[str, str], _call: Call) -> None:
    store.delete(at["kind"], at["id"])


_RECORD = rf"/v1/(?P<kind>{'|'.join(KINDS)})/(?P<id>[A-Z]-[0-9]{{1,12}})"
_ROUTES: tuple[tuple[str, str, dict[str, Callable[[Store, dict[str, str], Call], Row | None]]], ...] = (
    ("healthz", r"/healthz", {"GET": _health}),
    ("search", r"/v1/contacts:search", {"POST": _search}),
    ("read", r"/v1/records:read", {"POST": _read}),
    (
        "children",
        r"/v1/contacts/(?P<id>P-[0-9]{1,12})/(?P<kind>duplicates|cards|activities)",
        {"GET": _children},
    ),
    ("record", _RECORD, {"GET": _get, "PATCH": _patch, "DELETE": _delete}),
)


def _page(rows: list[Row], limit: int) -> Row:
    return {"items": rows[:limit], "next": rows[limit - 1]["id"] if len(rows) > limit else None}


def _object(call: Call, fields: set[str]) -> Row:
    try:
        body = json.loads(call.body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(body, dict) or not body.keys() <= fields:
        raise BadRequestError(f"the body is an object with no fields but {', '.join(sorted(fields))}")
    return body


def _refuse(_name: str) -> NoReturn:
    raise ValueError


def _texts(value: object, name: str, most: int) -> list[str]:
    if not isinstance(value, list) or len(value) > most:
        raise BadRequestError(f"{name} is a list of at most {most}")
    return [_text(one, name) for one in value]


def _text(value: object, name: str) -> str:
    if not isinstance(value, str) or len(value) > MAX_TEXT or "\0" in value or not _encodable(value):
        raise BadRequestError(f"{name} takes text of at most {MAX_TEXT} characters")
    return value


def _encodable(value: str) -> bool:
    """False for a lone surrogate, which JSON can spell and the store cannot hold."""
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True


def _limit(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_PAGE:
        raise BadRequestError(f"limit is a number from 1 to {MAX_PAGE}")
    return value
