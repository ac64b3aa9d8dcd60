"""Reads `tasks.<system>` in a thread of its own, which no work ever holds up, and commits what is done."""

import threading
from collections.abc import Iterable
from typing import Any, Final

import structlog
from kafka import ConsumerRebalanceListener, KafkaConsumer, TopicPartition
from kafka.errors import KafkaError
from kafka.structs import OffsetAndMetadata

from keshi.handlers.contract import boot_time
from keshi.handlers.worker.jobs import Ticket
from keshi.handlers.worker.lane import Lane
from keshi.handlers.worker.offsets import Watermark
from keshi.runtime.kafka import handler_group, new_consumer
from keshi.runtime.settings import KafkaSettings
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.tasks import MAX_LIST_BYTES, PerformTasks

POLL_MS: Final = 250
CROWDED_POLL_MS: Final = 20
"""While nothing more is taken: how soon room is noticed."""
LAG_SECONDS: Final = 2.0
"""How often it is counted what is still to be done."""
COMMIT_SECONDS: Final = 1.0
"""Commits are at least so far apart: each costs the broker as much as a message. The first one after a pause goes out
at once: a process that dies of what it has just taken says so no later than at its second try."""
MESSAGES_A_POLL: Final = 4
MAX_BYTES: Final = MAX_LIST_BYTES * 2
"""Twice what the orchestrator sends at most: envelope and all."""
CALL_MS: Final = 5_000
STUCK_SECONDS: Final = 60.0
MODELS: Final = {"keshi.PerformTasks.v1": PerformTasks}

log = structlog.get_logger()


