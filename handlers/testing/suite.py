"""What every handler has to pass, against its own running system. No step of it is pretended.

```python
class TestNewsletter(HandlerSuite):
    def fresh(self):
        return Newsletter.from_environment()

    def arrange(self, action):          # a new person with records in the system
        person = invent(self.system)
        return Scene(
            task=Work(request_id=new_id(), system="newsletter", action=action, categories=("subscriptions",),
                      identifiers=(Identifier(type="email", value=person.email),), as_of=date.today()),
            located={"subscriptions": 2},
            outcomes={"subscriptions": {Outcome.ERASED: 2}},
        )
```

A method that begins with `test` states one rule. Failures name the rule, and no record and no identifier.
"""

import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar, Final
from uuid import uuid4

from keshi.handlers.contract import (
    Accepted,
    Active,
    Handler,
    Limit,
    Retained,
    State,
    Suspended,
    UnderWay,
    Union,
    Verified,
    Work,
    boot_time,
)
from keshi.handlers.errors import HandlerError, LeaseEnded
from keshi.handlers.testing.crash import act_and_crash
from keshi.handlers.worker.judge import Case, judge
from keshi.handlers.worker.steps import evidence
from keshi.schemas.commands import Action
from keshi.schemas.identifiers import Identifier
from keshi.schemas.outcomes import CategoryOutcome, Outcome
from keshi.schemas.tasks import Found

MAX_CHECKPOINTS: Final = 12
"""The act is killed at each of its first checkpoints, up to this one."""


@dataclass(frozen=True, slots=True)
class Scene:
    """A person in the system, and what is to come of the task.

    Attributes:
        task: One action on this person.
        located: Records by category that are to be found.
        outcomes: By category and outcome; categories without records may be left out.
    """

    task: Work
    located: Mapping[str, int]
    outcomes: Mapping[str, Mapping[Outcome, int]]


