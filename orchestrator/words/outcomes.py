"""How each system ended, and what is still held: outcomes, residue and obligations as sentences."""

from collections import Counter
from collections.abc import Iterator
from datetime import date

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


def done_in(standing: Standing, names: Names, words: Words) -> Lines:
    """How each category of a system ended, by what it was searched, when it was checked, what went wrong before."""
    for outcome in standing.outcomes:
        yield from ended(names.category(standing.system, outcome.category), outcome, names, words)
    for residue in standing.residue:
        text = names.residue(residue)
        more = words.say("line", "held_until", until=words.day(residue.until)) if residue.until else ""
        yield 0, _labelled(words, "kept", words.say("units", "aside", text=text, more=more) if more else text)
    if standing.searched:
        yield 0, words.say("line", "searched", types=names.identifiers(standing.searched))
    if standing.checked_at:
        yield 0, words.say("line", "checked", at=words.when(standing.checked_at))
    if standing.ended and (errors := errors_of(standing, words)):
        yield 0, errors


def ended(label: str, outcome: CategoryOutcome, names: Names, words: Words) -> Lines:
    """One outcome: what was done with how many, and below it what backs it where it isn't plainly done."""
    yield 0, words.say("units", "label", label=label, text=words.code("outcome", outcome.outcome, outcome.count))
    if outcome.until:
        yield 1, _labelled(words, "until", words.day(outcome.until))
    if outcome.ground:
        yield 1, _labelled(words, "ground", names.ground(outcome.ground))
    if outcome.reason:
        yield 1, _labelled(words, "reason", words.code("reason", outcome.reason))
    if outcome.decided_by is not DecidedBy.WORKER:
        yield 1, _labelled(words, "decided_by", words.code("decided_by", outcome.decided_by))


def _labelled(words: Words, name: str, text: str) -> str:
    return words.say("units", "label", label=words.say("label", name), text=text)


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
        for outcome in standing.outcomes:
            told = outcome.outcome in _OWED and (standing.system, outcome.category) in owed
            if outcome.outcome not in _GONE and not told:
                label = words.join((system, names.category(standing.system, outcome.category)))
                yield from ended(label, outcome, names, words)
        for residue in standing.residue:
            text = words.join((system, names.residue(residue)))
            yield 0, _dated(text, residue.until, account.as_of.date(), words)
    for residue in account.own_residue:
        yield 0, _dated(names.residue(residue), residue.until, account.as_of.date(), words)


def _dated(text: str, until: date | None, today: date, words: Words) -> str:
    more = words.say("line", "held_until", until=words.day(until)) if until else words.say("line", "held_open")
    if until and until < today:
        more = words.join((more, words.say("line", "passed")))
    return words.say("units", "aside", text=text, more=more)
