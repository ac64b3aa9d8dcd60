"""ma_tool: contacts, cookies, behaviour, list memberships and scheduled mails of a marketing automation tool.

- Contacts are found by e-mail address and customer id, cookies by their value; `ma_trails` follows them to the rest.
- It deletes in jobs. One job deletes the union of an attempt; a job that is over within a moment is waited for, any
  other is asked after later. That it says "done" counts for nothing: every record is looked for.
- Contacts, cookies and mails carry marks; behaviour follows its cookie, and everything its contact. What would have to
  be marked outside the union is not: a person is asked. A mark that isn't ours stays.
- Giving to ad partners has stopped when the mark is there and the partners have taken the contact from their lists.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Final, Self

from pydantic import SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict

from keshi.handlers.connectors.rest import Rest, token_of
from keshi.handlers.contract import (
    Accepted,
    Active,
    Gone,
    Handler,
    Located,
    ProvisionStopped,
    Results,
    State,
    Suspended,
    UnderWay,
    Union,
    Verified,
    Work,
    boot_time,
    hurried,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry
from keshi.handlers.systems.ma_trails import BEGINS, Record, Trail, follow
from keshi.runtime.settings import load
from keshi.schemas.commands import Action
from keshi.schemas.tasks import Found

OURS: Final = "keshi:"
"""How our marks, and the references of our jobs, begin; the request's id follows."""
WAIT_SECONDS: Final = 1.5
"""What is over by then is waited for within the act."""
BUSY_SECONDS: Final = 5
"""It limits calls: one is made again for so long when it says when."""
PAUSES: Final = (0.02, 0.05, 0.1, 0.2, 0.3)
LOOK_AGAIN: Final = range(2, 3_601)
"""Seconds after which we ask again: half as long as it has taken so far, within these bounds."""
REFS_A_CALL: Final = 500
REFS_A_JOB: Final = 5_000
IDS_A_CALL: Final = 100

Records = dict[str, Record | None]
Task = tuple[Work, Union]


@dataclass(frozen=True, slots=True)
class _Lever:
    """A mark: the field that shows it, the call that sets it, and the kinds that carry it, contacts last."""

    shows: str
    sets: str
    kinds: tuple[str, ...]


SUPPRESS: Final = _Lever("suppressed", "suppress", ("mails", "cookies", "contacts"))
STOP: Final = _Lever("provision_stopped", "stop-provision", ("cookies", "contacts"))


class Settings(BaseSettings):
    """`KESHI_MA_TOOL_…`."""

    model_config = SettingsConfigDict(env_prefix="KESHI_MA_TOOL_", frozen=True, hide_input_in_errors=True)

    url: str = ""
    token: SecretStr = SecretStr("")
    token_file: Path | None = None


