"""`python -m bench`: see README.md."""

import argparse
import sys
import threading
from pathlib import Path

from bench.measure import Bench
from bench.people import People
from bench.profiling import Profiler
from bench.progress import Progress
from bench.stack import ROOT, StackOptions, running


def main() -> int:
    args = _arguments()
    progress = Progress()
    with running(StackOptions(workers=args.workers, partitions=args.partitions), progress.say) as stack:
        people = People(stack.systems_dsn)
        bench = Bench(stack, people, progress, lambda: stack.pids)
        progress.begin("closed400")
        profiler = Profiler(ROOT / ".cache" / "profile") if args.profile else None
        if profiler:
            found = bench.closed_loop(400, args.seconds, 5, lambda s: profiler.start({n: p for n, p in stack.pids.items() if n in stack.ours}, s - 1))
        else:
            found = bench.closed_loop(400, args.seconds, 5)
        print(found)
        from keshi.runtime.kafka import new_consumer
        from kafka import TopicPartition
        c = new_consumer(stack.kafka, None)
        from bench.stack import SYSTEMS
        n = people.used
        for t in ("commands", "reports", "requests", *(f"tasks.{s}" for s in SYSTEMS)):
            tps = [TopicPartition(stack.kafka.topic(t), i) for i in range(args.partitions)]
            print(t, sum(c.end_offsets(tps).values()) / n)
        if profiler:
            print(profiler.show())
    return 0


def _arguments():
    parser = argparse.ArgumentParser()
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--partitions", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--profile", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
