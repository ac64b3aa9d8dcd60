"""What ends a command: one line on standard error and an exit code. None repeats what may be a person's data."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final

from typer.exceptions import TyperException

from keshi.runtime.settings import ConfigurationError

REJECTED: Final = 3
TIMED_OUT: Final = 4

_EXTRAS: Final = {
    **dict.fromkeys(("faust", "mode", "aiokafka", "fastapi", "starlette", "uvicorn", "alembic"), "orchestrator"),
    **dict.fromkeys(("sqlalchemy", "psycopg", "psycopg_pool"), "orchestrator"),
}


class Failure(Exception):  # noqa: N818 - it is how a command ends
    """The command did not do what it was asked for; the text is one line that says why and what to do.

    `passing`: the same again, a little later, may well succeed.
    """

    def __init__(self, line: str, code: int = 1, *, passing: bool = False) -> None:
        super().__init__(line)
        self.code = code
        self.passing = passing


@contextmanager
def extras() -> Iterator[None]:
    """Around imports of what the base install lacks.

    Raises:
        ConfigurationError: it is not installed; says with which extra it is.
    """
    try:
        yield
    except ModuleNotFoundError as e:
        root = (e.name or "").partition(".")[0]
        if root not in _EXTRAS:
            raise
        raise ConfigurationError(
            f"{root} is not installed: this command needs `pip install 'keshi[{_EXTRAS[root]}]'`"
        ) from None


def usage(error: TyperException, arguments: Sequence[str]) -> str:
    """A usage error as one line that does not repeat values."""
    text = " ".join(error.format_message().split())
    for value in _values(arguments):
        text = text.replace(value, "…")
    words = [a for a in arguments if not a.startswith("-")]
    ctx = getattr(error, "ctx", None)
    path = ctx.command_path if ctx is not None else " ".join(["keshi", *words[:1]])
    return f"{text.rstrip('.')}: see `{path} --help`"


def _values(arguments: Sequence[str]) -> list[str]:
    """What follows an option, or stands behind the names of the command: may be a person's data."""
    found: list[str] = []
    for before, argument in zip(("", *arguments), arguments, strict=False):
        if argument.startswith("-"):
            found.append(argument.partition("=")[2])
        elif before.startswith("-") or not argument.isidentifier():
            found.append(argument)
    return sorted((v for v in found if len(v) > 2), key=len, reverse=True)  # noqa: PLR2004 - shorter ones name nobody
