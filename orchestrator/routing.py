"""Records of `commands`, once intake has read them: decided at home, put into an inbox, rejected, or put aside."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from keshi.orchestrator import admission, effects
from keshi.orchestrator.aside import Aside
from keshi.orchestrator.cycle import Inputs
from keshi.orchestrator.deciding import Deciding, deciding
from keshi.orchestrator.incoming import BadPart, whole
from keshi.orchestrator.intake import Intake, Routable
from keshi.orchestrator.ledger.port import Arrival, Batch, InboxRow
from keshi.orchestrator.ownership import Owned, Ownership
from keshi.orchestrator.plans import Plans
from keshi.orchestrator.stream.port import Lane, Record
from keshi.runtime.failpoints import hit
from keshi.runtime.kafka import partition_of
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.telemetry import Metric, Stage, Telemetry
from keshi.schemas.requests import Coordinates, RequestRejected


@dataclass(slots=True)
class _Run:
    """Where the records of one transaction go."""

    owned: Owned
    topic_id: str
    home: Owned | None
    """The lane of `reports` that decides the requests of this lane's partition; None where others come first."""
    batch: Batch = field(default_factory=Batch)
    mine: list[tuple[int | None, Any]] = field(default_factory=list)
    """Decided in this very transaction."""
    routed: set[int] = field(default_factory=set)
    """Partitions whose inbox gets something."""
    traced: list[tuple[str, str | None, int]] = field(default_factory=list)


@dataclass(slots=True)
class Routing:
    """Takes commands in. What belongs to their very partition is decided at once, the rest goes by the inbox."""

    intake: Intake
    ownership: Ownership
    deciding: Deciding
    plans: Plans
    aside: Aside
    kafka: KafkaSettings
    partitions: int
    telemetry: Telemetry
    _inventory_stored: bool = field(default=False, init=False)

    def take(self, owned: Owned, records: Sequence[Record]) -> None:
        """Take consecutive records of a lane of `commands` in one transaction.

        Raises:
            Undecidable: over the data of one of them. Nothing was written.
        """
        run = _Run(owned, owned.position.topic_id or "unknown", self._home(owned))
        for record in records:
            self._route(run, record)
        batch, to = run.batch, records[-1].offset + 1
        if batch.plans and not self._inventory_stored:
            batch.inventories[self.intake.inventory_hash] = self.intake.inventory.model_dump_json()
        if run.home is not None and run.mine:
            self.deciding.at_home(owned, run.home, to, Inputs(inbox=run.mine), batch)
        else:
            self.ownership.commit(owned, to, lambda _: batch)
            hit("orchestrator.after_intake_commit")
            owned.sender.send(batch.outbox)
        self.plans.written(batch)
        self._inventory_stored = self._inventory_stored or bool(batch.inventories)
        self.deciding.hot |= run.routed
        for request_id, trace, began in run.traced:
            self.telemetry.span(Stage.INTAKE, trace, began, request_id=request_id, partition=owned.lane.partition)

    def _home(self, owned: Owned) -> Owned | None:
        """None for a lane of another process, or one with rows in its inbox: those came before."""
        partition = owned.lane.partition
        return None if partition in self.deciding.hot else self.ownership.find(Lane("reports", partition))

    def _route(self, run: _Run, record: Record) -> None:
        began = time.time_ns()
        at = Coordinates(topic="commands", partition=record.lane.partition, offset=record.offset)
        with deciding():
            found = self.intake.read(record.value, at, run.topic_id, record.headers)
        if isinstance(found, Routable):
            message, batch = found.message, run.batch
            target = partition_of(message.request_id, self.partitions)
            if run.home is not None and target == run.home.lane.partition:
                run.mine.append((None, message))
            else:
                batch.inbox.append(InboxRow(target, message.request_id, message.model_dump_json()))
                run.routed.add(target)
            if self.telemetry.on and isinstance(message, admission.Submit):
                run.traced.append((message.request_id, message.case.traceparent, began))
            if found.plan:
                self.plans.note(batch, *found.plan)
        elif isinstance(found, RequestRejected):
            self._reject(run, found)
        else:
            self.aside.note(run.owned, run.batch, record, BadPart(found.reason, found.field, whole(record)))

    def _reject(self, run: _Run, answer: RequestRejected) -> None:
        self.telemetry.count(Metric.COMMANDS, result="rejected", code=answer.code.value)
        value = effects.rejection(answer, datetime.now(UTC))
        run.batch.outbox.append(run.owned.row(self.kafka.topic("requests"), value, key=answer.request_id))
        where = answer.command
        run.batch.arrivals.append(
            Arrival(run.topic_id, where.partition, where.offset, "rejected", answer.request_id, answer.code.value)
        )
