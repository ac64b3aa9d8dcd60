"""`keshi schemas publish`."""

from pathlib import Path
from typing import Annotated

import typer

from keshi.cli.errors import Failure
from keshi.cli.output import note, say
from keshi.schemas.publishing import documents

app = typer.Typer(help="JSON Schemas, examples and the AsyncAPI document of all messages.", no_args_is_help=True)


@app.callback()
def _schemas() -> None: ...


@app.command("publish")
def publish(
    directory: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Where to. Default: schemas/published of this installation.")
    ] = None,
    check: Annotated[
        bool, typer.Option("--check", help="Change nothing; exit code 1 if a file is not current.")
    ] = False,
) -> None:
    """Write a JSON Schema and a whole example for each type of message, and the AsyncAPI document."""
    root = directory or _published()
    wanted = documents()
    there = {p.relative_to(root).as_posix() for p in root.rglob("*.json")} if root.is_dir() else set()
    stale = sorted(n for n, text in wanted.items() if n not in there or _read(root / n) != text)
    left_over = sorted(there - wanted.keys())
    for name in (*stale, *left_over):
        say(f"{'left over' if name in left_over else 'not current' if check else 'written'}: {name}")
    if check:
        if stale or left_over:
            raise Failure("published schemas are not current: run `keshi schemas publish`")
        note("All published schemas are current.")
        return
    for name in stale:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(wanted[name], encoding="utf-8")
    for name in left_over:
        (root / name).unlink()


def _published() -> Path:
    import keshi.schemas  # noqa: PLC0415 - only for its place

    return Path(keshi.schemas.__path__[0]).resolve() / "published"


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
