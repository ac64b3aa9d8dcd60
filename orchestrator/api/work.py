"""The two calls of a worker. `begin` is the hot path: bytes in, bytes out, one hop to a thread."""

from collections.abc import Callable
from typing import Annotated, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, ValidationError
from starlette.concurrency import run_in_threadpool

from keshi.orchestrator.api.access import body_of, holder_of, needs
from keshi.orchestrator.api.problems import FieldProblem, Problem, described, unreadable
from keshi.orchestrator.go import BeginInvalid, GoService
from keshi.orchestrator.tokens import Right, TokenLine, Tokens
from keshi.schemas.tasks import BeginRequest, BeginResponse, UnwrapRequest, UnwrapResponse

M = TypeVar("M", bound=BaseModel)

_ERRORS = ("unauthenticated", "forbidden", "too_large", "invalid", "internal", "ledger_unavailable", "misconfigured")


def work_routes(service: GoService, tokens: Tokens) -> APIRouter:
    """`POST /v1/tasks:unwrap` and `POST /v1/tasks:begin`."""
    router = APIRouter(tags=["workers"])
    worker = Depends(holder_of(tokens, Right.WORK))

    @router.post(
        "/v1/tasks:unwrap",
        response_model=None,
        responses={200: {"model": UnwrapResponse, "description": "In the order of the tasks."}, **described(*_ERRORS)},
        openapi_extra=needs(Right.WORK, UnwrapRequest),
    )
    async def unwrap_tasks(request: Request, caller: Annotated[TokenLine, worker]) -> Response:
        """The identifiers of a whole list: only of open tasks of the token's own system."""
        return await _answer(request, UnwrapRequest, lambda asked: service.unwrap(caller.system or "", asked))

    @router.post(
        "/v1/tasks:begin",
        response_model=None,
        responses={
            200: {"model": BeginResponse, "description": "In the order of the tasks."},
            **described(*_ERRORS, "begin_invalid"),
        },
        openapi_extra=needs(Right.WORK, BeginRequest),
    )
    async def begin_tasks(request: Request, caller: Annotated[TokenLine, worker]) -> Response:
        """Evidence in; go, wait or stop out, for each task. The same begin-id gets the same answer."""
        return await _answer(request, BeginRequest, lambda asked: service.begin(caller.system or "", asked))

    return router


async def _answer(request: Request, kind: type[M], serve: Callable[[M], bytes]) -> Response:
    raw = await body_of(request)
    return Response(await run_in_threadpool(_served, raw, kind, serve), media_type="application/json")


def _served(raw: bytes, kind: type[M], serve: Callable[[M], bytes]) -> bytes:
    try:
        return serve(kind.model_validate_json(raw))
    except BeginInvalid as e:
        raise Problem("begin_invalid", errors=[FieldProblem(field=e.field, reason=e.detail)]) from None
    except ValidationError as e:
        raise unreadable(e) from None
