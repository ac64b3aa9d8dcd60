"""The engine: one writer per partition, one transaction per cycle. It satisfies the stream's port.

`commands` lanes run intake (`routing`): read, validate, seal, and put into the inbox of the request's partition, or,
where the command came by that partition and its requests are ours, decide at once. `reports` lanes run the cycle
(`deciding`) over reports, inbox rows and due moments. Both move their offset in the transaction that justifies it
(`ownership`). What makes it fail for good is looked for here, and put aside (`aside`).
"""

import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import structlog
from kafka import KafkaProducer

from keshi.orchestrator import admission
from keshi.orchestrator.aside import Aside
from keshi.orchestrator.context import Policy
from keshi.orchestrator.cycle import Inputs, Surroundings
from keshi.orchestrator.deciding import DUE_A_CYCLE, INBOX_A_CYCLE, Deciding, Undecidable, deciding
from keshi.orchestrator.incoming import BadPart, read_reports, whole
from keshi.orchestrator.intake import Intake
from keshi.orchestrator.keys import Keys
from keshi.orchestrator.ledger.port import Batch, Cycle, InboxRow, Lasting, Ledger
from keshi.orchestrator.ownership import Owned, Ownership
from keshi.orchestrator.plans import Plans
from keshi.orchestrator.routing import Routing
from keshi.orchestrator.silence import Silence
from keshi.orchestrator.stream.port import Gap, Lane, LogBounds, Processed, Record
from keshi.runtime.settings import KafkaSettings
from keshi.runtime.telemetry import OFF, Telemetry

log = structlog.get_logger()

_PROBE_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Parts:
    """What an engine is made of."""

    ledger: Ledger
    keys: Keys
    intake: Intake
    policy: Policy
    producer: KafkaProducer
    kafka: KafkaSettings
    partitions: int
    silence: Silence
    telemetry: Telemetry = OFF


