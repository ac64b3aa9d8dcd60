"""What readers see: requests, accounts and closure records."""

from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from starlette.concurrency import run_in_threadpool

from keshi.orchestrator.account import AccountView
from keshi.orchestrator.api.access import NamedRequest, holder_of, needs
from keshi.orchestrator.api.bodies import question
from keshi.orchestrator.api.problems import Problem, described
from keshi.orchestrator.asked import CursorBroken, Export, Listing, Search
from keshi.orchestrator.query import NotClosed, NotKnown, Queries
from keshi.orchestrator.tokens import Right, Tokens
from keshi.orchestrator.views import ClosureView, ExportedPage, RequestPage, RequestView
from keshi.schemas.closure import ClosureRecord

_ERRORS = ("unauthenticated", "forbidden", "invalid", "internal", "ledger_unavailable", "misconfigured")
_JSON = "application/json"


def reading_routes(queries: Queries, tokens: Tokens) -> APIRouter:
    """Lists, single requests, their accounts and records."""
    router = APIRouter(tags=["readers"])
    _lists(router, queries, tokens)
    _single(router, queries, tokens)
    return router


def _lists(router: APIRouter, queries: Queries, tokens: Tokens) -> None:
    @router.get(
        "/v1/requests",
        dependencies=[Depends(holder_of(tokens, Right.READ_REQUESTS))],
        openapi_extra=needs(Right.READ_REQUESTS),
        response_model=None,
        responses={200: {"model": RequestPage}, **described(*_ERRORS, "cursor_invalid")},
    )
    def list_requests(asked: Annotated[Listing, Query()]) -> Response:
        """Accepted requests of which all that is asked is true, page by page."""
        return _json(_page(lambda: queries.requests(asked).model_dump_json()))

    @router.post(
        "/v1/requests:search",
        dependencies=[Depends(holder_of(tokens, Right.FIND_PEOPLE))],
        openapi_extra=needs(Right.FIND_PEOPLE, Search),
        response_model=None,
        responses={200: {"model": RequestPage}, **described(*_ERRORS, "cursor_invalid", "too_large")},
    )
    async def search_requests(request: Request) -> Response:
        """A person's requests, also closed ones. Identifiers are hashed on arrival, and neither kept nor logged."""
        asked = await question(request, Search)
        return _json(await run_in_threadpool(_page, lambda: queries.requests(asked).model_dump_json()))

    @router.post(
        "/v1/requests:export",
        dependencies=[Depends(holder_of(tokens, Right.EXPORT))],
        openapi_extra=needs(Right.EXPORT, Export),
        response_model=None,
        responses={200: {"model": ExportedPage}, **described(*_ERRORS, "cursor_invalid", "too_large")},
    )
    async def export_requests(request: Request) -> Response:
        """Requests with their closure records, as they were sealed."""
        asked = await question(request, Export)
        return _json(await run_in_threadpool(_page, lambda: queries.export(asked)))


def _single(router: APIRouter, queries: Queries, tokens: Tokens) -> None:
    of_closures = [Depends(holder_of(tokens, Right.READ_CLOSURES))]

    @router.get(
        "/v1/requests/{request_id}",
        dependencies=[Depends(holder_of(tokens, Right.READ_REQUESTS))],
        openapi_extra=needs(Right.READ_REQUESTS),
        response_model=None,
        responses={200: {"model": RequestView}, **described(*_ERRORS, "request_unknown")},
    )
    def one_request(request_id: NamedRequest) -> Response:
        """Where a request stands, what waits for a person, and what is left to do."""
        try:
            return _json(queries.request(request_id).model_dump_json())
        except NotKnown:
            raise Problem("request_unknown") from None

    @router.get(
        "/v1/requests/{request_id}/account",
        dependencies=of_closures,
        openapi_extra=needs(Right.READ_CLOSURES),
        response_model=None,
        responses={200: {"model": AccountView}, **described(*_ERRORS, "request_unknown")},
    )
    def one_account(request_id: NamedRequest) -> Response:
        """All that is known of a request, open or closed, with how people call systems and categories."""
        try:
            account, record = queries.account(request_id)
        except NotKnown:
            raise Problem("request_unknown") from None
        # Written around the record, so that it stays as it was sealed.
        return _json(f'{{"account":{account.model_dump_json()},"closure":{record or "null"}}}')

    @router.get(
        "/v1/closures/{request_id}",
        dependencies=of_closures,
        openapi_extra=needs(Right.READ_CLOSURES),
        response_model=None,
        responses={
            200: {"model": ClosureRecord | ClosureView, "description": "With `reasons`, the second form."},
            **described(*_ERRORS, "request_unknown", "not_closed"),
        },
    )
    def one_closure(
        request_id: NamedRequest,
        reasons: Annotated[bool, Query(description="Also the opened reasons of decisions.")] = False,  # noqa: FBT002
    ) -> Response:
        """The closure record, byte for byte as it was sealed."""
        try:
            record = queries.closure(request_id)
        except NotKnown:
            raise Problem("request_unknown") from None
        except NotClosed:
            raise Problem("not_closed") from None
        if not reasons:
            return _json(record)
        opened = ",".join(r.model_dump_json() for r in queries.reasons(record))
        return _json(f'{{"request_id":"{request_id}","closure":{record},"reasons":[{opened}]}}')


def _page(answer: Callable[[], str]) -> str:
    try:
        return answer()
    except CursorBroken:
        raise Problem("cursor_invalid") from None


def _json(text: str) -> Response:
    return Response(text, media_type=_JSON)
