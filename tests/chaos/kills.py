"""`python -m tests.chaos.kills --seed S --hits H`: kill each part at each named point, and look whether all is right.

Real processes get a real SIGKILL at failpoints (or SIGSTOP, past session time-out and lease, then SIGCONT), while
seeded commands come in; the broker and the ledger's database, where it has a server, are killed from outside. Whatever
died is started again. Each point is hit H times so, a worker's in each of the five systems, and H times more with a
withdrawal sent at that moment. What was never killed so is killed from outside. In the end everything has to be closed,
and the oracle, which shares no code with keshi, compares all systems with the closure records.
"""

import argparse
import json
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from keshi.dev.errors import DevError
from keshi.dev.options import POSTGRESQL, SQLITE, UpOptions
from keshi.dev.places import run_directory
from keshi.dev.stack import Stack

from . import oracle, stores
from .crowd import Case, Crowd
from .oracle import Evidence, Judgement, Sent
from .points import ORCHESTRATOR, POINTS, SERVERS, SYSTEMS, WORKER, Armoury, Point, there
from .wire import Listener, Sender, command, held_tasks, passed, read_all, withdrawal

PARTITIONS = 4
BURST = 5
MORE = 2
"""So many people ask after each hit with a withdrawal: who is still to be hit must have something to do."""
MORE_SECONDS = 8.0
AIM_SECONDS = 4.0
"""A worker that does not come by its failpoint within so long has no partition: the other one is aimed at."""
WORKERS = 2
SESSION_SECONDS = 6.0
LEASE_SECONDS = 4.0
FROZEN_SECONDS = SESSION_SECONDS + 3.0
HIT_SECONDS = 60.0
GATE_SECONDS = 60.0
END_SECONDS = 120.0
PEOPLE_A_HIT = 300
PARTNER_MS = 1_200
"""Of what the marketing tool deletes, some is over before its handler stops waiting, and some is asked after."""
ENV = {
    "KESHI_KAFKA_SESSION_TIMEOUT_SECONDS": str(SESSION_SECONDS),
    "KESHI_LEASE_SECONDS": str(LEASE_SECONDS),
    "KESHI_SILENCE_SECONDS": "5",
    "KESHI_RETRY_SCHEDULE": "[1]",
    "KESHI_RECHECK_SECONDS": "1",
    # Each death of a worker is followed by two rebalances, and each may cost a go that was given and not yet used.
    "KESHI_MAX_ACTS": "8",
}


@dataclass(frozen=True)
class Round:
    """Points that are hit while the same commands are under way, each with or without a withdrawal at that moment."""

    points: tuple[Point, ...]
    withdraw: bool


