"""A worker over a system of plain files: `python worker_process.py DIRECTORY` (settings by environment).

A record is a file `records/<category>/<ref>` that holds its state. `index/<value>` names a person's records and is
the first thing that an erasure removes: who begins again has nothing that leads to the rest. What an identifier
begins with makes the system misbehave: `poison`, `slow`, `crash`, `acceptor`, `stubborn`.
"""

import faulthandler
import json
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from keshi.handlers.contract import Accepted, Active, Gone, Handler, Located, Suspended, Verified, Work
from keshi.handlers.worker import Worker, WorkerOptions
from keshi.runtime import failpoints, logs
from keshi.runtime.settings import ApiClientSettings, KafkaSettings, ProcessSettings, WorkerSettings, load
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.tasks import Found


class Files(Handler):
    system = "files"
    actions = frozenset({Action.ERASE, Action.SUSPEND_USE, Action.RESUME_USE})

    def __init__(self, directory: Path) -> None:
        self.root = directory

    def locate(self, task: Work) -> Located:
        found: list[Found] = []
        learned: tuple[Identifier, ...] = ()
        for value in task.values("email"):
            self._misbehave(value, task)
            if value.startswith("source"):
                learned = (Identifier(type="customer_id", value="c-17"),)
            index = self.root / "index" / value
            if index.exists():
                found += [Found(category=c, ref=r, was=self._was(c, r)) for c, r in json.loads(index.read_text())]
        return Located(tuple(found), searched=("email",), learned=learned)

    def erase(self, task: Work, union: tuple[Found, ...]) -> Accepted | None:
        self._note("enter", task)
        for value in task.values("email"):
            task.checkpoint()
            (self.root / "index" / value).unlink(missing_ok=True)
            if value.startswith("acceptor"):
                return Accepted(check_after_seconds=60)
            if value.startswith("stubborn"):
                return None
        for item in union:
            if item.ref.startswith("slow"):
                time.sleep(min(1.5, task.time_left()))
            task.checkpoint()
            (self.root / "records" / item.category / item.ref).unlink(missing_ok=True)
        self._note("leave", task)
        return None

    def suspend_use(self, task: Work, union: tuple[Found, ...]) -> None:
        self._set(task, union, "suspended")

    def resume_use(self, task: Work, union: tuple[Found, ...]) -> None:
        self._set(task, union, "active")

    def verify(self, task: Work, union: tuple[Found, ...]) -> Verified:
        return Verified(tuple(self._state(i) for i in union))

    def _set(self, task: Work, union: tuple[Found, ...], state: str) -> None:
        for item in union:
            task.checkpoint()
            (self.root / "records" / item.category / item.ref).write_text(state)

    def _state(self, item: Found) -> Gone | Active | Suspended:
        path = self.root / "records" / item.category / item.ref
        if not path.exists():
            return Gone()
        return Suspended() if path.read_text() == "suspended" else Active()

    def _was(self, category: str, ref: str) -> Any:
        path = self.root / "records" / category / ref
        return "suspended" if path.exists() and path.read_text() == "suspended" else "active"

    def _misbehave(self, value: str, task: Work) -> None:
        if value.startswith("poison"):
            raise ValueError(f"no such person: {value}")
        if value.startswith("slow"):
            time.sleep(min(3.0, task.time_left()))
        if value.startswith("crash"):
            self._note("crash", task)
            os.kill(os.getpid(), signal.SIGKILL)

    def _note(self, what: str, task: Work) -> None:
        with (self.root / "log").open("a") as file:
            file.write(f"{what} {task.request_id} {os.getpid()}\n")


class ListedFiles(Files):
    """The same, for whole lists."""

    def locate_list(self, tasks):
        self._note("locate_list", tasks[0])
        return super().locate_list(tasks)

    def act_list(self, tasks):
        self._note("act_list", tasks[0][0])
        return super().act_list(tasks)

    def verify_list(self, tasks):
        self._note("verify_list", tasks[0][0])
        return super().verify_list(tasks)


def main() -> int:
    faulthandler.register(signal.SIGUSR1)  # a test that waits too long asks where everybody stands
    process = load(ProcessSettings)
    logs.configure(process)
    failpoints.configure(process)
    kind = ListedFiles if os.environ.get("FILES_BY_LIST") else Files
    worker = Worker(
        [kind(Path(sys.argv[1]))],
        WorkerOptions(load(KafkaSettings), load(ApiClientSettings), load(WorkerSettings), stop_seconds=8),
    )
    return 0 if worker.run() else 1


if __name__ == "__main__":
    sys.exit(main())
