"""A handler for a sixth system: the tickets of a help desk, in a file of SQLite."""

import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from keshi.handlers.contract import Active, Gone, Handler, Located, Suspended, Union, Verified, Work
from keshi.runtime.settings import ConfigurationError
from keshi.schemas.commands import Action
from keshi.schemas.tasks import Found


class Helpdesk(Handler):
    """Tickets are found by the address that they were sent from."""

    system = "helpdesk"
    actions = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, path: Path) -> None:
        self._path = path

    @classmethod
    def from_environment(cls) -> Self:
        path = Path(os.environ.get("KESHI_HELPDESK_FILE", ""))
        if not path.is_file():
            raise ConfigurationError("KESHI_HELPDESK_FILE: set it to the file with the tickets")
        return cls(path)

    def _run(self, task: Work, statement: str, *values: str) -> list[Any]:
        """One statement in one transaction, within the time of the task."""
        with closing(sqlite3.connect(self._path, timeout=task.time_left())) as db, db:
            rows = db.execute(statement, values).fetchall()
            task.checkpoint()
            return rows

    def locate(self, task: Work) -> Located:
        found = {}
        for address in task.values("email"):
            for ticket, mark in self._run(task, "SELECT id, hidden_by FROM tickets WHERE lower(email) = ?", address):
                found[ticket] = Found(category="tickets", ref=ticket, was="suspended" if mark else "active")
        return Located(tuple(found.values()), searched=("email",) if task.values("email") else ())

    def erase(self, task: Work, union: Union) -> None:
        for item in union:
            self._run(task, "DELETE FROM tickets WHERE id = ?", item.ref)

    def suspend_use(self, task: Work, union: Union) -> None:
        for item in union:
            self._run(task, "UPDATE tickets SET hidden_by = 'keshi' WHERE id = ? AND hidden_by IS NULL", item.ref)

    def resume_use(self, task: Work, union: Union) -> None:
        for item in union:
            self._run(task, "UPDATE tickets SET hidden_by = NULL WHERE id = ? AND hidden_by = 'keshi'", item.ref)

    def verify(self, task: Work, union: Union) -> Verified:
        rows = [self._run(task, "SELECT hidden_by FROM tickets WHERE id = ?", item.ref) for item in union]
        return Verified(tuple((Suspended() if r[0][0] else Active()) if r else Gone() for r in rows))
