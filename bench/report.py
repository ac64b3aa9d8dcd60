"""The figures, for people and as the one JSON object at the end."""

from collections.abc import Mapping, Sequence
from typing import Any

from bench.measure import SENDER
from bench.rounds import Found
from bench.watch import Usage

TARGETS = "targets: ratio >= 0.5, bulk not slower than at 400 in flight, p50 <= 80 ms"


def summary(found: Found, memory: Mapping[str, Usage], ours: Sequence[str]) -> dict[str, float | None]:
    """The figures of the last line. What was not measured is null.

    `cpu_ms_per_closure` is that of all parts at 400 in flight (of the bulk, where only that was measured), without
    the bench's own; `peak_mib` is that of keshi's own processes together.
    """
    closures, limit, bulk = found.median("closed400"), found.median("raw"), found.median("bulk")
    cpu = found.cpu_ms("closed400") or found.cpu_ms("bulk")
    return {
        "closures_per_s": _rounded(closures),
        "raw_per_s": _rounded(limit),
        "ratio": _rounded(closures / limit if closures and limit else None, 2),
        "bulk_closures_per_s": _rounded(bulk),
        "p50_ms": _rounded(found.median("latency", "p50_ms")),
        "p95_ms": _rounded(found.median("latency", "p95_ms")),
        "cpu_ms_per_closure": _rounded(sum(ms for name, ms in cpu.items() if name != SENDER) if cpu else None, 2),
        "peak_mib": _rounded(sum(memory[name].peak for name in ours if name in memory)),
    }


def details(found: Found, memory: Mapping[str, Usage]) -> dict[str, Any]:
    """All figures of all rounds, for `--json FILE`."""
    return {
        "measured": {
            part: [
                {
                    "per_second": round(m.per_second, 1),
                    "p50_ms": round(m.p50_ms, 1),
                    "p95_ms": round(m.p95_ms, 1),
                    "closed": m.closed,
                    "cpu_ms": {name: round(ms, 3) for name, ms in m.cpu_ms.items()},
                    "messages": {topic: round(n, 3) for topic, n in m.messages.items()},
                }
                for m in some
            ]
            for part, some in found.measured.items()
        },
        "memory_mib": {name: {"peak": round(u.peak, 1), "now": round(u.rss, 1)} for name, u in memory.items()},
    }


def text(found: Found, memory: Mapping[str, Usage]) -> str:
    """Tables of medians."""
    lines = [f"{'':<12}{'per s':>8}{'p50 ms':>9}{'p95 ms':>9}   rounds"]
    for part, some in found.measured.items():
        p50, p95 = found.median(part, "p50_ms"), found.median(part, "p95_ms")
        rounds = ", ".join(f"{m.per_second:.0f}" for m in some)
        lines.append(f"{part:<12}{found.median(part):>8.0f}{p50:>9.0f}{p95:>9.0f}   {rounds}")
    parts = [*found.measured]
    lines += ["", f"{'':<14}{'peak MiB':>9}" + "".join(f"{part:>11}" for part in parts) + "   CPU ms a closure"]
    of_raw = [name for name in found.cpu_ms("raw") if name not in memory and name != SENDER]
    for name in (*memory, *of_raw, SENDER):
        peak = f"{memory[name].peak:9.0f}" if name in memory else " " * 9
        lines.append(f"{name:<14}{peak}" + "".join(f"{found.cpu_ms(p).get(name, 0):11.2f}" for p in parts))
    all_of_it = "".join(f"{sum(found.cpu_ms(p).values()):11.2f}" for p in parts)
    lines.append(f"{'all':<23}{all_of_it}")
    for part in parts:
        messages = ", ".join(f"{n:.3f} {topic}" for topic, n in found.messages(part).items())
        lines.append(f"messages a closure, {part}: {messages}")
    return "\n".join(lines)


def _rounded(value: float | None, digits: int = 1) -> float | None:
    return None if value is None else round(value, digits)
