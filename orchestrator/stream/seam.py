"""The one seam with Faust's inner API: where to read is the ledger's business, not the broker's.

Faust seeks to the broker's committed offsets after each rebalance and each pause of its flow, drops fetched
records that lie below the last it saw, and crashes when a commit fails. All three are turned off here. The
versions of faust-streaming and aiokafka are pinned exactly for this module's sake.
"""

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import structlog
import uvloop
from aiokafka.errors import IllegalStateError, KafkaError
from aiokafka.structs import OffsetAndMetadata, TopicPartition
from faust.transport.drivers.aiokafka import AIOKafkaConsumerThread
from faust.transport.drivers.aiokafka import Consumer as FaustConsumer
from faust.transport.drivers.aiokafka import Transport as FaustTransport
from faust.types import TP

from keshi.orchestrator.stream.port import Lane

if TYPE_CHECKING:
    from keshi.orchestrator.stream.app import HostApp

log = structlog.get_logger("keshi.stream")

_COMMIT_SECONDS = 3.0
_SOON = 0.05
_FETCH_WAIT_MS = 300
_YIELD_EVERY = 50


class _Blind(dict[TP, int | None]):
    """Faust's "last offset read": always unknown, so that a record fetched twice is brought twice.

    With the real one a seek that crosses a fetch makes Faust drop what follows, silently and for good.
    Repeats are the engine's to drop.
    """

    def __getitem__(self, key: TP) -> None:
        return None

    def __setitem__(self, key: TP, value: int | None) -> None:
        return None

    def update(self, *_: Any, **__: Any) -> None:
        return None


class _Thread(AIOKafkaConsumerThread):  # type: ignore[misc] # Faust is untyped to mypy here
    """Reads committed records alone: what a transaction took back must never be carried out.

    A fetch that finds nothing ends sooner than Faust's 1.5 s, because a seek waits for the one under way.
    """

    def _create_worker_consumer(self, transport: Any) -> Any:
        consumer = super()._create_worker_consumer(transport)
        # Faust has no setting for these, and aiokafka reads the fields when it starts.
        for name, ours in (("_isolation_level", "read_committed"), ("_fetch_max_wait_ms", _FETCH_WAIT_MS)):
            assert hasattr(consumer, name)
            setattr(consumer, name, ours)
        return consumer


