"""Running a cycle: what came in is decided in one transaction, and what that causes is sent once it has committed."""

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Any

import structlog

from keshi.orchestrator import admission, effects
from keshi.orchestrator.aside import Aside
from keshi.orchestrator.cycle import CycleDecision, Decided, Inputs, Surroundings
from keshi.orchestrator.incoming import BadPart
from keshi.orchestrator.ledger.port import Batch, Cycle, LedgerError, OutboxRow, Passing
from keshi.orchestrator.ownership import Owned, Ownership
from keshi.orchestrator.stream.port import Record
from keshi.orchestrator.telling import tell_cycle
from keshi.runtime.failpoints import hit
from keshi.runtime.settings import ConfigurationError, KafkaSettings
from keshi.runtime.telemetry import Telemetry

log = structlog.get_logger()

INBOX_A_CYCLE = 200
DUE_A_CYCLE = 100
UNLOCKED_SECONDS = 1.0
"""How long a cycle over reports may live without `begin`'s lock; one that is slower is done again with it."""


class Undecidable(Exception):  # noqa: N818 - names the finding
    """A decider raised over these data: they, and only they, are put aside."""


class Deciding:
    """Runs cycles.

    Args:
        ownership: Commits them.
        around: What they share.
        aside: Gets what of the reports cannot be taken.
        kafka: Names the topics.
        telemetry: Told of what is committed.
    """

    def __init__(
        self, ownership: Ownership, around: Surroundings, aside: Aside, kafka: KafkaSettings, telemetry: Telemetry
    ) -> None:
        self._ownership = ownership
        self._around = around
        self._aside = aside
        self._kafka = kafka
        self._telemetry = telemetry
        self.hot: set[int] = set()
        """Partitions in whose inbox or among whose due moments something may wait."""

    def at_home(self, owned: Owned, home: Owned, to: int, inputs: Inputs, batch: Batch) -> None:
        """Decide commands in the transaction that moves their offset: no inbox, and no second transaction.

        Args:
            owned: The lane that they came by.
            home: The lane of `reports` whose requests they are about.
            to: The next offset of `owned` afterwards.
            inputs: The commands.
            batch: What is to be written besides.
        """
        made: list[Decided] = []
        wall = time.time_ns()

        def decide(tx: Cycle) -> Batch:
            decided = self._decided(tx, owned, home, inputs)
            decided.batch.add(batch)
            made[:] = [decided]
            hit("orchestrator.mid_cycle")
            return decided.batch

        self._ownership.commit(owned, to, decide, home=home)
        hit("orchestrator.after_intake_commit")
        self._sent(owned, home, made, (), wall)

    def cycle(
        self,
        owned: Owned,
        to: int,
        inputs: Inputs | None,
        bad: Iterable[tuple[Record, BadPart]] = (),
        last: Record | None = None,
    ) -> None:
        """Decide what came in for the requests of a lane of `reports`.

        Args:
            owned: The lane.
            to: Its next offset afterwards.
            inputs: None takes what waits in the ledger.
            bad: Parts of records that could not be read.
            last: The last record: names where reports that are not authentic stood.
        """
        made: list[Decided] = []
        wall = time.time_ns()
        began = [0.0]
        slow = [False]

        def decide(tx: Cycle) -> Batch:
            began[0] = time.monotonic()
            decided = self._decided(tx, owned, owned, inputs, lock=slow[0])
            made[:] = [decided]
            for record, part in bad:
                self._aside.note(owned, decided.batch, record, part)
            for report in decided.not_authentic:
                assert last is not None
                part = BadPart("report_not_authentic", None, report.model_dump_json().encode())
                self._aside.note(owned, decided.batch, last, part)
            hit("orchestrator.mid_cycle")
            return decided.batch

        def in_time(tx: Cycle) -> None:
            if not (inputs and inputs.reports) or made[0].locked:
                return
            tx.written()  # it may have waited for others
            if time.monotonic() - began[0] > UNLOCKED_SECONDS:
                slow[0] = True
                raise Passing("a cycle without begin's lock took too long: again with it")

        self._ownership.commit(owned, to, decide, in_time)
        self._sent(owned, owned, made, inputs.reports if inputs else (), wall)

    def _decided(self, tx: Cycle, owned: Owned, home: Owned, inputs: Inputs | None, *, lock: bool = False) -> Decided:
        """Decide what came in for the requests of `home`; `owned` is the lane that sends what it causes.

        Args:
            tx: The transaction.
            owned: Its lane.
            home: The lane of `reports` whose requests they are.
            inputs: None takes what waits in the ledger.
            lock: Keep `begin` out from the start.
        """
        with deciding():
            taken = _taken(tx) if inputs is None else inputs
            decided = CycleDecision(tx, home.lane.partition, self._around, home.states, lock=lock).decide(taken)
        decided.batch.outbox.extend(self._messages(owned, decided, tx.now))
        if inputs is None and (len(taken.inbox) == INBOX_A_CYCLE or len(taken.due) == DUE_A_CYCLE):
            self.hot.add(owned.lane.partition)
        return decided

    def _messages(self, owned: Owned, decided: Decided, now: datetime) -> list[OutboxRow]:
        kafka = self._kafka
        rows = [
            owned.row(kafka.topic(f"tasks.{t.system}"), effects.list_message(t, now), to=owned.lane.partition)
            for t in decided.tasks
        ]
        requests = kafka.topic("requests")
        return rows + [owned.row(requests, value, key=request_id) for request_id, value in decided.answers]

    def _sent(self, owned: Owned, home: Owned, made: Sequence[Decided], reports: Sequence[Any], began: int) -> None:
        """Produce what a committed cycle caused, and tell of it."""
        hit("orchestrator.after_cycle_commit")
        home.on_the_way.reported(len(reports))
        home.on_the_way.sent(sum(len(some.tasks) for decided in made for some in decided.tasks), time.monotonic())
        batch = made[0].batch if made else Batch()
        owned.sender.send(batch.outbox)
        if batch.outbox:
            hit("orchestrator.after_produce")
        self.hot |= {row.partition for row in batch.inbox}
        if self._telemetry.on and made:
            tell_cycle(self._telemetry, made[0].happened, reports, began)


@contextmanager
def deciding() -> Iterator[None]:
    """Tell failures over data from failures of what is around us: only the former may put a record aside."""
    try:
        yield
    except (LedgerError, ConfigurationError, MemoryError):
        raise
    except Exception as e:
        log.exception("decider_raised")
        raise Undecidable(type(e).__name__) from e


def _taken(tx: Cycle) -> Inputs:
    rows = tx.inbox(INBOX_A_CYCLE)
    return Inputs(
        inbox=[(r.id, admission.INBOUND.validate_json(r.data)) for r in rows],
        due=tx.due(DUE_A_CYCLE),
        obligations=tx.due_obligations(DUE_A_CYCLE),
    )
