"""`keshi orchestrator run`, `keshi api run`, `keshi handler run`: calls of the composition roots."""

from typing import Annotated

import typer
from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.cli.errors import extras
from keshi.runtime import memory
from keshi.runtime.settings import ApiClientSettings, KafkaSettings, ProcessSettings, WorkerSettings, load

orchestrator = typer.Typer(help="The orchestrator: plans, dispatches and closes requests.", no_args_is_help=True)
api = typer.Typer(help="The HTTP API: for workers, readers and those who decide.", no_args_is_help=True)
handler = typer.Typer(help="Workers: each carries out the tasks of one or more systems.", no_args_is_help=True)


@orchestrator.command("run")
def run_orchestrator() -> None:
    """Run an orchestrator until SIGTERM or Ctrl-C. Several share the work.

    Needs KESHI_KAFKA_BOOTSTRAP, KESHI_LEDGER_URL, KESHI_INVENTORY and KESHI_KEK_FILE.
    """
    with extras():
        from keshi.orchestrator import bootstrap  # noqa: PLC0415 - the base install lacks what it imports
    memory.settle()
    raise typer.Exit(bootstrap.run_orchestrator())


@api.command("run")
def run_api() -> None:
    """Run the API until SIGTERM or Ctrl-C, at KESHI_API_HOST and KESHI_API_PORT (127.0.0.1:8420).

    Needs KESHI_KAFKA_BOOTSTRAP, KESHI_LEDGER_URL, KESHI_TOKENS_FILE and KESHI_KEK_FILE.
    """
    with extras():
        from keshi.orchestrator import bootstrap  # noqa: PLC0415
    memory.settle()
    raise typer.Exit(bootstrap.run_api())


class TokenSettings(BaseSettings):
    """A token for each system that one process serves (`KESHI_API_TOKENS`, a JSON object)."""

    model_config = SettingsConfigDict(env_prefix="KESHI_API_", frozen=True, extra="ignore", hide_input_in_errors=True)

    tokens: dict[str, SecretStr] = {}


@handler.command("run")
def run_handlers(
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="SYSTEM…", help="Systems to serve; by default all of KESHI_WORKER_ALLOWED_HANDLERS."),
    ] = None,
) -> None:
    """Run a worker for these systems until SIGTERM or Ctrl-C; no other handler is loaded.

    Needs KESHI_KAFKA_BOOTSTRAP, KESHI_API_URL, KESHI_API_TOKEN (or KESHI_API_TOKENS, a JSON object with a token for
    each system) and the settings of each handler.
    """
    from keshi.handlers import registry  # noqa: PLC0415 - brings in all that a worker needs
    from keshi.handlers.worker import Worker, WorkerOptions  # noqa: PLC0415
    from keshi.runtime import failpoints, logs  # noqa: PLC0415
    from keshi.runtime.telemetry import TelemetrySettings  # noqa: PLC0415
    from keshi.runtime.telemetry import start as telemetry_on  # noqa: PLC0415

    process = load(ProcessSettings)
    logs.configure(process)
    failpoints.configure(process)
    settings = load(WorkerSettings)
    handlers = registry.load(registry.allowed(systems or [], settings.allowed_handlers))
    telemetry = telemetry_on(load(TelemetrySettings), "keshi-worker")
    options = WorkerOptions(
        load(KafkaSettings), load(ApiClientSettings), settings, load(TokenSettings).tokens, telemetry=telemetry
    )
    memory.settle()
    try:
        ended = Worker(handlers, options).run()
    finally:
        telemetry.close()
    raise typer.Exit(0 if ended else 1)


@handler.command("list")
def list_handlers() -> None:
    """List the handlers that are installed; none of them is loaded."""
    from keshi.cli.output import table  # noqa: PLC0415
    from keshi.handlers import registry  # noqa: PLC0415

    table(("system", "code"), [(name, point.value) for name, point in registry.available().items()])