class HandlerSuite(ABC):
    """To be inherited by a class whose name begins with `Test`."""

    searchable: ClassVar[bool] = True
    """False where nobody can search before they are asked to act: locate then names whom to ask, whoever the person."""
    patience_seconds: ClassVar[float] = 30
    """So long a system may take that works on by itself."""

    @abstractmethod
    def fresh(self) -> Handler:
        """A new handler over the system, with connections of its own."""

    @abstractmethod
    def arrange(self, action: Action) -> Scene:
        """Put a new person into the system, and say what is to come of this action."""

    def bystanders(self) -> object:
        """All that belongs to others, comparable: it has to be the same before and after. None is not compared."""
        return None

    # --- the rules

    def test_locate_finds_all_of_it_and_changes_nothing(self) -> None:
        """And says by what it searched."""
        for handler, scene in self._scenes():
            first = handler.locate(scene.task)
            _check(_counted(first.found) == dict(scene.located), "locate finds exactly the records that are there")
            _check(bool(first.searched), "locate says by which types of identifiers it searched")
            _check(set(first.searched) <= set(scene.task.types()), "it cannot have searched by types it was not given")
            _check(set(handler.locate(scene.task).found) == set(first.found), "locate changes nothing")
            states = handler.verify(scene.task, first.found).states
            if scene.task.action is not Action.RESUME_USE:
                _check(all(map(_untouched, states)), "what nobody has acted on is active, or kept and not restricted")

    def test_the_full_cycle_ends_with_the_right_outcomes(self) -> None:
        """Locate, act, verify; bystanders are as before."""
        for handler, scene in self._scenes():
            before = self.bystanders()
            union = self._manifest(handler, scene.task)
            self._act(handler, scene.task, union)
            self._expect(handler, scene, union)
            _check(self.bystanders() == before, "nobody else's data changes")

    def test_what_was_done_is_not_found_again(self) -> None:
        """After an erasure only what is kept can be located; after a suspension all is suspended."""
        for handler, scene in self._scenes():
            union = self._manifest(handler, scene.task)
            self._act(handler, scene.task, union)
            again = handler.locate(scene.task).found
            if scene.task.action is Action.ERASE and self.searchable:
                gone = sum(n for by in scene.outcomes.values() for o, n in by.items() if o is Outcome.ERASED)
                _check(len(again) <= len(union) - gone, "what is erased is not located again")
            if scene.task.action is Action.SUSPEND_USE:
                _check(all(f.was == "suspended" for f in again), "what is suspended is located as suspended")

    def test_an_act_may_be_repeated(self) -> None:
        """Over the same union, as after a crash."""
        for handler, scene in self._scenes():
            union = self._manifest(handler, scene.task)
            self._act(handler, scene.task, union)
            self._act(self.fresh(), scene.task, union)
            self._expect(handler, scene, union)

    def test_a_crash_in_the_middle_of_an_act_loses_nothing(self) -> None:
        """Killed at a checkpoint, then located anew, then acted on the union of both manifests."""
        for action in self._actions():
            for checkpoint in range(1, MAX_CHECKPOINTS + 1):
                handler, scene = self._scene(action)
                first = self._manifest(handler, scene.task)
                killed = act_and_crash(self.fresh, scene.task, first, checkpoint)
                _check(killed or checkpoint > 1, "an act meets a checkpoint before it changes anything for good")
                union = _unite(first, self._manifest(handler, scene.task))
                self._act(handler, scene.task, union)
                self._expect(handler, scene, union)
                handler.close()
                if not killed:
                    break

    def test_an_act_reaches_what_is_no_longer_found(self) -> None:
        """What led to a record may be gone: who acts on what it locates now, and not on the union, leaves it behind."""
        for handler, scene in self._scenes():
            if self.searchable:
                union = self._manifest(handler, scene.task)
                strangers = tuple(_stranger(i) for i in scene.task.identifiers)
                self._act(handler, replace(scene.task, identifiers=strangers), union)
                self._expect(handler, scene, union)

    def test_an_act_whose_time_is_over_changes_nothing(self) -> None:
        """A lease that has ended stops the act before its first statement."""
        for handler, scene in self._scenes():
            union = self._manifest(handler, scene.task)
            before = handler.verify(scene.task, union).states
            over = Limit(60)
            over.end_now()
            try:
                handler.act(replace(scene.task, limit=over), union)
                stopped = False
            except LeaseEnded:
                stopped = True
            _check(stopped, "an act whose time is over raises LeaseEnded (call time_left or checkpoint first)")
            _check(handler.verify(scene.task, union).states == before, "an act whose time is over changes nothing")

    def test_verify_says_the_state_of_each_item_in_the_order_given(self) -> None:
        """Also in another order, and for records that do not exist."""
        for handler, scene in self._scenes():
            union = self._manifest(handler, scene.task)
            self._act(handler, scene.task, union)
            forwards = handler.verify(scene.task, union).states
            backwards = handler.verify(scene.task, union[::-1]).states
            _check(len(forwards) == len(union), "verify says one state for each item")
            _check(forwards == backwards[::-1], "verify keeps the order of the union")

    def test_nobody_is_found_as_nobody(self) -> None:
        """Identifiers that this system knows, of somebody who is not in it."""
        for handler, scene in self._scenes():
            strangers = tuple(_stranger(i) for i in scene.task.identifiers)
            located = handler.locate(replace(scene.task, identifiers=strangers))
            _check(not (located.found and self.searchable), "nothing is located for somebody who is not there")
            _check(bool(located.searched), "a search without a result is still a search")

    def test_lists_say_the_same_as_single_tasks(self) -> None:
        """Whether or not the handler has list forms of its own."""
        for handler, scene in self._scenes():
            other = self.arrange(scene.task.action)
            tasks = (scene.task, other.task)
            located = handler.locate_list(tasks)
            _check(len(located) == len(tasks), "a list gives one result for each task")
            singles = [handler.locate(t) for t in tasks]
            for many, single in zip(located, singles, strict=True):
                same = not isinstance(many, Exception) and set(many.found) == set(single.found)
                _check(same, "locate_list finds what locate finds")
            pairs = [(t, s.found) for t, s in zip(tasks, singles, strict=True)]
            _check(not any(isinstance(r, Exception) for r in handler.act_list(pairs)), "act_list acts")
            for task, union in pairs:
                self._wait(handler, task, union)
            for result, (task, union) in zip(handler.verify_list(pairs), pairs, strict=True):
                same = isinstance(result, Verified) and result.states == handler.verify(task, union).states
                _check(same, "verify_list sees what verify sees")

    # --- how

    def _actions(self) -> tuple[Action, ...]:
        handler = self.fresh()
        handler.close()
        return tuple(a for a in Action if a in handler.actions)

    def _scenes(self) -> Iterable[tuple[Handler, Scene]]:
        for action in self._actions():
            handler, scene = self._scene(action)
            yield handler, scene
            handler.close()

    def _scene(self, action: Action) -> tuple[Handler, Scene]:
        """For `resume_use` a person whose records have just been suspended by an earlier request."""
        handler, scene = self.fresh(), self.arrange(action)
        if action is Action.RESUME_USE:
            suspend = replace(scene.task, action=Action.SUSPEND_USE, request_id=str(uuid4()))
            union = self._manifest(handler, suspend)
            self._act(handler, suspend, union)
            states = handler.verify(suspend, union).states
            _check(all(isinstance(s, Suspended) for s in states), "suspend_use suspends")
            scene = replace(scene, task=replace(scene.task, remembered=union))
        return handler, scene

    def _manifest(self, handler: Handler, task: Work) -> Union:
        """As the worker would hand it in."""
        return _unite(evidence(task, handler.locate(task), "0" * 32).manifest)

    def _act(self, handler: Handler, task: Work, union: Union) -> None:
        answer = handler.act(replace(task, limit=Limit(60)), union)
        _check(answer is None or isinstance(answer, Accepted), "act answers nothing, or Accepted")
        if answer:
            self._wait(handler, task, union)

    def _wait(self, handler: Handler, task: Work, union: Union) -> None:
        """While the system works on by itself."""
        end = boot_time() + self.patience_seconds
        while any(isinstance(s, UnderWay) for s in handler.verify(task, union).states):
            _check(boot_time() < end, f"the system is done within {self.patience_seconds:.0f} s (patience_seconds)")
            time.sleep(0.05)

    def _expect(self, handler: Handler, scene: Scene, union: Union) -> None:
        task = scene.task
        states = handler.verify(task, union).states
        try:
            outcomes = judge(Case(task.action, task.mode, task.categories, task.types(), union, states))
        except HandlerError as e:
            raise AssertionError(
                f"{task.action} acts on every record of the union: its check ended with {e.code}"
            ) from None
        wanted = {(c, o): n for c, by in scene.outcomes.items() for o, n in by.items() if n}
        _check(_by_outcome(outcomes) == wanted, f"{task.action} ends with the outcomes that the scene names")


