"""What every ledger has to do. An implementation inherits `LedgerSuite` and gives the fixture `store`.

Nothing here knows a dialect: what two connections do at once is judged by who waits and what each sees, which also
holds for a store with one writer at a time.
"""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from importlib import import_module
from threading import Event
from typing import Any, Protocol
from uuid import uuid4

import pytest

from keshi.orchestrator.closure import Chain
from keshi.orchestrator.door import Door, read_door, write_door
from keshi.orchestrator.ledger.port import (
    Arrival,
    Batch,
    Claim,
    ClosureRow,
    Cycle,
    EventRow,
    EvidenceRow,
    InboxRow,
    KeyRow,
    Lasting,
    LeaseRow,
    Ledger,
    NotOwner,
    ObligationRow,
    OutboxRow,
    Passing,
    Position,
    QuarantineRow,
    Raced,
    SchemaMismatch,
    Stage,
    WrongOffset,
)
from keshi.orchestrator.request import State
from keshi.runtime.sealing import WrappedKey
from keshi.schemas.closure import GENESIS
from keshi.schemas.commands import Action
from keshi.schemas.requests import RequestStatus, TaskStatus
from keshi.schemas.tasks import Mode, StopReason
from kit.seeding import PARTITIONS, Seeder, new_keys, request_in

WAITS = 0.3
"""Seconds after which what should wait has still not come through."""
SOON = 20
INSERT_ONLY = ("events", "arrivals", "evidence", "renewals", "closures", "quarantine", "plans", "inventories")
"""Tables of facts. What is in one stays as it is."""


class Store(Protocol):
    """One store and ways to reach it."""

    def open(self) -> Ledger:
        """The store as another process sees it."""

    def migrate(self) -> None: ...
    def sql(self, statement: str) -> list[Any]:
        """Run a statement past the port. Raises what the driver raises."""


def waits(future: Future[Any]) -> None:
    with pytest.raises(TimeoutError):
        future.result(timeout=WAITS)


def take(ledger: Ledger, stage: Stage = "reports", partition: int = 0, start: int = 0) -> Position:
    return ledger.take(stage, partition, "log-1", start)


def write(ledger: Ledger, batch: Batch, *, stage: Stage = "reports", partition: int = 0) -> None:
    position = take(ledger, stage, partition)
    with ledger.cycle(position, position.next + 1) as tx:
        tx.write(batch)


def read(ledger: Ledger, look: Callable[[Cycle], Any], *, partition: int = 0) -> Any:
    position = take(ledger, "reports", partition)
    with ledger.cycle(position, position.next) as tx:
        return look(tx)


def state(request_id: str, **more: Any) -> State:
    return State(request_id=request_id, partition=0, **more)


def obligation(request_id: str, name: str, kind: str = "suspension", **more: Any) -> ObligationRow:
    given: dict[str, Any] = {"state": "open", "due": None, "sealed": "a.b.c", "data": '{"count": 1}', **more}
    return ObligationRow(name, request_id, 0, "crm", kind, **given)


def evidence(request_id: str, **more: Any) -> EvidenceRow:
    given: dict[str, Any] = {
        "begin_id": uuid4().hex,
        "request_id": request_id,
        "partition": 0,
        "system": "crm",
        "attempt": 1,
        "mode": "act",
        "manifest": "a.b.c",
        "digest": "d" * 64,
        "counts": '{"contacts": 2}',
        "searched": '["email"]',
        "learned": '{"recordings": ["x.y.z"]}',
        **more,
    }
    return EvidenceRow(**given)


def lease(of: EvidenceRow, ordinal: int, until: datetime, lease_id: str | None = None) -> LeaseRow:
    return LeaseRow(lease_id or uuid4().hex, of.begin_id, of.request_id, of.system, ordinal, until)


