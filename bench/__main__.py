"""`python -m bench`: see README.md."""

import argparse
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench import long, report, rounds
from bench.measure import Bench
from bench.people import People
from bench.profiling import Profiler
from bench.progress import BenchError, Progress
from bench.stack import StackOptions, running
from bench.watch import usage
from keshi.dev.errors import DevError
from keshi.runtime.settings import ConfigurationError


def main() -> int:
    """Run the bench; the exit code is 0 only if everything that was asked for was done."""
    args, progress = _arguments(), Progress()
    options = StackOptions(args.workers, args.orchestrators, args.partitions, statements=bool(args.profile))
    try:
        with _bench(options, args, progress) as bench:
            return _long(bench, args) if args.long else _short(bench, args)
    except (BenchError, DevError, ConfigurationError) as error:
        progress.say(f"The bench has failed: {error}")
        return 1


@contextmanager
def _bench(options: StackOptions, args: argparse.Namespace, progress: Progress) -> Iterator[Bench]:
    with running(options, progress.say) as stack:
        people = People(stack.systems_dsn)
        bench = Bench(stack, options, people, progress)
        if not args.profile:
            yield bench
            return
        pids = {name: pid for name, pid in stack.pids.items() if name in stack.ours}
        chosen = {name: pid for name, pid in pids.items() if args.profile == "all" or name.startswith(args.profile)}
        profiler = Profiler(chosen, stack.ledger_dsn, idle=args.idle)
        bench.profile = profiler.recording
        yield bench
        _tell(profiler.show())
        profiler.close()


def _short(bench: Bench, args: argparse.Namespace) -> int:
    plan = rounds.Plan(
        parts=tuple(part for part in rounds.PARTS if part in (args.only or rounds.PARTS)),
        rounds=args.rounds,
        seconds=args.seconds,
        number=args.number or rounds.Plan.number,
    )
    found = rounds.run(bench, plan)
    memory = usage(bench.stack.pids)
    figures = report.summary(found, memory, bench.stack.ours)
    _tell(report.text(found, memory))
    _tell(report.TARGETS)
    if args.json:
        args.json.write_text(json.dumps({**figures, **report.details(found, memory)}, indent=1) + "\n")
    _tell(json.dumps(figures))
    return 0


def _long(bench: Bench, args: argparse.Namespace) -> int:
    told = long.run(bench, args.number or long.NUMBER)
    _tell(told.text())
    if args.json:
        args.json.write_text(json.dumps(told.figures(), indent=1) + "\n")
    _tell(json.dumps(told.figures()))
    return 0


def _tell(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description="How fast keshi is. See bench/README.md.")
    parser.add_argument("--only", action="append", choices=rounds.PARTS, help="measure this alone; may be repeated")
    parser.add_argument("--rounds", type=int, default=rounds.Plan.rounds)
    parser.add_argument("--seconds", type=float, default=rounds.Plan.seconds, help="of each loop")
    parser.add_argument("--number", type=int, help="of requests submitted at once (20,000; with --long 100,000)")
    parser.add_argument("--workers", type=int, default=5, choices=range(1, 6), help="processes for the five systems")
    parser.add_argument("--orchestrators", type=int, default=2, choices=(1, 2, 3, 4))
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--profile", choices=("orchestrator", "api", "worker", "all"))
    parser.add_argument("--idle", action="store_true", help="profile waiting, too")
    parser.add_argument("--json", type=Path, metavar="FILE", help="takes all figures of all rounds")
    parser.add_argument("--long", action="store_true", help="100,000 requests, and memory over time")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
