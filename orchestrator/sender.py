"""The outbox of one lane on its way to the broker. A row is done when its *own* send future has succeeded."""

import time
from collections.abc import Iterable, Sequence
from typing import Any

import structlog
from kafka import KafkaProducer
from kafka.errors import KafkaError

from keshi.orchestrator.ledger.port import OutboxRow
from keshi.schemas.envelope import CONTENT_TYPE

log = structlog.get_logger()
_HEADERS = [("content-type", CONTENT_TYPE.encode())]


_STUCK_SECONDS = 300


class Stuck(Exception):  # noqa: N818 - names the finding
    """Nothing has arrived for minutes though the producer went on trying: a new process gets a new producer."""


class Sender:
    """Sends rows and remembers which have arrived. Not for use by several threads."""

    def __init__(self, producer: KafkaProducer) -> None:
        self._producer = producer
        self._flying: dict[str, tuple[OutboxRow, Any]] = {}
        self._arrived: list[str] = []
        self._moved = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether something is on its way, or its arrival is not in the ledger yet."""
        return bool(self._flying or self._arrived)

    def send(self, rows: Iterable[OutboxRow]) -> None:
        """Hand rows to the producer. One that is on its way already is left alone."""
        for row in rows:
            if row.id not in self._flying and row.id not in self._arrived:
                self._moved = time.monotonic() if not self._flying else self._moved
                self._flying[row.id] = (row, self._hand_over(row))

    def _hand_over(self, row: OutboxRow) -> Any:
        try:
            return self._producer.send(
                row.topic,
                value=row.value.encode(),
                key=row.key.encode() if row.key else None,
                partition=row.to_partition,
                headers=_HEADERS,
            )
        except KafkaError:
            return None

    def settle(self) -> Sequence[str]:
        """Rows that have arrived and may be deleted with the next transaction. Failed ones are sent again."""
        for row_id, (row, future) in list(self._flying.items()):
            if future is not None and not future.is_done:
                continue
            if future is not None and future.succeeded():
                del self._flying[row_id]
                self._arrived.append(row_id)
                self._moved = time.monotonic()
            else:
                log.warning("send_failed", topic=row.topic, exception_class=_error(future))
                self._flying[row_id] = (row, self._hand_over(row))
        if self._flying and time.monotonic() - self._moved > _STUCK_SECONDS:
            raise Stuck
        return tuple(self._arrived)

    def forget(self, done: Iterable[str]) -> None:
        """These rows are deleted: the transaction that said so has committed."""
        gone = set(done)
        self._arrived = [r for r in self._arrived if r not in gone]


def _error(future: Any) -> str:
    return type(future.exception).__name__ if future is not None and future.exception else "none"
