"""Whose request it is, whether the token gives the right, and how much of a body is read."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Final

from fastapi import Depends, Path, Request
from pydantic import BaseModel, TypeAdapter, ValidationError
from starlette.requests import ClientDisconnect
from starlette.types import Receive

from keshi.orchestrator.api.problems import FieldProblem, Problem
from keshi.orchestrator.tokens import RIGHTS, Right, Role, TokenLine, Tokens
from keshi.schemas.base import RequestId

MAX_BODY_BYTES: Final = 8 * 1024 * 1024
MAX_DRAINED_BYTES: Final = 4 * MAX_BODY_BYTES
_REQUEST_ID: TypeAdapter[str] = TypeAdapter(RequestId)


def holder_of(tokens: Tokens, right: Right) -> Callable[[Request], Awaitable[TokenLine]]:
    """A dependency: the token of this request, if it gives the right. `needs` declares the same in OpenAPI."""

    # Asynchronous although it waits for nothing: FastAPI would move it to a thread otherwise.
    async def holder(request: Request) -> TokenLine:
        return permitted(tokens, right, request.headers.get("Authorization", ""))

    return holder


def permitted(tokens: Tokens, right: Right, authorization: str) -> TokenLine:
    """The token of a header.

    Raises:
        Problem: it is none of ours, or does not give the right.
    """
    scheme, _, token = authorization.partition(" ")
    line = tokens.find(token.strip()) if scheme.lower() == "bearer" else None
    if line is None:
        raise Problem("unauthenticated", headers={"WWW-Authenticate": "Bearer"})
    if not line.may(right):
        raise Problem("forbidden", f"needs the right {right.value}, which the role {line.role.value} does not have")
    return line


def needs(right: Right, body: type[BaseModel] | None = None) -> dict[str, Any]:
    """What OpenAPI says besides of a path: the right it asks for, the roles that give it, the body that we read.

    `describe` adds the schema of the body.
    """
    roles = [role.value for role in Role if right in RIGHTS[role]]
    told: dict[str, Any] = {"x-keshi-right": right.value, "x-keshi-roles": roles}
    if body is not None:
        schema = {"$ref": f"#/components/schemas/{body.__name__}"}
        told["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return told


async def body_of(receive: Receive, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body, never more of it than `limit`.

    Raises:
        Problem: it is larger.
        ClientDisconnect: the caller has gone.
    """
    chunks: list[bytes] = []
    size, more = 0, True
    while more and size <= MAX_DRAINED_BYTES:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        chunk, more = message.get("body", b""), message.get("more_body", False)
        size += len(chunk)
        if size <= limit:
            chunks.append(chunk)
        else:
            # Who still sends does not hear an answer: what comes is thrown away first, up to a bound.
            chunks.clear()
    if size > limit:
        raise Problem("too_large", f"at most {limit} bytes", headers={"Connection": "close"})
    return b"".join(chunks)


def _request_id(request_id: Annotated[str, Path(description="UUID or ULID of the request.")]) -> str:
    try:
        return _REQUEST_ID.validate_python(request_id)
    except ValidationError:
        raise Problem("invalid", errors=[FieldProblem(field="request_id", reason="neither UUID nor ULID")]) from None


NamedRequest = Annotated[str, Depends(_request_id)]
