"""What a batch writes, as JSON data by section: alike for every dialect."""

from datetime import UTC, datetime
from typing import Any

from keshi.orchestrator.door import write_door
from keshi.orchestrator.ledger.port import Batch, Position


def moment(at: datetime) -> str:
    """A moment as text of one width in UTC: sorted as text it is sorted by time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def plain(row: Any) -> dict[str, Any]:
    """A row as JSON data."""
    return {name: getattr(row, name) for name in row.__dataclass_fields__}


def _noted(batch: Batch) -> dict[str, Any]:
    """What is noted for those who ask."""
    accepted = [n.accepted for n in batch.notes if n.accepted]
    return {
        "cases": [
            {
                **plain(c),
                "arrived": moment(c.arrived),
                "due": moment(c.due),
                "closed": moment(c.closed) if c.closed else None,
            }
            for c in sorted(accepted, key=lambda c: c.number)
        ],
        "cases_closed": [
            {"number": n.number, "closed": moment(n.closed)}
            for n in sorted(batch.notes, key=lambda n: n.number)
            if n.closed
        ],
        "people": [{"holder": h, "number": n.number} for n in batch.notes for h in sorted(set(n.people))],
        "endings": [plain(e) for n in batch.notes for e in n.endings],
    }


def sections(batch: Batch, position: Position) -> dict[str, Any]:
    """What a batch writes, by section, sorted by key; empty sections left out."""
    lane = {"stage": position.stage, "partition": position.partition}
    # The parts of one statement do not see each other's rows: what is born and gone in one cycle is never written.
    written, destroyed, ended = (
        {s.request_id for s, _ in batch.states},
        set(batch.keys_destroyed),
        set(batch.claims_ended),
    )
    found: dict[str, Any] = {
        "events": [
            {**plain(e), "partition": position.partition}
            for e in sorted(batch.events, key=lambda e: (e.stream, e.sequence))
        ],
        "states": [
            {
                "request_id": s.request_id,
                "partition": s.partition,
                "sequence": s.sequence,
                "status": s.status.value,
                "number": s.number,
                "next_due": moment(due) if due else None,
                "state": s.stored(),
                "accepted": s.case.model_dump_json() if s.case and s.request_id not in batch.as_accepted else None,
                "door": write_door(s),
            }
            for s, due in sorted(batch.states, key=lambda pair: pair[0].request_id)
        ],
        "due_moved": [{"request_id": r, "due": moment(d)} for r, d in sorted(batch.due_moved) if r not in written],
        "inbox": [plain(r) for r in batch.inbox],
        "inbox_done": sorted(batch.inbox_done),
        "outbox": [{**plain(r), **lane} for r in batch.outbox],
        "outbox_done": sorted(batch.outbox_done),
        "arrivals": [{**plain(a), "place": a.offset} for a in batch.arrivals],
        "quarantine": [{**plain(q), "place": q.offset} for q in batch.quarantine],
        "claims": [
            plain(c) for c in sorted(batch.claims, key=lambda c: (c.holder, c.request_id)) if c.request_id not in ended
        ],
        "claims_ended": sorted(batch.claims_ended),
        "keys": [
            {"owner": k.owner, "kek_id": k.key.kek_id, "wrapped": k.key.wrapped.hex()}
            for k in sorted(batch.keys, key=lambda k: k.owner)
            if k.owner not in destroyed
        ],
        "keys_destroyed": sorted(batch.keys_destroyed),
        "plans": [{"hash": h, "body": b} for h, b in sorted(batch.plans.items())],
        "inventories": [{"hash": h, "body": b} for h, b in sorted(batch.inventories.items())],
        "closures": [plain(c) for c in batch.closures],
        "obligations": [{**plain(o), "due": moment(o.due) if o.due else None} for o in batch.obligations],
        "remembered": [{"holder": h, "obligation_id": o, "system": s} for h, o, s in sorted(batch.remembered)],
        "obligations_met": [{"obligation_id": o, "sequence": n} for o, n in sorted(batch.obligations_met)],
        "obligations_due": [
            {"obligation_id": o, "sequence": n, "due": moment(d)} for o, n, d in sorted(batch.obligations_due)
        ],
        "forgotten": sorted(o for o, _ in batch.obligations_met),
        **_noted(batch),
    }
    if batch.chain:
        found["chain"] = {
            "number": batch.chain.number,
            "head": batch.chain.head,
            "partition": position.partition,
        }
    return {name: rows for name, rows in found.items() if rows}
