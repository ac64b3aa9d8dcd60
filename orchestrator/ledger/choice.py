"""Which database a URL names: PostgreSQL, or a file of SQLite. Nobody else has to ask."""

from sqlalchemy import Engine
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from keshi.orchestrator.ledger.port import Ledger
from keshi.orchestrator.ledger.postgres import PostgresLedger
from keshi.orchestrator.ledger.postgres import connect as connect_postgres
from keshi.orchestrator.ledger.sqlite import SqliteLedger
from keshi.orchestrator.ledger.sqlite import connect as connect_sqlite
from keshi.runtime.settings import ConfigurationError

EXPECTED = "expected postgresql://user:password@host:port/database, or sqlite:///path/from/the/root.db"


def connect(url: str, *, pool_size: int = 8) -> Engine:
    """An engine for the ledger's database. Connects at first use.

    Raises:
        ConfigurationError: the URL names no ledger; the message does not repeat it.
    """
    if not url:
        raise ConfigurationError(f"no ledger: set KESHI_LEDGER_URL ({EXPECTED})")
    try:
        backend = make_url(url).get_backend_name()
    except SQLAlchemyError:
        raise ConfigurationError(f"KESHI_LEDGER_URL: {EXPECTED}") from None
    if backend == "postgresql":
        return connect_postgres(url, pool_size=pool_size)
    if backend == "sqlite":
        return connect_sqlite(url)
    raise ConfigurationError(f"KESHI_LEDGER_URL: {EXPECTED}")


def ledger_on(engine: Engine) -> Ledger:
    """The ledger in an engine's database."""
    if engine.dialect.name == "sqlite":
        return SqliteLedger(engine)
    return PostgresLedger(engine)