@dataclass
class Run:
    """A run under way."""

    stack: Stack
    random: Random
    crowd: Crowd
    armoury: Armoury
    sender: Sender
    listener: Listener
    sent: dict[str, Sent] = field(default_factory=dict)
    rounds: list[set[str]] = field(default_factory=list)
    names: dict[int, str] = field(default_factory=dict)
    aimed_at: dict[Point, str] = field(default_factory=dict)
    killed: Counter[str] = field(default_factory=Counter)
    """How often each process was, by its name."""
    began: float = field(default_factory=time.monotonic)

    def say(self, line: str) -> None:
        """A line of progress."""
        still = len(self.sent) - len(self.listener.closed & self.sent.keys())
        sys.stdout.write(f"{time.monotonic() - self.began:6.1f} s  {line}  [{still} of {len(self.sent)} open]\n")
        sys.stdout.flush()

    # --- sending

    def burst(self, *, single: bool, people: int = BURST) -> None:
        """Some people ask; the commands of one stay in one partition, and so in order."""
        cases = [self.crowd.single() if single else self.crowd.case() for _ in range(people)]
        events = []
        for case in cases:
            partition = self.random.randrange(PARTITIONS)
            events += [(command(asked), partition) for asked in case.asked]
            again = [(command(a), self.random.randrange(PARTITIONS)) for a in case.asked] * (case.repeats - 1)
            events += again
            self._note(case)
        self.sender.send(events)

    def _note(self, case: Case, *, withdrawn: bool = False, untouched: bool = False) -> None:
        for asked in case.asked:
            self.sent[asked.request_id] = Sent(asked, withdrawn, untouched)
            self.rounds[-1].add(asked.request_id)

    def withdraw(self) -> None:
        """Every second one of this round takes back what they asked."""
        going = [r for r in sorted(self.rounds[-1]) if not self.sent[r].withdrawn]
        ids = self.random.sample(going, (len(going) + 1) // 2)
        for request_id in ids:
            self.sent[request_id] = Sent(self.sent[request_id].asked, withdrawn=True)
        self.sender.send([(withdrawal(r), self.random.randrange(PARTITIONS)) for r in ids])

    def overtaken(self) -> None:
        """A withdrawal right before its command, by another partition: either may be read first."""
        case = self.crowd.single()
        first, second = self.random.sample(range(PARTITIONS), 2)
        asked = case.asked[0]
        self._note(case, withdrawn=True)
        self.sender.send([(withdrawal(asked.request_id), first), (command(asked), second)])

    # --- waiting

    def open(self, among: set[str]) -> set[str]:
        """Which of these have no closure record yet."""
        return among - self.listener.closed

    def wait_closed(self, among: set[str], seconds: float) -> bool:
        """Wait until all of these are closed."""
        until = time.monotonic() + seconds
        while self.open(among):
            if time.monotonic() > until:
                return False
            self.listener.wait(0.5)
        return True

    # --- a round

    def round(self, planned: Round) -> None:
        """Arm, send, and go on until each point was hit."""
        # A task waits for a person when its act was entered too often without a report: nobody is hit so often who is
        # closed before the round after next.
        if len(self.rounds) > 1 and not self.wait_closed(set().union(*self.rounds[:-1]), GATE_SECONDS):
            self.say("older requests are still open after a minute; going on")
        self.rounds.append(set())
        outside = [p for p in planned.points if p.how == "outside"]
        waiting = [p for p in planned.points if p.how != "outside"]
        self._learn_names()
        for point in waiting:
            self._arm(point)
        if planned.withdraw:
            self.overtaken()
        self.burst(single=planned.withdraw)
        for point in outside:
            self._kill_from_outside(point, planned)
        self._wait_for_hits(waiting, planned)

    def _arm(self, point: Point) -> None:
        """At the worker of the system that was killed least, or, if it did not come by, at the other one."""
        if not point.system:
            self.armoury.arm(point)
            return
        pids = self.stack.pids
        running = [name for name in parts(point.system) if name in pids]
        before = self.aimed_at.get(point)
        if running:
            name = min(running, key=lambda name: (name == before, self.killed[name]))
            self.armoury.arm(point, pids[name])
            self.aimed_at[point] = name

    def _kill_from_outside(self, point: Point, planned: Round) -> None:
        time.sleep(self.random.uniform(0, 0.6))  # the moment is the point of it: anywhere in the burst's way
        self._learn_names()
        before = self.stack.pids[point.failpoint]
        self.stack.kill(point.failpoint, signal.SIGKILL)
        self._was_hit(point, planned, before)
        until = time.monotonic() + HIT_SECONDS
        while self.stack.pids.get(point.failpoint, before) == before:
            if time.monotonic() > until:
                raise DevError(f"{point.name} was not started again")
            time.sleep(0.1)

    def _wait_for_hits(self, waiting: list[Point], planned: Round) -> None:
        until = time.monotonic() + HIT_SECONDS
        more, aim = time.monotonic() + MORE_SECONDS, time.monotonic() + AIM_SECONDS
        while waiting and time.monotonic() < until:
            self._learn_names()
            for point in list(waiting):
                if pid := self.armoury.hit(point):
                    waiting.remove(point)
                    self._was_hit(point, planned, pid)
                    if planned.withdraw and waiting:
                        self.burst(single=True, people=MORE)
            if time.monotonic() > aim:
                for point in waiting:
                    self._arm(point)
                aim = time.monotonic() + AIM_SECONDS
            if waiting and time.monotonic() > more:
                self.burst(single=planned.withdraw)
                more = time.monotonic() + MORE_SECONDS
            time.sleep(0.03)
        for point in waiting:
            self.armoury.disarm(point)
            self.say(f"{point.name} {point.system} was not hit within {HIT_SECONDS:.0f} s")

    def _learn_names(self) -> None:
        self.names |= {pid: name for name, pid in self.stack.pids.items()}

    def _was_hit(self, point: Point, planned: Round, pid: int) -> None:
        hits = self.armoury.hits_with_withdrawal if planned.withdraw else self.armoury.hits
        hits[point] += 1
        if planned.withdraw:
            self.withdraw()
        what = "frozen" if point.how == "stop" else "killed"
        who = self.names.get(pid, "process")
        self.killed[who] += what == "killed"
        self.say(f"{point.name}: {who} {what}{', and taken back' if planned.withdraw else ''}")


# --- the run


def plan(random: Random, hits: int, servers: Sequence[Point]) -> list[Round]:
    """Which points are hit together: one of each system's worker, and one of the orchestrator's or the API's."""
    rounds: list[Round] = []
    for withdraw in (False, True) * hits:
        together = zip(*(random.sample(some, len(some)) for some in (*WORKER.values(), ORCHESTRATOR)), strict=True)
        some = [Round(points, withdraw) for points in together] + [Round((p,), withdraw) for p in servers]
        rounds += random.sample(some, len(some))
    return rounds


def parts(system: str) -> list[str]:
    """The names of a system's workers."""
    return [f"worker-{system}", *(f"worker-{system}-{n}" for n in range(2, WORKERS + 1))]


def run(stack: Stack, seed: int, hits: int, armoury: Armoury) -> Judgement:
    """Everything from the first command to the judgement."""
    places = {system: settled.inside for system, settled in stack.settled.items()}
    before = stores.read(places)
    random = Random(seed)  # noqa: S311 - to be repeated, not to be secret
    bootstrap = stack.kafka.bootstrap
    with ExitStack() as cleanup:
        sender = Sender(bootstrap, stack.kafka.topic("commands"))
        cleanup.callback(sender.close)
        listener = Listener(bootstrap, stack.kafka.topic("requests"))
        cleanup.callback(listener.close)
        cleanup.callback(armoury.wake_all)
        going = Run(stack, random, Crowd(stack.sample.people(), random), armoury, sender, listener)
        early = _withdraw_early(going, hits)
        for planned in plan(random, hits, there(SERVERS, stack.pids)):
            going.round(planned)
        _kill_the_rest(going)
        _send_late(going, early)
        going.say("waiting until everything is closed")
        going.wait_closed(set(going.sent), END_SECONDS)
        while armoury.frozen():
            time.sleep(0.1)
        _repeat(going)
        going.say("comparing all systems with the closure records")
        left = going.open(set(going.sent))
        held = frozenset(r for r in left if held_tasks(stack.api_url, stack.api_token, r))
    messages = [m for topic in ("requests", "quarantine") for m in read_all(bootstrap, stack.kafka.topic(topic))]
    after = stores.read(places)
    return oracle.judge(Evidence(before, after, tuple(going.sent.values()), messages, held, stack.sample.today))


def _kill_the_rest(going: Run) -> None:
    """Every process of keshi is killed at least once; which ones come by a failpoint is not ours to say."""
    ours = ["orchestrator", "orchestrator-2", "api", *(name for system in SYSTEMS for name in parts(system))]
    rest = tuple(Point(f"outside.{name}", name, "outside") for name in ours if not going.killed[name])
    if rest:
        going.round(Round(rest, withdraw=False))
    going.say(f"killed: {', '.join(f'{name} {going.killed[name]}' for name in ours)}")


def _withdraw_early(going: Run, hits: int) -> list[tuple[Case, int, int]]:
    """Withdrawals whose commands come at the end."""
    going.rounds.append(set())
    found = []
    for _ in range(2 * hits):
        case = going.crowd.single()
        partition = going.random.randrange(PARTITIONS)
        [offset] = going.sender.send([(withdrawal(case.asked[0].request_id), partition)])
        found.append((case, partition, offset))
    return found


def _send_late(going: Run, early: list[tuple[Case, int, int]]) -> None:
    """The commands that were taken back before they came: by another partition, once that one was read."""
    kafka = going.stack.kafka
    until = time.monotonic() + 60

    def read() -> bool:
        offsets = passed(kafka.bootstrap, f"{kafka.prefix}orchestrator", kafka.topic("commands"))
        return all(offsets.get(partition, 0) > offset for _, partition, offset in early)

    while not read():
        if time.monotonic() > until:
            raise TimeoutError("the first withdrawals were not read within 60 s after all rounds")
        time.sleep(0.5)
    going.rounds.append(set())
    for case, partition, _ in early:
        going._note(case, withdrawn=True, untouched=True)
        going.sender.send([(command(case.asked[0]), (partition + 1) % PARTITIONS)])
    going.say(f"{len(early)} commands sent whose withdrawal was there first")


def _repeat(going: Run) -> None:
    """Commands that were closed come once more: they get the record that exists, and nothing is done again."""
    closed = sorted(going.listener.closed & {r for r, s in going.sent.items() if not s.withdrawn})
    chosen = going.random.sample(closed, min(10, len(closed)))
    wanted = going.listener.closings + len(chosen)
    going.sender.send([(command(going.sent[r].asked), going.random.randrange(PARTITIONS)) for r in chosen])
    until = time.monotonic() + 30
    while going.listener.closings < wanted:
        if time.monotonic() > until:
            raise TimeoutError("commands that were closed before were repeated, and got no answer within 30 s")
        going.listener.wait(0.5)


def _report(judged: Judgement, armoury: Armoury, points: Sequence[Point], given: argparse.Namespace) -> bool:
    out = sys.stdout.write
    out("\nhits, and those with a withdrawal\n")
    for name in dict.fromkeys(p.name for p in points):
        counted = [
            f"{p.system} {armoury.hits[p]}+{armoury.hits_with_withdrawal[p]}".strip() for p in points if p.name == name
        ]
        out(f"  {name:<34} {', '.join(counted)}\n")
    for name, counted_by in (("taken back", judged.taken_back), ("superseded", judged.superseded)):
        how_far = ", ".join(
            f"{n} {how} done" if how != "untouched" else f"{n} untouched" for how, n in counted_by.items()
        )
        out(f"{name}: {how_far or 'none'}\n")
    for note in judged.notes[:50]:
        out(f"WRONG {note}\n")
    out(f"repeat with: {_command(given)}\n")
    how = {"seed": given.seed, "hits": given.hits, "ledger": given.ledger}
    out(json.dumps({**how, **judged.as_json()}) + "\n")
    sys.stdout.flush()
    every = all(c[p] >= given.hits for p in points for c in (armoury.hits, armoury.hits_with_withdrawal))
    return judged.ok and every


def _command(given: argparse.Namespace) -> str:
    return f"make kills SEED={given.seed} HITS={given.hits} LEDGER={given.ledger}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns 0 if everything was right, 1 if not, 2 if it could not be found out."""
    parser = argparse.ArgumentParser(prog="make kills", description=__doc__)
    parser.add_argument("--seed", type=int, default=int(time.time()), help="chooses people, actions and moments")
    parser.add_argument("--hits", type=int, default=1, choices=range(1, 21), metavar="1..20", help="of each point")
    parser.add_argument("--ledger", default=POSTGRESQL, choices=(POSTGRESQL, SQLITE), help="where the ledger is kept")
    given = parser.parse_args(arguments)
    seed, hits = given.seed, given.hits
    directory = run_directory("keshi-kills-")
    armoury = Armoury(directory / "failpoints", FROZEN_SECONDS)
    sys.stdout.write(f"seed {seed}, each point {hits} times; data and logs: {directory}\n")
    options = UpOptions(
        people=PEOPLE_A_HIT * hits,
        partitions=PARTITIONS,
        ledger=given.ledger,
        data=directory,
        failpoints_dir=armoury.directory,
        orchestrators=2,
        workers=WORKERS,
        restarts_a_minute=30,
        slow_ms=20,
        partner_ms=PARTNER_MS,
        env=ENV,
    )
    right = False
    try:
        with Stack(options, _say) as stack:
            points = there(POINTS, stack.pids)
            right = _report(run(stack, seed, hits, armoury), armoury, points, given)
    except (DevError, TimeoutError) as error:
        sys.stdout.write(f"{error}\nrepeat with: {_command(given)}\n")
        return 2
    finally:
        _tidy(directory, right=right)
    return 0 if right else 1


def _say(line: str) -> None:
    if "was ended by SIGKILL" not in line and "| " not in line:
        sys.stdout.write(f"          {line}\n")
        sys.stdout.flush()


def _tidy(directory: Path, *, right: bool) -> None:
    if right:
        shutil.rmtree(directory, ignore_errors=True)
    else:
        sys.stderr.write(f"what ran, with its logs, stays in {directory}\n")


if __name__ == "__main__":
    sys.exit(main())