class LedgerSuite:
    """The contract."""

    @pytest.fixture
    def empty(self) -> Store:
        """A store in which nothing is yet."""
        raise NotImplementedError

    @pytest.fixture
    def store(self, empty: Store) -> Store:
        empty.migrate()
        return empty

    @pytest.fixture
    def ledger(self, store: Store) -> Ledger:
        return store.open()

    @pytest.fixture
    def other(self, store: Store) -> Ledger:
        """The same store, as another process has it open."""
        return store.open()

    # --- the schema and the first start

    def test_an_empty_store_says_what_to_run(self, empty: Store) -> None:
        with pytest.raises(SchemaMismatch, match="keshi ledger migrate"):
            empty.open().check()

    def test_a_migrated_store_is_in_order_also_when_it_is_done_again(self, store: Store, ledger: Ledger) -> None:
        ledger.check()
        write(ledger, Batch(claims=[Claim("h" * 64, request_in(0), 0, 1, "erase")]))
        store.migrate()
        ledger.check()
        assert len(read(ledger, lambda tx: tx.claims(["h" * 64]))) == 1

    def test_two_may_migrate_at_once(self, empty: Store) -> None:
        with ThreadPoolExecutor(2) as pool:
            for done in [pool.submit(empty.migrate) for _ in range(2)]:
                done.result(timeout=60)
        empty.open().check()

    def test_a_schema_of_a_later_version_is_not_touched(self, store: Store, ledger: Ledger) -> None:
        store.sql("UPDATE keshi_schema SET version_num = '9999'")
        with pytest.raises(SchemaMismatch, match="upgrade keshi"):
            ledger.check()

    def test_an_old_schema_says_what_to_run(
        self, store: Store, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("keshi.orchestrator.ledger.migrate.wanted_version", lambda: "9999")
        with pytest.raises(SchemaMismatch, match="keshi ledger migrate"):
            ledger.check()

    def test_the_number_of_partitions_is_the_first_one_for_life(self, ledger: Ledger, other: Ledger) -> None:
        assert (ledger.partitions(4), other.partitions(8), ledger.partitions(2)) == (4, 4, 4)

    def test_the_secret_is_the_one_of_the_first_start(self, ledger: Ledger, other: Ledger) -> None:
        first = KeyRow("ledger", WrappedKey("k1", b"\x00\x01"))
        second = KeyRow("ledger", WrappedKey("k2", b"\x02"))
        assert ledger.secret(first) == first
        assert other.secret(second) == first

    # --- lanes: who owns one, and where it stands

    def test_a_new_lane_begins_where_it_is_told_and_an_old_one_where_it_stands(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        first = ledger.take("commands", 2, "log-1", 17)
        assert (first.stage, first.partition, first.next, first.topic_id) == ("commands", 2, 17, "log-1")
        second = other.take("commands", 2, "log-2", 99)
        assert (second.next, second.topic_id, second.epoch) == (17, "log-1", first.epoch + 1)
        assert ledger.take("reports", 2, None, 3).next == 3

    def test_a_cycle_moves_its_lane_and_no_other(self, ledger: Ledger) -> None:
        here, there = take(ledger, start=5), take(ledger, partition=1, start=7)
        with ledger.cycle(here, 9):
            pass
        assert (take(ledger).next, take(ledger, partition=1).next) == (9, there.next)

    def test_who_lost_the_lane_learns_it_first_and_changes_nothing(self, ledger: Ledger, other: Ledger) -> None:
        """An old owner that wakes up after a rebalance."""
        old = take(ledger)
        new = take(other)
        entered = False
        with pytest.raises(NotOwner), ledger.cycle(old, 10):
            entered = True
        assert not entered
        with other.cycle(new, 1):
            pass

    def test_an_offset_that_is_not_expected_changes_nothing_and_names_the_right_one(self, ledger: Ledger) -> None:
        position = take(ledger)
        with ledger.cycle(position, 3):
            pass
        with pytest.raises(WrongOffset) as refused, ledger.cycle(position, 4):
            pass
        assert refused.value.next_offset == 3

    def test_what_cannot_be_written_is_known_before_the_end_to_whoever_waits_for_it(self, ledger: Ledger) -> None:
        """Who has to know how long it took must not be told by the commit."""
        write(ledger, Batch(events=[EventRow("r", 1, "closed", "{}")]))
        position = take(ledger)
        reached: list[int] = []
        with pytest.raises(Raced), ledger.cycle(position, position.next) as tx:  # noqa: PT012 - which line raises is the question
            tx.write(Batch(events=[EventRow("r", 1, "closed", "{}")]))
            tx.written()
            reached.append(1)
        assert not reached

    def test_a_cycle_that_decides_at_home_needs_that_lane_too(self, ledger: Ledger, other: Ledger) -> None:
        """Commands move; whose requests are decided stands still, and has to be ours."""
        commands, home = take(ledger, "commands"), take(ledger, start=7)
        with ledger.cycle(commands, 2, home) as tx:
            tx.write(Batch(events=[EventRow("r", 1, "closed", "{}")]))
        assert take(ledger).next == home.next
        commands = take(other, "commands")
        assert commands.next == 2
        entered = False
        with pytest.raises(NotOwner), other.cycle(commands, 3, home):
            entered = True
        assert not entered
        assert take(other, "commands").next == 2

    def test_a_cycle_at_home_says_what_is_wrong_with_its_own_lane(self, ledger: Ledger) -> None:
        home, old, commands = take(ledger), take(ledger, "commands"), take(ledger, "commands")
        with pytest.raises(NotOwner), ledger.cycle(old, 1, home):
            pass
        with ledger.cycle(commands, 3, home):
            pass
        with pytest.raises(WrongOffset) as refused, ledger.cycle(commands, 4, home):
            pass
        assert refused.value.next_offset == 3

    def test_who_takes_the_home_of_a_cycle_waits_for_its_end(self, ledger: Ledger, other: Ledger) -> None:
        """Whoever owns a lane next sees all that was decided about its requests."""
        commands, home = take(ledger, "commands"), take(ledger)
        with ThreadPoolExecutor(1) as pool:
            with ledger.cycle(commands, 1, home) as tx:
                tx.write(Batch(inbox=[InboxRow(0, "r", "{}")]))
                taking = pool.submit(take, other)
                waits(taking)
            assert taking.result(timeout=SOON).epoch == home.epoch + 1
        assert len(read(other, lambda tx: tx.inbox(10))) == 1

    def test_an_owner_that_loses_its_lane_in_mid_cycle_still_ends_whole(self, ledger: Ledger, other: Ledger) -> None:
        """The new owner waits for it, and goes on behind it."""
        position = take(ledger)
        with ThreadPoolExecutor(1) as pool:
            with ledger.cycle(position, 6) as tx:
                tx.write(Batch(inbox=[InboxRow(0, "r", "{}")]))
                taking = pool.submit(take, other)
                waits(taking)
            assert taking.result(timeout=SOON).next == 6
        assert len(read(other, lambda tx: tx.inbox(10))) == 1

    def test_a_cycle_that_raises_has_not_been(self, ledger: Ledger) -> None:
        position = take(ledger)
        with pytest.raises(ZeroDivisionError), ledger.cycle(position, 5) as tx:  # noqa: PT012 - the transaction is what raises
            tx.write(Batch(inbox=[InboxRow(0, "r", "{}")]))
            _ = 1 / 0
        assert take(ledger).next == position.next
        assert read(ledger, lambda tx: tx.inbox(10)) == []

    def test_a_gap_that_was_seen_to_be_empty_is_jumped_by_its_owner(self, ledger: Ledger, other: Ledger) -> None:
        position = ledger.jump(take(ledger), 12)
        assert position.next == 12
        take(other)
        with pytest.raises(NotOwner):
            ledger.jump(position, 20)

    # --- what a batch writes

    def test_all_that_a_batch_writes_is_read_back(self, ledger: Ledger, other: Ledger) -> None:
        one, name, holder = request_in(0), uuid4().hex, "ab" * 32
        due = datetime(2026, 5, 1, tzinfo=UTC)
        words = 'Ü "quoted" \\ 消し 🗝'
        row = obligation(one, name, due=due, data=f'{{"count": 1, "words": "{name}"}}')
        batch = Batch(
            events=[EventRow(one, n, "command_repeated", f'{{"n": {n}}}') for n in (2, 1)],
            states=[(state(one, sequence=2, number=1, status=RequestStatus.OPEN), due)],
            inbox=[InboxRow(0, one, '{"kind": "a"}'), InboxRow(0, one, '{"kind": "b"}'), InboxRow(3, one, "{}")],
            outbox=[OutboxRow("a-1", "keshi.requests", words, one), OutboxRow("a-2", "keshi.tasks.crm", "{}", None, 0)],
            arrivals=[Arrival("log-1", 0, 4, "accepted", one), Arrival("log-1", 0, 5, "rejected", None, "too_large")],
            quarantine=[QuarantineRow("commands", 0, 6, "not_json", None, 12, "s.s.s")],
            claims=[Claim(holder, one, 0, 1, "erase")],
            keys=[KeyRow(one, WrappedKey("k1", b"\x00\xff")), KeyRow(name, WrappedKey("k1", b"\x01"))],
            plans={"p" * 64: '{"b": 1, "a": 2}'},
            inventories={"i" * 64: "{}"},
            closures=[ClosureRow(one, 0, 1, "c" * 64, words)],
            obligations=[row],
            remembered=[(holder, name, "crm")],
            chain=Chain(1, "c" * 64),
        )
        write(ledger, batch)
        position = take(other)
        with other.cycle(position, position.next) as tx:
            assert tx.states([one, "none"]) == {one: batch.states[0][0]}
            assert [(r.partition, r.request_id, r.data) for r in tx.inbox(9)] == [
                (0, one, '{"kind": "a"}'),
                (0, one, '{"kind": "b"}'),
            ]
            assert tx.claims([holder, "none"]) == [Claim(holder, one, 0, 1, "erase")]
            assert tx.keys([one, name]) == {k.owner: k.key for k in batch.keys}
            assert tx.plans(["p" * 64, "none"]) == batch.plans
            assert tx.closures([one]) == {one: words}, "a record is read byte for byte"
            assert tx.obligations([name, "none"]) == {name: row}
            assert [row[:3] for row in tx.in_force([holder])] == [(holder, "crm", name)]
            assert tx.chain() == Chain(1, "c" * 64)
        with other.reader() as view:
            assert [e for _, e in view.history(one)] == sorted(batch.events, key=lambda e: e.sequence)
            assert list(view.obligations_of(one)) == [row]
        assert list(other.outbox("reports", 0, 9)) == batch.outbox
        assert [r.request_id for r in read(other, lambda tx: tx.inbox(9), partition=3)] == [one]

    def test_what_is_done_is_gone_and_the_rest_stays(self, ledger: Ledger) -> None:
        one, two, done, kept = request_in(0), request_in(0), uuid4().hex, uuid4().hex
        write(
            ledger,
            Batch(
                inbox=[InboxRow(0, one, "{}"), InboxRow(0, two, "{}")],
                outbox=[OutboxRow(f"a-{n}", "t", "{}") for n in range(3)],
                claims=[Claim("h" * 64, one, 0, 1, "erase"), Claim("h" * 64, two, 0, 2, "erase")],
                keys=[KeyRow(x, WrappedKey("k1", b"\x01")) for x in (one, two, done, kept)],
                obligations=[obligation(one, done), obligation(two, kept)],
                remembered=[("h" * 64, done, "crm"), ("h" * 64, kept, "crm")],
            ),
        )
        (first, *_) = read(ledger, lambda tx: tx.inbox(9))
        batch = Batch(
            inbox_done=[first.id],
            outbox_done=["a-1"],
            claims_ended=[one],
            keys_destroyed=[one, done],
            obligations_met=[(done, 2)],
        )
        write(ledger, batch)
        assert [r.request_id for r in read(ledger, lambda tx: tx.inbox(9))] == [two]
        assert [r.id for r in ledger.outbox("reports", 0, 9)] == ["a-0", "a-2"]
        assert [c.request_id for c in read(ledger, lambda tx: tx.claims(["h" * 64]))] == [two]
        assert set(read(ledger, lambda tx: tx.keys([one, two, done, kept]))) == {two, kept}
        met = read(ledger, lambda tx: tx.obligations([done]))[done]
        assert (met.state, met.sealed, met.due, met.sequence) == ("met", "", None, 2)
        assert [o for _, _, o, _ in read(ledger, lambda tx: tx.in_force(["h" * 64]))] == [kept]

    def test_what_begins_and_ends_in_one_batch_leaves_nothing(self, ledger: Ledger) -> None:
        """A request that was withdrawn before it came is accepted and closed in one cycle: its key must be gone."""
        one = request_in(0)
        write(
            ledger,
            Batch(
                keys=[KeyRow(one, WrappedKey("k1", b"\x01"))],
                keys_destroyed=[one],
                claims=[Claim("h" * 64, one, 0, 1, "erase")],
                claims_ended=[one],
            ),
        )
        assert read(ledger, lambda tx: tx.keys([one])) == {}
        assert list(read(ledger, lambda tx: tx.claims(["h" * 64]))) == []

    def test_a_state_takes_the_place_of_the_one_before(self, ledger: Ledger) -> None:
        one = request_in(0)
        write(ledger, Batch(states=[(state(one, sequence=1), None)]))
        later = state(one, sequence=2, number=5, status=RequestStatus.OPEN, withdrawn=True)
        write(ledger, Batch(states=[(later, None)]))
        assert read(ledger, lambda tx: tx.states([one])) == {one: later}

    def test_an_event_that_exists_is_never_written_again(self, ledger: Ledger) -> None:
        """Unique per request and sequence: with it the whole batch is refused, and the lane stays."""
        event = EventRow(request_in(0), 1, "command_repeated", "{}")
        write(ledger, Batch(events=[event]))
        position = take(ledger)
        with pytest.raises(Raced), ledger.cycle(position, position.next + 1) as tx:
            tx.write(Batch(events=[event], inbox=[InboxRow(0, event.stream, "{}")]))
        assert read(ledger, lambda tx: tx.inbox(9)) == []
        assert take(ledger).next == position.next

    def test_one_closure(self, ledger: Ledger) -> None:
        one, two = request_in(0), request_in(0)
        write(ledger, Batch(closures=[ClosureRow(one, 0, 1, "c" * 64, "{}")]))
        with pytest.raises(Passing):
            write(ledger, Batch(closures=[ClosureRow(one, 0, 2, "d" * 64, "{}")]))
        with pytest.raises(Passing):
            write(ledger, Batch(closures=[ClosureRow(two, 0, 1, "d" * 64, "{}")]))

    def test_what_the_store_refuses_for_good_is_lasting_and_the_lane_goes_on(self, ledger: Ledger) -> None:
        position = take(ledger)
        bad: Any = None
        with pytest.raises(Lasting), ledger.cycle(position, position.next + 1) as tx:
            tx.write(Batch(events=[EventRow(request_in(0), 1, bad, "{}")], inbox=[InboxRow(0, "r", "{}")]))
        with ledger.cycle(position, position.next + 1) as tx:
            assert tx.inbox(9) == []

    def test_a_command_that_comes_again_arrives_once(self, store: Store, ledger: Ledger) -> None:
        write(ledger, Batch(arrivals=[Arrival("log-1", 0, 4, "accepted", None)]))
        write(ledger, Batch(arrivals=[Arrival("log-1", 0, 4, "rejected", None)]))
        assert [tuple(r) for r in store.sql("SELECT result FROM arrivals")] == [("accepted",)]

    @pytest.mark.parametrize("table", INSERT_ONLY)
    def test_append_only(self, store: Store, ledger: Ledger, table: str) -> None:
        """Facts can be neither changed nor deleted, whoever tries."""
        self.test_all_that_a_batch_writes_is_read_back(ledger, ledger)
        found = evidence(request_in(0))
        with ledger.begins(0) as tx:
            tx.insert([found], [lease(found, 1, tx.now, "ab" * 16), lease(found, 0, tx.now, "ab" * 16)])
        column = store.sql(f"SELECT * FROM {table}")[0]._fields[-1]
        for statement in (f"UPDATE {table} SET {column} = {column}", f"DELETE FROM {table}"):
            with pytest.raises(Exception, match="append-only"):
                store.sql(statement)

    # --- the order of things

    def test_messages_and_inputs_come_oldest_first_and_no_more_than_asked_for(self, ledger: Ledger) -> None:
        for batch in range(2):
            ids = [f"reports-00000-{batch:010d}-{n:012d}" for n in range(12)]
            write(
                ledger,
                Batch(
                    outbox=[OutboxRow(i, "t", "{}") for i in reversed(ids)],
                    inbox=[InboxRow(0, f"{batch}-{n}", "{}") for n in range(12)],
                ),
            )
        sent = [r.id for r in ledger.outbox("reports", 0, 20)]
        assert sent == sorted(sent)
        assert len(sent) == 20
        taken = [r.request_id for r in read(ledger, lambda tx: tx.inbox(20))]
        assert taken == [f"{b}-{n}" for b in range(2) for n in range(12)][:20]
        assert ledger.outbox("commands", 0, 20) == []
        assert ledger.outbox("reports", 1, 20) == []

    def test_due_moments_come_when_they_have_passed_by_the_ledgers_clock(self, ledger: Ledger) -> None:
        late, soon, never, moved = (request_in(0) for _ in range(4))
        now = read(ledger, lambda tx: tx.now)
        assert now.tzinfo is not None
        write(
            ledger,
            Batch(
                states=[
                    (state(soon), now + timedelta(hours=1)),
                    (state(late), now - timedelta(seconds=1)),
                    (state(moved), now - timedelta(seconds=2)),
                    (state(never), None),
                ]
            ),
        )
        assert list(read(ledger, lambda tx: tx.due(9))) == [moved, late]
        assert list(read(ledger, lambda tx: tx.due(1))) == [moved]
        write(ledger, Batch(due_moved=[(moved, now + timedelta(hours=1))]))
        assert list(read(ledger, lambda tx: tx.due(9))) == [late]
        assert list(read(ledger, lambda tx: tx.due(9), partition=1)) == []

    def test_an_obligation_whose_moment_has_passed_is_due_until_it_is_moved_or_met(self, ledger: Ledger) -> None:
        now, one = read(ledger, lambda tx: tx.now), request_in(0)
        moved, met, later = (uuid4().hex for _ in range(3))
        rows = [
            obligation(one, moved, due=now - timedelta(seconds=2)),
            obligation(one, met, due=now - timedelta(seconds=1)),
            obligation(one, later, due=now + timedelta(hours=1)),
        ]
        write(ledger, Batch(obligations=rows))
        assert [o.obligation_id for o in read(ledger, lambda tx: tx.due_obligations(9))] == [moved, met]
        assert set(ledger.waiting([0])) == {0}
        tomorrow = now + timedelta(days=1)
        write(ledger, Batch(obligations_due=[(moved, 2, tomorrow)], obligations_met=[(met, 2)]))
        assert list(read(ledger, lambda tx: tx.due_obligations(9))) == []
        row = read(ledger, lambda tx: tx.obligations([moved]))[moved]
        assert (row.sequence, row.due, row.state) == (2, tomorrow, "open")
        assert set(ledger.waiting([0])) == set()

    def test_partitions_with_something_to_do_are_named(self, ledger: Ledger) -> None:
        now = read(ledger, lambda tx: tx.now)
        assert set(ledger.waiting([0, 1, 2, 3])) == set()
        write(ledger, Batch(inbox=[InboxRow(2, "r", "{}")]), partition=1)
        request = State(request_id=request_in(3), partition=3)
        write(ledger, Batch(states=[(request, now - timedelta(seconds=1))]), partition=3)
        future = State(request_id=request_in(1), partition=1)
        write(ledger, Batch(states=[(future, now + timedelta(hours=1))]), partition=1)
        assert set(ledger.waiting([0, 1, 2, 3])) == {2, 3}
        assert set(ledger.waiting([0, 1])) == set()

    def test_acceptance_numbers_rise_over_all_partitions(self, ledger: Ledger, other: Ledger) -> None:
        seen: list[int] = []
        for partition, process in ((0, ledger), (1, other), (0, ledger)):
            seen += list(read(process, lambda tx: list(tx.numbers(3)), partition=partition))
        assert seen == sorted(set(seen))
        assert read(ledger, lambda tx: list(tx.numbers(0))) == []

    def test_a_chain_begins_with_the_genesis_and_each_partition_has_its_own(self, ledger: Ledger) -> None:
        write(ledger, Batch(chain=Chain(3, "a" * 64)), partition=1)
        assert read(ledger, lambda tx: tx.chain()) == Chain(0, GENESIS)
        assert read(ledger, lambda tx: tx.chain(), partition=1) == Chain(3, "a" * 64)
        take(ledger, partition=1)
        assert read(ledger, lambda tx: tx.chain(), partition=1) == Chain(3, "a" * 64)

    def test_asking_for_nothing_gives_nothing(self, ledger: Ledger) -> None:
        def look(tx: Cycle) -> list[Any]:
            tx.lock_holders([])
            return [
                tx.states([]),
                tx.leases([]),
                tx.manifests([]),
                tx.keys([]),
                tx.closures([]),
                tx.plans([]),
                tx.obligations([]),
                dict(enumerate(tx.claims([]))),
                dict(enumerate(tx.in_force([]))),
            ]

        assert read(ledger, look) == [{}] * 9
        write(ledger, Batch())

    def test_a_door_says_of_a_request_what_a_go_depends_on(self, ledger: Ledger, other: Ledger) -> None:
        """With the sealed identifiers of the system that is named, and the key while there is one."""
        seed = Seeder(ledger, new_keys(ledger))
        one = seed.request(suspensions={"crm": ("o" * 32,)}, action=Action.RESUME_USE)
        two, early = seed.request(mode=Mode.CHECK), request_in(0)
        write(ledger, Batch(states=[(state(early), None)], keys_destroyed=[two]))
        with other.begins(0) as tx:
            doors = tx.doors([one, two, early, "none"], "crm")
        whole = read(ledger, lambda tx: tx.states([one, two, early]))
        assert set(doors) == {one, two, early}
        for request_id, known in whole.items():
            assert doors[request_id][:2] == (0, read_door(write_door(known), "crm"))
            assert doors[request_id].sealed == ()
        door, task = doors[one].door, doors[two].door.tasks["crm"]
        assert (door.action, door.suspensions, door.called_off) == (Action.RESUME_USE, {"crm": ("o" * 32,)}, None)
        assert door.plan_hash == whole[one].accepted.plan_hash
        assert (task.status, task.attempt, task.mode) == (TaskStatus.OPEN, 1, Mode.CHECK)
        assert doors[one].key is not None
        assert doors[two].key is None
        assert (doors[early].door.action, doors[early].door.tasks) == (None, {})
        with other.reader() as view:
            found = view.doors([one, early], "billing", sealed=True)
            assert found[one].sealed == whole[one].accepted.sealed["billing"]
            assert view.doors([one], "nobody", sealed=True)[one].sealed == ()
            assert found[early].sealed == ()

    def test_the_oldest_open_task_of_each_system_is_known(self, ledger: Ledger) -> None:
        seed = Seeder(ledger, new_keys(ledger))
        ids = [seed.request(), seed.request(systems=("crm",))]
        states = read(ledger, lambda tx: tx.states(ids))
        moments = {i: datetime(2026, 4, 1, 12, n, tzinfo=UTC) for n, i in enumerate(ids)}
        soon = datetime.now(UTC) + timedelta(hours=1)
        changed = [(states[i].model_copy(update={"accepted_at": moments[i]}), soon) for i in ids]
        ended = changed[0][0].tasks["billing"].model_copy(update={"status": TaskStatus.ENDED})
        first = changed[0][0].model_copy(update={"tasks": {**changed[0][0].tasks, "billing": ended}})
        write(ledger, Batch(states=[(first, soon), changed[1]]))
        with ledger.reader() as view:
            found = view.oldest()
        assert found["crm"] == moments[ids[0]]
        assert found["billing"] == moments[ids[1]], "of the first one it has ended"
        closed: list[tuple[State, datetime | None]] = [
            (s.model_copy(update={"status": RequestStatus.CLOSED}), None) for s, _ in changed
        ]
        write(ledger, Batch(states=closed))
        with ledger.reader() as view:
            assert view.oldest() == {}

    def test_a_case_that_is_as_accepted_stands_as_it_was(self, ledger: Ledger) -> None:
        seed = Seeder(ledger, new_keys(ledger))
        one = seed.request()
        was = read(ledger, lambda tx: tx.states([one]))[one]
        later = was.model_copy(update={"sequence": was.sequence + 1, "withdrawn": True})
        write(ledger, Batch(states=[(later, None)], as_accepted={one}))
        assert read(ledger, lambda tx: tx.states([one])) == {one: later}

    # --- begin

    def test_entries_are_the_evidence_of_one_system_with_lease_and_manifest(self, ledger: Ledger) -> None:
        one, until = request_in(0), datetime.now(UTC) + timedelta(seconds=30)
        found = [evidence(one, manifest=f"m.{n}.x", digest=f"{n}" * 64) for n in range(2)]
        for n, e in enumerate(found):
            with ledger.begins(0) as tx:
                tx.insert([e], [lease(e, 1, until)] if n else [])
        with ledger.begins(0) as tx:
            assert tx.entries([one], "billing") == {}
            entries = tx.entries([one, "none"], "crm")[one]
        leases = read(ledger, lambda cycle: cycle.leases([one]))[one].of["crm"]
        assert tuple(e.lease for e in entries) == leases
        assert sorted(e.manifest for e in entries) == ["m.0.x", "m.1.x"]

    def test_evidence_and_leases_are_read_back_in_the_order_of_the_goes(self, ledger: Ledger, other: Ledger) -> None:
        one, until = request_in(0), datetime.now(UTC) + timedelta(seconds=30)
        found = [evidence(one, manifest=f"m.{n}.x", digest=f"{n}" * 64) for n in range(3)]
        for n, e in enumerate(found):
            with ledger.begins(0) as tx:
                # The second one got no go.
                tx.insert([e], [lease(e, 1 + n // 2, until)] if n != 1 else [])
        position = take(other)
        with other.cycle(position, position.next) as cycle:
            assert cycle.manifests([one]) == {(one, "crm"): ["m.0.x", "m.1.x", "m.2.x"]}
            leases = cycle.leases([one, "none"])[one]
            assert cycle.leases([one], ["billing", "crm"]) == {one: leases}
            assert cycle.leases([one], ["billing"]) == {}
        newest = leases.newest("crm")
        assert newest is not None
        assert (newest.begin_id, newest.digest, newest.attempt, newest.mode) == (
            found[2].begin_id,
            "2" * 64,
            1,
            Mode.ACT,
        )
        assert (newest.until, newest.searched) == (until, ("email",))
        assert (dict(newest.counts), dict(newest.learned)) == ({"contacts": 2}, {"recordings": ("x.y.z",)})
        assert leases.acts("crm") == 2
        assert [x.digest[0] for x in sorted(leases.of["crm"], key=lambda x: x.at)] == ["0", "1", "2"]

    def test_a_renewal_moves_the_end_of_a_lease_and_is_no_new_one(self, ledger: Ledger) -> None:
        found, now = evidence(request_in(0)), datetime.now(UTC)
        for seconds, ordinal in ((10, 1), (40, 0), (20, 0), (40, 0)):
            with ledger.begins(0) as tx:
                row = lease(found, ordinal, now + timedelta(seconds=seconds), "ab" * 16)
                tx.insert([found] if ordinal else [], [row])
        with ledger.reader() as view:
            (only,) = view.leases([found.request_id])[found.request_id].of["crm"]
        assert (only.lease_id, only.until) == ("ab" * 16, now + timedelta(seconds=40))

    def test_a_begin_that_raises_has_not_been(self, ledger: Ledger) -> None:
        found = evidence(request_in(0))
        with pytest.raises(ZeroDivisionError), ledger.begins(0) as tx:  # noqa: PT012 - the transaction is what raises
            tx.insert([found], [lease(found, 1, tx.now)])
            _ = 1 / 0
        with ledger.reader() as view:
            assert view.leases([found.request_id]) == {}

    def test_of_two_goes_with_one_number_the_second_is_not_given(self, ledger: Ledger, other: Ledger) -> None:
        one = request_in(0)
        first, second = evidence(one), evidence(one)
        with ledger.begins(0) as tx:
            tx.insert([first], [lease(first, 1, tx.now)])
        with pytest.raises(Raced), other.begins(0) as tx:
            tx.insert([second], [lease(second, 1, tx.now)])
        with ledger.reader() as view:
            (only,) = view.leases([one])[one].of["crm"]
        assert only.begin_id == first.begin_id, "also its evidence is not there: it is asked again"

    def test_a_cycle_that_locks_its_partition_waits_for_a_go_and_then_sees_it(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        """no-act-without-go: a go is either seen, or not given."""
        found = evidence(request_in(0))

        def stop_it() -> Any:
            position = take(other)
            with other.cycle(position, position.next) as tx:
                tx.lock_partition()
                return tx.leases([found.request_id])

        with ThreadPoolExecutor(1) as pool:
            with ledger.begins(0) as tx:
                tx.insert([found], [lease(found, 1, tx.now)])
                stopping = pool.submit(stop_it)
                waits(stopping)
            assert stopping.result(timeout=SOON)[found.request_id].acts("crm") == 1

    def test_a_begin_waits_for_a_cycle_that_locked_its_partition_and_then_sees_what_it_did(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        one = request_in(0)
        write(ledger, Batch(states=[(state(one), None)]))

        def ask() -> tuple[Door, datetime]:
            with other.begins(0) as tx:
                return tx.doors([one], "crm")[one].door, tx.now

        position = take(ledger)
        with ThreadPoolExecutor(1) as pool:
            with ledger.cycle(position, position.next) as tx:
                tx.lock_partition()
                asking = pool.submit(ask)
                waits(asking)
                tx.write(Batch(states=[(state(one, sequence=1, withdrawn=True), None)]))
                before = tx.now
            seen, now = asking.result(timeout=SOON)
        assert seen.called_off is StopReason.WITHDRAWN
        assert now > before, "its time runs from behind the wait"

    # --- one subject, one at a time

    def test_who_wants_the_same_person_waits_and_then_sees_the_elder(self, ledger: Ledger, other: Ledger) -> None:
        holder, elder = "ab" * 32, request_in(0)

        def accept_another() -> Any:
            position = take(other, partition=1)
            with other.cycle(position, position.next) as tx:
                tx.lock_holders([holder, "cd" * 32])
                return list(tx.claims([holder]))

        position = take(ledger)
        with ThreadPoolExecutor(1) as pool:
            with ledger.cycle(position, position.next) as tx:
                tx.lock_holders(["ef" * 32, holder])
                assert list(tx.claims([holder])) == []
                accepting = pool.submit(accept_another)
                waits(accepting)
                tx.write(Batch(claims=[Claim(holder, elder, 0, 7, "erase")]))
            assert accepting.result(timeout=SOON) == [Claim(holder, elder, 0, 7, "erase")]

    def test_who_waits_for_an_elder_that_closes_does_not_see_it_any_more(self, ledger: Ledger, other: Ledger) -> None:
        holder, elder, elder_still = "ab" * 32, request_in(0), request_in(0)
        write(ledger, Batch(claims=[Claim(holder, elder, 0, 7, "erase"), Claim(holder, elder_still, 0, 8, "erase")]))

        def look() -> Any:
            position = take(other, partition=1)
            with other.cycle(position, position.next) as tx:
                tx.lock_holders([holder])
                return [c.request_id for c in tx.claims([holder])]

        position = take(ledger)
        with ThreadPoolExecutor(1) as pool:
            with ledger.cycle(position, position.next) as tx:
                tx.lock_holders([holder])
                assert len(tx.claims([holder])) == 2
                looking = pool.submit(look)
                waits(looking)
                tx.write(Batch(claims_ended=[elder]))
            assert looking.result(timeout=SOON) == [elder_still]

    def test_people_are_locked_in_one_order_so_that_nobody_waits_in_a_circle(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        people = [f"{n:064x}" for n in range(40)]
        go = Event()

        def lock(process: Ledger, partition: int, wanted: list[str]) -> bool:
            go.wait(SOON)
            for _ in range(5):
                position = take(process, partition=partition)
                with process.cycle(position, position.next) as tx:
                    tx.lock_holders(wanted)
            return True

        with ThreadPoolExecutor(2) as pool:
            both = [pool.submit(lock, ledger, 0, people), pool.submit(lock, other, 1, people[::-1])]
            go.set()
            assert all(f.result(timeout=SOON) for f in both)

    def test_claims_come_eldest_first(self, ledger: Ledger) -> None:
        rows = [Claim(h, request_in(0), 0, n, "erase") for n, h in ((5, "aa" * 32), (2, "bb" * 32), (9, "aa" * 32))]
        write(ledger, Batch(claims=rows))
        found = read(ledger, lambda tx: tx.claims(["aa" * 32, "bb" * 32]))
        assert [c.number for c in found] == [2, 5, 9]

    def test_what_a_claim_asks_for_can_be_worked_out_anew(self, store: Any, ledger: Ledger) -> None:
        """As the migration does that brought it, for requests that were open then."""
        step: Any = import_module("keshi.orchestrator.ledger.migrations.versions.0004_claims_action")
        named = "number, request_id, action, regime, ground, arrived, due"
        at = "'2026-11-02 09:00:00+00:00'"
        store.sql(*(
            f"INSERT INTO cases ({named}) VALUES ({n}, 'r{n}', '{action}', 'appi', 'appi.35-5', {at}, {at})"
            for n, action in ((1, "erase"), (2, "suspend_use"))
        ))  # fmt: skip
        write(ledger, Batch(claims=[Claim("aa" * 32, f"r{n}", 0, n, "") for n in (1, 2)]))
        store.sql(step.FILL)
        assert [c.action for c in read(ledger, lambda tx: tx.claims(["aa" * 32]))] == ["erase", "suspend_use"]

    # --- through the domain

    def test_a_state_that_events_made_is_read_back_as_it_was(self, ledger: Ledger, other: Ledger) -> None:
        seed = Seeder(ledger, new_keys(ledger))
        one = seed.request(partition=2)
        with other.reader() as view:
            found = view.states([one])[one]
            assert [e.kind for _, e in view.history(one)] == ["request_accepted", "task_dispatched", "task_dispatched"]
        assert found == seed.state(one)
        assert found.accepted.sealed["crm"]
        assert PARTITIONS > found.partition == 2
