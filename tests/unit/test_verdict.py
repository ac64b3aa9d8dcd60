"""The verdict table, whole: every set of outcomes that a request can have."""

from itertools import chain, combinations

import pytest

from keshi.schemas.outcomes import DONE, NOT_PROVIDED, UNTOUCHED, CategoryOutcome, DecidedBy, Outcome, Verdict, verdict


def sets() -> chain[tuple[Outcome, ...]]:
    return chain.from_iterable(combinations(Outcome, n) for n in range(1, len(Outcome) + 1))


def outcomes(found: tuple[Outcome, ...], *, superseded: bool = False) -> list[CategoryOutcome]:
    by = DecidedBy.SUPERSESSION if superseded else DecidedBy.WITHDRAWAL
    return [
        CategoryOutcome.model_construct(
            category="c", outcome=o, count=1, decided_by=by if o is Outcome.NOT_STARTED else DecidedBy.WORKER
        )
        for o in found
    ]


def expected(found: frozenset[Outcome], *, narrowed: bool, residue: bool, superseded: bool) -> Verdict:
    """The published table, said again in other words."""
    asked = found - {Outcome.OUT_OF_SCOPE}
    plain = DONE | {Outcome.NOT_FOUND}
    if asked == {Outcome.REFUSED}:
        return Verdict.REFUSED
    if asked == {Outcome.NOT_FOUND}:
        return Verdict.NO_DATA_HELD
    if Outcome.NOT_STARTED in asked and not asked - UNTOUCHED:
        return Verdict.SUPERSEDED if superseded else Verdict.WITHDRAWN
    if not asked or asked - plain or residue:
        return Verdict.FULFILLED_WITH_EXCEPTIONS
    return Verdict.FULFILLED_WITHIN_SCOPE if narrowed or asked != found else Verdict.FULFILLED


@pytest.mark.parametrize("narrowed", [False, True])
@pytest.mark.parametrize("residue", [False, True])
@pytest.mark.parametrize("superseded", [False, True])
def test_every_set_of_outcomes_has_its_verdict(narrowed: bool, residue: bool, superseded: bool) -> None:
    for found in sets():
        wanted = expected(frozenset(found), narrowed=narrowed, residue=residue, superseded=superseded)
        assert verdict(outcomes(found, superseded=superseded), narrowed=narrowed, residue=residue) is wanted, found


def test_fulfilled_means_plainly_done() -> None:
    """Nothing but the five done outcomes and `not_found` ever amounts to `fulfilled`."""
    for found in sets():
        if verdict(outcomes(found), narrowed=False) is Verdict.FULFILLED:
            assert set(found) <= DONE | {Outcome.NOT_FOUND}


def test_nothing_cannot_be_judged() -> None:
    with pytest.raises(ValueError, match="without outcomes"):
        verdict([], narrowed=False)


@pytest.mark.parametrize("narrowed", [False, True])
@pytest.mark.parametrize("residue", [False, True])
def test_who_provides_nothing_changes_no_verdict(narrowed: bool, residue: bool) -> None:
    """Nor makes a scope narrower. But it was not searched: beside it nobody says that no data are held."""
    nothing = CategoryOutcome(category="c", outcome=Outcome.OUT_OF_SCOPE, reason=NOT_PROVIDED)
    fulfilled = Verdict.FULFILLED_WITHIN_SCOPE if narrowed else Verdict.FULFILLED
    for found in sets():
        alone = verdict(outcomes(found), narrowed=narrowed, residue=residue)
        beside = verdict([*outcomes(found), nothing], narrowed=narrowed, residue=residue)
        if alone is not Verdict.NO_DATA_HELD:
            assert beside is alone, found
        elif residue:
            assert beside is Verdict.FULFILLED_WITH_EXCEPTIONS, found
        else:
            assert beside is (Verdict.FULFILLED_WITHIN_SCOPE if Outcome.OUT_OF_SCOPE in found else fulfilled), found


def test_nothing_provided_and_all_else_stopped_is_plainly_fulfilled() -> None:
    stopped = CategoryOutcome(category="c", outcome=Outcome.PROVISION_STOPPED, count=1)
    for reason, becomes in ((NOT_PROVIDED, Verdict.FULFILLED), ("other_reason", Verdict.FULFILLED_WITHIN_SCOPE)):
        beside = CategoryOutcome(category="c", outcome=Outcome.OUT_OF_SCOPE, reason=reason)
        assert verdict([stopped, beside], narrowed=False) is becomes
