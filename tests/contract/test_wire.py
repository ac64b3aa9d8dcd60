"""The wire to PostgreSQL, on a real server: what travels, what fails, and what is left on a connection."""

from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta, timezone
from threading import Event, Thread
from typing import Any

import pytest

from keshi.orchestrator.ledger import wire as module
from keshi.orchestrator.ledger.port import Lasting, LedgerError, Passing, Raced
from keshi.orchestrator.ledger.postgres import PostgresLedger, connect
from keshi.orchestrator.ledger.wire import Statement, Wire, bigs, integers, moments, texts

MAKE = Statement("CREATE TABLE things (name text PRIMARY KEY, n integer)")
PUT = Statement("INSERT INTO things SELECT unnest(CAST(:names AS text[])), unnest(CAST(:ns AS integer[]))")
ALL = Statement("SELECT name, n FROM things ORDER BY name")
PID = Statement("SELECT pg_backend_pid() AS pid")
END = Statement("SELECT pg_terminate_backend(CAST(:pid AS integer), 5000) AS done")


@pytest.fixture
def wire(database: str) -> Iterator[Wire]:
    with closing(PostgresLedger(connect(database))) as ledger:
        with ledger._wire.transaction() as session:
            session.execute(MAKE)
        yield ledger._wire


def put(wire: Wire, **things: int | None) -> None:
    with wire.transaction() as session:
        session.execute(PUT, {"names": texts(list(things)), "ns": integers(list(things.values()))})


def names(wire: Wire) -> list[str]:
    return [r.name for r in wire.read(ALL, {})]


def pid(wire: Wire) -> int:
    return int(wire.read(PID, {})[0].pid)


@pytest.mark.parametrize(
    ("kind", "array", "values"),
    [
        ("text", texts, ["", None, "消し 🗝", 'a "b" \\ {c}, NULL', "NULL"]),
        ("integer", integers, [0, None, -1, 2**31 - 1]),
        ("bigint", bigs, [2**53, None, -(2**63)]),
        (
            "timestamptz",
            moments,
            [
                datetime(2026, 4, 1, 12, 0, 0, 123456, tzinfo=UTC),
                None,
                datetime(1970, 1, 1, tzinfo=timezone(timedelta(hours=9))),
            ],
        ),
    ],
)
def test_what_a_list_holds_comes_back_as_it_was(wire: Wire, kind: str, array: Any, values: list[Any]) -> None:
    given = Statement(f"SELECT unnest(CAST(:given AS {kind}[])) AS it")
    assert [r.it for r in wire.read(given, {"given": array(values)})] == values


def test_values_travel_beside_the_statement(wire: Wire) -> None:
    said = Statement("SELECT CAST(:word AS text) AS word, CAST(:at AS timestamptz) AS at, :word::text AS again")
    now, word = datetime.now(UTC), "'; DROP TABLE things; --"
    assert tuple(wire.read(said, {"word": word, "at": now})[0]) == (word, now, word)
    assert names(wire) == []


@pytest.mark.parametrize("text", ["a\x00b", "\ud800"])
def test_text_that_cannot_be_held_is_refused_and_never_cut_off(wire: Wire, text: str) -> None:
    said = Statement("SELECT CAST(:word AS text) AS word")
    with pytest.raises(Lasting):
        wire.read(said, {"word": text})
    assert names(wire) == []


def test_nothing_behind_a_failure_is_done_and_the_connection_serves_on(wire: Wire) -> None:
    before = pid(wire)
    with pytest.raises(Raced), wire.transaction() as session:  # noqa: PT012 - the transaction is what raises
        session.execute(PUT, {"names": texts(["a", "a"]), "ns": integers([1, 2])})
        session.execute(PUT, {"names": texts(["b"]), "ns": integers([1])})
    assert (names(wire), pid(wire)) == ([], before)
    put(wire, a=1)
    assert names(wire) == ["a"]


def test_who_did_not_wait_for_a_failure_learns_it_at_the_end(wire: Wire) -> None:
    put(wire, a=1)
    with pytest.raises(Raced):
        put(wire, b=1, a=2)
    assert names(wire) == ["a"]


def test_a_statement_that_could_not_be_prepared_is_prepared_again(wire: Wire) -> None:
    later = Statement("SELECT n FROM later")
    with pytest.raises(LedgerError):
        wire.read(later, {})
    with wire.transaction() as session:
        session.execute(Statement("CREATE TABLE later (n integer)"))
    assert wire.read(later, {}) == []


def test_an_answer_behind_a_failure_is_none(wire: Wire) -> None:
    with pytest.raises(Passing), wire.transaction() as session:  # noqa: PT012 - the transaction is what raises
        session.execute(Statement("SELECT 1 / CAST(:n AS integer) AS n"), {"n": 0})
        behind = session.execute(ALL)
        with pytest.raises(Lasting):
            session.wait()
        list(behind)


def test_what_raises_is_rolled_back(wire: Wire) -> None:
    with pytest.raises(ZeroDivisionError), wire.transaction() as session:  # noqa: PT012 - the transaction is what raises
        session.execute(PUT, {"names": texts(["a"]), "ns": integers([1])}).rows()
        _ = 1 / 0
    assert names(wire) == []


def test_who_reads_cannot_write(wire: Wire) -> None:
    with pytest.raises(LedgerError):
        wire.read(PUT, {"names": texts(["a"]), "ns": integers([1])})
    assert names(wire) == []


def test_a_connection_that_was_cut_off_is_replaced(wire: Wire) -> None:
    with wire.session() as other:
        ended = pid(wire)
        assert other.execute(END, {"pid": ended}).rows()[0].done
        with pytest.raises(Passing):
            names(wire)
        assert names(wire) == []
        assert pid(wire) != ended


def test_a_wait_that_is_broken_off_leaves_no_answers_to_the_next(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    before = pid(wire)
    with monkeypatch.context() as patched:
        patched.setattr(module.Session, "_results", interrupted)
        with pytest.raises(KeyboardInterrupt):
            names(wire)
    assert pid(wire) != before


def interrupted(_: Any) -> Iterator[Any]:
    raise KeyboardInterrupt


def test_there_are_so_many_connections_at_most(wire: Wire, monkeypatch: pytest.MonkeyPatch) -> None:
    few = Wire(wire._connect, wire._named, 1)
    taken, free = Event(), Event()

    def hold() -> None:
        with few.session():
            taken.set()
            free.wait(20)

    holding = Thread(target=hold)
    holding.start()
    taken.wait(20)
    monkeypatch.setattr(module, "POOL_SECONDS", 0.1)
    with pytest.raises(Passing), few.session():
        pass
    free.set()
    holding.join(20)
    assert names(few) == []
    few.close()


def test_what_was_executed_ahead_is_answered_once_and_never_after_a_change(wire: Wire) -> None:
    with wire.transaction() as session:
        session.ahead(ALL, {})
        session.execute(PUT, {"names": texts(["a"]), "ns": integers([1])})
        assert session.execute(ALL, {}).rows() == [], "as it was when it was executed"
        assert len(session.execute(ALL, {}).rows()) == 1
        session.ahead(ALL, {})
        session.execute(PUT, {"names": texts(["b"]), "ns": integers([2])})
        session.forget_ahead()
        assert len(session.execute(ALL, {}).rows()) == 2
        session.ahead(ALL, {})
    assert len(names(wire)) == 2, "nothing of it is left to the next transaction"
