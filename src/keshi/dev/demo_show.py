"""The demo's tables: all closures, one whole record, and what the look found."""

from collections.abc import Iterable, Iterator

from rich.console import Console, Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from keshi.dev.demo_commands import Step
from keshi.dev.demo_sender import Sender
from keshi.dev.systems.look import Findings, Goal
from keshi.schemas.closure import ClosureRecord, SystemRecord
from keshi.schemas.outcomes import CategoryOutcome


def closures(console: Console, steps: Iterable[Step], sender: Sender) -> None:
    """One line a command: what it was, and what it came to."""
    table = Table(title="What was asked, and what it came to", title_justify="left")
    for name in ("", "command", "request", "answer", "records"):
        table.add_column(name, overflow="fold")
    for number, step in enumerate(steps, 1):
        answers = sender.answers[step.request_id]
        wrong = sender.wrong(step)
        record = answers.closures[0] if answers.closures else None
        mine = record if step.verdict else None
        answer = Text(f"{_answer(step, record)}{f' ({wrong})' if wrong else ''}", style="bold red" if wrong else "")
        table.add_row(str(number), step.title, step.request_id, answer, _counts(mine) if mine else "")
    console.print(table)


def _answer(step: Step, record: ClosureRecord | None) -> str:
    if step.rejected:
        return f"rejected: {step.rejected}"
    if step.repeats:
        return "the closure that exists"
    if not step.verdict:
        return "taken note of"
    return str(record.verdict) if record else "open"


def _counts(record: ClosureRecord) -> str:
    return ", ".join(f"{count} {outcome}" for outcome, count in sorted(record.done().items()) if count)


def whole(console: Console, record: ClosureRecord) -> None:
    """One closure record with everything that is in it."""
    parts = [_head(record), *(_system(system) for system in record.systems), *_obligations(record), _seal(record)]
    console.print(Panel(Group(*parts), title=f"Closure record of {record.request_id}", title_align="left"))


def _pairs(rows: Iterable[tuple[str, object]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(name, str(value))
    return table


def _head(record: ClosureRecord) -> RenderableType:
    asked, clocks = record.requested_by, record.clocks
    evidence = ", ".join((*asked.identity_evidence, *asked.mandate_evidence))
    scope = ", ".join((*(record.scope.categories or ()), *(record.scope.purposes or ()), *(record.scope.items or ())))
    return _pairs(
        [
            ("verdict", record.verdict),
            ("action", f"{record.action}, of {scope or 'everything'}"),
            ("ground", f"{record.ground} ({record.regime})"),
            ("asked by", asked.kind + (f", on {evidence}" if evidence else "")),
            ("assessed by", f"{record.assessed.by} at {record.assessed.at:%Y-%m-%d %H:%M:%S %Z}"),
            ("arrived", f"{clocks.arrived:%Y-%m-%d %H:%M:%S %Z} by {record.arrival.channel}"),
            ("accepted", f"{clocks.accepted:%Y-%m-%d %H:%M:%S %Z}"),
            ("due", f"{clocks.due:%Y-%m-%d %H:%M:%S %Z}"),
            ("closed", f"{clocks.closed:%Y-%m-%d %H:%M:%S %Z}"),
            ("withdrawn", "yes" if record.withdrawn else "no"),
            *((("superseded by", record.superseded_by),) if record.superseded_by else ()),
            ("person", f"known by {len(record.subject)} keyed hashes: {', '.join(h[:12] for h in record.subject)} …"),
            ("plan", f"{record.plan_hash} of inventory {record.plan.inventory}"),
        ]
    )


def _system(system: SystemRecord) -> RenderableType:
    table = Table(title=f"\n{system.system}", title_justify="left", title_style="bold")
    for name in ("category", "located", "outcome", "records", "ground", "until", "reason", "decided by"):
        table.add_column(name)
    for outcome in system.outcomes:
        table.add_row(*_outcome(system, outcome))
    attempts = (
        f"{a.attempt} ({a.mode}, {a.started:%H:%M:%S} to {'?' if a.ended is None else format(a.ended, '%H:%M:%S')}"
        f"{f', {a.error}' if a.error else ''}, acts entered: {a.acts_entered})"
        for a in system.attempts
    )
    handler = system.handler
    return Group(
        table,
        _pairs(
            [
                ("searched by", ", ".join(system.searched) or "nothing"),
                ("checked after", system.checked_at or "was not acted upon"),
                ("handler", f"{handler.name} {handler.version}" if handler else "none"),
                ("attempts", "; ".join(attempts) or "none"),
                ("commitment", system.located.commitment or "nothing located"),
                *(("residue", f"{r.place}: {r.reason}, until {r.until or 'unknown'}") for r in system.residue),
                *(("decision", f"{d.decision} by {d.person} at {d.at}") for d in system.decisions),
            ]
        ),
    )


def _outcome(system: SystemRecord, outcome: CategoryOutcome) -> Iterator[str]:
    yield outcome.category
    yield str(system.located.counts.get(outcome.category, 0))
    yield outcome.outcome
    yield str(outcome.count)
    yield outcome.ground or ""
    yield str(outcome.until or "")
    yield outcome.reason or ""
    yield outcome.decided_by


def _obligations(record: ClosureRecord) -> Iterator[RenderableType]:
    if not record.obligations:
        return
    table = Table(title="\nleft to do", title_justify="left", title_style="bold")
    for name in ("what", "system", "category", "records", "ground", "until", "id"):
        table.add_column(name, overflow="fold")
    for o in record.obligations:
        table.add_row(o.kind, o.system, o.category, str(o.count), o.ground or "", str(o.until or ""), o.obligation_id)
    yield table


def _seal(record: ClosureRecord) -> RenderableType:
    return _pairs(
        [
            ("\nchain", f"\npartition {record.partition}, number {record.number}"),
            ("hash before", record.previous),
            ("hash", record.hash),
        ]
    )


def look(console: Console, findings: Findings) -> None:
    """What was found in the systems, past all handlers."""
    table = Table(title="A look into all systems, past all handlers (records)", title_justify="left")
    for name in ("system", *(goal.value for goal in Goal if goal is not Goal.SAME), "everybody else", "wrong"):
        table.add_column(name)
    for system, found in findings.systems.items():
        same = found.bystanders_before == found.bystanders_after
        table.add_row(
            system,
            *(f"{found.right[goal]} of {wanted}" if wanted else "" for goal, wanted in found.expected.items()),
            "untouched" if same else Text("CHANGED", style="bold red"),
            Text(str(len(found.wrong)), style="bold red" if found.wrong else ""),
        )
    console.print(table)
