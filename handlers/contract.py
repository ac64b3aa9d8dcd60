"""What the author of a handler writes: one small class for one system.

```python
class Newsletter(Handler):
    system = "newsletter"
    actions = frozenset({Action.ERASE})

    def locate(self, task):            # find; change nothing
        rows = self.db.by_email(task.values("email"), timeout=task.time_left())
        return Located(tuple(Found(category="subscriptions", ref=r.id) for r in rows), searched=("email",))

    def erase(self, task, union):      # act on what is given, not on what was just found
        for item in union:
            task.checkpoint()
            self.db.delete(item.ref, timeout=task.time_left())

    def verify(self, task, union):     # look again; one state for each item, in the same order
        left = self.db.existing([i.ref for i in union], timeout=task.time_left())
        return Verified(tuple(Active() if i.ref in left else Gone() for i in union))
```

Rules that the worker relies on:

- `locate` and `verify` change nothing. `act` may be repeated over the same union after a crash, also when
  half of it is done, and then does the rest.
- `act` works on the union it is given: records that any attempt ever found. What led to them may be gone.
- Each statement or request gets `task.time_left()` as its time-out, and `task.checkpoint()` stands before each
  statement and right before a commit. A handler whose time is over changes nothing more.
- One object serves several threads.
"""

import re
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache, partial
from importlib.metadata import PackageNotFoundError, packages_distributions, version
from operator import attrgetter
from typing import ClassVar, Final, Self, TypeVar

from keshi.handlers.errors import GiveToPerson, LeaseEnded
from keshi.runtime import failpoints
from keshi.schemas.commands import Action, Regime
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import Residue
from keshi.schemas.tasks import Found, Mode, RetentionRule

MIN_TIME_LEFT: Final = 0.005
"""Seconds. Less than this counts as nothing: to many systems a time-out of zero means none at all."""


def boot_time() -> float:
    """Seconds on a clock that nobody sets. On Linux it also runs while the machine sleeps."""
    if sys.platform == "linux":
        return time.clock_gettime(time.CLOCK_BOOTTIME)
    return time.monotonic()


class Limit:
    """The moment at which a step has to have ended. The worker moves it on when a lease is renewed."""

    __slots__ = ("_checkpoints", "_end", "_failpoint")

    def __init__(self, seconds: float, *, since: float | None = None, failpoint: str | None = None) -> None:
        self._end = (boot_time() if since is None else since) + seconds
        self._failpoint = failpoint
        self._checkpoints = 0

    def extend(self, seconds: float, *, since: float) -> None:
        """Let it end `seconds` after `since`, if that is later. What is over stays over."""
        if self.left() > 0:
            self._end = max(self._end, since + seconds)

    def end_now(self) -> None:
        """Let it be over."""
        self._end = float("-inf")

    def left(self) -> float:
        """Seconds left; zero or less when it is over."""
        return self._end - boot_time()

    def require(self) -> float:
        """Seconds left, never nothing.

        Raises:
            LeaseEnded: it is over.
        """
        left = self.left()
        if left < MIN_TIME_LEFT:
            raise LeaseEnded
        return left

    def checkpoint(self) -> None:
        """Go on only while there is time. A process that was frozen here finds out when it wakes up.

        Raises:
            LeaseEnded: it is over.
        """
        self._checkpoints += 1
        if self._failpoint and self._checkpoints > 1:  # the first one stands before anything was done
            failpoints.hit(self._failpoint)
        self.require()


