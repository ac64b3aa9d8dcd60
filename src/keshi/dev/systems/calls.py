"""A call to a reference system and the reply to it, as its API sees them. What HTTP needs around it is in `serving`.

An error is `{"code": …, "message": …}`. A page is `{"items": […], "next": "…" | null}`; the next one is asked for with
`after` set to `next`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

from keshi.dev.systems.filestore import ConflictError, GoneError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

MAX_BODY = 256 * 1024
MAX_PAGE = 200
MAX_TEXT = 1_000

S = TypeVar("S")
Row = dict[str, Any]
Run = Callable[[S, dict[str, str], "Call"], "Row | Reply | None"]
"""Carries out a call over a store, given what its path names; a row is sent with 200, None is 204."""
Routes = tuple[tuple[str, str, Mapping[str, Run[S]]], ...]
"""A name fit for a log, the pattern of the path, and what each method does."""


@dataclass(frozen=True, slots=True)
class Call:
    method: str
    path: str
    query: str = field(default="", repr=False)
    body: bytes = field(default=b"", repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """What is sent back, as JSON or as it is; `route` is the pattern that matched, fit for a log."""

    status: int
    payload: dict[str, Any] | bytes | None = field(default=None, repr=False)
    route: str = "?"
    headers: Mapping[str, str] = field(default_factory=dict)


class BadRequestError(Exception):
    """The call does not say what it must; the message names own fields only, never a sent value."""


def failure(status: int, code: str, message: str, route: str = "?") -> Reply:
    return Reply(status, {"code": code, "message": message}, route)


def carried_out(routes: Routes[S], store: S, call: Call) -> Reply:  # noqa: PLR0911 - a table of guards
    """Carries out one call; what it lacks, or what stands in its way, becomes the reply."""
    fitting = ((name, m, methods) for name, pattern, methods in routes if (m := re.fullmatch(pattern, call.path)))
    route, match, methods = next(fitting, ("?", None, {}))
    if match is None:
        return failure(404, "no_such_path", "there is no such path")
    run = methods.get(call.method)
    if run is None:
        return failure(405, "no_such_method", f"this path takes {', '.join(methods)}", route)
    try:
        done = run(store, match.groupdict(), call)
    except BadRequestError as error:
        return failure(400, "bad_request", str(error), route)
    except GoneError:
        return failure(404, "gone", "there is no such record", route)
    except ConflictError as error:
        return failure(409, error.code, str(error), route)
    if isinstance(done, Reply):
        return replace(done, route=route)
    return Reply(204 if done is None else 200, done, route)


def page_of(rows: list[Row], limit: int) -> Row:
    """A page out of one row more than it may hold."""
    return {"items": rows[:limit], "next": rows[limit - 1]["id"] if len(rows) > limit else None}


# --- what a body holds; each raises BadRequestError


def object_of(call: Call, fields: AbstractSet[str]) -> Row:
    try:
        body = json.loads(call.body, parse_constant=_refuse)
    except (ValueError, RecursionError):
        raise BadRequestError("the body is not JSON") from None
    if not isinstance(body, dict) or not body.keys() <= fields:
        raise BadRequestError(f"the body is an object with no fields but {', '.join(sorted(fields))}")
    return body


def _refuse(_name: str) -> NoReturn:
    raise ValueError


def texts_of(value: object, name: str, most: int) -> list[str]:
    if not isinstance(value, list) or len(value) > most:
        raise BadRequestError(f"{name} is a list of at most {most}")
    return [text_of(one, name) for one in value]


def text_of(value: object, name: str) -> str:
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


def limit_of(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= MAX_PAGE:
        raise BadRequestError(f"limit is a number from 1 to {MAX_PAGE}")
    return value
