"""`keshi ledger migrate`, `keshi ledger check`."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import typer

from keshi.cli.errors import extras
from keshi.cli.output import say
from keshi.runtime.postgres import refusal
from keshi.runtime.settings import ConfigurationError, OrchestratorSettings, load

app = typer.Typer(help="The ledger's database (KESHI_LEDGER_URL).", no_args_is_help=True)


@app.command("migrate")
def migrate() -> None:
    """Bring the ledger's schema up to this version of keshi. Changes nothing where it is."""
    with _engine() as engine:
        from keshi.orchestrator.ledger.migrate import migrate as bring_up  # noqa: PLC0415

        before, after = bring_up(engine)
    say(f"schema {after}" + (" (as before)" if before == after else f" (before: {before or 'none'})"))


@app.command("check")
def check() -> None:
    """Say whether the ledger's database answers and has the schema of this version of keshi."""
    with _engine() as engine:
        from keshi.orchestrator.ledger.migrate import check_database, wanted_version  # noqa: PLC0415

        check_database(engine)
        say(f"schema {wanted_version()}: in order")


@contextmanager
def _engine() -> Iterator[Any]:
    with extras():
        from sqlalchemy.exc import OperationalError, SQLAlchemyError  # noqa: PLC0415 - not in the base install

        from keshi.orchestrator.ledger.choice import connect  # noqa: PLC0415
        from keshi.orchestrator.ledger.port import LedgerError, Passing  # noqa: PLC0415
    engine = connect(load(OrchestratorSettings).ledger_url.get_secret_value(), pool_size=1)
    try:
        yield engine
    except Passing as e:
        raise ConfigurationError(f"{e}: try again, or end what uses the ledger") from None
    except LedgerError as e:
        raise ConfigurationError(str(e)) from None
    except OperationalError as e:
        if why := refusal(e.orig):
            raise ConfigurationError(f"the ledger's database does not let us in, {why}: see KESHI_LEDGER_URL") from None
        raise ConfigurationError(
            f"the ledger's database does not let us in ({_why(e)}): start it, or set KESHI_LEDGER_URL to where it is"
        ) from None
    except SQLAlchemyError as e:
        raise ConfigurationError(f"the ledger's database refused: {type(e).__name__} ({_why(e)})") from None
    finally:
        engine.dispose()


def _why(error: Any) -> str:
    """The kind of trouble. The driver's own text may repeat the URL."""
    cause = getattr(error, "orig", None)
    if state := getattr(cause, "sqlstate", None):
        return f"SQLSTATE {state}"
    return getattr(cause, "sqlite_errorname", None) or type(cause or error).__name__
