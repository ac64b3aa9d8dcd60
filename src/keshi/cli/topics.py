"""`keshi topics apply`."""

import re
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from keshi.cli.output import note, say_json, table
from keshi.orchestrator.inventory import load as load_inventory
from keshi.runtime.settings import ConfigurationError, KafkaSettings, OrchestratorSettings, load
from keshi.runtime.topics import Change, Difference, TopicOptions, TopicSpec, apply, wanted

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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only show what would change, and what cannot; asks the broker.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object.")] = False,
) -> None:
    """Create what is missing and set what differs, for all systems of the inventory.

    What exists keeps its partitions and its data; nothing is deleted.
    Exit code 2 if something must not be changed, or the broker refuses it.
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
    _show(apply(kafka, specs, options, dry_run=dry_run), dry_run=dry_run, as_json=as_json)


def _show(todo: Difference, *, dry_run: bool, as_json: bool) -> None:
    rows = [(s.name, "create", "", _new(s)) for s in todo.create]
    rows += [(c.topic, _what(c), c.now, c.wanted) for c in todo.change]
    if as_json:
        say_json(_as_json(todo, dry_run=dry_run))
    elif rows:
        table(("topic", "what", "was", "wanted"), rows)
    else:
        note("All topics are as they should be.")
    for change in todo.change:
        if change.stays:
            note(f"topic {change.topic}: {change.what} stays: {change.stays}")
    for name in todo.unused:
        note(f"topic {name}: its system is not in the inventory; it stays, with its data")
    _fail(todo)


def _fail(todo: Difference) -> None:
    """In a dry run: what the real one would end with."""
    for refusal in todo.refused:
        note(f"the broker would refuse to {refusal.what} topic {refusal.topic} ({refusal.why})")
    barred = next((c for c in todo.change if c.forbidden), None)
    if barred:
        raise ConfigurationError(
            f"topic {barred.topic} has {barred.now} partitions and cannot get {barred.wanted}: requests belong to "
            f"their partition for life; ask for {barred.now}, or use another KESHI_KAFKA_PREFIX"
        )
    if todo.refused:
        raise ConfigurationError("the broker would refuse this: give this user the right, or mend what it names")


def _what(change: Change) -> str:
    if change.forbidden:
        return f"cannot change {change.what}"
    return f"{change.what} (stays)" if change.stays else f"set {change.what}"


def _new(spec: TopicSpec) -> str:
    days = int(spec.configs["retention.ms"]) / _UNITS["d"]
    return f"{spec.partitions} partitions, kept {days:g} days"


def _as_json(todo: Difference, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "create": [{"topic": s.name, "partitions": s.partitions, "configs": dict(s.configs)} for s in todo.create],
        "change": [
            {"topic": c.topic, "what": c.what, "was": c.now, "wanted": c.wanted, "can": not (c.forbidden or c.stays)}
            for c in todo.change
        ],
        "unused": todo.unused,
        "refused": [{"topic": r.topic, "what": r.what, "why": r.why} for r in todo.refused],
    }
