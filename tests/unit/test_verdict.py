"""The verdict table, whole: every set of outcomes that a request can have."""

from itertools import chain, combinations

import pytest

from keshi.schemas.outcomes import DONE, UNTOUCHED, CategoryOutcome, DecidedBy, Outcome, Verdict, verdict


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
