"""The two affiliates as real processes: they can be killed, started again, and put into another mood."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

import httpx
import yaml

from contract.reference import TODAY
from keshi.dev.processes import Part, PartSpec, answers
from keshi.dev.systems.affiliates import COMPANIES
from keshi.dev.systems.affiliates.behaviour import Behaviour, behave
from keshi.dev.systems.affiliates.settle import settle
from keshi.dev.systems.affiliates.store import FILE
from keshi.dev.systems.look import Snapshot
from keshi.dev.systems.site import Site
from keshi.handlers.contract import Work
from keshi.schemas.commands import Action, Regime
from keshi.schemas.identifiers import Identifier

if TYPE_CHECKING:
    from collections.abc import Iterable

    from keshi.dev.systems.people import Person

SAKURA, OCEANIA = COMPANIES


class RunningAffiliates:
    """See the module.

    Args:
        directory: for their data.
        secrets: of keys, which take time to make: those that are there stay.
        people: who is a member.
        inventory: that the handler's file is held against.
        slow_ms: before a request is taken in.
    """

    def __init__(
        self,
        directory: Path,
        secrets: Path,
        people: Iterable[Person],
        inventory: Path | None = None,
        slow_ms: int = 0,
    ) -> None:
        self.parts: dict[str, Part] = {}
        self._ready: dict[str, Any] = {}
        directory.mkdir(parents=True, exist_ok=True)
        secrets.mkdir(parents=True, exist_ok=True)
        no_server: Any = cast("Any", None)
        self.settled = settle(
            Site(directory, secrets, no_server, tuple(people), True, self._start, slow_ms=slow_ms, inventory=inventory)
        )
        self.file = Path(self.settled.handler["KESHI_AFFILIATES_FILE"])
        self.data = {name: Path(path) for name, path in self.settled.inside["data"].items()}
        for company in COMPANIES:
            self.behave(company)

    def _start(self, spec: PartSpec, ready: str, seconds: float = 30.0) -> None:
        company = spec.name.removeprefix("affiliate-")
        part = Part(spec)
        part.start()
        self.parts[company], self._ready[company] = part, answers(ready)
        part.wait_ready(self._ready[company], seconds)

    def restart(self, company: str) -> None:
        """Killed as by a power cut, and started again."""
        self.kill(company)
        self.parts[company].start()
        self.parts[company].wait_ready(self._ready[company], 30)

    def kill(self, company: str) -> None:
        self.parts[company].kill()

    def close(self) -> None:
        for part in self.parts.values():
            part.stop()

    def behave(self, company: str, **how: Any) -> None:
        """Quick, if nothing else is said."""
        behave(self.data[company], Behaviour(**({"after_ms": 0} | how)))

    def rows(self) -> Snapshot:
        return Snapshot({"affiliates": self.settled.rows()})

    def requests(self, company: str) -> list[dict[str, Any]]:
        """What came in there, as it lies in the store."""
        with closing(sqlite3.connect(self.data[company] / FILE)) as db:
            db.row_factory = sqlite3.Row
            return [dict(row) for row in db.execute("SELECT * FROM requests ORDER BY received_at, id")]

    def log(self, company: str) -> str:
        return self.parts[company].spec.log.read_text(encoding="utf-8")

    def client(self, company: str) -> httpx.Client:
        headers = {"Authorization": f"Bearer {self.settled.inside['tokens'][company]}"}
        url = self.settled.inside["urls"][company]
        return httpx.Client(base_url=url, headers=headers, timeout=20, trust_env=False)

    def changed(self, path: Path, company: str, **change: Any) -> Path:
        """The handler's file with other settings for one company, at another place; None takes one away."""
        tree = yaml.safe_load(self.file.read_text(encoding="utf-8"))
        (one,) = [a for a in tree["affiliates"] if a["name"] == company]
        one.update(change)
        for name in [n for n, value in change.items() if value is None]:
            del one[name]
        path.write_text(yaml.safe_dump(tree), encoding="utf-8")
        return path


def work(person: Person, *types: str, **more: Any) -> Work:
    """A task for both, about this person as known by these types of identifiers (all, if none is named)."""
    given = {t: v for t, v in person.identifiers.items() if not types or t in types}
    base: dict[str, Any] = {
        "request_id": str(uuid4()),
        "system": "affiliates",
        "action": Action.ERASE,
        "categories": tuple(COMPANIES),
        "identifiers": tuple(Identifier(type=t, value=v).normal() for t, v in given.items()),
        "as_of": TODAY,
        "arrived_at": datetime(2026, 3, 30, 5, 6, 7, tzinfo=UTC),
        "regime": Regime.APPI,
    }
    return Work(**base | more)