class Consumer(FaustConsumer):  # type: ignore[misc] # as above
    """Asks the driver where to read, and tells it what is assigned."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._read_offset = _Blind()
        self._told: dict[TP, int] = {}
        self._telling: asyncio.Future[Any] | None = None

    @property
    def _host(self) -> "HostApp":
        host: HostApp = self.app
        return host

    def _new_consumer_thread(self) -> Any:
        return _Thread(self, loop=self.loop, beacon=self.beacon, thread_loop=uvloop.new_event_loop())

    # -- assignment

    async def on_partitions_revoked(self, revoked: Iterable[TP]) -> None:
        """The group takes partitions away."""
        self._told.clear()
        await self._host.driver.revoked([self._host.lane(tp) for tp in revoked])
        await super().on_partitions_revoked(set(revoked))

    async def on_partitions_assigned(self, assigned: Iterable[TP], generation_id: int = 0) -> None:
        """The group gave us these partitions."""
        self._host.driver.assigned([self._host.lane(tp) for tp in assigned])
        await super().on_partitions_assigned(set(assigned), generation_id)

    # -- where to read

    async def seek_to_committed(self) -> Mapping[TP, int]:
        """Seek to the ledger's next offsets; what the engine has not taken yet is left alone until it has."""
        assigned = self.assignment()
        driver = self._host.driver
        self.pause_partitions({tp for tp in assigned if not driver.is_ready(self._host.lane(tp))})
        nexts = {self._host.tp(lane): offset for lane, offset in driver.nexts().items()}
        return await self._seek({tp: offset for tp, offset in nexts.items() if tp in assigned})

    async def read_from(self, offsets: Mapping[Lane, int]) -> None:
        """Go on reading these lanes from these offsets (`driver.Source`)."""
        assigned = self.assignment()
        wanted = {self._host.tp(lane): offset for lane, offset in offsets.items()}
        mine = {tp: offset for tp, offset in wanted.items() if tp in assigned}
        await self._seek(mine)
        self.resume_partitions(set(mine))

    async def _seek(self, offsets: Mapping[TP, int]) -> Mapping[TP, int]:
        try:
            if offsets:
                await self.seek_wait(offsets)
        except (IllegalStateError, TimeoutError) as error:
            # The assignment changed meanwhile, and the next one seeks again; or the watch does.
            log.warning("could not seek", exception_class=type(error).__name__, count=len(offsets))
        return offsets

    # -- fetching

    async def _wait_next_records(self, timeout: float) -> tuple[Any, Any]:  # noqa: ASYNC109 - Faust's signature
        """Fetch from the partitions that have room, and look soon for others that got room meanwhile.

        Faust's own waits a whole second for either, so that a full buffer costs a second of standstill.
        """
        if not self.flow_active:
            await self.wait(self.can_resume_flow)
        active = self._get_active_partitions()
        seconds = timeout if len(active) == len(self.assignment()) else _SOON
        if not active:
            await self.sleep(seconds)
            return {}, active
        return await self._getmany(active_partitions=active, timeout=seconds), active

    async def _drain_messages(self, fetcher: Any) -> None:
        """Bring what is fetched to the streams.

        Faust's own races each message against a pause of the flow: four tasks, two thirds of an event's cost.
        Here a message that meets a pause comes late, and is checked like any other.
        """
        brought = 0
        try:
            while not (self.should_stop or fetcher.should_stop):
                async for _, message in self.getmany(timeout=1.0):
                    await self.callback(message)
                    brought += 1
                    if brought % _YIELD_EVERY == 0:
                        await asyncio.sleep(0)
                await asyncio.sleep(0)
        except (asyncio.CancelledError, *self.consumer_stopped_errors) as error:
            if self._host.should_stop:
                return
            self._host.driver.fail(error)
            raise
        except Exception as error:
            self._host.driver.fail(error)
            raise

    # -- what the broker is told

    async def force_commit(self, topics: Any = None, start_new_transaction: bool = True) -> bool:  # noqa: ARG002, FBT001, FBT002 - Faust's signature
        """Tell the broker where the ledger is, so that its lag is true. Nothing depends on it."""
        nexts = {self._host.tp(lane): offset for lane, offset in self._host.driver.nexts().items()}
        news = {tp: offset for tp, offset in nexts.items() if self._told.get(tp) != offset}
        if not news or (self._telling is not None and not self._telling.done()):
            return False
        self._telling = asyncio.wrap_future(
            asyncio.run_coroutine_threadsafe(self._tell(news), self._thread.thread_loop)
        )
        done, _ = await asyncio.wait({self._telling}, timeout=_COMMIT_SECONDS)
        if not done or not self._telling.result():
            return False
        self._told.update(news)
        return True

    async def _tell(self, offsets: Mapping[TP, int]) -> bool:
        """In the consumer's thread."""
        consumer = self._thread._ensure_consumer()  # noqa: SLF001 - Faust's commit crashes when the broker is away
        assigned = consumer.assignment()
        spots = {TopicPartition(tp.topic, tp.partition): offset for tp, offset in offsets.items()}
        try:
            await consumer.commit({s: OffsetAndMetadata(o, "") for s, o in spots.items() if s in assigned})
        except (KafkaError, IllegalStateError) as error:
            log.info("the broker did not take the offsets", exception_class=type(error).__name__)
            return False
        return True

    def dead_part(self) -> str | None:
        """A part of the driver that has ended by itself (`driver.Source`); only looks, so any thread may."""
        consumer = self._thread._consumer  # noqa: SLF001 - None before the start
        if consumer is None or self.should_stop:
            return None
        parts = {
            "coordinator": consumer._coordinator._coordination_task,  # noqa: SLF001 - aiokafka has no other
            "fetcher": consumer._fetcher._fetch_task,  # noqa: SLF001 - as above
        }
        if not self._thread._thread.is_alive():  # noqa: SLF001 - mode has no other
            return "thread"
        return next((name for name, task in parts.items() if task.done()), None)

    async def verify_all_partitions_active(self) -> None:
        """Faust's own watch only writes logs; the driver has one that acts."""


class Transport(FaustTransport):  # type: ignore[misc] # as above
    """Names the consumer above."""

    Consumer = Consumer
