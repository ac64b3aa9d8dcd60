"""What could not be taken: put aside, sealed, where an operator sees it, so that it keeps up nothing else."""

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import structlog

from keshi.orchestrator import effects
from keshi.orchestrator.incoming import BadPart
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import Arrival, Batch, Cycle, InboxRow, QuarantineRow
from keshi.orchestrator.ownership import Owned, Ownership
from keshi.orchestrator.stream.port import Lane, Record
from keshi.runtime.telemetry import Metric, Telemetry
from keshi.schemas.envelope import wrap
from keshi.schemas.requests import Coordinates, Quarantined

log = structlog.get_logger()

MAX_KEPT_BYTES = 65_536
"""How much of a quarantined payload is kept, sealed."""
LATER = timedelta(minutes=10)
"""When a request is looked at again whose due moment could not be decided."""


class Aside:
    """Puts records, parts of records and inbox rows aside.

    Args:
        ownership: Commits it.
        keys: Seal it.
        topic: Where operators are told of it, by its full name.
        telemetry: Counts it.
    """

    def __init__(self, ownership: Ownership, keys: Keys, topic: str, telemetry: Telemetry) -> None:
        self._ownership = ownership
        self._keys = keys
        self._topic = topic
        self._telemetry = telemetry

    def note(self, owned: Owned, batch: Batch, record: Record, part: BadPart) -> None:
        """Have a batch quarantine a part of a record."""
        stage, partition = record.lane.stage, record.lane.partition
        self._telemetry.count(Metric.QUARANTINED, stage=stage, code=part.reason)
        log.warning("quarantined", lane=str(record.lane), offset=record.offset, reason=part.reason)
        sealed = self._keys.seal_payload(part.payload[:MAX_KEPT_BYTES])
        size = len(record.value or b"")
        batch.quarantine.append(QuarantineRow(stage, partition, record.offset, part.reason, part.field, size, sealed))
        if stage == "commands":
            topic_id = owned.position.topic_id or "unknown"
            batch.arrivals.append(Arrival(topic_id, partition, record.offset, "quarantined", code=part.reason))
        note = Quarantined(
            reason=part.reason,
            field=part.field,
            size=size,
            message=Coordinates(topic=stage, partition=partition, offset=record.offset),
            at=datetime.now(UTC),
        )
        name = f"{stage}/{partition}/{record.offset}/{part.reason}"
        value = wrap(note, kind="Quarantined", id=name, source=effects.SOURCE)
        batch.outbox.append(owned.row(self._topic, value))

    def put_record(self, owned: Owned, record: Record, part: BadPart) -> None:
        """Quarantine a record, and go on behind it."""
        self._put(owned, Batch(), record, part, record.offset + 1)

    def put_row(self, owned: Owned, row: InboxRow) -> None:
        """Quarantine an inbox row that cannot be decided: the command that it was."""
        at = _coordinates(json.loads(row.data)) or Coordinates(topic="commands", partition=row.partition, offset=row.id)
        record = Record(Lane("commands", at.partition), at.offset, row.data.encode(), None, (), 0)
        part = BadPart("decider_raised", None, row.data.encode())
        self._put(owned, Batch(inbox_done=[row.id]), record, part, owned.position.next)

    def postpone(self, owned: Owned, request_id: str) -> None:
        """Look at a request later whose due moment cannot be decided."""

        def later(tx: Cycle) -> Batch:
            return Batch(due_moved=[(request_id, tx.now + LATER)])

        self._ownership.commit(owned, owned.position.next, later)

    def _put(self, owned: Owned, batch: Batch, record: Record, part: BadPart, to: int) -> None:
        self.note(owned, batch, record, part)
        self._ownership.commit(owned, to, lambda _: batch)
        owned.sender.send(batch.outbox)


def _coordinates(tree: Any) -> Coordinates | None:
    """Where the command of an inbox row stood, whatever else is wrong with the row."""
    for part in (tree, tree.get("case"), tree.get("decided"), tree.get("recorded")):
        if isinstance(part, dict) and isinstance(part.get("command"), dict):
            return Coordinates.model_validate(part["command"])
    return None