@dataclass(frozen=True, kw_only=True)  # without slots: each step has a copy, and a dict is copied at once
class Work:
    """One task as its handler sees it. The representation shows no identifier and no record."""

    request_id: str
    system: str
    action: Action
    categories: tuple[str, ...]
    """The categories in scope. What is found outside them is dropped by the worker, and never acted upon."""
    identifiers: tuple[Identifier, ...]
    as_of: date
    """The day on which retention periods are judged."""
    arrived_at: datetime | None = None
    """When the person's request reached the company."""
    regime: Regime | None = None
    """The body of rules that the request rests on."""
    mode: Mode = Mode.ACT
    attempt: int = 1
    retention: tuple[RetentionRule, ...] = ()
    """What law makes this system keep; several rules on one category: the longest wins."""
    items: frozenset[str] | None = None
    """The records (`category:ref`) that the request is about; None: all. The worker drops what else is found."""
    remembered: tuple[Found, ...] = ()
    """For `resume_use`: what earlier requests suspended here. Nothing else may be resumed."""
    limit: Limit = field(default_factory=lambda: Limit(60), compare=False)

    def __repr__(self) -> str:
        return f"Work({self.request_id}, {self.system}, {self.action}, {self.mode}, attempt={self.attempt})"

    __str__ = __repr__

    def within(self, limit: Limit) -> Self:
        """The same work under another limit. As `dataclasses.replace`, for a tenth of the time: each step needs it."""
        same = object.__new__(type(self))
        object.__setattr__(same, "__dict__", {**self.__dict__, "limit": limit})
        return same

    def values(self, *types: str) -> tuple[str, ...]:
        """The values of the identifiers of these types, without repeats, in the order given."""
        return tuple(dict.fromkeys(i.value for i in self.identifiers if i.type in types))

    def types(self) -> tuple[str, ...]:
        """The types of identifiers at hand, without repeats."""
        return tuple(dict.fromkeys(i.type for i in self.identifiers))

    def rules(self, category: str) -> tuple[RetentionRule, ...]:
        """The retention rules of one category, the longest first."""
        return tuple(sorted((r for r in self.retention if r.category == category), key=lambda r: -r.years))

    def time_left(self) -> float:
        """Seconds left for the next statement or request: its time-out. Never zero.

        Raises:
            LeaseEnded: there is no time left.
        """
        return self.limit.require()

    def checkpoint(self) -> None:
        """To be called before each statement and right before a commit.

        Raises:
            LeaseEnded: there is no time left: roll back what can be, and leave.
        """
        self.limit.checkpoint()


@dataclass(frozen=True, slots=True)
class Located:
    """What a handler found.

    Attributes:
        found: The records, in any order; `was` tells whether one was suspended already.
        searched: The types of identifiers that were really searched by. Empty: none that this system knows.
        learned: Further identifiers of the same person that this system revealed.
    """

    found: tuple[Found, ...]
    searched: tuple[str, ...]
    learned: tuple[Identifier, ...] = ()


@dataclass(frozen=True, slots=True)
class Accepted:
    """An answer of `act`: the system took the job and goes on by itself; look again after this time.

    Attributes:
        check_after_seconds: At least 1.
        left: Categories that are not done yet, where it is not all of them.
    """

    check_after_seconds: int
    left: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Gone:
    """The record is no longer there. `reason` stands in the record where this is somebody else's word: a code."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NotHeld:
    """Who was asked holds nothing of the person. `reason` as above."""

    reason: str | None = None


@dataclass(frozen=True, slots=True)
class NotSearchable:
    """Who would have to be asked knows none of the identifiers at hand, and was not asked."""


@dataclass(frozen=True, slots=True)
class Anonymised:
    """The record is there and leads to nobody, with nothing in the system that leads it back."""


@dataclass(frozen=True, slots=True)
class Suspended:
    """The record is there and kept out of use."""


@dataclass(frozen=True, slots=True)
class ProvisionStopped:
    """The record is there and is no longer given to third parties."""


@dataclass(frozen=True, slots=True)
class Active:
    """The record is there and in use, as if nothing had been asked."""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The system has taken it on and is not done yet: look again after this time.

    Attributes:
        check_after_seconds: At least 1.
        late: The system's own date for it has passed.
    """

    check_after_seconds: int
    late: bool = False


@dataclass(frozen=True, slots=True)
class Declined:
    """The system says that it will not do it. A person has to look at it, under this code."""

    code: str


@dataclass(frozen=True, slots=True)
class Retained:
    """The record is there because the law asks for it.

    Attributes:
        ground: Of the retention rule.
        until: The last day of the period.
        restricted: It is kept out of any other use. Without that, an erasure has not been carried out.
    """

    ground: str
    until: date
    restricted: bool


State = (
    Gone | NotHeld | NotSearchable | Anonymised | Suspended | ProvisionStopped | Active | UnderWay | Declined | Retained
)


@dataclass(frozen=True, slots=True)
class Verified:
    """What a look after the act showed.

    Attributes:
        states: One for each item of the union, in its order. The worker refuses any other length.
        residue: What the system still holds somewhere that this handler cannot reach.
    """

    states: tuple[State, ...]
    residue: tuple[Residue, ...] = ()


