"""The MA tool's API: a call in, a reply out. What HTTP needs around it is in `serving`.

| call | answer |
| --- | --- |
| `POST /v1/{kind}:search` `{<field>: [values], …, limit, after}` | a page of records with any of them |
| `POST /v1/records:read` `{refs: ["contacts:M-000001-1", …]}` | `found` (records by ref) and `gone` (refs) |
| `POST /v1/{contacts,cookies,mails}:suppress`, `:unsuppress` `{ids, by}` | the records as they are now |
| `POST /v1/{contacts,cookies}:stop-provision` `{ids, by}` | the records as they are now |
| `POST /v1/deletions` `{key, reference, refs}` | 202 and the job |
| `GET /v1/deletions/{id}`, `POST /v1/deletions:search` `{id or reference: […], limit, after}` | jobs |
| `POST /v1/events` `{cookie_id, kind, page}` | whether it was `collected` |
| `GET /v1/exports/{partner}?limit=&after=` | a page of contacts that a partner is given |
| `GET /v1/limits` | how many calls are left; costs none |

Kinds are contacts, cookies, behaviour, lists and mails. A record says under `suppressed` and `provision_stopped` which
marks are in force on it, `{ref, by}`: its own, and those of the records that it `follows`. To suppress what carries
another marker changes nothing; `unsuppress` takes off a marker that is the caller's.

Values to search by travel in the body, never in an address, because addresses end up in logs. Errors: 400
`bad_request`, 401 `unauthorized`, 404 `gone` or `no_such_path`, 405 `no_such_method`, 409 `key_in_use`, 413
`too_large`, 429 `too_many_calls`, 500 `internal`, 503 `stopping`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from keshi.dev.systems.calls import (
    BadRequestError,
    Call,
    Reply,
    Routes,
    Row,
    carried_out,
    failure,
    limit_of,
    object_of,
    page_of,
    text_of,
    texts_of,
)
from keshi.dev.systems.ma_tool.people import PARTNERS
from keshi.dev.systems.ma_tool.store import MARKS, SEARCHABLE, Store

if TYPE_CHECKING:
    from collections.abc import Callable

    from keshi.dev.systems.ma_tool.bucket import Bucket
    from keshi.dev.systems.ma_tool.jobs import Jobs

FREE: Final = frozenset({"/healthz", "/v1/limits"})
MAX_VALUES: Final = 100
MAX_REFS: Final = 500
MAX_DELETED: Final = 5_000
_SUPPRESSED, _STOPPED = MARKS


@dataclass(frozen=True)
class Tool:
    """What calls are carried out on.

    Attributes:
        store: the records.
        jobs: that delete.
        bucket: of calls.
        before_write: called once before each change.
        wake: called when there is work that no caller waits for.
    """

    store: Store = field(repr=False)
    jobs: Jobs
    bucket: Bucket
    before_write: Callable[[], None]
    wake: Callable[[], None]


def answer(tool: Tool, call: Call) -> Reply:
    """Carries out one call, if there is one left."""
    seconds = 0 if call.path in FREE else tool.bucket.take()
    if seconds:
        refused = failure(429, "too_many_calls", "so many calls are too many: wait as Retry-After says")
        return Reply(refused.status, refused.payload, "limit", {"Retry-After": str(seconds)})
    return carried_out(_ROUTES, tool, call)


def _health(_tool: Tool, _at: dict[str, str], _call: Call) -> Row:
    return {"status": "ok"}


def _limits(tool: Tool, _at: dict[str, str], _call: Call) -> Row:
    return {"calls_left": tool.bucket.left()}


def _search(tool: Tool, at: dict[str, str], call: Call) -> Row:
    fields = SEARCHABLE[at["kind"]]
    body = object_of(call, {*fields, "limit", "after"})
    wanted = {name: texts_of(body[name], name, MAX_VALUES) for name in fields if name in body}
    if not any(wanted.values()):
        raise BadRequestError(f"name at least one value of {', '.join(fields)}")
    limit = limit_of(body.get("limit", 50))
    after = text_of(body.get("after", ""), "after")
    return page_of(tool.store.search(at["kind"], wanted, after=after, limit=limit + 1), limit)


def _read(tool: Tool, _at: dict[str, str], call: Call) -> Row:
    refs = _refs(object_of(call, {"refs"}).get("refs"), MAX_REFS)
    found: dict[str, Row] = {}
    for kind in SEARCHABLE:
        ids = [ref.partition(":")[2] for ref in refs if ref.partition(":")[0] == kind]
        found |= {f"{kind}:{row['id']}": row for row in (tool.store.read(kind, ids) if ids else ())}
    return {"found": found, "gone": [ref for ref in refs if ref not in found]}


def _refs(value: object, most: int) -> list[str]:
    refs = texts_of(value, "refs", most)
    if any(ref.partition(":")[0] not in SEARCHABLE for ref in refs):
        raise BadRequestError(f"a ref starts with one of {', '.join(SEARCHABLE)} and a colon")
    return refs


def _mark(tool: Tool, at: dict[str, str], call: Call) -> Row:
    body = object_of(call, {"ids", "by"})
    ids, by = texts_of(body.get("ids"), "ids", MAX_VALUES), text_of(body.get("by"), "by")
    if not ids or not by:
        raise BadRequestError("give ids and by (who asks)")
    mark = _STOPPED if at["what"] == "stop-provision" else _SUPPRESSED
    if at["kind"] not in MARKS[mark]:
        raise BadRequestError(f"this can be asked of {', '.join(MARKS[mark])}")
    tool.before_write()
    off = at["what"] == "unsuppress"
    rows = tool.store.mark(at["kind"], mark, ids, None if off else by, only=by if off else None)
    tool.wake()
    return {"items": rows}


def _delete(tool: Tool, _at: dict[str, str], call: Call) -> Reply:
    body = object_of(call, {"key", "reference", "refs"})
    key, reference = text_of(body.get("key"), "key"), text_of(body.get("reference"), "reference")
    refs = _refs(body.get("refs"), MAX_DELETED)
    if not key or not reference or not refs:
        raise BadRequestError("give a key, a reference, and refs of the records to delete")
    tool.before_write()
    job = tool.jobs.ask(key, reference, refs)
    tool.wake()
    return Reply(202, job)


def _job(tool: Tool, at: dict[str, str], _call: Call) -> Row:
    return tool.jobs.get(at["id"])


def _jobs(tool: Tool, _at: dict[str, str], call: Call) -> Row:
    body = object_of(call, {"id", "reference", "limit", "after"})
    given = [name for name in ("id", "reference") if name in body]
    if len(given) != 1:
        raise BadRequestError("give either id or reference")
    values = texts_of(body[given[0]], given[0], MAX_VALUES)
    limit, after = limit_of(body.get("limit", 50)), text_of(body.get("after", ""), "after")
    return page_of(tool.jobs.search(given[0], values, after=after, limit=limit + 1), limit)


def _event(tool: Tool, _at: dict[str, str], call: Call) -> Row:
    body = object_of(call, {"cookie_id", "kind", "page"})
    cookie, kind, page = (text_of(body.get(name), name) for name in ("cookie_id", "kind", "page"))
    if not cookie:
        raise BadRequestError("give the cookie_id of the visitor")
    tool.before_write()
    return {"collected": tool.store.collect(cookie, kind, page)}


def _export(tool: Tool, _at: dict[str, str], call: Call) -> Row:
    fields = dict(parse_qsl(call.query, keep_blank_values=True))
    if not fields.keys() <= {"limit", "after"}:
        raise BadRequestError("the query takes limit and after")
    given = fields.get("limit", "50")
    limit = limit_of(int(given) if re.fullmatch(r"[0-9]{1,6}", given) else None)
    after = text_of(fields.get("after", ""), "after")
    return page_of(tool.store.export(after=after, limit=limit + 1), limit)


_ROUTES: Routes[Tool] = (
    ("healthz", r"/healthz", {"GET": _health}),
    ("limits", r"/v1/limits", {"GET": _limits}),
    ("search", rf"/v1/(?P<kind>{'|'.join(SEARCHABLE)}):search", {"POST": _search}),
    ("read", r"/v1/records:read", {"POST": _read}),
    ("mark", rf"/v1/(?P<kind>{'|'.join(SEARCHABLE)}):(?P<what>suppress|unsuppress|stop-provision)", {"POST": _mark}),
    ("deletions", r"/v1/deletions", {"POST": _delete}),
    ("deletion", r"/v1/deletions/(?P<id>D-[0-9a-f]{32})", {"GET": _job}),
    ("jobs", r"/v1/deletions:search", {"POST": _jobs}),
    ("events", r"/v1/events", {"POST": _event}),
    ("export", rf"/v1/exports/(?:{'|'.join(PARTNERS)})", {"GET": _export}),
)
