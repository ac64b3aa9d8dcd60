"""What is hit, where, and which process: each point in each system, and nothing else."""

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from chaos.kills import parts, plan
from chaos.points import ORCHESTRATOR, POINTS, SERVERS, SYSTEMS, WORKER, Armoury, Point, there
from keshi.dev.programs import INVENTORY
from keshi.orchestrator.inventory import load
from keshi.runtime import failpoints

_AT = "worker.mid_act"
_PROCESS = """
import sys
from pathlib import Path
from keshi.runtime import failpoints
from keshi.runtime.settings import ProcessSettings
failpoints.configure(ProcessSettings(environment="development", failpoints_dir=Path(sys.argv[1])))
print("up", flush=True)
for line in sys.stdin:
    failpoints.hit(sys.argv[2])
    print("passed", flush=True)
"""


def test_every_failpoint_is_hit_and_a_workers_in_each_system_of_the_reference_company() -> None:
    assert {p.failpoint for p in POINTS} - {"kafka", "ledger"} == failpoints.NAMES
    assert set(SYSTEMS) == {s.name for s in load(INVENTORY).systems}
    assert {system: {p.failpoint for p in points} for system, points in WORKER.items()} == {
        system: {name for name in failpoints.NAMES if name.startswith("worker.")} for system in SYSTEMS
    }


@pytest.mark.parametrize("hits", [1, 3])
def test_the_plan_hits_each_point_as_often_as_asked_and_no_system_twice_in_a_round(hits: int) -> None:
    rounds = plan(Random(7), hits, SERVERS)  # noqa: S311 - to be repeated, not to be secret
    for withdraw in (False, True):
        counted = Counter(p for r in rounds if r.withdraw is withdraw for p in r.points)
        assert counted == Counter(dict.fromkeys(POINTS, hits))
    for r in rounds:
        assert max(Counter(p.system for p in r.points).values()) == 1
        assert sum(p in ORCHESTRATOR for p in r.points) <= 1


def test_a_ledger_without_a_server_is_not_killed() -> None:
    assert {p.name for p in POINTS} - {p.name for p in there(POINTS, {"kafka"})} == {"ledger"}


def test_a_system_has_two_workers_so_that_one_goes_on() -> None:
    assert parts("crm") == ["worker-crm", "worker-crm-2"]


@pytest.fixture
def armoury(tmp_path: Path) -> Armoury:
    return Armoury(tmp_path, frozen_seconds=0.2)


def _start(directory: Path) -> "subprocess.Popen[str]":
    argv = (sys.executable, "-c", _PROCESS, str(directory), _AT)
    process = subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


def _pass(process: "subprocess.Popen[str]") -> str:
    """Go by the failpoint once; empty if it died there."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write("\n")
    process.stdin.flush()
    return process.stdout.readline()


def test_a_point_that_is_armed_for_one_process_is_passed_by_all_others(armoury: Armoury) -> None:
    point = Point("worker.mid_act", _AT, system="crm")
    with _start(armoury.directory) as other, _start(armoury.directory) as aimed_at:
        armoury.arm(point, aimed_at.pid)
        assert _pass(other) == "passed\n"
        assert armoury.hit(point) is None
        assert not _pass(aimed_at)
        assert aimed_at.wait(20) == -signal.SIGKILL
        assert armoury.hit(point) == aimed_at.pid
        assert not list(armoury.directory.iterdir()), "it counts once"
        other.kill()


def test_two_systems_may_wait_at_the_same_failpoint_and_the_frozen_one_goes_on(armoury: Armoury) -> None:
    kill, stop = Point("worker.mid_act", _AT, system="crm"), Point("worker.frozen_in_mid_act", _AT, "stop", "billing")
    with _start(armoury.directory) as killed, _start(armoury.directory) as frozen:
        armoury.arm(kill, killed.pid)
        armoury.arm(stop, frozen.pid)
        assert not _pass(killed)
        assert armoury.hit(stop) is None, "that was the other system's"
        assert armoury.hit(kill) == killed.pid
        assert frozen.stdin is not None
        assert frozen.stdout is not None
        frozen.stdin.write("\n")
        frozen.stdin.flush()
        os.waitid(os.P_PID, frozen.pid, os.WSTOPPED | os.WNOWAIT)
        assert armoury.hit(stop) == frozen.pid
        assert frozen.stdout.readline() == "passed\n", "it was woken after its time"
        frozen.kill()


def test_what_is_armed_anew_for_another_process_is_armed_once(armoury: Armoury) -> None:
    point = Point("worker.mid_act", _AT, system="crm")
    armoury.arm(point, 1)
    armoury.arm(point, 2)
    assert [f.name for f in armoury.directory.iterdir()] == [f"{_AT}.2"]
    armoury.disarm(point)
    assert not list(armoury.directory.iterdir())