def hurried(tasks: Iterable[Work]) -> Work:
    """The task with the least time: what serves all of them at once has to be done within it."""
    return min(tasks, key=_END)


_END: Final = attrgetter("limit._end")

R = TypeVar("R")
Union = tuple[Found, ...]
Results = list[R | Exception]
"""One for each task of a list, in its order: the result, or the exception of that task alone."""


class Handler(ABC):
    """Base of all handlers. One object serves one system, in several threads."""

    system: ClassVar[str]
    """As the inventory calls it."""
    actions: ClassVar[frozenset[Action]]
    """What this handler can do. What it can't is known when a request is planned."""

    def __init_subclass__(cls, **kwargs: object) -> None:
        super().__init_subclass__(**kwargs)
        system = getattr(cls, "system", None)
        if system is not None and not re.fullmatch(r"[a-z][a-z0-9_]{0,62}", system):
            raise TypeError(f"{cls.__qualname__}.system must be like `call_recordings`: a-z, 0-9 and _")

    @classmethod
    def from_environment(cls) -> Self:
        """Make one from its own settings (`KESHI_<SYSTEM>_…`). The worker calls this once.

        Raises:
            ConfigurationError: one clear line that says what is missing and what to do.
        """
        return cls()

    @property
    def version(self) -> str:
        """Of the code that acts: by default its distribution's. It stands in the closure record."""
        return _distribution_version(type(self).__module__.partition(".")[0])

    @abstractmethod
    def locate(self, task: Work) -> Located:
        """Find the person's records in the categories of the task. Changes nothing."""

    @abstractmethod
    def verify(self, task: Work, union: Union) -> Verified:
        """Look at every item of the union in the system itself. Changes nothing."""

    def act(self, task: Work, union: Union) -> Accepted | None:
        """Carry out the action on every item of the union: by default the method of that name."""
        does = {
            Action.ERASE: self.erase,
            Action.SUSPEND_USE: self.suspend_use,
            Action.RESUME_USE: self.resume_use,
            Action.STOP_PROVISION: self.stop_provision,
        }
        return does[task.action](task, union)

    def erase(self, task: Work, union: Union) -> Accepted | None:
        """Erase what may go, restrict what the law keeps."""
        raise _cannot(task, union)

    def suspend_use(self, task: Work, union: Union) -> Accepted | None:
        """Keep the records out of use, without erasing them."""
        raise _cannot(task, union)

    def resume_use(self, task: Work, union: Union) -> Accepted | None:
        """Lift a suspension of ours. The union holds nothing else."""
        raise _cannot(task, union)

    def stop_provision(self, task: Work, union: Union) -> Accepted | None:
        """Stop giving the records to third parties."""
        raise _cannot(task, union)

    # --- for systems that can do many at once. Override these to be given whole lists.

    def locate_list(self, tasks: Sequence[Work]) -> Results[Located]:
        """`locate` for many tasks; one that fails harms no other."""
        return [_try(partial(self.locate, t)) for t in tasks]

    def act_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Accepted | None]:
        """`act` for many tasks. Each has a limit of its own, which is checked before it is begun."""

        def one(task: Work, union: Union) -> Accepted | None:
            task.limit.require()
            return self.act(task, union)

        return [_try(partial(one, t, u)) for t, u in tasks]

    def verify_list(self, tasks: Sequence[tuple[Work, Union]]) -> Results[Verified]:
        """`verify` for many tasks."""
        return [_try(partial(self.verify, t, u)) for t, u in tasks]

    def ready(self) -> bool:
        """Whether the system can be reached. Asked by the readiness probe: cheap, bounded, never raises."""
        return True

    def close(self) -> None:
        """Let go of connections. Called once, when nothing runs any more."""
        return


def _cannot(*_: object) -> GiveToPerson:
    return GiveToPerson("action_not_possible")


def _try(call: Callable[[], R]) -> R | Exception:
    try:
        return call()
    except Exception as e:  # noqa: BLE001 - the failure of one task is handed on as its result
        return e


@lru_cache
def _distribution_version(package: str) -> str:
    for name in packages_distributions().get(package, [package]):
        try:
            return version(name)
        except PackageNotFoundError:
            continue
    return "0"
