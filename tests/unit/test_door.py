"""The door of a request: what a go depends on, read anew or as it was read before."""

import pytest

from keshi.orchestrator.door import MAX_REMEMBERED, read_door, write_door
from keshi.orchestrator.request import State, TaskProgress
from keshi.schemas.requests import TaskStatus


def state(tasks: int) -> State:
    names = ["crm", *(f"system_{n}" for n in range(tasks))]
    return State(request_id="01JX", partition=0, tasks={n: TaskProgress(system=n) for n in names}, withdrawn=True)


@pytest.mark.parametrize("tasks", [0, 200])
def test_a_door_says_the_same_each_time_whether_it_is_remembered_or_not(tasks: int) -> None:
    text = write_door(state(tasks))
    assert (len(text) > MAX_REMEMBERED) == (tasks > 0)
    for _ in range(2):
        door = read_door(text, "crm")
        assert (door.withdrawn, [*door.tasks]) == (True, ["crm"])
        assert door.tasks["crm"].status is TaskStatus.WAITING
        assert read_door(text, "nobody").tasks == {}
