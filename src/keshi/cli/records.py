"""A closure record as people read it."""

from collections.abc import Mapping

from keshi.cli.output import heading, table
from keshi.schemas.closure import ClosureRecord, SystemRecord


def show_record(
    record: ClosureRecord, *, checked: str = "", reasons: Mapping[tuple[str, int], str | None] | None = None
) -> None:
    """Show a record.

    Args:
        record: The record.
        checked: What a check of its hash gave.
        reasons: The opened words of its decisions, by system and place.
    """
    table(("what", "value"), [f for f in _facts(record, checked) if f[1] not in {None, ""}])
    heading("Outcomes")
    table(
        ("system", "category", "outcome", "records", "found", "decided by", "ground", "until", "reason"),
        [row for system in record.systems for row in _outcomes(system)],
    )
    heading("Systems")
    table(
        ("system", "handler", "searched by", "checked", "attempts", "errors", "residue"),
        [_system(s) for s in record.systems],
    )
    decisions = [(s.system, n, d) for s in record.systems for n, d in enumerate(s.decisions)]
    if decisions:
        heading("Decisions")
        table(
            ("system", "decision", "person", "at", "ground", "reason"),
            [
                (system, d.decision, d.person, d.at.isoformat(), d.ground, (reasons or {}).get((system, n), "sealed"))
                for system, n, d in decisions
            ],
        )
    if record.obligations:
        heading("Obligations")
        table(
            ("system", "category", "kind", "records", "ground", "until"),
            [(o.system, o.category, o.kind, o.count, o.ground, o.until) for o in record.obligations],
        )


def _facts(record: ClosureRecord, checked: str) -> list[tuple[str, object]]:
    scope = record.scope
    asked = record.requested_by
    evidence = ", ".join((*asked.identity_evidence, *asked.mandate_evidence))
    clocks = record.clocks
    return [
        ("request", record.request_id),
        ("action", record.action),
        ("verdict", record.verdict),
        (
            "scope",
            ", ".join((*(scope.categories or ()), *(scope.purposes or ()), *(scope.items or ()))) or "everything",
        ),
        ("ground", f"{record.ground} ({record.regime})"),
        ("asked by", asked.kind + (f" ({evidence})" if evidence else "")),
        ("assessed by", f"{record.assessed.by}, {record.assessed.at.isoformat()}"),
        ("arrived", f"{clocks.arrived.isoformat()}, {record.arrival.channel}"),
        ("accepted", clocks.accepted.isoformat()),
        ("due", clocks.due.isoformat()),
        ("closed", clocks.closed.isoformat() + (" (late)" if clocks.closed > clocks.due else "")),
        ("withdrawn", "yes" if record.withdrawn else None),
        ("superseded by", record.superseded_by),
        ("plan", record.plan_hash),
        ("inventory", record.plan.inventory),
        ("place", f"number {record.number} in the chain of partition {record.partition}"),
        ("hash", f"{record.hash}{f' ({checked})' if checked else ''}"),
        ("hash before", record.previous),
    ]


def _outcomes(system: SystemRecord) -> list[tuple[object, ...]]:
    found = system.located.counts
    return [
        (
            system.system,
            o.category,
            o.outcome,
            o.count,
            found.get(o.category),
            o.decided_by,
            o.ground,
            o.until,
            o.reason,
        )
        for o in system.outcomes
    ]


def _system(system: SystemRecord) -> tuple[object, ...]:
    handler = f"{system.handler.name} {system.handler.version}" if system.handler else ""
    residue = ", ".join(f"{r.place} ({r.reason}{f', until {r.until}' if r.until else ''})" for r in system.residue)
    errors = ", ".join(a.error for a in system.attempts if a.error)
    checked = system.checked_at.isoformat(timespec="seconds") if system.checked_at else ""
    return system.system, handler, ", ".join(system.searched), checked, len(system.attempts), errors, residue