class OrchestratorEngine:
    """See the module. Not for use by several threads: the stream calls it from one."""

    def __init__(self, parts: Parts) -> None:
        self._ = parts
        self._probed = 0.0
        self._plans = Plans()
        self._ownership = Ownership(parts.ledger, parts.producer)
        self._aside = Aside(self._ownership, parts.keys, parts.kafka.topic("quarantine"), parts.telemetry)
        around = Surroundings(
            keys=parts.keys,
            policy=parts.policy,
            partitions=parts.partitions,
            plan=self._plans.get,
            passed=parts.silence.passed,
        )
        self._deciding = Deciding(self._ownership, around, self._aside, parts.kafka, parts.telemetry)
        self._routing = Routing(
            intake=parts.intake,
            ownership=self._ownership,
            deciding=self._deciding,
            plans=self._plans,
            aside=self._aside,
            kafka=parts.kafka,
            partitions=parts.partitions,
            telemetry=parts.telemetry,
        )

    # --- lanes

    def take(self, lanes: Mapping[Lane, LogBounds]) -> Mapping[Lane, int]:
        """See `Engine.take`."""
        taken = {}
        for lane, bounds in lanes.items():
            taken[lane] = self._ownership.take(lane, bounds)
            self._deciding.hot.add(lane.partition)
        return taken

    def release(self, lanes: Collection[Lane]) -> None:
        """See `Engine.release`."""
        for lane in lanes:
            self._ownership.release(lane)

    def accept_gap(self, lane: Lane, expected: int, seen: int) -> None:
        """See `Engine.accept_gap`."""
        owned = self._ownership.mine(lane)
        log.warning("gap_accepted", lane=str(lane), expected=expected, seen=seen)
        self._ownership.jump(owned, seen)

    # --- work

    def process(self, lane: Lane, records: Sequence[Record]) -> Processed:
        """See `Engine.process`."""
        owned = self._ownership.mine(lane)
        while fresh := [r for r in records if r.offset >= owned.position.next]:
            if fresh[0].offset > owned.position.next:
                raise Gap(lane, owned.position.next)
            run = _consecutive(fresh)
            if lane.stage == "commands":
                self._bisect(owned, run[:INBOX_A_CYCLE], self._routing.take)
            else:
                self._bisect(owned, run, self._reports)
        home = self._ownership.find(Lane("reports", lane.partition))
        on_the_way = home.on_the_way.count(time.monotonic()) if home else 0
        return Processed(owned.position.next, more=bool(self._deciding.hot), on_the_way=on_the_way)

    def idle(self, lanes: Collection[Lane]) -> float:
        """See `Engine.idle`."""
        hot = self._deciding.hot
        mine = [owned for lane in lanes if (owned := self._ownership.find(lane))]
        reports = {o.lane.partition: o for o in mine if o.lane.stage == "reports"}
        self._probe(reports)
        for partition in [p for p in hot if p in reports]:
            hot.discard(partition)
            self._waiting(reports[partition])
        hot &= set(reports)
        for owned in mine:
            self._ownership.settle(owned)
        return 0.01 if hot else _PROBE_SECONDS

    def _probe(self, reports: Mapping[int, Owned]) -> None:
        """Ask, in one statement for all partitions, where inbox rows or due moments are."""
        now = time.monotonic()
        if not reports or now - self._probed < _PROBE_SECONDS:
            return
        self._deciding.hot |= set(self._ownership.waiting(reports))
        self._probed = now

    def _reports(self, owned: Owned, records: Sequence[Record]) -> None:
        reports: list[Any] = []
        bad: list[tuple[Record, BadPart]] = []
        for record in records:
            good, problems = read_reports(record.value, owned.lane.partition, self._.partitions)
            reports.extend(good)
            bad.extend((record, p) for p in problems)
        self._deciding.cycle(owned, records[-1].offset + 1, Inputs(reports=reports), bad, records[-1])

    # --- what makes a transaction fail for good

    def _bisect(
        self, owned: Owned, records: Sequence[Record], cycle: Callable[[Owned, Sequence[Record]], None]
    ) -> None:
        """Run a cycle over these records; a lasting failure is narrowed down to the record that causes it."""
        self._plans.forget()
        try:
            cycle(owned, records)
        except (Lasting, Undecidable) as e:
            fresh = [r for r in records if r.offset >= owned.position.next]
            if len(fresh) > 1:
                middle = len(fresh) // 2
                self._bisect(owned, fresh[:middle], cycle)
                self._bisect(owned, fresh[middle:], cycle)
            elif fresh:
                log.exception("record_quarantined", lane=str(owned.lane), offset=fresh[0].offset)
                bad = BadPart(
                    "refused_by_ledger" if isinstance(e, Lasting) else "decider_raised", None, whole(fresh[0])
                )
                self._aside.put_record(owned, fresh[0], bad)

    def _waiting(self, owned: Owned) -> None:
        """Inbox rows and due moments of a partition. One that cannot be decided does not keep the others."""
        self._plans.forget()
        try:
            self._deciding.cycle(owned, owned.position.next, None)
        except (Lasting, Undecidable):
            log.exception("cycle_failed", lane=str(owned.lane))
            self._one_by_one(owned)

    def _one_by_one(self, owned: Owned) -> None:
        """Find the inbox row or the due request that cannot be decided, and put it aside where it is seen."""

        def look(tx: Cycle) -> Batch:
            found.extend(tx.inbox(INBOX_A_CYCLE))
            due.extend(tx.due(DUE_A_CYCLE))
            return Batch()

        found: list[InboxRow] = []
        due: list[str] = []
        self._ownership.commit(owned, owned.position.next, look)
        for row in found:
            try:
                self._deciding.cycle(owned, owned.position.next, _single(row))
            except (Lasting, Undecidable):
                log.exception("inbox_row_quarantined", lane=str(owned.lane), request_id=row.request_id)
                self._aside.put_row(owned, row)
        for request_id in due:
            try:
                self._deciding.cycle(owned, owned.position.next, Inputs(due=[request_id]))
            except (Lasting, Undecidable):
                log.exception("due_failed", lane=str(owned.lane), request_id=request_id)
                self._aside.postpone(owned, request_id)


def _single(row: InboxRow) -> Inputs:
    with deciding():
        return Inputs(inbox=[(row.id, admission.INBOUND.validate_json(row.data))])


def _consecutive(records: Sequence[Record]) -> Sequence[Record]:
    """The records up to the first hole."""
    for n, record in enumerate(records):
        if record.offset != records[0].offset + n:
            return records[:n]
    return records
