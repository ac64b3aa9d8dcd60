"""Who may call what: every path of the API declares its right, the documents say the same, and it is enforced."""

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from keshi.orchestrator.api.app import create_app
from keshi.orchestrator.ledger.port import Passing
from keshi.orchestrator.tokens import RIGHTS, Right, Role, TokenLine, Tokens, new_token

OPERATIONS = Path(__file__).resolve().parents[2] / "docs" / "operations.md"
OPEN_TO_ALL = {("GET", "/healthz"), ("GET", "/readyz")}


class Away:
    """A ledger that does not answer: who gets past the door learns that, and nothing else."""

    def __getattr__(self, _: str) -> Any:
        raise Passing


NOBODY: Any = None
AWAY: Any = Away()


def made() -> tuple[dict[Role, str], Any]:
    tokens = {role: new_token(f"test:{role}", role, "billing" if role is Role.WORKER else None) for role in Role}
    lines = [TokenLine.model_validate(_yaml(t.line)) for t in tokens.values()]
    app = create_app(ledger=AWAY, keys=NOBODY, policy=NOBODY, tokens=Tokens(lines), decisions=NOBODY, partitions=1)
    return {role: t.token for role, t in tokens.items()}, app


def _yaml(line: str) -> dict[str, str]:
    return {name: value.strip('"') for name, value in re.findall(r'(\w+): ("[^"]*"|[\w]+)', line)}


TOKENS, APP = made()


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in APP.openapi()["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


EVERY = [pytest.param(m, p, o, id=f"{m} {p}") for m, p, o in operations()]


def test_every_path_of_the_app_is_in_its_document() -> None:
    """A path that hides from OpenAPI would hide from these tests."""
    shown = {path for _, path, _ in operations()}
    assert {"/v1/requests", "/v1/tasks:begin"} <= shown
    hidden = [r for r in _routes(APP) if getattr(r, "include_in_schema", True) is False]
    assert {r.path for r in hidden} <= {"/openapi.json"}
    assert {r.path for r in _routes(APP)} <= shown | {"/openapi.json"}


def _routes(app: Any) -> Iterator[Any]:
    for route in app.routes:
        inner = getattr(route, "original_router", None)
        if inner is None:
            yield route
        else:
            yield from inner.routes


@pytest.mark.parametrize(("method", "path", "operation"), EVERY)
def test_every_path_declares_its_right(method: str, path: str, operation: dict[str, Any]) -> None:
    if (method, path) in OPEN_TO_ALL:
        assert "x-keshi-right" not in operation
        return
    right = Right(operation["x-keshi-right"])
    assert operation["x-keshi-roles"] == [r.value for r in Role if right in RIGHTS[r]]
    assert operation["security"] == [{"token": []}]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize(("method", "path", "operation"), EVERY)
def test_what_is_declared_is_what_is_enforced(method: str, path: str, operation: dict[str, Any], role: Role) -> None:
    """With each role's token: past the door, or `forbidden`; and without a token nobody gets past it."""
    if (method, path) in OPEN_TO_ALL:
        return
    concrete = path.replace("{request_id}", "01900000-0000-7000-8000-000000000000").replace("{partition}", "0")
    stranger, holder = asyncio.run(statuses(method, concrete, None, TOKENS[role]))
    assert stranger == 401
    assert holder in {403, 422, 503}
    assert (holder != 403) == (role.value in operation["x-keshi-roles"])


async def statuses(method: str, path: str, *tokens: str | None) -> list[int]:
    transport = httpx.ASGITransport(APP, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://keshi.example", trust_env=False) as http:
        headers = [{"Authorization": f"Bearer {t}"} if t else {} for t in tokens]
        return [(await http.request(method, path, headers=h)).status_code for h in headers]


def test_the_table_in_the_documents_is_that_of_the_code() -> None:
    rows = re.findall(r"^\| `(GET|POST) (\S+)` \| (.*) \|$", OPERATIONS.read_text(encoding="utf-8"), flags=re.MULTILINE)
    listed = {(method, path): [c.strip() == "yes" for c in cells.split("|")] for method, path, cells in rows}
    wanted = {
        (m, p): [m_ in o.get("x-keshi-roles", [r.value for r in Role]) for m_ in (r.value for r in Role)]
        for m, p, o in operations()
    }
    assert listed == wanted
    assert f"| call | {' | '.join(f'`{r.value}`' for r in Role)} |" in OPERATIONS.read_text(encoding="utf-8")
