"""What both handler suites share: people as tasks, one whole attempt, and the look past the handler."""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from typing import Any
from uuid import uuid4

from keshi.dev.systems import look, snapshots
from keshi.dev.systems.call_recordings.bucket import Bucket
from keshi.dev.systems.look import Expectation, Snapshot
from keshi.dev.systems.people import Person, Trait
from keshi.handlers.contract import Handler, Limit, Verified, Work
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Found, RetentionRule

TODAY = date(2026, 4, 1)
ERASE, SUSPEND, RESUME, STOP = Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE, Action.STOP_PROVISION
CATEGORIES = {
    "billing": ("customers", "invoices", "payments", "usage"),
    "crm": ("contacts", "cards", "activities"),
    "call_recordings": ("calls", "recordings", "transcripts"),
    "ma_tool": ("contacts", "cookies", "behaviour", "lists", "mails"),
}
TAX = tuple(RetentionRule(category=c, ground="jp.tax-records", years=7) for c in ("invoices", "payments"))

Union = tuple[Found, ...]


class EndsAt(Limit):
    """A lease that is over at the n-th checkpoint, as for a process that was frozen there."""

    __slots__ = ("_until_end",)

    def __init__(self, checkpoints: int) -> None:
        super().__init__(60)
        self._until_end = checkpoints

    def checkpoint(self) -> None:
        self._until_end -= 1
        if not self._until_end:
            self.end_now()
        super().checkpoint()


def work(system: str, person: Person, action: Action = ERASE, *types: str, **more: Any) -> Work:
    """A task for this person, found by these types of identifiers (all, if none is named)."""
    given = {t: v for t, v in person.identifiers.items() if not types or t in types}
    base: dict[str, Any] = {
        "request_id": str(uuid4()),
        "system": system,
        "action": action,
        "categories": CATEGORIES[system],
        "identifiers": tuple(Identifier(type=t, value=v).normal() for t, v in given.items()),
        "as_of": TODAY,
        "retention": TAX if system == "billing" else (),
    }
    return Work(**base | more)


def attempt(handler: Handler, task: Work, before: Union = ()) -> tuple[Union, Verified]:
    """One attempt, as the worker makes it: locate, act on all that was ever found, verify."""
    union = tuple(dict.fromkeys((*before, *handler.locate(task).found)))
    assert handler.act(task, union) is None
    return union, handler.verify(task, union)


def refs(found: Iterable[Found]) -> set[str]:
    return {f"{f.category}:{f.ref}" for f in found}


def states(union: Union, verified: Verified) -> dict[str, str]:
    """Reference → name of the state."""
    return {f"{f.category}:{f.ref}": type(s).__name__ for f, s in zip(union, verified.states, strict=True)}


def billing_rows(dsn: str) -> Snapshot:
    return Snapshot({"billing": snapshots.sql_rows(dsn), "crm": {}})


def crm_rows(data: Path) -> Snapshot:
    return Snapshot({"billing": {}, "crm": snapshots.file_rows(data / "crm.sqlite3")})


def recordings_rows(dsn: str, bucket: Bucket) -> Snapshot:
    return Snapshot({"call_recordings": snapshots.sql_rows(dsn) | bucket.rows()})


def judged(system: str, before: Snapshot, after: Snapshot, what: Mapping[Action, Iterable[Person]]) -> look.Found:
    """What the look past the handler says about one system."""
    expected = [(p, Expectation(action.value)) for action, people in what.items() for p in people]
    return look.compare(before, after, expected, today=TODAY).systems[system]


def kinds_of_people(everybody: Iterable[Person], *wanted: Trait) -> list[Person]:
    """One person for each combination of traits that there is, among those with all of `wanted`."""
    return list({p.traits: p for p in everybody if set(wanted) <= p.traits}.values())


_CHILD = """
import json, pathlib, sys
from importlib.metadata import entry_points
from keshi.handlers.contract import Limit, Work
from keshi.runtime import failpoints
from keshi.runtime.settings import ProcessSettings
from keshi.schemas.tasks import Found
from contract.reference import TAX, TODAY, CATEGORIES, Action
given = json.load(sys.stdin)
failpoints.configure(ProcessSettings(environment="development", failpoints_dir=given["failpoints"]))
handler = next(iter(entry_points(group="keshi.handlers", name=given["system"]))).load().from_environment()
task = Work(request_id=given["request_id"], system=given["system"], action=Action(given["action"]), identifiers=(),
            categories=CATEGORIES[given["system"]], as_of=TODAY, retention=TAX,
            limit=Limit(60, failpoint="worker.mid_act"))
handler.act(task, tuple(Found(**f) for f in given["union"]))
"""


def killed_in_mid_act(task: Work, union: Sequence[Found], environment: Mapping[str, str], directory: Path) -> int:
    """Let a process of its own act, and kill it at the first checkpoint; its exit code."""
    (directory / "worker.mid_act").write_text("kill", encoding="ascii")
    given = {
        "failpoints": str(directory),
        "system": task.system,
        "request_id": task.request_id,
        "action": task.action.value,
        "union": [f.model_dump() for f in union],
    }
    path = str(Path(__file__).parents[1])
    child = subprocess.run(
        [sys.executable, "-c", _CHILD],
        input=json.dumps(given),
        text=True,
        env={**os.environ, **environment, "PYTHONPATH": path},
        timeout=60,
        check=False,
    )
    return child.returncode


@contextmanager
def closing(handler: Handler) -> Iterator[Any]:
    try:
        yield handler
    finally:
        handler.close()
