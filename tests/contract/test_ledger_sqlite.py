"""The ledger's contract on a file of SQLite, and what only SQLite has to show."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from threading import Event

import pytest
from sqlalchemy import text

from contract.ledger_suite import INSERT_ONLY, SOON, LedgerSuite, evidence, lease, read, state, take, write
from contract.stores import Postgres, Sqlite
from keshi.cli import run
from keshi.orchestrator.ledger import sqlite
from keshi.orchestrator.ledger.port import (
    Batch,
    InboxRow,
    KeyRow,
    Lasting,
    Ledger,
    OutboxRow,
    Passing,
    Unusable,
)
from keshi.orchestrator.ledger.sqlite_file import check_place, file_system, path_of
from keshi.runtime.sealing import WrappedKey
from keshi.runtime.settings import ConfigurationError
from kit.seeding import request_in

HOLDER = """
import sys
from keshi.orchestrator.ledger.choice import connect, ledger_on
from keshi.orchestrator.ledger.port import Batch, InboxRow
ledger = ledger_on(connect(sys.argv[1]))
assert ledger.on_duty()
position = ledger.take("reports", 0, "log-1", 0)
with ledger.cycle(position, position.next + 1) as tx:
    tx.write(Batch(inbox=[InboxRow(0, "half", "{}")]))
    print("in", flush=True)
    sys.stdin.read()
"""


@contextmanager
def another(store: Sqlite) -> Iterator[subprocess.Popen[str]]:
    """An orchestrator in the middle of a transaction, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, store.url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:
        assert process.stdout
        try:
            assert process.stdout.readline() == "in\n"
            yield process
        finally:
            process.kill()


