"""`keshi inventory check`."""

from pathlib import Path
from typing import Annotated

import typer

from keshi.cli.output import note, say_json, table
from keshi.orchestrator.inventory import MAX_BYTES, problems
from keshi.runtime.settings import ConfigurationError, OrchestratorSettings, load

app = typer.Typer(help="The inventory: every system that holds personal data.", no_args_is_help=True)


@app.callback()
def _inventory() -> None: ...


@app.command("check")
def check(
    file: Annotated[Path | None, typer.Argument(help="Default: KESHI_INVENTORY (inventory.yaml).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="A JSON list of problems.")] = False,
) -> None:
    """Explain each problem of the inventory with its place and remedy; exit code 1 if there is one."""
    path = file or load(OrchestratorSettings).inventory
    found = problems(_text(path))
    wrong = sum(not p.note for p in found)
    if as_json:
        fields = ("line", "place", "what", "remedy", "note")
        say_json([{f: getattr(p, f) for f in fields} for p in found])
    elif found:
        rows = [(f"{path}:{p.line}", "note" if p.note else "problem", p.place, p.what, p.remedy) for p in found]
        table(("where", "kind", "place", "what", "remedy"), rows)
    note(f"{path}: {wrong} problem{'s' * (wrong != 1)}" if wrong else f"{path}: in order")
    raise typer.Exit(1 if wrong else 0)


def _text(path: Path) -> str:
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ConfigurationError(f"{path} is too large to be an inventory")
        return path.read_text(encoding="utf-8")
    except OSError:
        raise ConfigurationError(f"cannot read {path}: name the file, or set KESHI_INVENTORY to it") from None
    except UnicodeDecodeError:
        raise ConfigurationError(f"{path} is not UTF-8") from None
