"""What we write by the short way is what pydantic and RFC 8785 write; what is not checked again is as if it were."""

import json
from datetime import datetime, timedelta, timezone
from typing import Any
from uuid import uuid4

import pytest
import rfc8785
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from keshi.orchestrator import events as ev
from keshi.orchestrator.request import TaskProgress
from keshi.schemas.base import MAX_SAFE_INTEGER, changed, made
from keshi.schemas.closure import ClosureRecord
from keshi.schemas.examples import examples
from keshi.schemas.identifiers import Identifier
from keshi.schemas.reports import Accepted, Completed
from keshi.schemas.requests import RequestState
from keshi.schemas.tasks import Begin, BeginRequest, Found, Mode, PerformTasks, TaskRef, UnwrapRequest
from keshi.schemas.writing import canonical_members, canonical_text, canonical_whole, sent, whole

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ZONES = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
MOMENTS = st.datetimes(timezones=ZONES)


def as_sent(model: BaseModel) -> dict[str, Any]:
    return model.model_dump(mode="json", exclude_none=True)


def held(words: str, at: datetime, count: int | None) -> ev.TaskHeld:
    return ev.TaskHeld(system="crm", attempt=1, reason=words, count=count, next_at=at, left=(words,))


@pytest.mark.parametrize("model", examples(), ids=lambda m: type(m).__name__)
def test_every_message_is_written_as_pydantic_and_rfc_8785_write_it(model: BaseModel) -> None:
    assert whole(model) == model.model_dump_json().encode()
    assert sent(model) == model.model_dump_json(exclude_none=True).encode()
    assert canonical_text(model) == rfc8785.dumps(as_sent(model))
    assert canonical_whole(model) == rfc8785.dumps(model.model_dump(mode="json"))
    assert canonical_members(model) == {n: rfc8785.dumps(v) for n, v in as_sent(model).items()}
    first = next(iter(as_sent(model)))
    assert canonical_text(model, without=[first]) == rfc8785.dumps(
        {n: v for n, v in as_sent(model).items() if n != first}
    )


@given(TEXT, MOMENTS, st.none() | st.integers(-MAX_SAFE_INTEGER, MAX_SAFE_INTEGER))
def test_so_is_whatever_stands_in_a_field(words: str, at: datetime, count: int | None) -> None:
    model = held(words, at, count)
    assert whole(model) == model.model_dump_json().encode()
    assert sent(model) == model.model_dump_json(exclude_none=True).encode()
    assert canonical_text(model) == rfc8785.dumps(as_sent(model))
    assert canonical_whole(model) == rfc8785.dumps(model.model_dump(mode="json"))


@given(st.dictionaries(TEXT, st.lists(TEXT, max_size=2).map(tuple), max_size=4))
def test_and_whatever_a_member_is_called(learned: dict[str, tuple[str, ...]]) -> None:
    model = ev.TaskIdentified(system="crm", attempt=1, learned=learned)
    assert whole(model) == model.model_dump_json().encode()
    assert canonical_text(model) == rfc8785.dumps(as_sent(model))
    assert canonical_whole(model) == rfc8785.dumps(model.model_dump(mode="json"))


def test_what_has_no_canonical_form_is_refused() -> None:
    with pytest.raises(TypeError):
        canonical_text(made(ev.AlarmRaised, passed=2**53, overdue=False))


@pytest.mark.parametrize("model", [ClosureRecord, Accepted, Completed, RequestState, PerformTasks])
def test_what_is_written_so_has_no_field_for_a_fraction(model: type[BaseModel]) -> None:
    assert '"type": "number"' not in json.dumps(model.model_json_schema())


def test_what_a_worker_asks_has_no_member_that_could_be_absent() -> None:
    ref = TaskRef(request_id=str(uuid4()), system="crm", attempt=1)
    begin = Begin(
        **dict(ref),
        begin_id="0" * 32,
        manifest=(Found(category="contacts", ref="消-1"),),
        searched=("email",),
        learned=(Identifier(type="email", value="taro@people.example"),),
    )
    asked: tuple[BaseModel, ...] = UnwrapRequest(tasks=(ref,)), BeginRequest(tasks=(begin,))
    for request in asked:
        assert whole(request) == request.model_dump_json(exclude_none=True).encode()


def test_what_is_made_unchecked_is_as_if_it_were_checked() -> None:
    at = datetime(2026, 11, 2, tzinfo=timezone.utc)  # noqa: UP017 - one of the kinds of UTC
    plain = ev.TaskDispatched(system="crm", attempt=1, mode=Mode.ACT, next_at=at)
    quick = made(ev.TaskDispatched, attempt=1, system="crm", next_at=at, mode=Mode.ACT)
    assert quick == plain
    assert whole(quick) == whole(plain) == plain.model_dump_json().encode()
    assert ev.EVENTS.validate_json(whole(quick)) == quick.model_copy() == plain


def test_what_was_not_given_is_never_written() -> None:
    """A field that is made anew for each has to be given: two would share it."""
    missing = made(ev.TaskIdentified, system="crm", attempt=1)
    with pytest.raises(TypeError):
        whole(missing)


def test_a_changed_copy_leaves_the_first_as_it_was() -> None:
    first = TaskProgress(system="crm")
    second = changed(first, {"attempt": 3})
    assert (first.attempt, second.attempt) == (0, 3)
    assert second == first.model_copy(update={"attempt": 3})
    assert whole(second) == second.model_dump_json().encode()
