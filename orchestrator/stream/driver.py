"""Drives the engine: one call at a time in one thread, lane by lane, beside the event loop.

It knows nothing of Faust. It never skips or acknowledges a record: the engine's ledger says what is done, and
whatever was lost, doubled or reordered on the way here is put right by reading the lane again from there.
"""

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ParamSpec, Protocol, TypeVar

import structlog
from kafka.errors import KafkaError

from keshi.orchestrator.stream.broker import BrokerView, Shape
from keshi.orchestrator.stream.errors import (
    EngineStuckError,
    PartDiedError,
    RecordsMissingError,
    TopicsChangedError,
)
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.lanes import Held, next_turn
from keshi.orchestrator.stream.port import Engine, Gap, Lane, LogBounds, LogMismatch, NotOwner, Record
from keshi.orchestrator.stream.settings import StreamSettings

P = ParamSpec("P")
T = TypeVar("T")

log = structlog.get_logger("keshi.stream")

_BROKER_ERRORS = (KafkaError, OSError)
_LEAST_IDLE, _MOST_IDLE = 0.01, 1.0
_GAP_TRIES = 6
_STUCK_TRIES = 5
_MISMATCH_TRIES = 5
_BACKOFF = 0.5
_PULSE = 0.5
_SPARE_WAIT = 1.0


class Source(Protocol):
    """What the driver asks of the consumer."""

    async def read_from(self, offsets: Mapping[Lane, int]) -> None:
        """Go on reading these lanes, from these offsets. Lanes no longer assigned are left out."""
        ...

    def dead_part(self) -> str | None:
        """A part of the consumer that has ended by itself, if any: nobody else would notice."""
        ...


