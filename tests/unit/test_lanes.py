"""What the driver keeps of a lane, and when the heartbeat calls for help."""

from hypothesis import given
from hypothesis import strategies as st

from keshi.orchestrator.flow import SLOW_SECONDS, OnTheWay
from keshi.orchestrator.stream.heartbeat import Heartbeat
from keshi.orchestrator.stream.lanes import FEW, MAX_RUN_BYTES, MUCH, Held, next_turn
from keshi.orchestrator.stream.port import Lane, Record

LANE = Lane("reports", 3)


def record(offset: int) -> Record:
    return Record(LANE, offset, b"anything", None, (), 0)


@given(st.lists(st.integers(0, 30), max_size=60), st.integers(0, 20), st.integers(1, 10))
def test_the_engine_gets_only_runs_without_a_hole(arriving: list[int], following: int, limit: int) -> None:
    """However records arrive (stale, doubled, out of order after a seek), and in whatever order."""
    held = Held(LANE, next=following, ready=True)
    for offset in arriving:
        held.put(record(offset))
    while run := held.run(limit):
        offsets = [one.offset for one in run]
        assert offsets == list(range(offsets[0], offsets[0] + len(offsets)))
        assert offsets[0] >= held.next
        assert len(offsets) <= limit
        if offsets[0] > held.next:  # the engine raises Gap
            held.drop()
            break
        held.advance(offsets[-1] + 1)
    assert held.drained.is_set() or not arriving


@given(st.lists(st.integers(0, 2 * MAX_RUN_BYTES), min_size=1, max_size=30))
def test_the_engine_gets_no_more_than_a_transaction_can_hold(sizes: list[int]) -> None:
    """Whatever the records' size: each comes, in order, and one that is too large comes alone."""
    held = Held(LANE, next=0, ready=True)
    for offset, size in enumerate(sizes):
        held.put(Record(LANE, offset, b"x" * size, None, (), 0))
    came = 0
    while run := held.run(500):
        assert len(run) == 1 or sum(len(one.value or b"") for one in run) <= MAX_RUN_BYTES
        assert run[0].offset == came
        came += len(run)
        held.advance(came)
    assert came == len(sizes)


def test_a_lane_that_is_not_ready_takes_nothing_in() -> None:
    held = Held(LANE, next=0)
    assert not held.put(record(0))


def test_the_repr_of_a_record_shows_where_it_lies_and_not_what_it_says() -> None:
    assert "anything" not in repr(record(7))
    assert "offset=7" in repr(record(7))


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_each_kind_of_standstill_is_unhealthy_and_ends() -> None:
    clock = Clock()
    beat = Heartbeat(stall_seconds=10, join_seconds=30, clock=clock)
    assert beat.healthy()
    assert not beat.ready()
    clock.now = 31
    beat.turn()
    assert not beat.healthy(), "no assignment came"
    beat.settled()
    assert beat.ready()

    with beat.calling():
        clock.now += 11
        beat.turn()
        assert not beat.healthy(), "the engine does not come back"
    assert beat.healthy()

    beat.moved(LANE, 5)
    beat.waits(LANE, clock.now)
    clock.now += 11
    beat.turn()
    assert not beat.healthy(), "a lane has records and does not move"
    beat.moved(LANE, 6)
    assert beat.healthy()

    clock.now += 11
    assert not beat.healthy(), "the event loop does not turn"
    beat.turn()
    assert beat.healthy()

    beat.fail("AnyError")
    assert not beat.healthy()


def test_lag_is_what_lies_between_a_lane_and_the_end_of_its_log() -> None:
    """Of lanes in hand alone, and never below nothing: the end was seen a while ago."""
    beat = Heartbeat()
    beat.moved(LANE, 5)
    beat.ends(LANE, 12)
    beat.ends(Lane("commands", 0), 3)
    assert beat.vitals().behind == {LANE: 7}
    beat.moved(LANE, 20)
    assert beat.vitals().behind == {LANE: 0}
    beat.dropped(LANE)
    assert not beat.vitals().behind


def test_what_is_begun_is_ended_before_more_is_begun() -> None:
    """Reports have the turn; commands wait for them, but not for good, and then a few of them are taken."""
    commands, reports = Held(Lane("commands", 0), next=0, ready=True), Held(LANE, next=0, ready=True)
    lanes = [commands, reports]
    assert next_turn(lanes, 0.0, 2.0, 500) is None
    commands.put(Record(commands.lane, 0, b"", None, (), 0))
    commands.turn_at = 10.0
    assert next_turn(lanes, 10.0, 2.0, 500) == (commands, 500)
    reports.put(record(0))
    reports.turn_at = 10.0
    assert next_turn(lanes, 11.0, 2.0, 500) == (reports, 500)
    assert next_turn(lanes, 12.5, 2.0, 500) == (commands, FEW)
    reports.ready = False
    assert next_turn(lanes, 12.5, 2.0, 500) == (commands, 500)


def test_no_more_is_begun_while_workers_are_full() -> None:
    """Reports are taken all the same; and a system that does not answer keeps nothing out for long."""
    commands, reports = Held(Lane("commands", 0), next=0, ready=True), Held(LANE, next=0, ready=True)
    commands.put(Record(commands.lane, 0, b"", None, (), 0))
    commands.turn_at, commands.on_the_way = 10.0, MUCH
    assert next_turn([commands, reports], 11.0, 2.0, 500) is None
    assert next_turn([commands, reports], 12.5, 2.0, 500) == (commands, 500)
    reports.put(record(0))
    assert next_turn([commands, reports], 11.0, 2.0, 500) == (reports, 500)
    commands.on_the_way = MUCH - 1
    reports.ready = False
    assert next_turn([commands, reports], 11.0, 2.0, 500) == (commands, 500)


@given(st.lists(st.tuples(st.floats(0, 3), st.integers(0, 300), st.integers(0, 300)), max_size=40))
def test_what_is_on_the_way_is_counted_until_it_comes_back_or_takes_too_long(
    steps: list[tuple[float, int, int]],
) -> None:
    way, now, sent = OnTheWay(), 0.0, list[tuple[float, int]]()
    for passed, out, back in steps:
        now += passed
        way.reported(back)
        way.sent(out, now)
        sent.append((now, out))
        assert out <= way.count(now) <= sum(n for at, n in sent if at >= now - SLOW_SECONDS)
    assert way.count(now + SLOW_SECONDS + 1) == 0


def test_what_came_back_is_what_was_sent_first() -> None:
    way = OnTheWay()
    way.sent(100, 0.0)
    way.sent(50, 5.0)
    way.reported(30)
    assert way.count(6.0) == 120
    assert way.count(11.0) == 50
    way.reported(1_000)
    assert way.count(11.0) == 0


def test_lanes_of_one_kind_have_their_turns_in_order() -> None:
    first, second = (Held(Lane("reports", p), next=0, ready=True) for p in (1, 0))
    for held in (first, second):
        held.put(Record(held.lane, 0, b"", None, (), 0))
    assert next_turn([first, second], 0.0, 2.0, 500) == (first, 500)