class _Listener(ConsumerRebalanceListener):  # type: ignore[misc] # untyped library
    """Only notes what happened: it is called on the client's own thread, which has heartbeats to send."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.lost: set[TopicPartition] = set()
        self.changed = False
        self.joined = False

    def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:
        """Nothing: what is really lost shows when the new assignment is there."""

    def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # noqa: ARG002 - the library's
        with self.lock:
            self.changed = self.joined = True

    def on_partitions_lost(self, lost: Iterable[TopicPartition]) -> None:
        with self.lock:
            self.lost.update(lost)
            self.changed = True

    def news(self) -> set[TopicPartition] | None:
        """What was lost outright since the last question; None if nothing changed at all."""
        with self.lock:
            if not self.changed:
                return None
            lost, self.lost, self.changed = self.lost, set(), False
            return lost


class Poller:
    """The consumer of one system.

    A commit says two things: the offset below which all is done, and, as its metadata, the offset below which
    some worker has begun. What lies between them when a partition gets a new owner is a list that came back.

    Args:
        settings: Of Kafka.
        lane: Gets the messages.
        partitions: Those of `reports`: a message that names another one is not readable.

    Raises:
        ConfigurationError: no broker answers.
    """

    def __init__(self, settings: KafkaSettings, lane: Lane, partitions: frozenset[int]) -> None:
        self._lane = lane
        self._partitions = partitions
        self._topic = settings.topic(f"tasks.{lane.system}")
        self._listener = _Listener()
        self._consumer: KafkaConsumer = new_consumer(
            settings,
            handler_group(settings, lane.system),
            client_id=f"keshi-worker-{lane.system}",
            # Also the time for which the group waits for a member that was killed in the middle of a join: this thread
            # does nothing but poll, so it can be short.
            max_poll_interval_ms=int(settings.session_timeout_seconds * 1500),
            max_poll_records=MESSAGES_A_POLL,
        )
        self._marks: dict[TopicPartition, Watermark] = {}
        self._tickets: dict[TopicPartition, set[Ticket]] = {}
        self._sent: dict[TopicPartition, tuple[int, int]] = {}
        self._moved = True
        self._commit_at = 0.0
        self._looked_at = float("-inf")
        self.behind: dict[int, int] = {}
        """Messages that are not done, by partition, as last seen. A new one each time: any thread may read it."""
        self._stop = threading.Event()
        self._beat = boot_time()
        self.unreadable = 0
        self._thread = threading.Thread(target=self._run, name=f"{lane.system}-poller", daemon=True)

    def start(self) -> None:
        """Join the group and read."""
        self._consumer.subscribe([self._topic], listener=self._listener)
        self._thread.start()

    def live(self) -> bool:
        """Whether its thread goes round."""
        return self._thread.is_alive() and boot_time() - self._beat < STUCK_SECONDS

    def ready(self) -> bool:
        """Whether the group has given it its share, were it nothing."""
        return self._listener.joined

    def crashed(self) -> bool:
        """Whether its thread ended though nobody asked it to."""
        return not self._stop.is_set() and not self._thread.is_alive()

    def stop(self) -> None:
        """Take nothing more. The group is left by `close`, when the work has ended."""
        self._stop.set()

    def close(self, seconds: float = 5) -> None:
        """Commit what is done and leave the group."""
        self._stop.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)
        if self._thread.is_alive():
            return
        try:
            self._rebalanced(self._consumer.assignment())
            offsets = self._to_commit()
            if offsets:
                self._consumer.commit(offsets, timeout_ms=CALL_MS)
        except (KafkaError, ValueError):
            log.warning("last_commit_failed", system=self._lane.system)
        self._consumer.close(autocommit=False, timeout_ms=CALL_MS)

    # --- one round

    def _run(self) -> None:
        while not self._stop.is_set():
            self._beat = boot_time()
            try:
                self._round()
            except KafkaError:
                log.exception("poll_failed", system=self._lane.system)
                self._stop.wait(1)
            except Exception:
                log.exception("poller_defect", system=self._lane.system)
                raise

    def _round(self) -> None:
        crowded = self._press()
        records = self._consumer.poll(timeout_ms=CROWDED_POLL_MS if crowded else POLL_MS)
        news = self._listener.news()
        if news is not None:
            for partition in news:
                self._forget(partition)
            self._moved = True
        self._mend()
        if self._moved:
            # What was just read may belong to the time before: each partition is read anew from a known place.
            self._rebalanced(self._consumer.assignment())
            self._reposition()
            self._moved = False
            return
        taken = [(tp, m) for tp, messages in records.items() for m in messages]
        for tp, message in taken:
            self._mark(tp, message.offset)
        self._commit()
        for tp, message in taken:
            self._take(tp, message)
        if self._beat > self._looked_at + LAG_SECONDS:
            self._looked_at = self._beat
            self.behind = {tp.partition: self._behind(tp, mark) for tp, mark in self._marks.items()}

    def _behind(self, tp: TopicPartition, mark: Watermark) -> int:
        """Messages of a partition that are not done, as far as its last fetch said where its log ends."""
        end = self._consumer.highwater(tp) if tp in self._consumer.assignment() else None
        return max(0, (end or mark.next) - mark.low)

    def _press(self) -> bool:
        """Take no more than can be worked on, without leaving the group; whether that much is under way."""
        crowded = self._lane.crowded()
        paused = self._consumer.paused()
        if crowded:
            self._consumer.pause(*(self._consumer.assignment() - paused))
        elif paused:
            self._consumer.resume(*paused)
        return crowded

    def _mend(self) -> None:
        """Take up a join that kafka-python (3.0.12) has dropped half-way, with its partitions barred from reading.

        A join that changed metadata set off, and not the broker, counts as unneeded as soon as the leader has made
        its assignment: if a poll ends just then, no later one waits for the rest of it, and it stands for ever.
        """
        coordinator = self._consumer._coordinator  # noqa: SLF001 - what is public does not show it
        if coordinator.rebalance_in_progress() and not coordinator.need_rejoin():
            log.warning("join_taken_up_again", system=self._lane.system)
            coordinator.request_rejoin()

    # --- whose partitions

    def _rebalanced(self, assigned: set[TopicPartition]) -> None:
        for tp in set(self._marks) - assigned:
            self._forget(tp)

    def _forget(self, tp: TopicPartition) -> None:
        """The partition is another worker's: what is not begun is dropped; acts that run end under their leases."""
        self._marks.pop(tp, None)
        self._sent.pop(tp, None)
        for ticket in self._tickets.pop(tp, set()):
            ticket.lost = True

    def _reposition(self) -> None:
        for tp in self._consumer.assignment():
            mark = self._marks.get(tp)
            if mark is None:
                committed = self._consumer.committed(tp, metadata=True, timeout_ms=CALL_MS)
                if committed is None:
                    start = self._consumer.beginning_offsets([tp], timeout_ms=CALL_MS)[tp]
                    mark = Watermark(start)
                else:
                    mark = Watermark(committed.offset, _begun(committed.metadata))
                self._marks[tp] = mark
                self._tickets[tp] = set()
            if self._consumer.position(tp, timeout_ms=CALL_MS) != mark.next:
                self._consumer.seek(tp, mark.next)

    # --- messages

    def _mark(self, tp: TopicPartition, offset: int) -> None:
        mark = self._marks[tp]
        if offset < mark.next:
            # The log begins anew below what was read: the topic was made again, or was cut off.
            log.error("offsets_went_back", topic=tp.topic, partition=tp.partition, offset=offset, expected=mark.next)
            self._forget(tp)
            mark = self._marks[tp] = Watermark(offset)
            self._tickets[tp] = set()
        mark.take(offset)

    def _take(self, tp: TopicPartition, message: Any) -> None:
        mark, tickets = self._marks[tp], self._tickets[tp]
        try:
            perform = self._read(message.value)
        except Unreadable as e:
            # It cannot harm what follows; its tasks are silent, and the orchestrator sends silent tasks again.
            self.unreadable += 1
            at = {"topic": tp.topic, "partition": tp.partition, "offset": message.offset}
            log.exception("message_unreadable", reason=e.reason, field=e.field, **at)
            mark.done(message.offset)
            return

        def done(offset: int = message.offset) -> None:
            mark.done(offset)
            tickets.discard(ticket)

        ticket = Ticket(
            perform.partition,
            len(perform.tasks),
            redelivered=message.offset < mark.redelivered_below,
            done=done,
        )
        tickets.add(ticket)
        self._lane.take(perform, ticket)

    def _read(self, value: bytes | None) -> PerformTasks:
        _, perform = read(value, MODELS, limit=MAX_BYTES)
        if perform.system != self._lane.system or any(t.system != perform.system for t in perform.tasks):
            raise Unreadable("other_system", "system")
        if perform.partition not in self._partitions:
            raise Unreadable("partition_unknown", "partition")
        return perform

    # --- offsets

    def _to_commit(self) -> dict[TopicPartition, OffsetAndMetadata]:
        offsets = {}
        for tp, mark in self._marks.items():
            low, begun = mark.low, max(mark.next, mark.redelivered_below)
            if self._sent.get(tp) != (low, begun):
                offsets[tp] = OffsetAndMetadata(low, f"begun={begun}", -1)
        return offsets

    def _commit(self) -> None:
        now = boot_time()
        if now < self._commit_at:
            return
        offsets = self._to_commit()
        if not offsets:
            return
        self._commit_at = now + COMMIT_SECONDS
        for tp, what in offsets.items():
            self._sent[tp] = (what.offset, _begun(what.metadata))
        self._consumer.commit_async(offsets, callback=self._committed)

    def _committed(self, offsets: dict[TopicPartition, OffsetAndMetadata], answer: object) -> None:
        if isinstance(answer, Exception):
            for tp in offsets:
                self._sent.pop(tp, None)  # the next round sends it again, if the partition is still ours


def _begun(metadata: str | None) -> int:
    text = (metadata or "").removeprefix("begun=")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 19 else 0  # noqa: PLR2004 - 64 bits
