"""The ledger's contract on a real PostgreSQL server, and what only PostgreSQL has to show."""

import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from typing import Any

import pytest
from sqlalchemy import text

from contract.ledger_suite import INSERT_ONLY, SOON, LedgerSuite, evidence, lease, read, state, take, write
from contract.stores import Postgres
from keshi.dev.postgres import drop_database
from keshi.orchestrator.ledger.port import (
    Batch,
    Claim,
    Cycle,
    InboxRow,
    Lasting,
    Ledger,
    LedgerError,
    NotOwner,
    OutboxRow,
    Passing,
)
from keshi.orchestrator.ledger.postgres import connect
from keshi.orchestrator.ledger.statements import WAITING
from keshi.orchestrator.ledger.wire import Statement
from keshi.runtime.settings import ConfigurationError
from kit.seeding import request_in


class TestPostgresLedger(LedgerSuite):
    """See `LedgerSuite`."""

    @pytest.fixture
    def empty(self, database: str) -> Iterator[Postgres]:
        store = Postgres(database)
        yield store
        store.close()

    @pytest.mark.parametrize("table", INSERT_ONLY)
    def test_no_table_of_facts_is_emptied(self, store: Postgres, table: str) -> None:
        with pytest.raises(Exception, match="append-only"):
            store.sql(f"TRUNCATE {table}")

    @pytest.mark.parametrize("character", ["\x00", "\ud800"])
    def test_text_that_postgresql_cannot_hold_is_lasting(self, ledger: Ledger, character: str) -> None:
        position = take(ledger)
        with pytest.raises(Lasting) as refused, ledger.cycle(position, position.next + 1) as tx:
            tx.write(Batch(outbox=[OutboxRow("a-1", "t", f"secret{character}")], inbox=[InboxRow(0, "r", "{}")]))
        assert "secret" not in str(refused.value)
        assert read(ledger, lambda tx: tx.inbox(9)) == []

    def test_begins_of_one_partition_do_not_wait_for_each_other(self, ledger: Ledger, other: Ledger) -> None:
        both_in = Barrier(2)

        def begin(process: Ledger) -> int:
            found = evidence(request_in(0))
            with process.begins(0) as tx:
                tx.insert([found], [lease(found, 1, tx.now)])
                return both_in.wait(SOON)

        with ThreadPoolExecutor(2) as pool:
            assert sorted(pool.map(begin, (ledger, other))) == [0, 1]

    def test_a_cycle_without_the_lock_and_begins_do_not_wait_for_each_other(
        self, ledger: Ledger, other: Ledger
    ) -> None:
        """What keeps the hot path hot."""
        position = take(ledger)
        with ledger.cycle(position, position.next + 1) as tx:
            with other.begins(0) as begin:
                found = evidence(request_in(0))
                begin.insert([found], [lease(found, 1, begin.now)])
            assert tx.leases([found.request_id])

    def test_an_owner_frozen_in_mid_cycle_keeps_nobody_waiting_for_long(self, ledger: Ledger, other: Ledger) -> None:
        """The server ends its transaction; when it wakes up it learns that the lane is another's."""
        position = take(ledger)
        with pytest.raises(Passing), ledger.cycle(position, position.next + 1) as frozen:  # noqa: PT012 - the transaction is what raises
            frozen.lock_partition()
            with ThreadPoolExecutor(1) as pool:
                # It stands still here, past the time-out of idle transactions.
                new = pool.submit(take, other).result(timeout=SOON)
            with other.cycle(new, new.next + 1) as tx:
                tx.lock_partition()
                tx.write(Batch(inbox=[InboxRow(0, "new", "{}")]))
            frozen.write(Batch(inbox=[InboxRow(0, "old", "{}")]))
        with pytest.raises(NotOwner), ledger.cycle(position, position.next + 1):
            pass
        assert [r.request_id for r in read(other, lambda tx: tx.inbox(9))] == ["new"]

    def test_a_frozen_begin_does_not_keep_the_partition_from_being_stopped(self, ledger: Ledger, other: Ledger) -> None:
        found = evidence(request_in(0))

        def stop(tx: Cycle) -> Any:
            tx.lock_partition()
            return tx.leases([found.request_id])

        with pytest.raises(Passing), ledger.begins(0) as frozen:  # noqa: PT012 - the transaction is what raises
            frozen.insert([found], [lease(found, 1, frozen.now)])
            with ThreadPoolExecutor(1) as pool:
                stopping = pool.submit(read, other, stop)
                assert stopping.result(timeout=SOON) == {}, "the go was not given: nobody has heard of it"
            _ = frozen.doors([found.request_id], "crm")

    def test_an_error_in_the_middle_of_a_cycle_is_named_where_it_arises(self, store: Postgres, ledger: Ledger) -> None:
        """Who decides in between must be able to tell a lost connection from a fault in the data."""
        position = take(ledger)
        with pytest.raises(Passing), ledger.cycle(position, position.next) as tx:  # noqa: PT012 - the transaction is what raises
            store.sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE datname = current_database() AND pid <> pg_backend_pid()"
            )
            with pytest.raises(Passing):
                tx.states([request_in(0)])
            raise Passing
        assert read(ledger, lambda tx: tx.inbox(1)) == [], "the next one gets a new connection"

    def test_a_lost_database_is_passing(self, store: Postgres, ledger: Ledger, postgres_server: str) -> None:
        drop_database(postgres_server, store.url.rsplit("/", 1)[1])
        with pytest.raises(Passing), ledger.reader() as view:
            view.states([request_in(0)])
        with pytest.raises(Passing):
            take(ledger)

    def test_readers_cannot_write(self, ledger: Ledger) -> None:
        with pytest.raises(LedgerError), ledger.reader() as view:
            view._c.execute(Statement("DELETE FROM keys"), {})  # type: ignore[attr-defined] # past the port
        with pytest.raises(LedgerError), ledger.reader() as view:
            view._asking.execute(text("DELETE FROM keys"), {})  # type: ignore[attr-defined] # as above

    def test_what_is_read_ahead_under_a_lock_is_not_answered_once_something_was_written(self, ledger: Ledger) -> None:
        one, found = request_in(0), evidence(request_in(0))
        position = take(ledger)
        with ledger.cycle(position, position.next + 1) as tx:
            tx.lock_holders(["ab" * 32])
            tx.write(Batch(claims=[Claim("ab" * 32, one, 0, 1, "erase")]))
            assert [c.request_id for c in tx.claims(["ab" * 32])] == [one]
        with ledger.begins(0) as begin:
            begin.doors([found.request_id], "crm")
            begin.insert([found], [lease(found, 1, begin.now)])
            assert set(begin.entries([found.request_id], "crm")) == {found.request_id}

    def test_what_is_due_is_looked_up_by_its_moment(self, store: Postgres, ledger: Ledger) -> None:
        """Twenty times a second: a moment that is no condition of the index would have all that is open read."""
        assert ledger.waiting([0]) == []
        asked = WAITING.sql.decode().replace("$1", "'{0,1}'")
        with store.engine().begin() as c:
            plan = "\n".join(row[0] for row in c.execute(text(f"EXPLAIN {asked}")))
        for due in ("next_due <= now()", "due <= now()"):
            assert re.search(rf"Index Cond: .*[(. ]{re.escape(due)}", plan), plan

    def test_states_of_many_requests_are_one_statement(self, ledger: Ledger) -> None:
        ids = [request_in(0) for _ in range(50)]
        write(ledger, Batch(states=[(state(i), None) for i in ids]))
        assert set(read(ledger, lambda tx: tx.states(ids))) == set(ids)


@pytest.mark.parametrize("url", ["", "not a url", "mysql://u:secret@h/d", "sqlite:///x.db"])
def test_a_url_that_is_none_says_what_is_expected_and_not_what_was_given(url: str) -> None:
    with pytest.raises(ConfigurationError, match="postgresql") as refused:
        connect(url)
    assert "secret" not in str(refused.value)
