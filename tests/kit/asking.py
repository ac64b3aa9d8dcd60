"""Asks the service behind a worker's two calls, and reads its answers as a worker does."""

from typing import Any

from keshi.orchestrator.go import GoService
from keshi.schemas.tasks import (
    Begin,
    BeginRequest,
    BeginResponse,
    TaskRef,
    Unwrapped,
    UnwrapRequest,
    UnwrapResponse,
)


def unwrap(go: GoService, caller: str, *refs: TaskRef) -> tuple[Unwrapped, ...]:
    """The identifiers of these tasks."""
    return UnwrapResponse.model_validate_json(go.unwrap(caller, UnwrapRequest(tasks=refs))).tasks


def begin(go: GoService, caller: str, *questions: Begin) -> tuple[Any, ...]:
    """A `Go`, `Wait` or `Stop` for each question."""
    return BeginResponse.model_validate_json(go.begin(caller, BeginRequest(tasks=questions))).tasks
