"""What operators see of how keshi runs; chains of records for who checks them; the register of exports."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from keshi.orchestrator.api.access import holder_of, needs
from keshi.orchestrator.api.bodies import question
from keshi.orchestrator.api.problems import described
from keshi.orchestrator.asked import MAX_PAGE
from keshi.orchestrator.looking import Looking
from keshi.orchestrator.tokens import Right, TokenLine, Tokens
from keshi.orchestrator.views import ChainPage, ExportNote, ExportPage, ExportView, LanePage, QuarantinePage
from keshi.schemas.base import MAX_SAFE_INTEGER
from keshi.schemas.closure import ClosureRecord

_ERRORS = ("unauthenticated", "forbidden", "invalid", "internal", "ledger_unavailable", "misconfigured")
_JSON = "application/json"
_Limit = Annotated[int, Query(ge=1, le=MAX_PAGE)]
_Before = Annotated[int | None, Query(ge=1, le=MAX_SAFE_INTEGER, description="`next` of the page before.")]


def looking_routes(looking: Looking, tokens: Tokens) -> APIRouter:
    """`/v1/lanes`, `/v1/quarantine`, `/v1/chains`, `/v1/exports`."""
    router = APIRouter()
    _operators(router, looking, tokens)
    _chains(router, looking, tokens)
    _exports(router, looking, tokens)
    return router


def _operators(router: APIRouter, looking: Looking, tokens: Tokens) -> None:
    operator = [Depends(holder_of(tokens, Right.OPERATE))]

    @router.get(
        "/v1/lanes",
        tags=["operators"],
        dependencies=operator,
        openapi_extra=needs(Right.OPERATE),
        response_model=None,
        responses={200: {"model": LanePage}, **described(*_ERRORS)},
    )
    def lanes() -> Response:
        """Every partition of commands and reports: where it stands, what waits in it."""
        return _json(looking.lanes().model_dump_json())

    @router.get(
        "/v1/quarantine",
        tags=["operators"],
        dependencies=operator,
        openapi_extra=needs(Right.OPERATE),
        response_model=None,
        responses={200: {"model": QuarantinePage}, **described(*_ERRORS)},
    )
    def quarantine(limit: _Limit = 50, before: _Before = None) -> Response:
        """Messages that could not be taken, the latest first: where and why, not what."""
        return _json(looking.quarantine(limit, before).model_dump_json())


def _chains(router: APIRouter, looking: Looking, tokens: Tokens) -> None:
    reader = [Depends(holder_of(tokens, Right.READ_CLOSURES))]

    @router.get(
        "/v1/chains",
        tags=["readers"],
        dependencies=reader,
        openapi_extra=needs(Right.READ_CLOSURES),
        response_model=None,
        responses={200: {"model": ChainPage}, **described(*_ERRORS)},
    )
    def chains() -> Response:
        """Where the chain of each partition ends."""
        return _json(looking.chains().model_dump_json())

    @router.get(
        "/v1/chains/{partition}",
        tags=["readers"],
        dependencies=reader,
        openapi_extra=needs(Right.READ_CLOSURES),
        response_model=None,
        responses={200: {"model": list[ClosureRecord]}, **described(*_ERRORS)},
    )
    def chained(
        partition: Annotated[int, Path(ge=0, le=2**31 - 1)],
        after: Annotated[int, Query(ge=0, le=MAX_SAFE_INTEGER, description="Number of the last record seen.")] = 0,
        limit: _Limit = 50,
    ) -> Response:
        """Records of one chain in order, byte for byte as they were sealed. None are left when the list is empty."""
        return _json(looking.chained(partition, after, limit))


def _exports(router: APIRouter, looking: Looking, tokens: Tokens) -> None:
    exporter = Depends(holder_of(tokens, Right.EXPORT))

    @router.get(
        "/v1/exports",
        tags=["readers"],
        dependencies=[exporter],
        openapi_extra=needs(Right.EXPORT),
        response_model=None,
        responses={200: {"model": ExportPage}, **described(*_ERRORS)},
    )
    def exports(limit: _Limit = 50, before: _Before = None) -> Response:
        """What was exported: by whom, when, what for, what was asked for, and the hash of what was written."""
        return _json(looking.exports(limit, before).model_dump_json())

    @router.post(
        "/v1/exports",
        tags=["readers"],
        status_code=201,
        openapi_extra=needs(Right.EXPORT, ExportNote),
        response_model=None,
        responses={201: {"model": ExportView}, **described(*_ERRORS, "too_large")},
    )
    async def register(request: Request, caller: Annotated[TokenLine, exporter]) -> Response:
        """Put a whole export on record, for good."""
        note = await question(request, ExportNote)
        made = await run_in_threadpool(looking.register, caller.name, note)
        return Response(made.model_dump_json(), 201, media_type=_JSON)


def _json(text: str) -> Response:
    return Response(text, media_type=_JSON)
