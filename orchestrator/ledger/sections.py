"""What a batch writes, as rows by section: alike for every dialect."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final

from keshi.orchestrator.door import write_door
from keshi.orchestrator.ledger.port import Batch, EvidenceRow, LeaseRow

# In the order of `EvidenceRow`.
_EVIDENCE: Final = {
    "begin_id": "text",
    "request_id": "text",
    "partition": "integer",
    "system": "text",
    "attempt": "integer",
    "mode": "text",
    "manifest": "text",
    "digest": "text",
    "counts": "text",
    "searched": "text",
    "learned": "text",
}
COLUMNS: Final[Mapping[str, Mapping[str, str]]] = {
    "events": {"stream": "text", "sequence": "integer", "kind": "text", "data": "text"},
    "states": {
        "request_id": "text",
        "partition": "integer",
        "sequence": "integer",
        "status": "text",
        "number": "bigint",
        "next_due": "timestamptz",
        "state": "text",
        "accepted": "text",
        "door": "text",
    },
    "due_moved": {"request_id": "text", "due": "timestamptz"},
    "inbox": {"partition": "integer", "request_id": "text", "data": "text"},
    "inbox_done": {"id": "bigint"},
    "outbox": {"id": "text", "topic": "text", "to_partition": "integer", "key": "text", "value": "text"},
    "outbox_done": {"id": "text"},
    "arrivals": {
        "topic_id": "text",
        "partition": "integer",
        "place": "bigint",
        "result": "text",
        "request_id": "text",
        "code": "text",
    },
    "quarantine": {
        "stage": "text",
        "partition": "integer",
        "place": "bigint",
        "reason": "text",
        "field": "text",
        "size": "bigint",
        "sealed": "text",
    },
    "claims": {
        "holder": "text",
        "request_id": "text",
        "partition": "integer",
        "number": "bigint",
        "action": "text",
    },
    "claims_ended": {"request_id": "text"},
    "keys": {"owner": "text", "kek_id": "text", "wrapped": "text"},
    "keys_destroyed": {"owner": "text"},
    "plans": {"hash": "text", "body": "text"},
    "inventories": {"hash": "text", "body": "text"},
    "closures": {"request_id": "text", "partition": "integer", "number": "bigint", "hash": "text", "record": "text"},
    "obligations": {
        "obligation_id": "text",
        "request_id": "text",
        "partition": "integer",
        "system": "text",
        "kind": "text",
        "state": "text",
        "sequence": "integer",
        "due": "timestamptz",
        "sealed": "text",
        "data": "text",
    },
    "remembered": {"holder": "text", "obligation_id": "text", "system": "text"},
    "obligations_met": {"obligation_id": "text", "sequence": "integer"},
    "obligations_due": {"obligation_id": "text", "sequence": "integer", "due": "timestamptz"},
    "cases": {
        "number": "bigint",
        "request_id": "text",
        "action": "text",
        "regime": "text",
        "ground": "text",
        "arrived": "timestamptz",
        "due": "timestamptz",
        "closed": "timestamptz",
    },
    "cases_closed": {"number": "bigint", "closed": "timestamptz"},
    "people": {"holder": "text", "number": "bigint"},
    "endings": {"outcome": "text", "number": "bigint", "system": "text", "ground": "text"},
    "forgotten": {"obligation_id": "text"},
    "chain": {"chain_number": "bigint", "chain_head": "text"},
    "given": {**_EVIDENCE, "lease_id": "text", "ordinal": "integer", "until": "timestamptz"},
    "refused": _EVIDENCE,
    "renewed": {"lease_id": "text", "until": "timestamptz"},
}
"""The columns of each section with their types. A row has them in this order."""

Rows = list[tuple[Any, ...]]


def moment(at: datetime) -> str:
    """A moment as text of one width in UTC: sorted as text it is sorted by time."""
    return at.astimezone(UTC).isoformat(timespec="microseconds")


def sections(batch: Batch) -> dict[str, Rows]:
    """What a batch writes, by section, sorted by key; empty sections left out."""
    # The parts of one statement do not see each other's rows: what is born and gone in one cycle is never written.
    destroyed, ended = set(batch.keys_destroyed), set(batch.claims_ended)
    found: dict[str, Rows] = {
        "events": sorted(batch.events),
        "states": _states(batch),
        "due_moved": _due_moved(batch),
        "inbox": [(r.partition, r.request_id, r.data) for r in batch.inbox],
        "inbox_done": [(i,) for i in sorted(batch.inbox_done)],
        "outbox": [(r.id, r.topic, r.to_partition, r.key, r.value) for r in batch.outbox],
        "outbox_done": [(i,) for i in sorted(batch.outbox_done)],
        "arrivals": [(a.topic_id, a.partition, a.offset, a.result, a.request_id, a.code) for a in batch.arrivals],
        "quarantine": [(q.stage, q.partition, q.offset, q.reason, q.field, q.size, q.sealed) for q in batch.quarantine],
        "claims": [
            (c.holder, c.request_id, c.partition, c.number, c.action)
            for c in sorted(batch.claims, key=lambda c: (c.holder, c.request_id))
            if c.request_id not in ended
        ],
        "claims_ended": [(i,) for i in sorted(batch.claims_ended)],
        "keys": [
            (k.owner, k.key.kek_id, k.key.wrapped.hex())
            for k in sorted(batch.keys, key=lambda k: k.owner)
            if k.owner not in destroyed
        ],
        "keys_destroyed": [(i,) for i in sorted(batch.keys_destroyed)],
        "plans": sorted(batch.plans.items()),
        "inventories": sorted(batch.inventories.items()),
        "closures": [(c.request_id, c.partition, c.number, c.hash, c.record) for c in batch.closures],
        "obligations": [
            (o.obligation_id, o.request_id, o.partition, o.system, o.kind, o.state, o.sequence, o.due, o.sealed, o.data)
            for o in batch.obligations
        ],
        "remembered": sorted(batch.remembered),
        "obligations_met": sorted(batch.obligations_met),
        "obligations_due": sorted(batch.obligations_due),
        "forgotten": sorted((o,) for o, _ in batch.obligations_met),
        **_noted(batch),
    }
    if batch.chain:
        found["chain"] = [(batch.chain.number, batch.chain.head)]
    return {name: rows for name, rows in found.items() if rows}


def _states(batch: Batch) -> Rows:
    return [
        (
            s.request_id,
            s.partition,
            s.sequence,
            s.status.value,
            s.number,
            due,
            s.stored(),
            s.case.model_dump_json() if s.case and s.request_id not in batch.as_accepted else None,
            write_door(s),
        )
        for s, due in sorted(batch.states, key=lambda pair: pair[0].request_id)
    ]


def _due_moved(batch: Batch) -> Rows:
    written = {s.request_id for s, _ in batch.states} if batch.due_moved else set()
    return [(r, d) for r, d in sorted(batch.due_moved) if r not in written]


def _noted(batch: Batch) -> dict[str, Rows]:
    """What is noted for those who ask."""
    accepted = [n.accepted for n in batch.notes if n.accepted]
    return {
        "cases": [
            (c.number, c.request_id, c.action, c.regime, c.ground, c.arrived, c.due, c.closed)
            for c in sorted(accepted, key=lambda c: c.number)
        ],
        "cases_closed": [(n.number, n.closed) for n in sorted(batch.notes, key=lambda n: n.number) if n.closed],
        "people": [(h, n.number) for n in batch.notes for h in sorted(set(n.people))],
        "endings": [(e.outcome, e.number, e.system, e.ground) for n in batch.notes for e in n.endings],
    }


def begun(evidence: Sequence[EvidenceRow], leases: Sequence[LeaseRow]) -> dict[str, Rows]:
    """What `begin` writes: evidence with its go, evidence without, renewals; empty sections left out."""
    goes = {x.begin_id: x for x in leases if x.ordinal}
    found: dict[str, Rows] = {"given": [], "refused": []}
    for e in evidence:
        go = goes.pop(e.begin_id, None)
        if go is None:
            found["refused"].append(e)
        else:
            found["given"].append((*e, go.lease_id, go.ordinal, go.until))
    if goes:
        raise ValueError("a go without its evidence")
    found["renewed"] = [(x.lease_id, x.until) for x in leases if not x.ordinal]
    return {name: rows for name, rows in found.items() if rows}
