"""`keshi dev up`, `keshi dev demo`: thin; the work is in `keshi.dev`."""

from pathlib import Path
from typing import Annotated

import typer

from keshi.cli.errors import Failure, extras
from keshi.cli.topics import milliseconds
from keshi.dev.errors import DevError
from keshi.dev.options import DemoOptions, UpOptions

app = typer.Typer(help="Everything that keshi needs, on this machine: for a look, and for tests.", no_args_is_help=True)

_UP = UpOptions()
_DEMO = DemoOptions()


@app.command("up")
def up(
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON when all parts are ready.")] = False,
    ledger: Annotated[
        str | None,
        typer.Option(
            metavar="sqlite|postgresql|URL",
            help="A file, a server of its own, or the URL of one that exists. Default: a file; "
            "a server where several orchestrators share the work.",
        ),
    ] = None,
    inventory: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Another inventory. Workers of systems of your own are not started."),
    ] = None,
    people: Annotated[int, typer.Option(min=1, max=1_000_000, help="Sample people in the systems.")] = _UP.people,
    partitions: Annotated[int, typer.Option(min=1, max=1000, help="Partitions of the topics.")] = _UP.partitions,
    prefix: Annotated[str | None, typer.Option(help="Of all topics. Default: KESHI_KAFKA_PREFIX, or `keshi.`.")] = None,
    data: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Keep all data, keys and logs here. Default: a directory that is removed."),
    ] = None,
    orchestrators: Annotated[int, typer.Option(min=1, max=16, help="Orchestrators.")] = _UP.orchestrators,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Workers of each system.")] = _UP.workers,
    failpoints_dir: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Arm failpoints from here (for tests).")
    ] = None,
    restart: Annotated[
        bool, typer.Option("--restart/--no-restart", help="Start a part that died again.")
    ] = _UP.restart,
    commands_retention: Annotated[
        str | None, typer.Option(metavar="TIME", help="Keep commands this long (7d).")
    ] = None,
    commands_segment: Annotated[
        str | None, typer.Option(metavar="TIME", help="Close a segment of `commands` after this time (1d).")
    ] = None,
    slow_ms: Annotated[int, typer.Option(min=0, help="Systems with an API wait so long before a write.")] = 0,
) -> None:
    """Start a broker, the ledger, orchestrator, API, workers and reference systems with sample people.

    Runs until Ctrl-C. KESHI_KAFKA_BOOTSTRAP uses a cluster that exists.
    """
    options = UpOptions(
        ledger=ledger,
        inventory=inventory,
        people=people,
        partitions=partitions,
        prefix=prefix,
        json=as_json,
        data=data,
        failpoints_dir=failpoints_dir,
        orchestrators=orchestrators,
        workers=workers,
        restart=restart,
        commands_retention_ms=milliseconds(commands_retention) if commands_retention else None,
        commands_segment_ms=milliseconds(commands_segment) if commands_segment else None,
        slow_ms=slow_ms,
    )
    with extras():
        from keshi.dev.up import run_up  # noqa: PLC0415 - the base install lacks what it imports
    raise typer.Exit(run_up(options))


@app.command("demo")
def demo(
    people: Annotated[int, typer.Option(min=40, max=1_000_000, help="Sample people in the systems.")] = _DEMO.people,
    seconds: Annotated[
        float, typer.Option(min=1, max=3600, help="In this time all requests have to be closed.")
    ] = _DEMO.seconds,
) -> None:
    """Start everything, send 30 commands of all kinds, and look past all handlers at what became of the data."""
    with extras():
        from keshi.dev.demo import run_demo  # noqa: PLC0415
    try:
        code = run_demo(DemoOptions(people=people, seconds=seconds))
    except DevError as e:
        raise Failure(str(e)) from None
    raise typer.Exit(code)
