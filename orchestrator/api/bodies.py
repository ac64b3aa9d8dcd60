"""Bodies that we read ourselves: bounded, and never repeated in an error."""

from typing import TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError

from keshi.orchestrator.api.access import body_of
from keshi.orchestrator.api.problems import unreadable

MAX_QUESTION_BYTES = 65_536
M = TypeVar("M", bound=BaseModel)


async def question(request: Request, kind: type[M]) -> M:
    """The body as a model.

    Raises:
        Problem: it is too large, or not valid; says where and how, never what.
    """
    try:
        return kind.model_validate_json(await body_of(request.receive, MAX_QUESTION_BYTES))
    except ValidationError as e:
        raise unreadable(e) from None
