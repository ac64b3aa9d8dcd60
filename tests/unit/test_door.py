"""The door of a request: what a go depends on, read anew or as it was read before."""

import pytest

from keshi.orchestrator.door import MAX_REMEMBERED, read_door, write_door
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.requests import TaskStatus
from keshi.schemas.tasks import StopReason


def state(tasks: int) -> State:
    names = ["crm", *(f"system_{n}" for n in range(tasks))]
    return State(request_id="01JX", partition=0, tasks={n: TaskProgress(system=n) for n in names}, withdrawn=True)


@pytest.mark.parametrize("tasks", [0, 200])
def test_a_door_says_the_same_each_time_whether_it_is_remembered_or_not(tasks: int) -> None:
    text = write_door(state(tasks))
    assert (len(text) > MAX_REMEMBERED) == (tasks > 0)
    for _ in range(2):
        door = read_door(text, "crm")
        assert (door.called_off, [*door.tasks]) == (StopReason.WITHDRAWN, ["crm"])
        assert door.tasks["crm"].status is TaskStatus.WAITING
        assert read_door(text, "nobody").tasks == {}


def test_a_door_says_who_no_longer_wants_the_request() -> None:
    withdrawn = state(0)
    superseded = withdrawn.model_copy(update={"withdrawn": False, "superseded_by": "01JY"})
    open_still = withdrawn.model_copy(update={"withdrawn": False})
    said = [read_door(write_door(s), "crm").called_off for s in (withdrawn, superseded, open_still)]
    assert said == [StopReason.WITHDRAWN, StopReason.SUPERSEDED, None]
