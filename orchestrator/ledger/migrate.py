"""Brings the ledger's schema up, and says clearly when it is not this version's."""

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, text

from keshi.orchestrator.ledger.port import SchemaMismatch
from keshi.orchestrator.ledger.sqlite_file import create

LOCK_SPACE = 0x6B65
"""The advisory locks of keshi ("ke") in a database that others may use too. Partitions count from 0."""
_NOTHING_YET = "the database holds no ledger: run `keshi ledger migrate`"


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.set_main_option("path_separator", "os")
    return config


def wanted_version() -> str:
    """The schema version that this code works with."""
    return ScriptDirectory.from_config(_config()).get_current_head() or ""


def current_version(connection: Connection) -> str | None:
    """The version that the database has; None where there is no ledger yet."""
    context = MigrationContext.configure(connection, opts={"version_table": "keshi_schema"})
    return context.get_current_revision()


def check_schema(connection: Connection) -> None:
    """Raise SchemaMismatch unless the database has the wanted version."""
    have, want = current_version(connection), wanted_version()
    if have == want:
        return
    if have is None:
        raise SchemaMismatch(_NOTHING_YET)
    known = {s.revision for s in ScriptDirectory.from_config(_config()).walk_revisions()}
    if have in known:
        raise SchemaMismatch(f"the ledger's schema is {have}, this version needs {want}: run `keshi ledger migrate`")
    raise SchemaMismatch(f"the ledger's schema is {have}, newer than this version of keshi ({want}): upgrade keshi")


def check_database(engine: Engine) -> None:
    """`check_schema` for a database that may not be there yet. It is not made."""
    if engine.dialect.name == "sqlite" and not _file(engine).exists():
        raise SchemaMismatch(_NOTHING_YET)
    with engine.connect() as connection:
        check_schema(connection)


def _file(engine: Engine) -> Path:
    return Path(str(engine.url.database))


def migrate(engine: Engine) -> tuple[str | None, str]:
    """Bring the schema up to the wanted version. A file of SQLite that is not there is made.

    Returns:
        The version before and after.

    Raises:
        ConfigurationError: the file cannot be made.
    """
    if engine.dialect.name == "sqlite":
        create(_file(engine))
    # Two that migrate at once: the second waits, and finds it done. A transaction on SQLite waits by itself.
    with engine.begin() as connection:
        if engine.dialect.name == "postgresql":
            connection.execute(text("SELECT pg_advisory_xact_lock(:space, -1)"), {"space": LOCK_SPACE})
        before = current_version(connection)
        config = _config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")
        return before, wanted_version()
