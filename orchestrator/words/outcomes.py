"""How each system ended, and what is still held: outcomes, residue and obligations as sentences."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import date
from functools import partial

from keshi.orchestrator.account import Account, Standing
from keshi.orchestrator.words import Words
from keshi.orchestrator.words.names import Names
from keshi.schemas.outcomes import CategoryOutcome, DecidedBy, Outcome

Lines = Iterator[tuple[int, str]]
"""Lines with how far each is set in."""
_GONE = frozenset({Outcome.ERASED, Outcome.ANONYMISED, Outcome.NOT_FOUND})
"""Outcomes after which a system holds nothing of the person in that category."""
_OWED = frozenset({Outcome.RETAINED_BY_LAW, Outcome.SUSPENDED})
"""Outcomes of which obligations speak, as they stand now, once the request is closed."""
_SAID = frozenset({DecidedBy.WORKER, DecidedBy.WITHDRAWAL, DecidedBy.SUPERSESSION})
"""Whose word it is goes without saying: the first is as a rule, of the others the reason says it."""


def done_in(standing: Standing, names: Names, words: Words) -> Lines:
    """How each category of a system ended, by what it was searched, when it was checked, what went wrong before."""
    yield from ended(standing.outcomes, lambda category: names.category(standing.system, category), names, words)
    for residue in standing.residue:
        text = names.residue(residue)
        more = words.say("line", "held_until", until=words.day(residue.until)) if residue.until else ""
        yield 0, names.labelled("kept", words.say("units", "aside", text=text, more=more) if more else text)
    if standing.searched:
        yield 0, words.say("line", "searched", types=names.identifiers(standing.searched))
    if standing.checked_at:
        yield 0, words.say("line", "checked", at=words.when(standing.checked_at))
    if standing.ended and (errors := errors_of(standing, words)):
        yield 0, errors


def ended(outcomes: Iterable[CategoryOutcome], label: Callable[[str], str], names: Names, words: Words) -> Lines:
    """What was done with how many, and below it what backs it where it isn't plainly done; those alike together."""
    groups: dict[tuple[object, ...], list[CategoryOutcome]] = {}
    for o in outcomes:
        groups.setdefault((o.category, o.outcome, o.ground, o.reason, o.decided_by), []).append(o)
    for same in groups.values():
        yield from _ending(label(same[0].category), same, names, words)


def _ending(label: str, same: Sequence[CategoryOutcome], names: Names, words: Words) -> Lines:
    first, count = same[0], sum(o.count for o in same)
    text = words.code("outcome", first.outcome, count)
    yield 0, words.say("units", "label", label=label, text=text)
    yield from ((1, line) for line in names.backing(first.ground, [(o.until, o.count) for o in same]))
    if first.reason:
        yield 1, names.labelled("reason", words.code("reason", first.reason))
    if first.decided_by not in _SAID:
        yield 1, names.labelled("decided_by", words.code("decided_by", first.decided_by))


def errors_of(standing: Standing, words: Words) -> str | None:
    """Why more than one attempt was needed; None where one was."""
    errors = Counter(a.error for a in standing.attempts if a.error)
    if not errors:
        return None
    told = (
        words.say("units", "aside", text=words.code("waits", code), more=words.say("units", "times", n))
        for code, n in errors.items()
    )
    return words.say("line", "attempts", len(standing.attempts), errors=words.say("units", "clause").join(told))


def held_lines(account: Account, names: Names, words: Words) -> Lines:
    """What is still held, why, until when: obligations, what was not done, residue, and what keshi holds itself."""
    yield from names.obligations((o for o in account.obligations if o.status == "open"), "kept")
    owed = {(o.system, o.category) for o in account.obligations}
    for standing in account.systems:
        system = names.system(standing.system)
        if not standing.ended:
            yield 0, words.say("units", "label", label=system, text=words.say("line", "not_dealt_with"))
        left = [o for o in standing.outcomes if not _told_elsewhere(o, (standing.system, o.category) in owed)]
        counted = [o for o in left if o.count]
        yield from ended(counted, partial(_in_system, standing.system, names, words), names, words)
        yield from _untouched(standing, [o for o in left if not o.count], names, words)
        for residue in standing.residue:
            text = words.join((system, names.residue(residue)))
            yield 0, _dated(text, residue.until, account.as_of.date(), words)
    for residue in account.own_residue:
        yield 0, _dated(names.residue(residue), residue.until, account.as_of.date(), words)


def _told_elsewhere(outcome: CategoryOutcome, owed: bool) -> bool:  # noqa: FBT001 - said where it is called
    """Nothing is left, or an obligation says what is."""
    return outcome.outcome in _GONE or (outcome.outcome in _OWED and owed)


def _untouched(standing: Standing, left: Iterable[CategoryOutcome], names: Names, words: Words) -> Lines:
    """Categories of which nothing was counted: those that ended alike together, and all of a system by its name."""
    groups: dict[tuple[object, ...], list[CategoryOutcome]] = {}
    for o in left:
        groups.setdefault((o.outcome, o.ground, o.reason, o.decided_by), []).append(o)
    for same in groups.values():
        whole = standing.ended and len(same) == len(standing.outcomes)
        parts = () if whole else (names.category(standing.system, o.category) for o in same)
        yield from _ending(words.join((names.system(standing.system), *parts)), same, names, words)


def _in_system(system: str, names: Names, words: Words, category: str) -> str:
    return words.join((names.system(system), names.category(system, category)))


def _dated(text: str, until: date | None, today: date, words: Words) -> str:
    more = words.say("line", "held_until", until=words.day(until)) if until else words.say("line", "held_open")
    if until and until < today:
        more = words.join((more, words.say("line", "passed")))
    return words.say("units", "aside", text=text, more=more)
