"""From states to outcomes: every record is counted once, and nothing counts as done that is not."""

from collections import Counter
from datetime import date, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from keshi.handlers.contract import Active, Anonymised, Gone, ProvisionStopped, Retained, State, Suspended
from keshi.handlers.errors import GiveToPerson
from keshi.handlers.worker.judge import MAX_OUTCOMES, Case, NotVerified, identified, judge
from keshi.schemas.commands import Action
from keshi.schemas.outcomes import Outcome
from keshi.schemas.tasks import Found, Mode

UNTIL = date(2031, 3, 31)
KEPT = Retained("jp.tax", UNTIL, restricted=True)
LOOSE = Retained("jp.tax", UNTIL, restricted=False)
STATES: list[Any] = [Gone(), Anonymised(), Suspended(), ProvisionStopped(), Active(), KEPT, LOOSE]
CATEGORIES = ("contacts", "invoices", "usage")


def case(action: Action, states: list[State], mode: Mode = Mode.ACT, category: str = "invoices") -> Case:
    union = tuple(Found(category=category, ref=str(n)) for n in range(len(states)))
    return Case(action, mode, (category,), ("email",), union, states)


def ends(action: Action, state: State, mode: Mode = Mode.ACT) -> Outcome | None:
    try:
        (outcome,) = judge(case(action, [state], mode))
    except NotVerified:
        return None
    assert outcome.count == 1
    return outcome.outcome


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (Action.ERASE, ["erased", "anonymised", None, None, None, "retained_by_law", None]),
        (Action.SUSPEND_USE, ["not_found", "not_found", "suspended", None, None, "suspended", None]),
        (Action.RESUME_USE, ["not_found", "not_found", None, "resumed", "resumed", None, "resumed"]),
        (
            Action.STOP_PROVISION,
            ["not_found", "not_found", "provision_stopped", "provision_stopped", None, "provision_stopped", None],
        ),
    ],
)
def test_the_whole_table(action: Action, expected: list[str | None]) -> None:
    """An act counts as done only in a state that it asked for; a check calls the rest not started."""
    assert [ends(action, s) for s in STATES] == expected
    assert [ends(action, s, Mode.CHECK) for s in STATES] == [e or "not_started" for e in expected]


unions = st.lists(
    st.tuples(
        st.sampled_from([*CATEGORIES, "elsewhere"]),
        st.one_of(
            st.sampled_from(STATES),
            st.builds(
                Retained,
                st.sampled_from(["jp.tax", "jp.telecom"]),
                st.dates(date(2026, 1, 1), date(2036, 12, 31)),
                st.just(True),
            ),
        ),
    ),
    max_size=60,
)


@given(st.sampled_from(list(Action)), st.sampled_from([Mode.ACT, Mode.CHECK]), unions)
def test_counts_add_up_to_the_union_and_places_are_named_once(
    action: Action, mode: Mode, records: list[tuple[str, State]]
) -> None:
    """Whatever the states: every record in exactly one outcome, and every category of the task with one."""
    union = tuple(Found(category=c, ref=str(n)) for n, (c, _) in enumerate(records))
    states = [s for _, s in records]
    try:
        outcomes = judge(Case(action, mode, CATEGORIES, ("email",), union, states))
    except NotVerified:
        assert mode is Mode.ACT
        return
    located = Counter(f.category for f in union)
    counted: Counter[str] = Counter()
    named: list[int] = []
    for outcome in outcomes:
        counted[outcome.category] += outcome.count
        alike = sum(o.category == outcome.category for o in outcomes) == 1
        if outcome.items is None:
            assert alike
            assert outcome.outcome is not Outcome.RETAINED_BY_LAW
        else:
            assert len(outcome.items) == outcome.count
            assert all(union[i].category == outcome.category for i in outcome.items)
            named += outcome.items
    assert set(CATEGORIES) <= set(counted)
    assert {c: n for c, n in counted.items() if n} == dict(located)
    assert len(named) == len(set(named))


def test_what_is_kept_until_different_days_is_told_apart_as_far_as_a_report_goes() -> None:
    """More days than outcomes fit into a report: they are joined by month, and the last day holds for all."""
    few = [Retained("jp.tax", UNTIL + timedelta(days=n), restricted=True) for n in range(10)]
    assert len(judge(case(Action.ERASE, list(few)))) == 10
    many = [Retained("jp.tax", UNTIL + timedelta(days=n), restricted=True) for n in range(700)]
    outcomes = judge(case(Action.ERASE, list(many)))
    assert len(outcomes) <= MAX_OUTCOMES
    assert sum(o.count for o in outcomes) == 700
    for outcome in outcomes:
        assert outcome.until == max(many[i].until for i in outcome.items or ())


def test_a_state_for_each_record_or_a_person_looks() -> None:
    """A handler that leaves a record out has not verified it."""
    with pytest.raises(GiveToPerson, match="verify_misaligned"):
        judge(Case(Action.ERASE, Mode.ACT, ("usage",), ("email",), (Found(category="usage", ref="1"),), ()))


def test_nothing_found_counts_only_after_a_search() -> None:
    """`not_found` is a statement about a search."""
    assert [o.outcome for o in judge(Case(Action.ERASE, Mode.ACT, CATEGORIES, ("email",), (), ()))] == [
        Outcome.NOT_FOUND
    ] * 3
    with pytest.raises(GiveToPerson, match="nothing_searched"):
        judge(Case(Action.ERASE, Mode.ACT, CATEGORIES, (), (), ()))


def test_who_only_identified_says_nothing_of_erasing() -> None:
    """Its outcomes are out of scope, with the reason."""
    assert {(o.category, o.outcome, o.reason) for o in identified(("usage",))} == {
        ("usage", Outcome.OUT_OF_SCOPE, "identified_only")
    }