class Driver:
    """Owns the lanes in hand. All methods belong to the event loop's thread."""

    def __init__(self, settings: StreamSettings, engine: Engine, heartbeat: Heartbeat) -> None:
        self._settings = settings
        self._engine = engine
        self._beat = heartbeat
        self._view = BrokerView(settings)
        self._engine_thread = ThreadPoolExecutor(1, "keshi-engine")
        self._view_thread = ThreadPoolExecutor(1, "keshi-broker-view")
        self._held: dict[Lane, Held] = {}
        self._order: deque[Lane] = deque()
        self._wake = asyncio.Event()
        self._tasks: set[asyncio.Task[None]] = set()
        self._source: Source | None = None
        self._topics: Mapping[str, Shape] = {}
        self._stopping = False
        self._idle_at = 0.0
        self._moved_at = 0.0
        self.failed: asyncio.Future[BaseException] | None = None

    # -- what the stream says

    def start(self, source: Source, topics: Mapping[str, Shape]) -> asyncio.Future[BaseException]:
        """Begin.

        Args:
            source: The consumer.
            topics: What the broker had at the start.

        Returns:
            Ends with what makes it impossible to go on.
        """
        self._source = source
        self._topics = topics
        self.failed = asyncio.get_running_loop().create_future()
        self._spawn(self._pulse())
        self._spawn(self._work())
        self._spawn(self._watch())
        return self.failed

    def assigned(self, lanes: Iterable[Lane]) -> None:
        """The group gave us exactly these lanes."""
        for held in self._held.values():
            self._forget(held)
        self._held = {lane: Held(lane) for lane in sorted(lanes)}
        self._order = deque(self._held)
        if self._held:
            self._spawn(self._adopt(list(self._held.values())))
        else:
            self._beat.settled()
        log.info("lanes assigned", lanes=[str(lane) for lane in self._held])

    async def revoked(self, lanes: Iterable[Lane]) -> None:
        """The group takes these lanes: let the running cycle end, for a bounded time, and give them up.

        When it is over the lanes go all the same: the epoch keeps the late cycle from changing anything.
        """
        gone = [held for lane in lanes if (held := self._held.pop(lane, None))]
        for held in gone:
            self._forget(held)
        self._beat.away()
        if taken := [held.lane for held in gone if held.taken]:
            log.info("lanes revoked", lanes=[str(lane) for lane in taken])
            await self._release(taken, self._settings.kafka.session_timeout_seconds / 2)

    async def offer(self, record: Record) -> None:
        """Bring a record, in the order of its lane; waits while the engine has more of that lane than it can take."""
        held = self._held.get(record.lane)
        if held is None or not held.put(record):
            return
        self._wake.set()
        if len(held.pending) >= 2 * self._settings.max_batch:
            await held.drained.wait()

    def nexts(self) -> dict[Lane, int]:
        """The ledger's next offset of each lane that is ready."""
        return {lane: held.next for lane, held in self._held.items() if held.ready}

    def is_ready(self, lane: Lane) -> bool:
        """Whether records of this lane are taken in."""
        held = self._held.get(lane)
        return held is not None and held.ready

    async def stop(self) -> None:
        """Finish the running cycle and give up all lanes, within a bounded time."""
        self._stopping = True
        self._wake.set()
        held = list(self._held.values())
        self._held = {}
        for one in held:
            self._forget(one)
        taken = [one.lane for one in held if one.taken]
        await self._release(taken, self._settings.stop_seconds)
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._engine_thread.shutdown(wait=False, cancel_futures=True)
        self._view_thread.submit(self._view.close)
        self._view_thread.shutdown(wait=False)

    def fail(self, error: BaseException) -> None:
        """Nothing goes on after this: the process ends, and another starts."""
        self._beat.fail(type(error).__name__)
        if self.failed is None or self.failed.done():
            return
        self.failed.set_result(error)
        # Never the message: it may quote what the engine was given.
        log.error("the stream cannot go on", exception_class=type(error).__name__, where=_place(error))

    # -- the engine's thread

    async def _call(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            with self._beat.calling():
                return method(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._engine_thread, call)

    async def _look(self, method: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        def call() -> T:
            return method(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._view_thread, call)

    async def _release(self, lanes: list[Lane], seconds: float) -> None:
        if not lanes:
            return
        released = asyncio.ensure_future(self._call(self._engine.release, lanes))
        done, _ = await asyncio.wait({released}, timeout=seconds)
        if not done:
            log.warning("the running cycle outlasts its lanes", lanes=[str(x) for x in lanes], seconds=seconds)
            released.add_done_callback(self._release_ended)
        else:
            self._release_ended(released)

    def _release_ended(self, released: asyncio.Future[None]) -> None:
        if not released.cancelled() and (error := released.exception()):
            self.fail(error)

    # -- taking lanes

    async def _adopt(self, wanted: list[Held]) -> None:
        """Learn what the broker has, have the engine take the lanes, and read on from where its ledger is."""
        refused = 0
        while current := [held for held in wanted if self._is_current(held)]:
            try:
                bounds = await self._look(self._view.bounds, [held.lane for held in current])
                await self._take([held for held in current if self._is_current(held)], bounds)
            except _BROKER_ERRORS as error:
                log.warning("the broker does not say what it holds", exception_class=type(error).__name__)
                await asyncio.sleep(_BACKOFF)
            except LogMismatch:
                # An owner of before may have gone on while we looked: its log is longer than what we saw.
                refused += 1
                if refused == _MISMATCH_TRIES:
                    raise
                await asyncio.sleep(_BACKOFF)
            else:
                return

    async def _take(self, wanted: list[Held], bounds: Mapping[Lane, LogBounds]) -> None:
        if not wanted:
            return
        for held in wanted:
            held.taken = True
        nexts = await self._call(self._engine.take, {held.lane: bounds[held.lane] for held in wanted})
        for held in wanted:
            held.next, held.lost_at, held.gap = nexts[held.lane], None, (-1, 0)
            held.topic_id = bounds[held.lane].topic_id
        await self._read_from_next(wanted)
        if all(held.ready or held.lost_at for held in self._held.values()):
            self._beat.settled()

    async def _read_from_next(self, wanted: list[Held]) -> None:
        current = [held for held in wanted if self._is_current(held)]
        if not current:
            return
        assert self._source is not None
        # Ready first: the source reads on with lanes that are ready alone.
        for held in current:
            held.ready = True
            held.watched = (held.next, time.monotonic())
            self._beat.moved(held.lane, held.next)
        await self._source.read_from({held.lane: held.next for held in current})
        self._idle_at = 0.0
        self._wake.set()

    # -- the cycle

    async def _work(self) -> None:
        while not self._stopping:
            self._wake.clear()
            turn = self._turn()
            if turn is not None:
                more = await self._process(*turn)
                if more or time.monotonic() >= self._idle_at:
                    await self._idle()
            elif not self.nexts():
                await self._wait(_SPARE_WAIT)
            elif (wait := self._idle_at - time.monotonic()) > 0:
                await self._wait(wait)
            else:
                await self._idle()

    async def _wait(self, seconds: float) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return

    def _turn(self) -> tuple[Held, int] | None:
        """The next lane that has records, each in its turn, and how many of them it gets."""
        settings, now = self._settings, time.monotonic()
        lanes = [held for lane in self._order if (held := self._held.get(lane))]
        turn = next_turn(lanes, now, settings.patience_seconds, settings.max_batch)
        if turn is not None:
            turn[0].turn_at = now
            self._order.remove(turn[0].lane)
            self._order.append(turn[0].lane)
        return turn

    async def _process(self, held: Held, limit: int) -> bool:
        """One cycle over so many records at most; whether there is work besides that waits for no record."""
        records = held.run(limit)
        if not records:
            return True
        try:
            done = await self._call(self._engine.process, held.lane, records)
        except Gap as gap:
            if self._is_current(held):
                held.drop()
                self._spawn(self._mend(held, gap.expected, records[0].offset))
            return True
        except NotOwner as lost:
            self._lose(lost.lane)
            return True
        if not self._is_current(held):
            return True
        held.advance(done.next_offset)
        if commands := self._held.get(Lane("commands", held.lane.partition)):
            commands.on_the_way = done.on_the_way
        self._moved_at = time.monotonic()
        self._beat.records += len(records)
        self._beat.moved(held.lane, held.next)
        if held.stuck >= _STUCK_TRIES:
            raise EngineStuckError(held.lane)
        return done.more

    async def _idle(self) -> None:
        lanes = list(self.nexts())
        if not lanes or self._stopping:
            return
        try:
            wait = await self._call(self._engine.idle, lanes)
        except NotOwner as lost:
            self._lose(lost.lane)
            wait = _LEAST_IDLE
        self._idle_at = time.monotonic() + max(_LEAST_IDLE, min(wait, _MOST_IDLE))

    def _lose(self, lane: Lane) -> None:
        """Another owns it. The group will tell us so; if it does not, `_watch` takes it again."""
        held = self._held.get(lane)
        if held is not None:
            self._forget(held)
            held.lost_at = time.monotonic()
            log.warning("lane owned by another", lane=str(lane))

    # -- putting right

    async def _mend(self, held: Held, expected: int, seen: int) -> None:
        """Read again from `expected`; accept a gap that stays only if a second reader sees the same."""
        held.next = expected
        tries = held.gap[1] + 1 if held.gap[0] == expected else 1
        held.gap = (expected, tries)
        log.warning("records missing", lane=str(held.lane), expected=expected, seen=seen, attempt=tries)
        if tries > _GAP_TRIES:
            raise RecordsMissingError(held.lane)
        if tries > 1:
            await asyncio.sleep(min(_BACKOFF, 0.05 * tries))
            try:
                sight = await self._look(self._view.look, held.lane, expected)
            except _BROKER_ERRORS:
                held.gap = (expected, tries - 1)
                await asyncio.sleep(_BACKOFF)
            else:
                if not sight.start <= expected <= sight.end:
                    await self._adopt([held])
                    return
                if sight.first == seen != expected and self._is_current(held):
                    await self._accept(held, expected, seen)
        await self._read_from_next([held])

    async def _accept(self, held: Held, expected: int, seen: int) -> None:
        try:
            await self._call(self._engine.accept_gap, held.lane, expected, seen)
        except NotOwner as lost:
            self._lose(lost.lane)
            return
        log.info("offsets without records", lane=str(held.lane), expected=expected, seen=seen)
        held.next, held.gap = seen, (-1, 0)

    # -- watching

    async def _pulse(self) -> None:
        while not self._stopping:
            self._beat.turn()
            await asyncio.sleep(_PULSE)

    async def _watch(self) -> None:
        """Compare the log with what was read: streams are known to stall without a word."""
        while not self._stopping:
            await asyncio.sleep(self._settings.watch_seconds)
            if self._source is not None and (part := self._source.dead_part()):
                raise PartDiedError(part)
            for held in list(self._held.values()):
                if held.lost_at and time.monotonic() - held.lost_at > self._retake_seconds:
                    log.warning("lane still assigned, taking it again", lane=str(held.lane))
                    held.lost_at = None
                    await self._adopt([held])
            ready = {lane: held for lane, held in self._held.items() if held.ready}
            before = self.nexts()
            try:
                bounds = await self._look(self._view.bounds, list(ready))
                topics = await self._look(self._view.topics)
            except _BROKER_ERRORS as error:
                # Without the broker nothing can move: a restart of this process would not help.
                log.warning("the broker does not answer", exception_class=type(error).__name__)
                continue
            if topics != self._topics:
                raise TopicsChangedError(topics)
            for lane, held in ready.items():
                if self._is_current(held) and held.ready:
                    await self._check(held, before[lane], bounds[lane])

    @property
    def _retake_seconds(self) -> float:
        return self._settings.kafka.session_timeout_seconds + 2 * self._settings.heartbeat_seconds

    async def _check(self, held: Held, before: int, bounds: LogBounds) -> None:
        """`before`: the next offset before the bounds were asked for. A good log has at least as much."""
        now = time.monotonic()
        self._beat.ends(held.lane, bounds.end)
        if bounds.end < before or bounds.start > held.next or bounds.topic_id != held.topic_id:
            log.error("the log is not the one that was read", lane=str(held.lane), next_offset=held.next)
            held.drop()
            await self._adopt([held])  # the engine compares, and refuses
            return
        nothing_new = bounds.end <= held.next or bounds.end == held.quiet_end
        if nothing_new or held.next != held.watched[0]:
            held.watched, held.read_again = (held.next, now), 0
            self._beat.waits(held.lane, None)
            return
        since = held.watched[1]
        self._beat.waits(held.lane, since)
        # Lanes wait for each other while there is much to do: only where nothing moves at all, or for long.
        patience = self._settings.reseek_seconds
        if now - self._moved_at < patience / 2:
            patience = max(patience, self._settings.stall_seconds / 2)
        # To read anew throws away what is on its way: where the machine is slow, that alone would keep it from coming.
        if not held.pending and now - since > patience * 2**held.read_again:
            await self._read_again(held, bounds)

    async def _read_again(self, held: Held, bounds: LogBounds) -> None:
        try:
            sight = await self._look(self._view.look, held.lane, held.next)
        except _BROKER_ERRORS:
            return
        if not self._is_current(held) or not held.ready or held.pending:
            return
        if sight.first is None:
            held.quiet_end = bounds.end
            self._beat.waits(held.lane, None)
            return
        log.warning("the stream stands still, reading again", lane=str(held.lane), next_offset=held.next)
        since = held.watched
        held.read_again += 1
        await self._read_from_next([held])
        held.watched = since

    # -- small things

    def _is_current(self, held: Held) -> bool:
        return not self._stopping and self._held.get(held.lane) is held

    def _forget(self, held: Held) -> None:
        held.drop()
        self._beat.dropped(held.lane)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guard(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guard(self, work: Awaitable[None]) -> None:
        try:
            await work
        except NotOwner as lost:
            self._lose(lost.lane)
        except Exception as error:  # noqa: BLE001 - whatever it is ends the process: see `fail`
            self.fail(error)


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "-" if trace is None else f"{trace.tb_frame.f_code.co_qualname}:{trace.tb_lineno}"
