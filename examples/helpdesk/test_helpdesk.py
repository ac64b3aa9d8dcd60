"""The handler against its own system, by keshi's suite: `pytest examples/helpdesk`."""

import sqlite3
from contextlib import closing
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest
from helpdesk import Helpdesk

from keshi.handlers.contract import Handler, Work
from keshi.handlers.testing import HandlerSuite, Scene
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Outcome

TABLE = "CREATE TABLE tickets (id TEXT PRIMARY KEY, email TEXT NOT NULL, text TEXT NOT NULL, hidden_by TEXT)"
BECOMES = {
    Action.ERASE: Outcome.ERASED,
    Action.SUSPEND_USE: Outcome.SUSPENDED,
    Action.RESUME_USE: Outcome.RESUMED,
}


class TestHelpdesk(HandlerSuite):
    @pytest.fixture(autouse=True)
    def _system(self, tmp_path: Path) -> None:
        self.path = tmp_path / "tickets.db"
        self._sql(TABLE)
        self._sql("INSERT INTO tickets VALUES ('T-0', 'somebody.else@customer.example', 'My parcel is late.', NULL)")

    def _sql(self, statement: str, *values: str) -> list[tuple[object, ...]]:
        with closing(sqlite3.connect(self.path)) as db, db:
            return db.execute(statement, values).fetchall()

    def fresh(self) -> Handler:
        return Helpdesk(self.path)

    def arrange(self, action: Action) -> Scene:
        """A person with two tickets, one of them from an address in other case."""
        address = f"{uuid4().hex}@customer.example"
        for sender in (address, address.upper()):
            self._sql("INSERT INTO tickets VALUES (?, ?, 'Where is my invoice?', NULL)", f"T-{uuid4().hex}", sender)
        task = Work(
            request_id=str(uuid4()),
            system="helpdesk",
            action=action,
            categories=("tickets",),
            identifiers=(Identifier(type="email", value=address),),
            as_of=date(2026, 4, 1),
        )
        return Scene(task, located={"tickets": 2}, outcomes={"tickets": {BECOMES[action]: 2}})

    def bystanders(self) -> object:
        return self._sql("SELECT * FROM tickets WHERE id = 'T-0'")

    def test_what_others_hid_stays_hidden(self) -> None:
        handler, scene = self.fresh(), self.arrange(Action.RESUME_USE)
        self._sql("UPDATE tickets SET hidden_by = 'manual' WHERE id <> 'T-0'")
        found = handler.locate(scene.task).found
        handler.act(scene.task, found)
        assert self._sql("SELECT DISTINCT hidden_by FROM tickets WHERE id <> 'T-0'") == [("manual",)]