class MaTool(Handler):
    """The handler of the MA tool."""

    system: ClassVar[str] = "ma_tool"
    actions: ClassVar[frozenset[Action]] = frozenset(Action)

    def __init__(self, rest: Rest) -> None:
        self._rest = rest

    @classmethod
    def from_environment(cls) -> Self:
        given = load(Settings)
        token = token_of(given.token, given.token_file, "KESHI_MA_TOOL_")
        return cls(Rest(given.url, token, setting="KESHI_MA_TOOL_URL", busy_seconds=BUSY_SECONDS))

    # --- locate

    def locate(self, task: Work) -> Located:
        return _located(*follow(self._rest, [task]))

    def locate_list(self, tasks: Sequence[Work]) -> Results[Located]:
        try:
            return [_located(trail) for trail in follow(self._rest, tasks)]
        except (GiveToPerson, LeaseEnded):
            return super().locate_list(tasks)  # one by one: each fails for itself

    # --- erase

    def erase(self, task: Work, union: Union) -> Accepted | None:
        return _alone(self._erase([(task, union)]))

    def act_list(self, tasks: Sequence[Task]) -> Results[Accepted | None]:
        """What has to be waited for is waited for together."""
        together = {Action.ERASE: self._erase, Action.STOP_PROVISION: self._stop}
        done = {a: iter(act([t for t in tasks if t[0].action is a])) for a, act in together.items()}
        others = iter(super().act_list([t for t in tasks if t[0].action not in together]))
        return [next(done.get(task.action, others)) for task, _ in tasks]

    def _erase(self, tasks: Sequence[Task]) -> Results[Accepted | None]:
        """Asks for the jobs of all, then waits for them together."""
        asked = [_caught(self._ask, task, union) for task, union in tasks]
        waiting = [(task, found) for (task, _), found in zip(tasks, asked, strict=True) if isinstance(found, list)]
        jobs = self._waited([t for t, _ in waiting], {job["id"]: job for _, found in waiting for job in found})
        return [
            found if isinstance(found, Exception) else jobs if isinstance(jobs, Exception) else _over(task, found, jobs)
            for (task, _), found in zip(tasks, asked, strict=True)
        ]

    def _ask(self, task: Work, union: Union) -> list[Record]:
        """One job over the union, or several. Asked again by the same attempt they are the same."""
        jobs = []
        for refs in _batches(sorted(map(_ref, union), key=_last), REFS_A_JOB):
            key = hashlib.sha256("\n".join(refs).encode()).hexdigest()[:32]
            body = {"key": f"{task.request_id}:{task.attempt}:{key}", "reference": _reference(task), "refs": refs}
            jobs.append(self._rest.call(task, "POST", "/v1/deletions", body=body).data)
            task.checkpoint()
        return jobs

    def _waited(self, tasks: Sequence[Work], jobs: dict[str, Record]) -> dict[str, Record] | Exception:
        """The jobs as they are when all are over, or when they have been waited for long enough."""

        def over() -> bool:
            jobs.update({job["id"]: job for job in self._jobs(tasks, "id", [i for i in jobs if _pending(jobs[i])])})
            return not any(map(_pending, jobs.values()))

        ended = _caught(_wait, tasks, over)
        return jobs if ended is None else ended

    def _jobs(self, tasks: Sequence[Work], field: str, values: Sequence[str]) -> Iterator[Record]:
        for some in _batches(sorted(values), IDS_A_CALL):
            yield from self._rest.pages(hurried(tasks), "/v1/deletions:search", search={field: some})

    # --- suspend, resume, stop provision

    def suspend_use(self, task: Work, union: Union) -> None:
        self._mark(task, union, SUPPRESS)

    def resume_use(self, task: Work, union: Union) -> None:
        records = self._read([(task, union)])
        marks = {m["ref"]: m["by"] for record in records.values() if record for m in record["suppressed"]}
        if any(by.startswith(OURS) and ref not in records for ref, by in marks.items()):
            raise GiveToPerson("not_separable")
        for kind in SUPPRESS.kinds:
            for mark in sorted({by for by in marks.values() if by.startswith(OURS)}):
                ids = [ref.partition(":")[2] for ref, by in marks.items() if _kind(ref) == kind and by == mark]
                self._set(task, f"/v1/{kind}:unsuppress", ids, mark)
        if any(not by.startswith(OURS) for by in marks.values()):
            raise GiveToPerson("suspended_by_other")

    def stop_provision(self, task: Work, union: Union) -> Accepted | None:
        return _alone(self._stop([(task, union)]))

    def _stop(self, tasks: Sequence[Task]) -> Results[Accepted | None]:
        """Marks all, then waits for the partners a moment. Those that take longer are found by the check."""
        results: Results[Accepted | None] = [_caught(self._mark, task, union, STOP) for task, union in tasks]
        marked = [t for t, result in zip(tasks, results, strict=True) if result is None]
        ended = _caught(
            _wait, [t for t, _ in marked], lambda: not any(map(_asked_partners, self._read(marked).values()))
        )
        return [result or ended for result in results]

    def _mark(self, task: Work, union: Union, lever: _Lever) -> None:
        """Sets our mark on what is not kept out yet, on a contact last: what hangs on it follows it from then on."""
        records = self._read([(task, union)])
        left = {ref: r for ref, r in records.items() if r and (not r[lever.shows] or _at_partners(r, lever))}
        if any(_kind(ref) not in lever.kinds and records.keys().isdisjoint(r["follows"]) for ref, r in left.items()):
            raise GiveToPerson("not_separable")
        for kind in lever.kinds:
            ids = [ref.partition(":")[2] for ref in sorted(left) if _kind(ref) == kind]
            self._set(task, f"/v1/{kind}:{lever.sets}", ids, _reference(task))

    def _set(self, task: Work, path: str, ids: Sequence[str], mark: str) -> None:
        for some in _batches(ids, IDS_A_CALL):
            self._rest.call(task, "POST", path, body={"ids": some, "by": mark})
            task.checkpoint()

    # --- verify

    def verify(self, task: Work, union: Union) -> Verified:
        return self._verified([(task, union)])[0]

    def verify_list(self, tasks: Sequence[Task]) -> Results[Verified]:
        try:
            return [*self._verified(tasks)]
        except (GiveToPerson, LeaseEnded):
            return super().verify_list(tasks)  # one by one: each fails for itself

    def _verified(self, tasks: Sequence[Task]) -> list[Verified]:
        records = self._read(tasks)
        erasing = [(t, u) for t, u in tasks if t.action is Action.ERASE and any(records[_ref(f)] for f in u)]
        jobs: dict[str, list[Record]] = {}
        for job in self._jobs([t for t, _ in erasing], "reference", [_reference(t) for t, _ in erasing]):
            if _pending(job):
                jobs.setdefault(job["reference"], []).append(job)
        # One that was over before we asked may have deleted more since we looked.
        records |= self._read([(t, u) for t, u in erasing if _reference(t) not in jobs])
        return [
            Verified(tuple(_state(task, records[_ref(f)], jobs.get(_reference(task), ())) for f in union))
            for task, union in tasks
        ]

    def _read(self, tasks: Sequence[Task]) -> Records:
        """The records by reference, None for each of which the MA tool says that it is gone."""
        refs = sorted({_ref(f) for _, union in tasks for f in union})
        records: Records = {}
        for some in _batches(refs, REFS_A_CALL):
            data = self._rest.call(hurried(t for t, _ in tasks), "POST", "/v1/records:read", body={"refs": some}).data
            records |= data["found"] | dict.fromkeys(data["gone"])
        if not records.keys() >= set(refs):
            raise Retry("answer_incomplete")
        return records

    def ready(self) -> bool:
        return self._rest.ready("GET", "/v1/limits")

    def close(self) -> None:
        self._rest.close()


