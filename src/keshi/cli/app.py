"""All commands of `keshi`, put together."""

from importlib.metadata import version as installed
from typing import Annotated

import typer

from keshi.cli import (
    closure,
    config,
    decisions,
    dev,
    export,
    inventory,
    ledger,
    operate,
    schemas,
    secrets,
    serve,
    status,
    submit,
    topics,
    verify,
)
from keshi.cli.output import say

app = typer.Typer(
    name="keshi",
    help="Erases a person's data, or stops its use, in every system a company runs, and proves that it was done.",
    epilog="Settings come from the environment, KESHI_…. Exit codes: 0 done, 1 failed or found wrong, "
    "2 called or set up wrongly, 3 rejected, 4 not over in time.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

app.add_typer(submit.app, name="submit")
app.command("status")(status.status)
app.command("closure")(closure.closure)
app.command("person")(closure.person)
app.command("export")(export.export)
app.command("exports")(export.exports)
app.command("verify")(verify.verify)
app.command("decide")(decisions.decide)
app.add_typer(inventory.app, name="inventory")
app.add_typer(topics.app, name="topics")
app.add_typer(config.app, name="config")
app.add_typer(ledger.app, name="ledger")
app.add_typer(secrets.keys, name="keys")
app.add_typer(secrets.tokens, name="tokens")
app.add_typer(schemas.app, name="schemas")
app.command("lanes")(operate.lanes)
app.command("quarantine")(operate.quarantine)
app.add_typer(serve.orchestrator, name="orchestrator")
app.add_typer(serve.api, name="api")
app.add_typer(serve.handler, name="handler")
app.add_typer(dev.app, name="dev")


@app.command("version")
def version() -> None:
    """Show the version of keshi."""
    say(installed("keshi"))


def _version(asked: bool) -> None:
    if asked:
        version()
        raise typer.Exit


@app.callback()
def _options(
    _: Annotated[
        bool, typer.Option("--version", help="Show the version of keshi.", callback=_version, is_eager=True)
    ] = False,
) -> None: ...