def _check(holds: bool, rule: str) -> None:  # noqa: FBT001 - it reads as an assertion
    __tracebackhide__ = True
    if not holds:
        raise AssertionError(rule)


def _untouched(state: State) -> bool:
    return isinstance(state, Active) or (isinstance(state, Retained) and not state.restricted)


def _counted(found: Iterable[Found]) -> dict[str, int]:
    return dict(Counter(f.category for f in found))


def _by_outcome(outcomes: Iterable[CategoryOutcome]) -> dict[tuple[str, Outcome], int]:
    counted: Counter[tuple[str, Outcome]] = Counter()
    for outcome in outcomes:
        counted[outcome.category, outcome.outcome] += outcome.count
    return {key: n for key, n in counted.items() if n}


def _unite(*manifests: Iterable[Found]) -> Union:
    """The union in its canonical order; of two that name one record, the earlier counts."""
    found: dict[tuple[str, str], Found] = {}
    for manifest in manifests:
        for item in manifest:
            found.setdefault((item.category, item.ref), item)
    return tuple(found[key] for key in sorted(found))


def _stranger(identifier: Identifier) -> Identifier:
    values = {"email": f"{uuid4().hex}@nobody.example", "phone": "+81312345678"}
    return Identifier(type=identifier.type, value=values.get(identifier.type, f"nobody-{uuid4().hex[:12]}"))
