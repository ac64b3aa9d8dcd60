"""A hundred thousand requests, all submitted at once, and what the processes hold meanwhile."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean
from typing import Any

from bench.measure import Bench
from bench.progress import BenchError
from bench.sender import Sender
from bench.watch import Usage, usage
from bench.wire import Keshi
from keshi.runtime.kafka import LINGER_MS

NUMBER = 100_000
STEPS = 10
"""Rows of the table."""
SETTLED = 2
"""Rows at its beginning that the slope leaves out: caches and pools have filled by then."""
FLAT_MIB = 2.0
"""A process that grows by less than this in a step counts as flat."""


@dataclass(frozen=True)
class Told:
    """What the processes held.

    Attributes:
        step: closures from one row to the next.
        rows: closures so far, seconds so far, and the usage of each part.
        ours: keshi's own processes.
    """

    step: int
    rows: Sequence[tuple[int, float, dict[str, Usage]]]
    ours: Sequence[str]

    def slopes(self) -> dict[str, float]:
        """MiB by which each part grows in a step, by least squares over the settled rows."""
        rows = self.rows[SETTLED:]
        return {name: _slope([usage[name].rss for _, _, usage in rows if name in usage]) for name in self.rows[0][2]}

    def flat(self) -> bool:
        """Whether none of keshi's own processes grows."""
        return all(self.slopes()[name] < FLAT_MIB for name in self.ours)

    def figures(self) -> dict[str, Any]:
        """For programs."""
        closed, seconds, last = self.rows[-1]
        return {
            "closures": closed,
            "closures_per_s": round(closed / seconds, 1),
            "mib_per_step": {name: round(slope, 2) for name, slope in self.slopes().items()},
            "step": self.step,
            "peak_mib": round(sum(last[name].peak for name in self.ours), 1),
            "flat": self.flat(),
        }

    def text(self) -> str:
        """A table: a row for each step, a column for each part."""
        names = list(self.rows[0][2])
        lines = ["MiB held by each process (RSS)", f"{'closed':>8}{'s':>7}" + "".join(f"{n:>14}" for n in names)]
        for closed, seconds, held in self.rows:
            cells = "".join(f"{held[n].rss:14.1f}" if n in held else " " * 14 for n in names)
            lines.append(f"{closed:>8}{seconds:>7.0f}{cells}")
        lines.append(f"{'slope':>15}" + "".join(f"{self.slopes()[n]:14.2f}" for n in names))
        flat = "flat" if self.flat() else "NOT flat"
        lines.append(
            f"keshi's own processes ({', '.join(self.ours)}) are {flat}: the slope is MiB in {self.step} closures"
        )
        return "\n".join(lines)


def run(bench: Bench, number: int) -> Told:
    """Submit so many at once, and look at the memory of all parts each time another tenth is closed."""
    bench.progress.begin(f"making {number} people")
    bench.people.ensure(number)
    step = max(1, number // STEPS)
    rows: list[tuple[int, float, dict[str, Usage]]] = []
    bench.progress.begin(f"{number} requests at once")
    with Sender(bench.stack.kafka, Keshi(), bench.progress, LINGER_MS) as sender:
        began = time.monotonic()
        sender.at_once(iter(bench.people), number)
        while sender.closed < number:
            sender.poll()
            if sender.closed >= (len(rows) + 1) * step:
                rows.append((sender.closed, time.monotonic() - began, usage(bench.stack.pids)))
        sender.drain()
    if wrong := bench.people.wrong():
        raise BenchError(wrong)
    return Told(step, rows, bench.stack.ours)


def _slope(values: Sequence[float]) -> float:
    if len(values) < 2:  # noqa: PLR2004 - one point has no slope
        return 0.0
    x, y = mean(range(len(values))), mean(values)
    return sum((n - x) * (v - y) for n, v in enumerate(values)) / sum((n - x) ** 2 for n in range(len(values)))
