"""The CRM's API: a call in, a reply out. What HTTP needs around it is in `serving`.

| call | answer |
| --- | --- |
| `POST /v1/contacts:search` `{email: […], phone: […], customer_id: […], limit, after}` | contacts with any |
| `GET /v1/contacts/{id}/duplicates`, `/cards`, `/activities` (`?limit=&after=`) | a page of them |
| `POST /v1/records:read` `{refs: ["contacts:P-000001", …]}` | `found` (records by ref) and `gone` (refs) |
| `GET /v1/{contacts,cards,activities}/{id}` | the record |
| `PATCH /v1/{kind}/{id}` `{status, suspended_by}` | the record as it is now |
| `DELETE /v1/{kind}/{id}` | 204 |

Values to search by travel in the body, never in an address, because addresses end up in logs. Errors: 400
`bad_request`, 401 `unauthorized`, 404 `gone` or `no_such_path`, 405 `no_such_method`, 409 `has_children` or
`suspended_by_other`, 413 `too_large`, 500 `internal`, 503 `stopping`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from keshi.dev.systems.calls import (
    BadRequestError,
    Call,
    Reply,
    Routes,
    Row,
    carried_out,
    limit_of,
    object_of,
    page_of,
    text_of,
    texts_of,
)
from keshi.dev.systems.crm.store import KINDS, SEARCHABLE, Store

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_VALUES = 100
MAX_REFS = 1_000


def answer(store: Store, call: Call, *, before_write: Callable[[], None]) -> Reply:
    """Carries out one call.

    Args:
        store: the records.
        call: what was asked.
        before_write: called once before each change (tests slow a write with it).
    """
    if call.method in {"PATCH", "DELETE"}:
        before_write()
    return carried_out(_ROUTES, store, call)


def _health(_store: Store, _at: dict[str, str], _call: Call) -> Row:
    return {"status": "ok"}


def _search(store: Store, _at: dict[str, str], call: Call) -> Row:
    body = object_of(call, {*SEARCHABLE, "limit", "after"})
    wanted = {name: texts_of(body[name], name, MAX_VALUES) for name in SEARCHABLE if name in body}
    if not any(wanted.values()):
        raise BadRequestError(f"name at least one value of {', '.join(SEARCHABLE)}")
    limit, after = limit_of(body.get("limit", 50)), text_of(body.get("after", ""), "after")
    return page_of(store.search(wanted, after=after, limit=limit + 1), limit)


def _children(store: Store, at: dict[str, str], call: Call) -> Row:
    fields = dict(parse_qsl(call.query, keep_blank_values=True))
    if not fields.keys() <= {"limit", "after"}:
        raise BadRequestError("the query takes limit and after")
    given = fields.get("limit", "50")
    limit, after = limit_of(int(given) if re.fullmatch(r"[0-9]{1,6}", given) else None), fields.get("after", "")
    after = text_of(after, "after")
    if at["kind"] == "duplicates":
        return page_of(store.duplicates(at["id"], after=after, limit=limit + 1), limit)
    return page_of(store.children(at["kind"], at["id"], after=after, limit=limit + 1), limit)


def _read(store: Store, _at: dict[str, str], call: Call) -> Row:
    refs = texts_of(object_of(call, {"refs"}).get("refs"), "refs", MAX_REFS)
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
    body = object_of(call, {"status", "suspended_by"})
    status, marker = body.get("status"), text_of(body.get("suspended_by"), "suspended_by")
    if status not in {"active", "suspended"} or not marker:
        raise BadRequestError("give status (active or suspended) and suspended_by (who asks)")
    return store.mark(at["kind"], at["id"], status, marker)


def _delete(store: Store, at: dict[str, str], _call: Call) -> None:
    store.delete(at["kind"], at["id"])


_RECORD = rf"/v1/(?P<kind>{'|'.join(KINDS)})/(?P<id>[A-Z]-[0-9]{{1,12}})"
_ROUTES: Routes[Store] = (
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
