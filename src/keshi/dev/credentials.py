"""Keys, tokens and passwords of one development environment: random, and for the eyes of their owner alone."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from keshi.orchestrator.tokens import Role, new_token
from keshi.runtime.sealing import new_key_line


@dataclass(frozen=True)
class Credentials:
    """Where they lie, and those that have to be handed over in the clear.

    Attributes:
        directory: where they lie.
        kek_file: the key-encryption key, as `KESHI_KEK_FILE` wants it.
        tokens_file: hashes of all tokens, as `KESHI_TOKENS_FILE` wants it.
        workers: by system, the token of its workers.
        reader: may look at requests and closures.
        operator: may look at requests, lanes and quarantine.
        decider: may look at what a reader may, and decide.
    """

    directory: Path
    kek_file: Path
    tokens_file: Path
    workers: dict[str, str] = field(repr=False)
    reader: str = field(repr=False)
    operator: str = field(repr=False)
    decider: str = field(repr=False)


def prepare(directory: Path, systems: Sequence[str]) -> Credentials:
    """Make what is not there yet; what is there stays, so that a kept ledger can still be opened."""
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    kek_file = directory / "kek"
    _kept(kek_file, lambda: new_key_line("dev-1"))
    holders = {f"worker:{system}": (Role.WORKER, system) for system in systems}
    people = {f"staff:{role.value}": (role, None) for role in (Role.READER, Role.OPERATOR, Role.DECIDER)}
    tokens = _tokens(directory, {**holders, **people})
    return Credentials(
        directory=directory,
        kek_file=kek_file,
        tokens_file=directory / "tokens.yaml",
        workers={system: tokens[f"worker:{system}"] for system in systems},
        reader=tokens["staff:reader"],
        operator=tokens["staff:operator"],
        decider=tokens["staff:decider"],
    )


def _tokens(directory: Path, holders: dict[str, tuple[Role, str | None]]) -> dict[str, str]:
    """The token of each holder. They and their hashes are made together, and anew when a holder is missing."""
    path = directory / "tokens.json"
    known: dict[str, str] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if known.keys() != holders.keys():
        made = {name: new_token(name, role, system) for name, (role, system) in holders.items()}
        known = {name: new.token for name, new in made.items()}
        _write(directory / "tokens.yaml", "\n".join(new.line for new in made.values()))
        _write(path, json.dumps(known))
    return known


def _kept(path: Path, make: Callable[[], str]) -> str:
    if not path.exists():
        _write(path, make())
    return path.read_text(encoding="utf-8").strip()


def _write(path: Path, text: str) -> None:
    """Whole or not at all, and readable for nobody else from the first byte on."""
    draft = path.with_name(f".{path.name}.new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text + "\n")
    draft.rename(path)
