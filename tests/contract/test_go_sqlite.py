"""`unwrap` and `begin` on a file of SQLite."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from contract.go_suite import GoSuite
from contract.stores import Sqlite


class TestGoOnSqlite(GoSuite):
    """See `GoSuite`."""

    @pytest.fixture
    def store(self, tmp_path: Path) -> Iterator[Sqlite]:
        store = Sqlite(tmp_path / "ledger.db")
        store.migrate()
        yield store
        store.close()
