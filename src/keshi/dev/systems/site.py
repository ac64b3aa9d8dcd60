"""What a reference system is given to settle in a development environment, and what is known of it afterwards."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from keshi.dev.postgres import PostgresServer
    from keshi.dev.processes import PartSpec
    from keshi.dev.systems.people import Person
    from keshi.dev.systems.snapshots import Rows


class Start(Protocol):
    """Starts a process, waits until it answers, and has it ended with the environment.

    Args:
        spec: the process. Its name is what people call the part.
        ready: URL that answers 200 once it can be used.
        seconds: within so much time.
    """

    def __call__(self, spec: PartSpec, ready: str, seconds: float = 30.0) -> None: ...


@dataclass(frozen=True)
class Site:
    """Where a reference system settles.

    Attributes:
        directory: its own, for data and logs.
        secrets: directory of keys and passwords, for the eyes of their owner alone.
        server: a PostgreSQL server that runs, for those that keep tables; each takes a database of its own.
        people: who is to be in the system.
        fresh: nobody is in it yet: fill it, and sweep away what an interrupted start left behind.
        start: see there.
        slow_ms: what runs as a process waits so long before each write.
        partner_ms: a partner of the company takes so long to do what it is asked for.
        inventory: of the environment, for those that hold their settings against it.
    """

    directory: Path
    secrets: Path
    server: PostgresServer
    people: tuple[Person, ...] = field(repr=False)
    fresh: bool
    start: Start
    slow_ms: int = 0
    partner_ms: int = 0
    inventory: Path | None = None

    def secret_file(self, name: str) -> Path:
        """A file with a random word, made once."""
        path = self.secrets / name
        if not path.exists():
            path.touch(mode=0o600)
            path.write_text(secrets.token_urlsafe(24), encoding="ascii")
        return path

    def secret(self, name: str) -> str:
        """The word in it."""
        return self.secret_file(name).read_text(encoding="ascii").strip()


@dataclass(frozen=True)
class Settled:
    """A reference system that runs, with its people in it.

    Attributes:
        system: as the inventory calls it.
        address: for people; holds no password.
        handler: settings of its handler (`KESHI_<SYSTEM>_…`).
        rows: reads every record past all handlers: reference (`table:id`) → row, as plain JSON values.
        inside: what another program needs for a look of its own. May hold secrets.
    """

    system: str
    address: str
    handler: Mapping[str, str] = field(repr=False)
    rows: Callable[[], Rows] = field(repr=False)
    inside: Mapping[str, Any] = field(default_factory=dict, repr=False)
