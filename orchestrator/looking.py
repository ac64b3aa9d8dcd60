"""Stage 7: what operators see of how keshi runs, what proves the records, and what was exported. No framework."""

from datetime import timedelta
from typing import Final

from keshi.orchestrator.asked import MAX_PAGE
from keshi.orchestrator.ledger.answers import ExportRow, LaneLook, QuarantineLook
from keshi.orchestrator.ledger.port import Ledger
from keshi.orchestrator.views import (
    ChainPage,
    ChainView,
    ExportNote,
    ExportPage,
    ExportView,
    LanePage,
    LaneView,
    QuarantinePage,
    QuarantineView,
)

LATE: Final = timedelta(minutes=1)
"""An orchestrator looks at due moments many times a second."""


class Looking:
    """Answers operators, and who checks or exports records. Serves several threads."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger

    def lanes(self) -> LanePage:
        """Every partition of both stages."""
        with self._ledger.reader() as view:
            now, lanes = view.now, view.lanes()
        return LanePage(
            as_of=now, lanes=tuple(_lane(x, late=bool(x.next_due and x.next_due < now - LATE)) for x in lanes)
        )

    def quarantine(self, limit: int, before: int | None) -> QuarantinePage:
        """Messages that could not be taken."""
        with self._ledger.reader() as view:
            found = view.quarantined(limit + 1, before)
        page = [_quarantined(q) for q in found[:limit]]
        return QuarantinePage(messages=tuple(page), next=page[-1].number if len(found) > limit else None)

    def chains(self) -> ChainPage:
        """Where the chain of each partition ends."""
        with self._ledger.reader() as view:
            found = view.chains()
        return ChainPage(
            chains=tuple(ChainView(partition=p, number=c.number, head=c.head) for p, c in sorted(found.items()))
        )

    def chained(self, partition: int, after: int, limit: int) -> str:
        """Records of a chain in order, verbatim, as a JSON list."""
        with self._ledger.reader() as view:
            return f"[{','.join(view.chained(partition, after, min(limit, MAX_PAGE)))}]"

    def register(self, person: str, note: ExportNote) -> ExportView:
        """Keep for good that something was exported."""
        row = ExportRow(person, note.purpose, note.form, note.filters, note.requests, note.lines, note.sha256)
        number = self._ledger.register(row)
        return next(e for e in self.exports(1, number + 1).exports if e.number == number)

    def exports(self, limit: int, before: int | None) -> ExportPage:
        """What was exported."""
        with self._ledger.reader() as view:
            found = view.exports(limit + 1, before)
        page = [_export(e) for e in found[:limit]]
        return ExportPage(exports=tuple(page), next=page[-1].number if len(found) > limit else None)


def _lane(look: LaneLook, *, late: bool) -> LaneView:
    return LaneView.model_validate(
        {
            "stage": look.stage,
            "partition": look.partition,
            "epoch": look.epoch,
            "next": look.next,
            "topic_id": look.topic_id,
            "inbox": look.inbox,
            "outbox": look.outbox,
            "next_due": look.next_due,
            "late": late,
        }
    )


def _quarantined(look: QuarantineLook) -> QuarantineView:
    return QuarantineView.model_validate(
        {
            "number": look.id,
            "stage": look.stage,
            "partition": look.partition,
            "offset": look.offset,
            "reason": look.reason,
            "field": look.field,
            "size": look.size,
            "at": look.at,
        }
    )


def _export(row: ExportRow) -> ExportView:
    return ExportView.model_validate(
        {
            "number": row.id,
            "at": row.at,
            "person": row.person,
            "purpose": row.purpose,
            "form": row.form,
            "filters": row.filters,
            "requests": row.requests,
            "lines": row.lines,
            "sha256": row.sha256,
        }
    )
