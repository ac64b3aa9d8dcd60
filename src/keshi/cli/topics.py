"""`keshi topics apply`."""

import re
from pathlib import Path
from typing import Annotated, Final

import typer

from keshi.cli.output import note, table
from keshi.orchestrator.inventory import load as load_inventory
from keshi.runtime.settings import ConfigurationError, KafkaSettings, OrchestratorSettings, load
from keshi.runtime.topics import Difference, TopicOptions, apply, difference, wanted

app = typer.Typer(help="The topics on Kafka.", no_args_is_help=True)

_UNITS: Final = {"s": 1_000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
_DEFAULT: Final = TopicOptions()


def milliseconds(text: str) -> int:
    """`90s`, `15m`, `12h` or `7d` in milliseconds.

    Raises:
        typer.BadParameter: something else.
    """
    found = re.fullmatch(r"([1-9][0-9]{0,8})([smhd])", text)
    if not found:
        raise typer.BadParameter("write it like 90s, 15m, 12h or 7d")
    return int(found[1]) * _UNITS[found[2]]


def _retention(text: str | None) -> int:
    return milliseconds(text) if text else int(load(OrchestratorSettings).commands_retention_days * _UNITS["d"])


@app.command("apply")
def apply_topics(
    inventory: Annotated[
        Path | None, typer.Option(help="The inventory, for its systems. Default: KESHI_INVENTORY.")
    ] = None,
    partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="Partitions of all topics but `commands`. Can't change later.")
    ] = _DEFAULT.partitions,
    commands_partitions: Annotated[
        int, typer.Option(min=1, max=1000, help="Partitions of `commands`.")
    ] = _DEFAULT.commands_partitions,
    replication: Annotated[int, typer.Option(min=1, max=10, help="Copies of each partition.")] = _DEFAULT.replication,
    commands_retention: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Keep commands this long (7d, 12h). Default: KESHI_COMMANDS_RETENTION_DAYS."),
    ] = None,
    commands_segment: Annotated[
        str, typer.Option(metavar="TIME", help="Close a segment of `commands` after this time.")
    ] = "1d",
    commands_segment_bytes: Annotated[
        int, typer.Option(min=1_048_576, help="Close a segment of `commands` at this size.")
    ] = _DEFAULT.commands_segment_bytes,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would change.")] = False,
) -> None:
    """Create what is missing and set what differs, for all systems of the inventory.

    What exists keeps its partitions and its data.
    """
    kafka = load(KafkaSettings)
    options = TopicOptions(
        partitions=partitions,
        commands_partitions=commands_partitions,
        replication=replication,
        commands_retention_ms=_retention(commands_retention),
        commands_segment_ms=milliseconds(commands_segment),
        commands_segment_bytes=commands_segment_bytes,
    )
    systems = load_inventory(inventory or load(OrchestratorSettings).inventory).systems
    specs = wanted(kafka, [s.name for s in systems], options)
    _show(difference(kafka, specs) if dry_run else apply(kafka, specs, options), dry_run=dry_run)


def _show(todo: Difference, *, dry_run: bool) -> None:
    rows = [(s.name, "create", "", f"{s.partitions} partitions") for s in todo.create]
    rows += [(c.topic, f"set {c.what}", c.now, c.wanted) for c in todo.change]
    if rows:
        table(("topic", "what", "was", "wanted"), rows)
    else:
        note("All topics are as they should be.")
    barred = [c for c in todo.change if c.forbidden]
    if dry_run and barred:
        raise ConfigurationError(
            f"topic {barred[0].topic} has {barred[0].now} partitions and cannot get {barred[0].wanted}: "
            f"requests belong to their partition for life"
        )
