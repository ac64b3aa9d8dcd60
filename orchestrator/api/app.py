"""The app, put together from parts that are ready made."""

import time
from collections.abc import Awaitable, Callable
from importlib.metadata import version
from typing import Any, Final

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic.json_schema import models_json_schema
from starlette.exceptions import HTTPException
from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from keshi.orchestrator.api.decisions import Decider, Decisions, decision_routes
from keshi.orchestrator.api.looking import looking_routes
from keshi.orchestrator.api.problems import Problem, ProblemDetails, answer_problem, invalid
from keshi.orchestrator.api.reading import reading_routes
from keshi.orchestrator.api.work import Plain, work_routes
from keshi.orchestrator.asked import Export, Search
from keshi.orchestrator.context import Policy
from keshi.orchestrator.go import GoService
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import Ledger, LedgerError, SchemaMismatch
from keshi.orchestrator.looking import Looking
from keshi.orchestrator.query import Queries
from keshi.orchestrator.tokens import Tokens
from keshi.orchestrator.views import ExportNote
from keshi.runtime.settings import ConfigurationError
from keshi.runtime.telemetry import OFF, Telemetry
from keshi.schemas.commands import DecisionRequest
from keshi.schemas.tasks import BeginRequest, UnwrapRequest

log = structlog.get_logger()

_BODIES: Final = (UnwrapRequest, BeginRequest, DecisionRequest, Search, Export, ExportNote, ProblemDetails)
READY_SECONDS: Final = 1.0
"""A stranger's questions must not become load on the database."""
_HEADERS: Final = [(b"cache-control", b"no-store"), (b"x-content-type-options", b"nosniff")]


class _Api(FastAPI):
    """Goes to a worker's calls at once: to find their routes among all others costs as much as to answer them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.shortcuts: dict[str, ASGIApp] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        shortcut = self.shortcuts.get(scope["path"]) if scope["type"] == "http" and scope["method"] == "POST" else None
        await (shortcut or super().__call__)(scope, receive, send)


def create_app(
    *,
    ledger: Ledger,
    keys: Keys,
    policy: Policy,
    tokens: Tokens,
    decisions: Decisions,
    partitions: int,
    telemetry: Telemetry = OFF,
) -> FastAPI:
    """The API as an ASGI application.

    Args:
        ledger: The store; closed by whoever made it.
        keys: Of this ledger.
        policy: Limits of leases and acts.
        tokens: Who may ask.
        decisions: Where decisions are sent.
        partitions: How many partitions requests belong to: `ledger.partitions(…)`.
        telemetry: Told of the answers to `begin`.
    """
    # The pages of the documentation would load scripts from elsewhere; the document itself is enough.
    app = _Api(title="keshi", version=version("keshi"), docs_url=None, redoc_url=None, openapi_url="/openapi.json")
    queries = Queries(ledger, keys)
    work = work_routes(GoService(ledger, keys, policy, partitions, telemetry), tokens)
    app.include_router(work)
    app.include_router(reading_routes(queries, tokens))
    app.include_router(looking_routes(Looking(ledger), tokens))
    app.include_router(decision_routes(Decider(queries, keys, decisions), tokens))
    _probes(app, ledger)
    for kind, handler in _HANDLERS.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Outermost)
    for route in work.routes:
        if isinstance(route, Plain):
            app.shortcuts[route.path] = Outermost(ExceptionMiddleware(route.handle, _HANDLERS))
    app.openapi = lambda: describe(app)  # type: ignore[method-assign] # FastAPI's own way to change the document
    return app


def _probes(app: FastAPI, ledger: Ledger) -> None:
    checked: list[tuple[float, LedgerError | None]] = []

    @app.get("/healthz", tags=["probes"], response_model=None)
    async def alive() -> Response:
        """The process answers."""
        return Response('{"status":"ok"}', media_type="application/json")

    @app.get("/readyz", tags=["probes"], response_model=None)
    def ready() -> Response:
        """The ledger can be reached, and its schema is right."""
        now = time.monotonic()
        if not checked or now - checked[-1][0] > READY_SECONDS:
            problem: LedgerError | None = None
            try:
                ledger.check()
            except LedgerError as e:
                problem = e
            checked[:] = [(now, problem)]
        problem = checked[-1][1]
        if problem is not None:
            raise problem
        return Response('{"status":"ready"}', media_type="application/json")


async def _ledger_problem(_: Request, error: Exception) -> Response:
    if isinstance(error, SchemaMismatch):
        return Problem("schema_mismatch", str(error)).response()
    log.error("ledger_unavailable", exception_class=type(error).__name__)
    return Problem("ledger_unavailable", headers={"Retry-After": "1"}).response()


async def _configuration_problem(_: Request, error: Exception) -> Response:
    log.error("misconfigured", reason=str(error))
    return Problem("misconfigured", str(error)).response()


async def _invalid(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return invalid(error.errors()).response()


async def _http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = {404: "not_found", 405: "method_not_allowed"}.get(error.status_code, "internal")
    return Problem(code, headers=error.headers).response()


_HANDLERS: Final[dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]]] = {
    Problem: answer_problem,
    LedgerError: _ledger_problem,
    ConfigurationError: _configuration_problem,
    RequestValidationError: _invalid,
    HTTPException: _http,
}


class Outermost:
    """Answers what nothing else answered, and lets no answer be stored on the way.

    Starlette would raise an unexpected error again behind its answer, and the server would log it whole.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def sending(message: Message) -> None:
            nonlocal started
            if message["type"] == "http.response.start":
                started = True
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        try:
            await self._app(scope, receive, sending)
        except Exception:
            log.exception("unexpected")
            if not started:
                await Problem("internal").response()(scope, receive, sending)


def describe(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document, with the bodies that we read ourselves and the token on every call."""
    if app.openapi_schema is None:
        document = FastAPI.openapi(app)
        bodies = [(m, "validation") for m in _BODIES]
        _, schemas = models_json_schema(bodies, ref_template="#/components/schemas/{model}")  # type: ignore[arg-type] # a list of literals
        components = document.setdefault("components", {})
        known = components.setdefault("schemas", {})
        for name, schema in schemas["$defs"].items():
            known.setdefault(name, schema)
        components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        for path, methods in document["paths"].items():
            for operation in methods.values() if path.startswith("/v1/") else ():
                operation["security"] = [{"token": []}]
                # FastAPI adds its own form of 422, which we never answer with.
                operation["responses"].get("422", {}).get("content", {}).pop("application/json", None)
        for unused in ("HTTPValidationError", "ValidationError"):
            known.pop(unused, None)
        app.openapi_schema = document
    return app.openapi_schema
