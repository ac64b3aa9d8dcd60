"""The rounds of the bench, one measurement after the other, so that all of them see the same machine."""

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median

from bench.measure import Bench, Measured

PARTS = ("closed64", "closed400", "raw", "latency", "bulk")
"""In the order of a round."""


@dataclass(frozen=True)
class Plan:
    """What is measured.

    Attributes:
        parts: of `PARTS`.
        rounds: how often.
        seconds: of one closed or open loop.
        warmup: seconds before they count.
        number: of requests submitted at once.
        rate: commands a second of the open loop.
        budget: seconds; what does not fit into them after the first round is left out, and that is said.
    """

    parts: tuple[str, ...] = PARTS
    rounds: int = 3
    seconds: float = 12.0
    warmup: float = 3.0
    number: int = 20_000
    rate: float = 20.0
    budget: float = 455.0


@dataclass
class Found:
    """What all rounds gave."""

    measured: dict[str, list[Measured]] = field(default_factory=dict)

    def median(self, part: str, attribute: str = "per_second") -> float | None:
        """Of one figure over the rounds; None for a part that was not measured."""
        values = [getattr(m, attribute) for m in self.measured.get(part, ())]
        return median(values) if values else None

    def cpu_ms(self, part: str) -> dict[str, float]:
        """Medians by process."""
        return _medians([m.cpu_ms for m in self.measured.get(part, ())])

    def messages(self, part: str) -> dict[str, float]:
        """Medians by topic."""
        return _medians([m.messages for m in self.measured.get(part, ())])


def run(bench: Bench, plan: Plan) -> Found:
    """Run all rounds.

    Raises:
        BenchError: something went otherwise than it should: there is no figure then.
    """
    found, began = Found(), time.monotonic()
    lasted: dict[str, float] = {}
    for number in range(1, plan.rounds + 1):
        for part in plan.parts:
            name = f"{part}, round {number} of {plan.rounds}"
            begun = time.monotonic()
            if number > 1 and begun - began + _needed(part, plan.rounds - number, lasted) > plan.budget:
                bench.progress.say(f"{name}: left out, it would take too long")
                continue
            bench.progress.begin(name)
            one = _measure(bench, plan, part)
            found.measured.setdefault(part, []).append(one)
            lasted[part] = time.monotonic() - begun
            bench.progress.say(f"{name}: {one.per_second:.0f}/s, p50 {one.p50_ms:.0f} ms, p95 {one.p95_ms:.0f} ms")
    return found


def _needed(part: str, rounds_left: int, lasted: dict[str, float]) -> float:
    """Seconds that this part needs; a bulk leaves the shorter parts of all further rounds their time."""
    after = sum(seconds for name, seconds in lasted.items() if name != "bulk") * rounds_left if part == "bulk" else 0.0
    return lasted[part] + after


def _measure(bench: Bench, plan: Plan, part: str) -> Measured:
    match part:
        case "closed64":
            return bench.closed_loop(64, plan.seconds, plan.warmup)
        case "closed400":
            return bench.closed_loop(400, plan.seconds, plan.warmup)
        case "raw":
            return bench.raw_limit(400, plan.seconds, plan.warmup)
        case "latency":
            return bench.open_loop(plan.rate, plan.seconds)
        case "bulk":
            return bench.bulk(plan.number)
    raise ValueError(part)


def _medians(each: Iterable[dict[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for one in each:
        for name, value in one.items():
            values.setdefault(name, []).append(value)
    return {name: median(some) for name, some in values.items()}