class TestSqliteLedger(LedgerSuite):
    """See `LedgerSuite`."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Iterator[Sqlite]:
        store = Sqlite(tmp_path / "ledger.db")
        yield store
        store.close()

    # --- who works

    def test_one_is_on_duty_and_the_next_when_it_ends(self, ledger: Ledger, other: Ledger) -> None:
        assert (ledger.on_duty(), other.on_duty(), ledger.on_duty()) == (True, False, True)
        ledger.close()
        assert other.on_duty()

    def test_who_was_killed_is_on_duty_no_more_and_has_written_nothing(self, store: Sqlite, ledger: Ledger) -> None:
        with another(store) as process:
            assert not ledger.on_duty()
            process.send_signal(signal.SIGKILL)
            process.wait(20)
            assert ledger.on_duty()
            assert read(ledger, lambda tx: tx.inbox(9)) == []

    def test_a_wait_for_the_writer_ends_and_may_pass(
        self, store: Sqlite, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A frozen process keeps others waiting; each of them for a bounded time."""
        monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.2)
        with another(store) as process:
            process.send_signal(signal.SIGSTOP)
            with pytest.raises(Passing), ledger.begins(0):
                pass
            with ledger.reader() as view:
                assert view.states([request_in(0)]) == {}, "who only reads does not wait"

    def test_a_schema_that_cannot_be_brought_up_now_says_so_in_one_line(
        self, store: Sqlite, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        monkeypatch.setattr(sqlite, "LOCK_SECONDS", 0.2)
        monkeypatch.setenv("KESHI_LEDGER_URL", store.url)
        with another(store):
            assert run(("ledger", "migrate")) == 2
        assert capsys.readouterr().err.splitlines() == [
            "keshi: the ledger's file: another process writes for too long: try again, or end what uses the ledger"
        ]
        assert run(("ledger", "migrate")) == 0
        assert "(as before)" in capsys.readouterr().out

    def test_readers_see_what_was_when_they_began(self, ledger: Ledger, other: Ledger) -> None:
        one = request_in(0)
        with other.reader() as view:
            assert view.states([one]) == {}
            write(ledger, Batch(states=[(state(one), None)]))
            assert view.states([one]) == {}
        with other.reader() as view:
            assert view.states([one])

    def test_threads_that_write_take_turns(self, ledger: Ledger) -> None:
        def begin(_: int) -> None:
            found = evidence(request_in(0))
            with ledger.begins(0) as tx:
                tx.insert([found], [lease(found, 1, tx.now)])

        with ThreadPoolExecutor(8) as pool:
            list(pool.map(begin, range(40)))

    def test_who_waits_is_let_in_before_who_comes_again(self, ledger: Ledger, other: Ledger) -> None:
        """A busy orchestrator writes again at once; the API gets its go in between all the same."""
        stop, count = Event(), [0]

        def cycles() -> None:
            position = take(ledger)
            while not stop.is_set():
                with ledger.cycle(position, position.next):
                    count[0] += 1
                    time.sleep(0.002)

        def begin() -> None:
            with other.begins(0):
                pass

        with ThreadPoolExecutor(1) as pool:
            busy = pool.submit(cycles)
            begin()
            before = count[0]
            for _ in range(20):
                begin()
            between = count[0] - before
            stop.set()
            busy.result(SOON)
        assert between < 20 * 8, "some fifty came in between each two, when whoever came first was let in"

    # --- what is kept

    def test_a_commit_is_on_the_disk_when_it_returns(self, store: Sqlite) -> None:
        assert store.sql("PRAGMA synchronous")[0][0] == 2, "full"
        assert store.sql("PRAGMA journal_mode")[0][0] == "wal"

    def test_a_destroyed_key_is_not_left_in_the_file(self, store: Sqlite, ledger: Ledger) -> None:
        wrapped = b"\xa5" * 40
        one = request_in(0)
        write(ledger, Batch(keys=[KeyRow(one, WrappedKey("k1", wrapped))]))
        write(ledger, Batch(keys_destroyed=[one]))
        store.close()
        assert not store.path.with_name("ledger.db-wal").exists(), "its log is carried over"
        assert wrapped.hex().encode() not in store.path.read_bytes()

    def test_a_copy_made_while_it_is_in_use_is_a_ledger(self, store: Sqlite, ledger: Ledger) -> None:
        """What docs/operations.md says of backups."""
        write(ledger, Batch(inbox=[InboxRow(0, "before", "{}")]))
        copy = store.path.with_name("copy.db")
        with closing(sqlite3.connect(store.path)) as beside:
            beside.execute(f"VACUUM INTO '{copy}'")
        write(ledger, Batch(inbox=[InboxRow(0, "after", "{}")]))
        with closing(Sqlite(copy)) as restored:
            again = restored.open()
            again.check()
            assert [r.request_id for r in read(again, lambda tx: tx.inbox(9))] == ["before"]
            assert restored.sql("PRAGMA journal_mode")[0][0] == "wal"

    @pytest.mark.parametrize("table", INSERT_ONLY)
    def test_no_fact_is_replaced(self, store: Sqlite, ledger: Ledger, table: str) -> None:
        self.test_all_that_a_batch_writes_is_read_back(ledger, ledger)
        found = evidence(request_in(0))
        with ledger.begins(0) as tx:
            tx.insert([found], [lease(found, 1, tx.now, "ab" * 16), lease(found, 0, tx.now, "ab" * 16)])
        with pytest.raises(Exception, match="append-only"):
            store.sql(f"INSERT OR REPLACE INTO {table} SELECT * FROM {table}")

    def test_the_file_is_for_its_owner_alone(self, store: Sqlite) -> None:
        assert store.path.stat().st_mode & 0o077 == 0

    # --- errors

    def test_text_that_is_no_unicode_is_lasting(self, ledger: Ledger) -> None:
        position = take(ledger)
        with pytest.raises(Lasting) as refused, ledger.cycle(position, position.next + 1) as tx:
            tx.write(Batch(outbox=[OutboxRow("a-1", "t", "secret\ud800")], inbox=[InboxRow(0, "r", "{}")]))
        assert "secret" not in str(refused.value)
        assert read(ledger, lambda tx: tx.inbox(9)) == []

    def test_what_a_column_cannot_hold_is_lasting(self, ledger: Ledger) -> None:
        with pytest.raises(Lasting):
            write(ledger, Batch(inbox=[InboxRow("many", "r", "{}")]))  # type: ignore[arg-type] # on purpose

    def test_nothing_is_cut_off_at_a_nul(self, ledger: Ledger) -> None:
        write(ledger, Batch(outbox=[OutboxRow("a-1", "t", "a\x00b")]))
        assert [r.value for r in ledger.outbox("reports", 0, 9)] == ["a\x00b"]

    def test_a_full_disk_may_pass(self, store: Sqlite, ledger: Ledger) -> None:
        limit = store.sql("PRAGMA page_count")[0][0] + 4
        write(ledger, Batch())
        position = take(ledger)
        with pytest.raises(Passing, match="FULL"), ledger.cycle(position, position.next + 1) as tx:  # noqa: PT012 - the transaction is what raises
            tx._c.execute(text(f"PRAGMA max_page_count = {limit}"), {})  # type: ignore[attr-defined] # past the port
            tx.write(Batch(inbox=[InboxRow(0, "x" * 100_000, "{}")]))

    def test_a_lost_file_is_passing_and_is_not_made_anew(self, store: Sqlite) -> None:
        ledger = store.open()
        store.path.unlink()
        with pytest.raises(Passing):
            take(ledger)
        assert not store.path.exists()

    def test_a_file_that_is_no_ledger_is_unusable(self, empty: Sqlite) -> None:
        empty.path.write_text("not a database at all, but some text that somebody keeps here\n" * 20)
        with pytest.raises(Unusable, match="NOTADB"):
            empty.open().check()
        assert empty.path.read_text().startswith("not a database")

    def test_readers_cannot_write(self, ledger: Ledger) -> None:
        with pytest.raises(Unusable), ledger.reader() as view:
            view._c.execute(text("DELETE FROM keys"), {})  # type: ignore[attr-defined] # past the port


# --- which file, and whether it can be kept there


@pytest.mark.parametrize("url", ["sqlite:///srv/keshi/ledger.db", "sqlite:////srv/keshi/ledger.db"])
def test_a_path_begins_at_the_root(url: str) -> None:
    assert path_of(url) == Path("/srv/keshi/ledger.db")


@pytest.mark.parametrize(
    "url",
    ["", "sqlite://", "sqlite:///", "sqlite:///:memory:", "sqlite://host/x.db", "sqlite:///x.db?mode=ro", "no url"],
)
def test_a_url_that_names_no_file_says_what_is_expected(url: str) -> None:
    with pytest.raises(ConfigurationError, match="sqlite:///path"):
        path_of(url)


def test_a_place_that_cannot_hold_a_ledger_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigurationError, match="no directory"):
        check_place(tmp_path / "none" / "ledger.db")
    with pytest.raises(ConfigurationError, match="no file"):
        check_place(tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere
    with pytest.raises(ConfigurationError, match="may not write"):
        check_place(tmp_path / "ledger.db")


def test_a_network_file_system_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/a / ext4 rw 0 0\nhost:/x {tmp_path} nfs4 rw 0 0\n/dev/b {tmp_path}/local ext4 rw 0 0\n")
    (tmp_path / "local").mkdir()
    assert file_system(tmp_path, mounts) == "nfs4"
    assert file_system(tmp_path / "local", mounts) == "ext4"
    assert file_system(tmp_path, tmp_path / "none") is None
    monkeypatch.setattr("keshi.orchestrator.ledger.sqlite_file.file_system", lambda _: "nfs4")
    with pytest.raises(ConfigurationError, match="network file system"):
        check_place(tmp_path / "ledger.db")


def test_an_old_sqlite_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "sqlite_version_info", (3, 31, 1))
    with pytest.raises(ConfigurationError, match=r"needs 3\.37\.0"):
        check_place(tmp_path / "ledger.db")


def test_the_schema_is_the_same_as_on_postgresql(tmp_path: Path, database: str) -> None:
    """Every table and column, from the same steps; the counter of acceptances is a sequence there."""
    here, there = Sqlite(tmp_path / "ledger.db"), Postgres(database)
    with closing(here), closing(there):
        here.migrate()
        there.migrate()
        ours = here.sql(
            "SELECT m.name, c.name FROM sqlite_master m, pragma_table_info(m.name) c "
            "WHERE m.type = 'table' AND m.name NOT LIKE 'sqlite%' AND m.name <> 'acceptance'"
        )
        theirs = there.sql(
            "SELECT table_name, column_name FROM information_schema.columns WHERE table_schema = 'public'"
        )
        assert {tuple(r) for r in ours} == {tuple(r) for r in theirs}
