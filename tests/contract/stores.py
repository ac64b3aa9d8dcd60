"""The stores that the contracts of ledger and go are held against."""

from pathlib import Path
from typing import Any

from sqlalchemy import Engine, text

from keshi.orchestrator.ledger.choice import connect, ledger_on
from keshi.orchestrator.ledger.migrate import migrate
from keshi.orchestrator.ledger.port import Ledger


class _Store:
    """One database, opened as often as somebody wants it, and a way past the port."""

    url: str

    def __init__(self) -> None:
        self._ledgers: list[Ledger] = []
        self._engines: list[Engine] = []

    def engine(self) -> Engine:
        """A new engine."""
        self._engines.append(connect(self.url))
        return self._engines[-1]

    def open(self) -> Ledger:
        """The store as another process sees it."""
        self._ledgers.append(ledger_on(self.engine()))
        return self._ledgers[-1]

    def migrate(self) -> None:
        migrate(self.engine())

    def sql(self, *statements: str) -> list[Any]:
        """Run statements past the port, in one transaction, and return the rows of the last one."""
        engine = self._engines[0] if self._engines else self.engine()
        with engine.begin() as connection:
            results = [connection.execute(text(statement)) for statement in statements]
            return list(results[-1]) if results[-1].returns_rows else []

    def close(self) -> None:
        for ledger in self._ledgers:
            ledger.close()
        for engine in self._engines:
            engine.dispose()


class Postgres(_Store):
    """A database of this test's own."""

    def __init__(self, dsn: str) -> None:
        super().__init__()
        self.url = dsn

    def tamper(self, table: str, change: str) -> None:
        self.sql(
            f"ALTER TABLE {table} DISABLE TRIGGER ALL",
            f"UPDATE {table} SET {change}",
            f"ALTER TABLE {table} ENABLE TRIGGER ALL",
        )


class Sqlite(_Store):
    """A file of this test's own."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self.url = f"sqlite://{path}"

    def tamper(self, table: str, change: str) -> None:
        guards = self.sql(f"SELECT name, sql FROM sqlite_master WHERE type = 'trigger' AND tbl_name = '{table}'")
        dropped = [f"DROP TRIGGER {g.name}" for g in guards]
        self.sql(*dropped, f"UPDATE {table} SET {change}", *[g.sql for g in guards])
