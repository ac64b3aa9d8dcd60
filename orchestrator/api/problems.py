"""Every error of the API in one form (RFC 9457). Nothing that was sent is repeated in one."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Final

from fastapi import Request, Response
from pydantic import BaseModel, Field, ValidationError

CONTENT_TYPE: Final = "application/problem+json"
MAX_ERRORS: Final = 20

TITLES: Final[Mapping[str, tuple[int, str]]] = {
    "unauthenticated": (401, "No token, or an unknown one"),
    "forbidden": (403, "This token does not give the right to do that"),
    "not_found": (404, "There is nothing at this path"),
    "method_not_allowed": (405, "This path does not take this method"),
    "request_unknown": (404, "No command was accepted under this request id"),
    "not_closed": (404, "The request is open: there is no closure record yet"),
    "task_not_held": (409, "The task does not wait for a person now"),
    "decision_not_applicable": (409, "This cannot be decided about this task"),
    "too_large": (413, "The body is too large"),
    "invalid": (422, "A field is missing, unknown or not valid"),
    "cursor_invalid": (422, "The cursor is none of ours, or belongs to another question: begin at the first page"),
    "begin_invalid": (422, "The question contradicts the plan or itself"),
    "ground_unknown": (422, "No rule file has this ground for a refusal"),
    "internal": (500, "An error of keshi's own; it is in its log"),
    "ledger_unavailable": (503, "The ledger's database does not answer"),
    "schema_mismatch": (503, "The ledger's schema is not this version's"),
    "broker_unavailable": (503, "Kafka did not confirm the decision"),
    "misconfigured": (503, "keshi lacks something that it needs for this"),
}
"""Stable codes: programs may compare `urn:keshi:problem:<code>`."""


class FieldProblem(BaseModel):
    """What is wrong with one field."""

    field: str = Field(description="Its place, as far as the schema knows the names; empty for the body itself.")
    reason: str


class ProblemDetails(BaseModel):
    """RFC 9457."""

    type: Annotated[str, Field(pattern=r"^urn:keshi:problem:[a-z_]+$")]
    title: str
    status: int
    detail: str | None = None
    errors: list[FieldProblem] | None = None


class Problem(Exception):  # noqa: N818 - the standard's word
    """An answer that is an error."""

    def __init__(
        self,
        code: str,
        detail: str | None = None,
        errors: Iterable[FieldProblem] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code)
        self.code = code
        self.detail = detail
        self.errors = list(errors)
        self.headers = dict(headers or {})

    def response(self) -> Response:
        """As it goes over the wire."""
        status, title = TITLES[self.code]
        body = ProblemDetails(
            type=f"urn:keshi:problem:{self.code}",
            title=title,
            status=status,
            detail=self.detail,
            errors=self.errors or None,
        )
        return Response(
            body.model_dump_json(exclude_none=True), status, media_type=CONTENT_TYPE, headers=self.headers or None
        )


def invalid(errors: Iterable[Any], code: str = "invalid") -> Problem:
    """What pydantic found wrong: places and kinds, never values."""
    return Problem(code, errors=[_field(e) for _, e in zip(range(MAX_ERRORS), errors, strict=False)])


def unreadable(error: ValidationError) -> Problem:
    """The problem of a body."""
    return invalid(error.errors(include_input=False, include_url=False, include_context=False))


def _field(error: Mapping[str, Any]) -> FieldProblem:
    place, kind = tuple(error["loc"]), str(error["type"])
    if kind == "extra_forbidden":
        # The name is the sender's own, and may be anything.
        return FieldProblem(field=_dotted(place[:-1]), reason="a field that this version does not have")
    reason = str(error["msg"]) if kind in {"missing", "value_error"} else f"not valid: {kind}"
    return FieldProblem(field=_dotted(place), reason=reason[:400])


def _dotted(place: tuple[Any, ...]) -> str:
    return ".".join(str(p) for p in place)


def described(*codes: str) -> dict[int | str, dict[str, Any]]:
    """The errors of one path, for OpenAPI."""
    found: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = TITLES[code]
        told = found.setdefault(
            status,
            {
                "description": "",
                "content": {CONTENT_TYPE: {"schema": {"$ref": "#/components/schemas/ProblemDetails"}}},
            },
        )
        told["description"] = f"{told['description']}\n`{code}`: {title}.".strip()
    return found


async def answer_problem(_: Request, error: Exception) -> Response:
    """Exception handler of `Problem`."""
    assert isinstance(error, Problem)
    return error.response()
