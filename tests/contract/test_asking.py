"""What the ledger answers to those who ask, on both stores: against a model, page by page, in small windows."""

import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event

from contract.ledger_suite import Store, take, write
from contract.stores import Postgres, Sqlite
from keshi.dev.postgres import create_database, drop_database
from keshi.orchestrator.closure import Chain
from keshi.orchestrator.finding import CaseNote, EndingNote, Hits, Notes, Order, Place, Sought
from keshi.orchestrator.ledger import asking
from keshi.orchestrator.ledger.answers import ExportRow
from keshi.orchestrator.ledger.choice import connect, ledger_on
from keshi.orchestrator.ledger.port import Batch, ClosureRow, InboxRow, Ledger, OutboxRow, QuarantineRow
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.commands import Action, Regime
from keshi.schemas.outcomes import Outcome
from keshi.schemas.requests import RequestStatus, TaskStatus
from kit.seeding import request_in

START = datetime(2026, 3, 1, tzinfo=UTC)
SYSTEMS = ("billing", "crm", "mail")
GROUNDS = ("appi.35-5", "gdpr.17", "ccpa.deletion")
PEOPLE = tuple(f"{n:064x}" for n in range(12))
CROWD = 160


@dataclass(frozen=True)
class One:
    """A request of the model: what is noted of it, and its state."""

    notes: CaseNote
    state: State
    people: frozenset[str]
    endings: frozenset[tuple[str, str, str]]


def a_task(system: str, chance: random.Random) -> TaskProgress:
    next_at = START + timedelta(hours=chance.randrange(24 * 90), microseconds=chance.randrange(10**6))
    return TaskProgress(
        system=system,
        status=chance.choice(list(TaskStatus)),
        late=chance.random() < 0.1,
        next_at=next_at if chance.random() < 0.7 else None,
    )


def one(number: int, chance: random.Random) -> One:
    arrived = START + timedelta(hours=chance.randrange(24 * 60))
    due = arrived + timedelta(days=chance.randrange(1, 30))
    status = chance.choice(list(RequestStatus))
    closed = arrived + timedelta(days=chance.randrange(40)) if status is RequestStatus.CLOSED else None
    ground = chance.choice(GROUNDS)
    request_id = request_in(0)
    note = CaseNote(
        number=number,
        request_id=request_id,
        action=chance.choice(list(Action)).value,
        regime=ground.partition(".")[0],
        ground=ground,
        arrived=arrived,
        due=due,
        closed=closed,
    )
    tasks = {s: a_task(s, chance) for s in SYSTEMS if chance.random() < 0.7}
    ended = {s for s, t in tasks.items() if closed or t.status is TaskStatus.ENDED}
    endings = {
        (s, chance.choice(list(Outcome)).value, chance.choice(("", "", "jp.tax-records", *GROUNDS)))
        for s in (*ended, *ended)
    }
    return One(
        note,
        State(request_id=request_id, partition=0, number=number, status=status, tasks=tasks),
        frozenset(chance.sample(PEOPLE, chance.randrange(1, 4))),
        frozenset(endings),
    )


def noted(of: One) -> Notes:
    endings = tuple(EndingNote(of.notes.number, *e) for e in sorted(of.endings))
    return Notes(of.notes.number, of.notes, people=tuple(sorted(of.people)), endings=endings)


