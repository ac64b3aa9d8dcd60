"""Handlers of the reference systems that fail at first, each time with personal data in the words of the failure."""

import threading
from typing import ClassVar

from keshi.handlers.contract import Located, Union, Work
from keshi.handlers.errors import GiveToPerson, Retry
from keshi.handlers.systems.billing import Billing
from keshi.handlers.systems.crm import Crm

FAILURES = (ValueError, RuntimeError, Retry, KeyError, OSError)


class _Failing:
    """Fails once for each request in `locate`, and once in `act`; the class of the failure goes round."""

    _seen: ClassVar[dict[tuple[str, str], int]] = {}
    _lock = threading.Lock()

    def _fail_first(self, task: Work, step: str) -> None:
        with self._lock:
            before = self._seen.setdefault((task.request_id, step), 0)
            self._seen[task.request_id, step] += 1
            kind = FAILURES[len(self._seen) % len(FAILURES)]
        if not before:
            secrets = " ".join(i.value for i in task.identifiers)
            raise kind(f"{step}: {secrets}") from LookupError(secrets)


class LeakyBilling(_Failing, Billing):
    def locate(self, task: Work) -> Located:
        self._fail_first(task, "locate")
        return super().locate(task)

    def erase(self, task: Work, union: Union) -> None:
        self._fail_first(task, "act")
        super().erase(task, union)


class LeakyCrm(_Failing, Crm):
    def locate(self, task: Work) -> Located:
        self._fail_first(task, "locate")
        return super().locate(task)

    def erase(self, task: Work, union: Union) -> None:
        self._fail_first(task, "act")
        super().erase(task, union)

    def suspend_use(self, task: Work, union: Union) -> None:
        with self._lock:
            first = self._seen.setdefault((task.request_id, "suspend"), 0) == 0
            self._seen[task.request_id, "suspend"] += 1
        if first:
            raise GiveToPerson(" ".join(i.value for i in task.identifiers))
        super().suspend_use(task, union)