def _located(trail: Trail) -> Located:
    task = trail.task
    found = (
        Found(category=kind, ref=ref, was="suspended" if record["suppressed"] else "active")
        for (kind, ref), record in trail.records.items()
        if kind in task.categories
    )
    return Located(tuple(found), searched=tuple(t for t in BEGINS if task.values(t)))


def _state(task: Work, record: Record | None, jobs: Sequence[Record]) -> State:
    """The state of one record, as far as this action asks for it."""
    if record is None:
        return Gone()
    if jobs:
        return _under_way(jobs)
    if task.action is Action.STOP_PROVISION:
        return _provision(record)
    if record["suppressed"]:
        return Suspended()
    return ProvisionStopped() if record["provision_stopped"] else Active()


def _provision(record: Record) -> State:
    if not record["provision_stopped"] or _at_partners(record, STOP):
        return Active()
    return _under_way(asked) if (asked := _asked_partners(record)) else ProvisionStopped()


def _at_partners(record: Record, lever: _Lever) -> bool:
    """Whether a partner has it on its list, and was not told."""
    return lever is STOP and any(a["status"] == "active" for a in record.get("audiences", ()))


def _asked_partners(record: Record | None) -> list[Record]:
    """Partners that were told, and have it on their lists still."""
    return [a for a in (record or {}).get("audiences", ()) if a["status"] == "removal_asked"]


def _over(task: Work, asked: Sequence[Record], jobs: dict[str, Record]) -> Accepted | Exception | None:
    """What has become of the jobs of one task."""
    mine = [jobs[job["id"]] for job in asked]
    failed = [job for job in mine if job["state"] == "failed"]
    if failed:
        # Something hangs on a contact that is not in the union: outside of the request, or new since we located.
        outside = task.items is not None or not {"lists", "mails"} <= set(task.categories)
        hangs = any(job["error"] == "has_children" for job in failed)
        return GiveToPerson("not_separable") if hangs and outside else Retry("job_failed")
    pending = [job for job in mine if _pending(job)]
    return Accepted(_under_way(pending).check_after_seconds) if pending else None


def _pending(job: Record) -> bool:
    return job["state"] in {"queued", "running"}


def _under_way(waits_for: Sequence[Record]) -> UnderWay:
    seconds = max(w["age_seconds"] for w in waits_for) // 2
    return UnderWay(min(max(seconds, LOOK_AGAIN[0]), LOOK_AGAIN[-1]), late=any(w["overdue"] for w in waits_for))


def _wait(tasks: Sequence[Work], over: Callable[[], bool]) -> None:
    """Ask until it is over, for a moment. That there is no answer for now is no failure of the act."""
    if not tasks:
        return
    end = boot_time() + WAIT_SECONDS
    try:
        for pause in (*PAUSES, *[PAUSES[-1]] * int(WAIT_SECONDS / PAUSES[-1])):
            if over() or boot_time() + pause > end or hurried(tasks).limit.left() < WAIT_SECONDS + pause:
                return
            time.sleep(pause)
    except Retry:
        return


def _alone(results: Results[Accepted | None]) -> Accepted | None:
    """The result of a list of one."""
    (result,) = results
    if isinstance(result, Exception):
        raise result
    return result


def _caught(call: Callable[..., Any], *given: Any) -> Any:
    try:
        return call(*given)
    except Exception as error:  # noqa: BLE001 - the failure of one task is its result
        return error


def _reference(task: Work) -> str:
    return f"{OURS}{task.request_id}"


def _ref(f: Found) -> str:
    return f"{f.category}:{f.ref}"


def _kind(ref: str) -> str:
    return ref.partition(":")[0]


def _last(ref: str) -> tuple[bool, str]:
    """Contacts go last: nothing may hang on them any more."""
    return _kind(ref) == "contacts", ref


def _batches(items: Sequence[Any], size: int) -> Iterator[list[Any]]:
    yield from ([*items[n : n + size]] for n in range(0, len(items), size))
