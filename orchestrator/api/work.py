"""The two calls of a worker. They are the hot path: bytes in, bytes out, one hop to a thread."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Final, TypeVar

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel, ValidationError
from starlette.types import Receive, Scope, Send

from keshi.orchestrator.api.access import body_of, needs, permitted
from keshi.orchestrator.api.problems import FieldProblem, Problem, described, unreadable
from keshi.orchestrator.go import BeginInvalid, GoService
from keshi.orchestrator.tokens import Right, Tokens
from keshi.schemas.tasks import BeginRequest, BeginResponse, UnwrapRequest, UnwrapResponse

THREADS: Final = 16
"""As many as the API keeps connections to the ledger: who has a thread has a connection, too."""
M = TypeVar("M", bound=BaseModel)

_ERRORS = ("unauthenticated", "forbidden", "too_large", "invalid", "internal", "ledger_unavailable", "misconfigured")


class Plain(APIRoute):
    """In FastAPI's document like any other; called with the request and nothing else, which costs half as much."""

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await super().handle(scope, receive, send)
            return
        response = await self.endpoint(Request(scope, receive))
        await response(scope, receive, send)


def work_routes(service: GoService, tokens: Tokens) -> APIRouter:
    """`POST /v1/tasks:unwrap` and `POST /v1/tasks:begin`."""
    router = APIRouter(tags=["workers"], route_class=Plain)
    # Threads of their own: the way to those that all calls share is twice as long.
    threads = ThreadPoolExecutor(THREADS, "worker-call")

    async def answer(request: Request, kind: type[M], serve: Callable[[str, M], bytes]) -> Response:
        caller = permitted(tokens, Right.WORK, request.headers.get("Authorization", ""))
        raw = await body_of(request.receive)
        served = asyncio.get_running_loop().run_in_executor(threads, _served, raw, kind, serve, caller.system or "")
        return Response(await served, media_type="application/json")

    @router.post(
        "/v1/tasks:unwrap",
        response_model=None,
        responses={200: {"model": UnwrapResponse, "description": "In the order of the tasks."}, **described(*_ERRORS)},
        openapi_extra=needs(Right.WORK, UnwrapRequest),
    )
    async def unwrap_tasks(request: Request) -> Response:
        """The identifiers of a whole list: only of open tasks of the token's own system."""
        return await answer(request, UnwrapRequest, service.unwrap)

    @router.post(
        "/v1/tasks:begin",
        response_model=None,
        responses={
            200: {"model": BeginResponse, "description": "In the order of the tasks."},
            **described(*_ERRORS, "begin_invalid"),
        },
        openapi_extra=needs(Right.WORK, BeginRequest),
    )
    async def begin_tasks(request: Request) -> Response:
        """Evidence in; go, wait or stop out, for each task. The same begin-id gets the same answer."""
        return await answer(request, BeginRequest, service.begin)

    return router


def _served(raw: bytes, kind: type[M], serve: Callable[[str, M], bytes], caller: str) -> bytes:
    try:
        return serve(caller, kind.model_validate_json(raw))
    except BeginInvalid as e:
        raise Problem("begin_invalid", errors=[FieldProblem(field=e.field, reason=e.detail)]) from None
    except ValidationError as e:
        raise unreadable(e) from None