@dataclass(frozen=True)
class Scene:
    ledger: Ledger
    store: Store
    crowd: tuple[One, ...]


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def scene(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    if request.param == "sqlite":
        store: Any = Sqlite(tmp_path_factory.mktemp("asking") / "ledger.db")
        yield from _filled(store)
        return
    server = request.getfixturevalue("postgres_server")
    name = f"t{uuid4().hex}"
    create_database(server, name)
    store = Postgres(server.rsplit("/", 1)[0] + f"/{name}")
    yield from _filled(store)
    drop_database(server, name)


def _filled(store: Any) -> Iterator[Scene]:
    store.migrate()
    ledger = store.open()
    chance = random.Random(20260301)  # noqa: S311 - a model
    crowd = tuple(one(n, chance) for n in range(1, CROWD + 1))
    write(ledger, Batch(states=[(o.state, None) for o in crowd], notes=[noted(o) for o in crowd]))
    yield Scene(ledger, store, crowd)
    store.close()


# --- the model


def fits(of: One, sought: Sought, now: datetime) -> bool:
    c = of.notes
    open_late = c.due < now or any(t.is_late(now) for t in of.state.tasks.values())
    is_late = open_late if c.closed is None else c.closed > c.due
    held = c.closed is None and any(t.status is TaskStatus.HELD for t in of.state.tasks.values())
    unfinished = [t.system for t in of.state.tasks.values() if not t.ended and c.closed is None]
    return all(
        (
            not sought.people or bool(of.people & set(sought.people)),
            of.state.status in sought.states,
            sought.action in {None, c.action},
            sought.regime in {None, c.regime},
            sought.late in {None, is_late},
            sought.held in {None, held},
            sought.open_in in {None, *unfinished},
            sought.due_before is None or (c.closed is None and c.due < sought.due_before),
            sought.arrived_from is None or c.arrived >= sought.arrived_from,
            sought.arrived_until is None or c.arrived < sought.arrived_until,
            sought.closed_from is None or (c.closed is not None and c.closed >= sought.closed_from),
            sought.closed_until is None or (c.closed is not None and c.closed < sought.closed_until),
            _ended_so(of, sought),
        )
    )


def _ended_so(of: One, sought: Sought) -> bool:
    if sought.outcome:
        return any(
            sought.outcome == outcome and sought.system in {None, system} and sought.ground in {None, ground}
            for system, outcome, ground in of.endings
        )
    there = {s for s, o, _ in of.endings if o != Outcome.OUT_OF_SCOPE} | (
        set(of.state.tasks) if of.notes.closed is None else set()
    )
    grounds = {of.notes.ground} | {g for s, _, g in of.endings if sought.system in {None, s}}
    return sought.system in {None, *there} and sought.ground in {None, *grounds}


def sorted_by(order: Order) -> Any:
    keys = {
        Order.NUMBER: lambda o: (-o.notes.number,),
        Order.ARRIVED: lambda o: (-o.notes.arrived.timestamp(), -o.notes.number),
        Order.CLOSED: lambda o: (-(o.notes.closed or START).timestamp(), -o.notes.number),
        Order.DUE: lambda o: (o.notes.due.timestamp(), o.notes.number),
    }
    return keys[order]


def any_sought(chance: random.Random) -> Sought:
    def some(value: Any) -> Any:
        return value if chance.random() < 0.25 else None

    def day() -> datetime:
        return START + timedelta(hours=chance.randrange(24 * 90))

    return Sought(
        people=tuple(chance.sample(PEOPLE, 2)) if chance.random() < 0.2 else (),
        states=frozenset(chance.sample(list(RequestStatus), chance.choice((1, 2, 3, 3, 3)))),
        action=some(chance.choice(list(Action))),
        regime=some(chance.choice((Regime.APPI, Regime.GDPR, Regime.OWN))),
        ground=some(chance.choice((*GROUNDS, "jp.tax-records"))),
        system=some(chance.choice(SYSTEMS)),
        outcome=some(chance.choice(list(Outcome))),
        late=some(chance.random() < 0.5),
        held=some(chance.random() < 0.5),
        open_in=some(chance.choice(SYSTEMS)),
        due_before=some(day()),
        arrived_from=some(day()),
        arrived_until=some(day()),
        closed_from=some(day()),
        closed_until=some(day()),
    )


def walk(ledger: Ledger, sought: Sought, limit: int, now: datetime | None = None) -> tuple[list[str], list[Hits]]:
    """All pages."""
    found: list[str] = []
    pages: list[Hits] = []
    place: Place | None = None
    while not pages or place is not None:
        assert len(pages) < 4 * CROWD, "it never ends"
        with ledger.reader() as view:
            if now is not None:
                view.now = now  # type: ignore[misc] # the model's clock, not the database's
            pages.append(view.find(sought, place, limit))
        place = pages[-1].next
        found += pages[-1].request_ids
    return found, pages


@pytest.mark.parametrize("window", [3, 17, 5000])
def test_what_is_found_is_what_was_asked_for(scene: Scene, monkeypatch: pytest.MonkeyPatch, window: int) -> None:
    """Whatever is asked for, in whatever pages: each once, in order, and none that does not fit."""
    monkeypatch.setattr(asking, "WINDOW", window)
    chance = random.Random(window)  # noqa: S311 - a model
    now = START + timedelta(days=45)
    seen = 0
    for _ in range(120):
        sought, limit = any_sought(chance), chance.choice((1, 2, 7, 200))
        wanted = sorted((o for o in scene.crowd if fits(o, sought, now)), key=sorted_by(sought.order))
        found, pages = walk(scene.ledger, sought, limit, now)
        assert found == [o.notes.request_id for o in wanted], (sought, limit)
        assert all(len(p.request_ids) <= limit for p in pages)
        seen += len(found)
    assert seen > 200, "the model asked for nothing"


def test_everything_is_found_when_nothing_is_asked_for(scene: Scene) -> None:
    found, _ = walk(scene.ledger, Sought(), 50)
    assert found == [o.notes.request_id for o in reversed(scene.crowd)]


def test_a_page_looks_at_a_window_and_says_where_to_go_on(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where nothing in the window fits."""
    monkeypatch.setattr(asking, "WINDOW", 10)
    nobody = replace(Sought(), action=Action.ERASE, regime=Regime.CONTRACT)
    with scene.ledger.reader() as view:
        assert view.find(nobody, None, 5) == Hits((), None), "the index of regimes has none"
        rare = Sought(regime=Regime.APPI, outcome=None, late=False, states=frozenset({RequestStatus.CLOSED}))
        pages = walk(scene.ledger, rare, 200)[1]
    assert len(pages) > 2


def test_what_closes_later_is_noted(scene: Scene) -> None:
    late = one(CROWD + 1, random.Random(5))  # noqa: S311 - a model
    opened = replace(late, notes=replace(late.notes, closed=None), endings=frozenset())
    write(scene.ledger, Batch(states=[(opened.state, None)], notes=[noted(opened)]))
    newest = Sought(closed_from=datetime(2029, 1, 1, tzinfo=UTC))
    with scene.ledger.reader() as view:
        assert view.find(newest, None, 9).request_ids == ()
    closed = Notes(
        CROWD + 1, closed=datetime(2029, 5, 1, tzinfo=UTC), endings=(EndingNote(CROWD + 1, "crm", "erased"),)
    )
    write(scene.ledger, Batch(notes=[closed, closed]))
    with scene.ledger.reader() as view:
        assert view.find(newest, None, 9).request_ids == (late.notes.request_id,)
        assert view.find(replace(newest, outcome=Outcome.ERASED, system="crm"), None, 9).request_ids
    for table in ("endings", "people", "cases"):
        scene.store.sql(f"DELETE FROM {table} WHERE number = {CROWD + 1}")


# --- chains, lanes, quarantine, exports


def test_chains_are_read_record_by_record(scene: Scene) -> None:
    rows = [ClosureRow(request_in(1), 1, n, f"{n:064x}", f'{{"number":{n}}}') for n in range(1, 6)]
    write(scene.ledger, Batch(closures=rows, chain=Chain(5, rows[-1].hash)), partition=1)
    with scene.ledger.reader() as view:
        assert view.chains()[1] == Chain(5, rows[-1].hash)
        assert list(view.chained(1, 0, 2)) == ['{"number":1}', '{"number":2}']
        assert list(view.chained(1, 2, 9)) == ['{"number":3}', '{"number":4}', '{"number":5}']
        assert list(view.chained(2, 0, 9)) == []


def test_lanes_show_what_waits_in_them(scene: Scene) -> None:
    due = datetime(2026, 4, 1, tzinfo=UTC)
    one_due = (State(request_id=request_in(3), partition=3), due)
    inbox = [InboxRow(3, "r", "{}"), InboxRow(3, "s", "{}")]
    write(scene.ledger, Batch(inbox=inbox, outbox=[OutboxRow("a-1", "t", "v")], states=[one_due]), partition=3)
    take(scene.ledger, "commands", 3, 7)
    with scene.ledger.reader() as view:
        lanes = {(x.stage, x.partition): x for x in view.lanes()}
    assert (lanes["reports", 3].inbox, lanes["reports", 3].outbox, lanes["reports", 3].next_due) == (2, 1, due)
    assert (lanes["commands", 3].next, lanes["commands", 3].inbox, lanes["commands", 3].next_due) == (7, 0, None)


def test_quarantine_is_shown_without_what_lies_in_it(scene: Scene) -> None:
    rows = [QuarantineRow("commands", 0, n, "not_json", None, 10, "sealed-payload") for n in range(3)]
    write(scene.ledger, Batch(quarantine=rows))
    with scene.ledger.reader() as view:
        latest = view.quarantined(2, None)
        rest = view.quarantined(9, latest[-1].id)
    assert [q.offset for q in (*latest, *rest)] == [2, 1, 0]
    assert latest[0].at.tzinfo is not None
    assert "sealed-payload" not in repr(latest)


def test_what_was_exported_stays_on_record(scene: Scene) -> None:
    first = ExportRow("staff:kato", "authority:ppc-1", "csv", "{}", 3, 12, "a" * 64)
    numbers = [scene.ledger.register(first), scene.ledger.register(replace(first, purpose="audit:2026", lines=9))]
    with scene.ledger.reader() as view:
        second, found = view.exports(5, None)
        assert view.exports(5, second.id) == [found]
    assert [found.id, second.id] == numbers
    assert replace(found, id=0, at=None) == first
    assert (second.purpose, second.lines) == ("audit:2026", 9)
    for statement in ("UPDATE exports SET person = 'x'", "DELETE FROM exports"):
        with pytest.raises(Exception, match="append-only"):
            scene.store.sql(statement)


# --- what only PostgreSQL has to show


EVERY_KIND = {
    "nothing": Sought(),
    "people": Sought(people=PEOPLE[:2]),
    "outcome": Sought(outcome=Outcome.REFUSED),
    "outcome and system": Sought(outcome=Outcome.ERASED, system="crm"),
    "ground": Sought(ground="own.rare"),
    "open": Sought(states=frozenset({RequestStatus.OPEN, RequestStatus.WAITING})),
    "late": Sought(late=True),
    "regime": Sought(regime=Regime.CCPA),
    "action": Sought(action=Action.STOP_PROVISION),
    "due": Sought(due_before=START + timedelta(days=3)),
    "arrived": Sought(arrived_from=START, arrived_until=START + timedelta(days=3)),
    "closed": Sought(closed_from=START, closed_until=START + timedelta(days=3), outcome=Outcome.REFUSED),
}


@pytest.fixture(scope="module")
def history(postgres_server: str) -> Iterator[Postgres]:
    """Many closed requests and few open ones; the tables were never analysed."""
    name = f"t{uuid4().hex}"
    create_database(postgres_server, name)
    store = Postgres(postgres_server.rsplit("/", 1)[0] + f"/{name}")
    store.migrate()
    store.open()
    store.sql(
        "INSERT INTO cases SELECT n, 'r' || n, 'erase', 'appi', 'appi.35-5', now() - n * interval '1 h', "
        "now() - n * interval '1 h' + interval '14 d', CASE WHEN n % 1000 <> 0 THEN now() - n * interval '50 min' END "
        "FROM generate_series(1, 30000) n"
    )
    store.sql("INSERT INTO people SELECT md5((n % 9000)::text), n FROM generate_series(1, 30000) n")
    store.sql(
        "INSERT INTO endings SELECT CASE WHEN n % 997 = 0 THEN 'refused' ELSE 'erased' END, n, s, '' "
        "FROM generate_series(1, 30000) n, unnest(ARRAY['billing', 'crm']) s"
    )
    yield store
    store.close()
    drop_database(postgres_server, name)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_no_page_scans_history(history: Postgres, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A page reads about as many rows as its window has, without statistics to guess by."""
    monkeypatch.setattr(asking, "WINDOW", 100)
    asked: list[tuple[str, Any]] = []

    def remember(_: Any, __: Any, statement: str, parameters: Any, ___: Any, ____: Any) -> None:
        asked.append((statement, parameters))

    engine = connect(history.url)
    event.listen(engine, "before_cursor_execute", remember)
    with ledger_on(engine).reader() as view:
        view.find(EVERY_KIND[kind], None, 50)
    event.remove(engine, "before_cursor_execute", remember)
    finding = [a for a in asked if "FROM cases" in a[0] or "FROM people" in a[0] or "FROM endings" in a[0]]
    assert finding
    with engine.connect() as c:
        for statement, parameters in finding:
            ((plan,),) = c.exec_driver_sql(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}", parameters)
            assert sum(rows_read(plan[0]["Plan"])) < 20 * 100, plan
    engine.dispose()


def rows_read(node: dict[str, Any]) -> Iterator[float]:
    """Rows that each scan of a table looked at."""
    if "Scan" in node["Node Type"] and "Plans" not in node:
        looked_at = sum(node.get(n, 0) for n in ("Actual Rows", "Rows Removed by Filter"))
        yield looked_at * node["Actual Loops"]
    for inner in node.get("Plans", ()):
        yield from rows_read(inner)
