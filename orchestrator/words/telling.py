"""An account as people read it: sections of lines. Chooses sentences; the catalogues hold them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from keshi.orchestrator.account import Account, Standing
from keshi.orchestrator.words import Words
from keshi.orchestrator.words.names import Names
from keshi.orchestrator.words.outcomes import done_in, errors_of, held_lines
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import StopReason


@dataclass(frozen=True)
class Section:
    """A heading with its lines, each with how far it is set in."""

    name: str
    heading: str
    lines: tuple[tuple[int, str], ...]


def tell(account: Account, words: Words, *, genuine: bool | None = None) -> tuple[Section, ...]:
    """The whole account.

    Args:
        account: Of one request.
        words: The language, and the zone of times.
        genuine: What a check of the record's hash gave; None where there is none, or it was not checked.
    """
    teller = _Teller(account, words)
    closed = account.request.status is RequestStatus.CLOSED
    sections = [
        ("closed" if closed else "open", teller.summary()),
        ("asked", teller.asked()),
        ("done" if closed else "stands", teller.systems()),
        ("held", teller.held()),
        ("late", teller.late()),
        ("decided", teller.decided()),
        ("left", teller.left()),
        ("told", teller.told()),
        ("next", teller.next()),
    ]
    if closed:
        sections.append(("proof", teller.proof(genuine)))
    return tuple(
        Section(_PARTS.get(name, name), words.say("heading", name, request=account.request.request_id), tuple(lines))
        for name, lines in sections
    )


SECTIONS = ("summary", "asked", "systems", "held", "late", "decided", "left", "told", "next", "proof")
"""The names of all sections, in their order."""
_PARTS = {"closed": "summary", "open": "summary", "done": "systems", "stands": "systems"}
Lines = Iterator[tuple[int, str]]
_SECONDS_A_DAY = 86_400


class _Teller:
    def __init__(self, account: Account, words: Words) -> None:
        self._a = account
        self._w = words
        self._names = Names(account.inventory, words)

    def _label(self, name: str, text: str) -> tuple[int, str]:
        return 0, self._w.say("units", "label", label=self._w.say("label", name), text=text)

    # --- sections

    def summary(self) -> Lines:
        w, request = self._w, self._a.request
        verdict = w.code("verdict", request.verdict) if request.verdict else w.say("status", request.status)
        yield 0, w.say("units", "label", label=w.say("action", request.action), text=verdict)
        if request.withdrawn:
            yield 0, w.say("line", "withdrawn")
        if request.superseded_by:
            yield 0, w.say("line", "superseded", request=request.superseded_by)
        if request.status is not RequestStatus.CLOSED:
            yield 0, w.say("line", "as_of", at=w.when(self._a.as_of))

    def asked(self) -> Lines:
        a, w = self._a, self._w
        yield self._label("asked", w.say("asked", a.request.action, scope=self._names.scope(a.scope)))
        yield self._label("requester", w.code("requester", a.requested_by.kind))
        for name, evidence in (
            ("identity", a.requested_by.identity_evidence),
            ("mandate", a.requested_by.mandate_evidence),
        ):
            if evidence:
                yield self._label(name, w.join(evidence))
        yield self._label("ground", self._names.ground(a.ground))
        yield self._label("received", w.when(a.arrival.at))
        yield self._label("channel", a.arrival.channel)
        yield self._label("assessed", w.say("line", "assessed", who=a.assessed.by, at=w.when(a.assessed.at)))
        yield self._label("accepted", w.when(a.request.accepted_at))
        yield self._label("due", w.when(a.request.due_at))
        if a.request.closed_at:
            yield self._label("closed", w.join((w.when(a.request.closed_at), self._margin(a.request.closed_at))))

    def systems(self) -> Lines:
        for standing in self._a.systems:
            yield 0, self._names.holder(standing.system)
            if not standing.ended:
                yield from ((1, line) for line in self._stands(standing))
            yield from ((depth + 1, line) for depth, line in done_in(standing, self._names, self._w))

    def held(self) -> Lines:
        found = [*held_lines(self._a, self._names, self._w)]
        yield from found or [(0, self._w.say("line", "nothing_held"))]

    def late(self) -> Lines:
        found = [*self._late()]
        yield from found or [(0, self._w.say("line", "nothing_late"))]
        request = self._a.request
        if request.status is not RequestStatus.CLOSED and request.due_at > self._a.as_of:
            left = self._span("left", request.due_at, self._a.as_of)
            yield 0, self._w.say("line", "not_overdue", due=self._w.when(request.due_at), left=left)

    def decided(self) -> Lines:
        w = self._w
        found = [(s, d) for s in self._a.systems for d in s.decisions]
        for standing, decision in sorted(found, key=lambda pair: pair[1].at):
            what = w.code("decision", decision.decision)
            said = w.say("line", "decided", who=decision.person, at=w.when(decision.at), what=what)
            yield 0, w.say("units", "label", label=self._names.system(standing.system), text=said)
            if decision.ground:
                yield 1, w.say("line", "decided_ground", ground=self._names.ground(decision.ground))
            if decision.words:
                yield 1, w.say("line", "decided_words", words=w.say("units", "quoted", text=decision.words))
            else:
                yield 1, w.say("line", "sealed")
        if not found:
            closed = self._a.request.status is RequestStatus.CLOSED
            yield 0, w.say("line", "nobody_decided" if closed else "nobody_decided_yet", who=self._a.assessed.by)

    def left(self) -> Lines:
        found = [*self._names.obligations(self._a.obligations, "to_do")]
        yield from found or [(0, self._w.say("line", "nothing_left"))]

    def told(self) -> Lines:
        w, a = self._w, self._a
        if a.notified_at:
            yield 0, w.say("line", "told_on", at=w.when(a.notified_at))
        else:
            yield 0, w.say("line", "not_told" if a.request.status is RequestStatus.CLOSED else "not_told_open")

    def next(self) -> Lines:
        w, a = self._w, self._a
        held = [s.system for s in a.systems if s.status is TaskStatus.HELD]
        if a.request.status is RequestStatus.CLOSED:
            moments = [o.next_at for o in a.obligations if o.next_at and o.status == "open"]
            yield (
                0,
                w.say("line", "next_left", moment=w.when(min(moments))) if moments else w.say("line", "next_closed"),
            )
            return
        moments = [s.next_at for s in a.systems if s.next_at and s.status in _BY_ITSELF]
        if moments:
            yield 0, w.say("line", "next_at", moment=w.when(max(min(moments), a.as_of)))
        if a.request.waits_for:
            yield 0, w.say("line", "waited_elder", request=a.request.waits_for)
        if held:
            named = w.join(self._names.system(s) for s in held)
            yield 0, w.say("line", "next_person_too" if moments else "next_person", systems=named)

    def proof(self, genuine: bool | None) -> Lines:  # noqa: FBT001 - the finding itself
        w, a = self._w, self._a
        yield 0, w.say("line", {True: "hash_right", False: "hash_wrong", None: "hash_unchecked"}[genuine])
        if a.place:
            yield 0, w.say("line", "place", partition=a.place[0], number=a.place[1])
        if a.hash:
            yield 0, w.say("line", "hash", hash=a.hash)

    # --- what stands, and why it is late

    def _stands(self, standing: Standing) -> Iterator[str]:
        """Where a task stands that has not ended, why, and what happens next."""
        w, s = self._w, standing
        if s.status is TaskStatus.WAITING:
            if self._a.request.waits_for:
                yield w.say("task", "waiting_elder")
            elif s.after:
                yield w.say("task", "waiting_for", systems=w.join(self._names.system(n) for n in s.after))
            else:
                yield w.say("task", "waiting")
        elif s.status is TaskStatus.OPEN:
            yield w.say("task", "open", since=self._when(s.since), attempt=s.attempt)
            if s.late and s.next_at and s.next_at <= self._a.as_of:
                yield w.say("task", "silent", moment=self._when(s.next_at))
        elif s.status is TaskStatus.SCHEDULED:
            failed = sum(1 for a in s.attempts if a.error)
            if failed and not s.left:  # a system that works on by itself was looked at, not tried
                times = w.say("units", "times", failed)
                yield w.say("task", "scheduled", times=times, moment=self._when(s.next_at))
            else:
                yield w.say("task", "scheduled_once_more", moment=self._when(s.next_at))
            if s.late:
                yield w.say("task", "past_its_date")
        else:
            yield w.say("task", "held", since=self._when(s.since))
        yield from self._because(s)

    def _because(self, s: Standing) -> Iterator[str]:
        w = self._w
        if s.reason:
            yield w.say("task", "because", reason=w.code("waits", s.reason))
        error = _last_error(s)
        if s.status is TaskStatus.HELD and error and error != s.reason:
            yield w.say("task", "because", reason=w.code("waits", error))
        if s.left:
            yield w.say("task", "left", categories=w.join(self._names.category(s.system, c) for c in s.left))
        if s.found and sum(s.found.values()):
            yield w.say("task", "found", sum(s.found.values()))
        if s.status is TaskStatus.HELD:
            choices = ("refuse", "retry") if s.reason != StopReason.OVER_LIMIT else ("approve", "refuse", "retry")
            command = f"keshi decide {self._a.request.request_id} {s.system} {'|'.join(choices)} --reason …"
            yield w.say("task", "can_be_decided", command=command)

    def _late(self) -> Lines:
        w, a, request = self._w, self._a, self._a.request
        if request.closed_at and request.closed_at > request.due_at:
            by = self._span("late", request.closed_at, request.due_at)
            due, closed = w.when(request.due_at), w.when(request.closed_at)
            yield 0, w.say("line", "closed_late", due=due, closed=closed, by=by)
            yield from self._why_so_long()
        elif request.closed_at is None and request.due_at <= a.as_of:
            by = self._span("late", a.as_of, request.due_at)
            yield 0, w.say("line", "overdue", due=w.when(request.due_at), by=by)
            yield from self._came_late()
        for standing in a.systems if request.closed_at is None else ():
            if not standing.ended and (standing.late or standing.attempts or request.due_at <= a.as_of):
                yield 0, self._names.system(standing.system)
                for line in self._stands(standing):
                    yield 1, line
        if request.waits_for:
            yield 0, w.say("line", "waited_elder", request=request.waits_for)
        yield from self._names.obligations((o for o in a.obligations if o.late), "to_do")

    def _came_late(self) -> Lines:
        request = self._a.request
        if request.accepted_at > request.due_at:
            yield 0, self._w.say("line", "came_late", accepted=self._w.when(request.accepted_at))

    def _why_so_long(self) -> Lines:
        """Of a closed request: what came too late, and which system kept it open."""
        w = self._w
        yield from self._came_late()
        ends = [(s.attempts[-1].ended, s) for s in self._a.systems if s.attempts and s.attempts[-1].ended]
        if ends:
            at, last = max(ends, key=lambda pair: pair[0] or self._a.as_of)
            yield 0, w.say("line", "last_system", system=self._names.system(last.system), at=self._when(at))
            if errors := errors_of(last, w):
                yield 1, errors

    # --- small words

    def _when(self, at: datetime | None) -> str:
        return self._w.when(at or self._a.as_of)

    def _margin(self, closed: datetime) -> str:
        due = self._a.request.due_at
        return self._span("late", closed, due) if closed > due else self._w.say("line", "in_time")

    def _span(self, name: str, later: datetime, earlier: datetime) -> str:
        """`3 days late`, `less than a day left`."""
        days = int((later - earlier).total_seconds() // _SECONDS_A_DAY)
        if not days:
            return self._w.say("line", f"{name}_hours")
        family = f"{name}_by" if name == "late" else f"{name}_days"
        return self._w.say("line", family, days=self._w.say("units", "days", days))


_BY_ITSELF = frozenset({TaskStatus.OPEN, TaskStatus.SCHEDULED, TaskStatus.WAITING})


def _last_error(s: Standing) -> str | None:
    """Why the last attempt ended. That acts are spent says nothing of it: then why the one before did."""
    errors = [a.error for a in s.attempts if a.error != StopReason.ACTS_SPENT]
    return errors[-1] if errors else None


def lines_of(sections: Iterable[Section]) -> Sequence[str]:
    """Plain text, two spaces for each step inwards."""
    found: list[str] = []
    for n, section in enumerate(sections):
        found += [""] * (n > 0) + [section.heading]
        found += [f"{'  ' * (depth + 1)}{line}" for depth, line in section.lines]
    return found
