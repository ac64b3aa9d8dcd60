"""The three steps of a handler, with the tries that fit into one attempt. Nothing here talks to keshi."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from threading import Event
from typing import Final, TypeVar

from pydantic import ValidationError
from tenacity import (
    RetryCallState,
    Retrying,
    retry_if_exception,
    sleep_using_event,
    stop_after_attempt,
    stop_before_delay,
    stop_when_event_set,
    wait_exponential_jitter,
)

from keshi.handlers.contract import (
    MIN_TIME_LEFT,
    Accepted,
    Handler,
    Limit,
    Located,
    Results,
    Union,
    Verified,
    Work,
    boot_time,
)
from keshi.handlers.errors import GiveToPerson, LeaseEnded, Retry, RetryAfter
from keshi.schemas.commands import Action
from keshi.schemas.tasks import MAX_MANIFEST, Begin, Found, Mode

BACKOFF: Final = wait_exponential_jitter(multiplier=0.2, max=5, jitter=0.3)

R = TypeVar("R")


@dataclass(frozen=True, slots=True)
class Patience:
    """How often and how long one step is tried within an attempt."""

    tries: int
    seconds: float


class OutOfTime(Retry):
    """Looking took longer than one step may take."""


class Steps:
    """Calls one handler.

    Args:
        handler: Whose steps.
        patience: With one step.
        stopping: Set when the process ends: what fails is not tried again then.
    """

    def __init__(self, handler: Handler, patience: Patience, stopping: Event) -> None:
        self._handler = handler
        self._patience = patience
        self._stopping = stopping
        self.lists_locate = _overrides(handler, "locate_list")
        self.lists_act = _overrides(handler, "act_list")
        self.lists_verify = _overrides(handler, "verify_list")

    def locate(self, work: Work, *, once: bool = False) -> Located:
        """Find. `once` for a list whose time is spent."""
        limit = Limit(self._patience.seconds)
        timed = work.within(limit)
        return self._look(lambda: self._handler.locate(timed), limit, once=once)

    def locate_list(self, works: Sequence[Work]) -> Results[Located]:
        """Find for many; those that failed are tried again one by one."""
        if not self.lists_locate:
            return [_caught(partial(self.locate, w)) for w in works]
        limit = Limit(self._patience.seconds)
        timed = [w.within(limit) for w in works]
        results = _isolated(lambda: self._handler.locate_list(timed), len(works))
        return [_caught(partial(self.locate, w)) if _passing(r) else r for w, r in zip(works, results, strict=True)]

    def act(self, work: Work, union: Union) -> Accepted | None:
        """Act while there is a lease. Repeating it is the handler's promise.

        Raises:
            LeaseEnded: the time was over before it was done.
        """

        def once() -> Accepted | None:
            work.limit.require()
            return self._handler.act(work, union)

        return self._insist(once)

    def act_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Accepted | None]:
        """Act on many; those that failed are tried again one by one."""
        results = _isolated(lambda: self._handler.act_list(tasks), len(tasks))
        return [
            _caught(partial(self.act, w, u)) if _passing(r) else r for (w, u), r in zip(tasks, results, strict=True)
        ]

    def verify(self, work: Work, union: Union) -> Verified:
        """Look again."""
        limit = Limit(self._patience.seconds)
        timed = work.within(limit)
        return self._look(lambda: self._handler.verify(timed, union), limit)

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        """Look again at many; those that failed are tried again one by one."""
        if not self.lists_verify:
            return [_caught(partial(self.verify, w, u)) for w, u in tasks]
        limit = Limit(self._patience.seconds)
        timed = [(w.within(limit), u) for w, u in tasks]
        results = _isolated(lambda: self._handler.verify_list(timed), len(tasks))
        return [
            _caught(partial(self.verify, w, u)) if _passing(r) else r for (w, u), r in zip(tasks, results, strict=True)
        ]

    def _look(self, call: Callable[[], R], limit: Limit, *, once: bool = False) -> R:
        try:
            return self._insist(call, tries=1 if once else self._patience.tries)
        except LeaseEnded:
            if limit.left() >= MIN_TIME_LEFT:
                raise
            raise OutOfTime from None

    def _insist(self, call: Callable[[], R], tries: int | None = None) -> R:
        began = boot_time()
        failed: list[Exception] = []
        try:
            return call()  # to count tries costs time, and nearly all calls need one
        except Exception as e:
            if not _passing(e):
                raise
            failed.append(e)
            took = boot_time() - began

        def again() -> R:
            if failed:
                raise failed.pop()
            return call()

        retrying = Retrying(
            retry=retry_if_exception(_passing),
            stop=(
                stop_after_attempt(tries or self._patience.tries)
                # A try that has less time than the first is cut short, and says less of what the trouble is.
                | stop_before_delay(self._patience.seconds - 2 * took)
                | stop_when_event_set(self._stopping)
            ),
            wait=_wait,
            sleep=sleep_using_event(self._stopping),
            reraise=True,
        )
        return retrying(again)


def evidence(work: Work, located: Located, begin_id: str) -> Begin:
    """What a worker hands in before it may act: what was found within the task's bounds, each record once.

    Raises:
        GiveToPerson: more than one task may hold, or nothing that could be handed in.
    """
    items = work.items
    ours = {(f.category, f.ref) for f in work.remembered} if work.action is Action.RESUME_USE else None
    found: dict[tuple[str, str], Found] = {}
    for item in located.found:
        key = item.category, item.ref
        named = items is None or f"{item.category}:{item.ref}" in items
        if item.category in work.categories and named and (ours is None or key in ours):
            found.setdefault(key, item)
    if len(found) > MAX_MANIFEST:
        raise GiveToPerson("over_limit")
    try:
        return Begin(
            request_id=work.request_id,
            system=work.system,
            attempt=work.attempt,
            begin_id=begin_id,
            mode=work.mode,
            manifest=() if work.mode is Mode.IDENTIFY else tuple(found.values()),
            searched=tuple(dict.fromkeys(located.searched)),
            learned=tuple(dict.fromkeys(i.normal() for i in located.learned)),
        )
    except ValidationError:
        raise GiveToPerson("evidence_invalid") from None


def _wait(state: RetryCallState) -> float:
    error = state.outcome.exception() if state.outcome else None
    return max(BACKOFF(state), error.seconds if isinstance(error, RetryAfter) else 0.0)


def _passing(result: object) -> bool:
    """Whether this is trouble that another try could end."""
    return isinstance(result, Exception) and not isinstance(result, GiveToPerson | LeaseEnded)


def _caught(call: Callable[[], R]) -> R | Exception:
    try:
        return call()
    except Exception as e:  # noqa: BLE001 - the failure of one task is its result
        return e


def _isolated(call: Callable[[], Results[R]], size: int) -> Results[R]:
    """The results of a list; a call that failed as a whole failed for each, and is then made for each alone."""
    results = _caught(call)
    if isinstance(results, Exception):
        return [Retry("list_failed")] * size
    return list(results) if len(results) == size else [Retry("list_misaligned")] * size


def _overrides(handler: Handler, name: str) -> bool:
    return getattr(type(handler), name) is not getattr(Handler, name)
