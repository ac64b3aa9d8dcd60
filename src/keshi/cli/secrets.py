"""`keshi keys new`, `keshi tokens new`."""

import re
from typing import Annotated

import typer

from keshi.cli.output import note, say, say_json
from keshi.orchestrator.tokens import Role, new_token
from keshi.runtime.sealing import new_key_line
from keshi.runtime.settings import ConfigurationError

keys = typer.Typer(help="Key-encryption keys (KESHI_KEK_FILE).", no_args_is_help=True)
tokens = typer.Typer(help="Tokens for the API (KESHI_TOKENS_FILE).", no_args_is_help=True)


@keys.callback()
def _keys() -> None: ...


@tokens.callback()
def _tokens() -> None: ...


@keys.command("new")
def new_key(
    name: Annotated[str, typer.Argument(metavar="ID", help="Names the key for life, such as kek-2026.")],
) -> None:
    """Make a key-encryption key: its line for KESHI_KEK_FILE, on standard output.

    Put it first to use it for new requests. Keep the others behind it as long as a backup needs them.
    """
    if not re.fullmatch(r"[A-Za-z0-9._-]{1,64}", name):
        raise ConfigurationError("ID is up to 64 letters, digits, `.`, `_` and `-`")
    say(new_key_line(name))


@tokens.command("new")
def new_api_token(
    name: Annotated[str, typer.Argument(help="Whose it is, `kind:id`: worker:billing, staff:kato.")],
    role: Annotated[Role, typer.Option(help="What its holder is.")],
    system: Annotated[str | None, typer.Option(help="The system of a worker.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object: token, line.")] = False,
) -> None:
    """Make a token. It is shown once; its line goes into KESHI_TOKENS_FILE, which holds no token.

    The token is the first line of standard output, the line for the file is the second.
    """
    made = new_token(name, role, system)
    if as_json:
        say_json({"token": made.token, "line": made.line})
        return
    say(made.token)
    say(made.line)
    note("The first line is the token: keep it. The second goes into KESHI_TOKENS_FILE.")
