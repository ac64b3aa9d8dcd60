"""What readers see: requests and closure records."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Response

from keshi.orchestrator.api.access import NamedRequest, holder_of, needs
from keshi.orchestrator.api.problems import Problem, described
from keshi.orchestrator.query import MAX_PAGE, NotClosed, NotKnown, Queries
from keshi.orchestrator.tokens import Right, Tokens
from keshi.orchestrator.views import ClosureView, RequestPage, RequestView
from keshi.schemas.closure import ClosureRecord

_ERRORS = ("unauthenticated", "forbidden", "invalid", "internal", "ledger_unavailable", "misconfigured")
_JSON = "application/json"


def reading_routes(queries: Queries, tokens: Tokens) -> APIRouter:
    """`GET /v1/requests`, `/v1/requests/{id}`, `/v1/closures/{id}`."""
    router = APIRouter(tags=["readers"])
    of_requests = [Depends(holder_of(tokens, Right.READ_REQUESTS))]
    of_closures = [Depends(holder_of(tokens, Right.READ_CLOSURES))]

    @router.get(
        "/v1/requests",
        dependencies=of_requests,
        openapi_extra=needs(Right.READ_REQUESTS),
        response_model=None,
        responses={200: {"model": RequestPage}, **described(*_ERRORS)},
    )
    def list_requests(
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        before: Annotated[int | None, Query(ge=1, description="`next` of the page before.")] = None,
        open_only: Annotated[bool, Query(alias="open", description="Leave closed ones out.")] = False,  # noqa: FBT002
    ) -> Response:
        """Accepted requests, the latest first."""
        return _json(queries.requests(limit, before, open_only=open_only).model_dump_json())

    @router.get(
        "/v1/requests/{request_id}",
        dependencies=of_requests,
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
        # Written around the record, so that it stays as it was sealed.
        opened = ",".join(r.model_dump_json() for r in queries.reasons(record))
        return _json(f'{{"request_id":"{request_id}","closure":{record},"reasons":[{opened}]}}')

    return router


def _json(text: str) -> Response:
    return Response(text, media_type=_JSON)
