"""The ledger's contract on a file of SQLite, and what only SQLite has to show."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from contract.ledger_suite import LedgerSuite
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.port import Ledger
from keshi.orchestrator.ledger.sqlite import SqliteLedger, connect


class Sqlite:
    """`Store` in a file of this test's own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.url = f"sqlite://{path}"
        self._ledgers: list[Ledger] = []
        self._engine = connect(self.url)

    def open(self) -> Ledger:
        self._ledgers.append(SqliteLedger(connect(self.url)))
        return self._ledgers[-1]

    def migrate(self) -> None:
        engine = connect(self.url)
        migrate(engine)
        engine.dispose()

    def sql(self, statement: str) -> list[Any]:
        with self._engine.begin() as connection:
            result = connection.execute(text(statement))
            return list(result) if result.returns_rows else []

    def close(self) -> None:
        for ledger in self._ledgers:
            ledger.close()
        self._engine.dispose()


class TestSqliteLedger(LedgerSuite):
    """See `LedgerSuite`."""

    @pytest.fixture
    def empty(self, tmp_path: Path) -> Iterator[Sqlite]:
        store = Sqlite(tmp_path / "ledger.db")
        yield store
        store.close()
