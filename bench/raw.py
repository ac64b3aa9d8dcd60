"""The raw limit: as many messages as a closure has, by the same clients and broker, and nothing else done.

A closure is 18 messages of 600 bytes: 1 command, 2 answers, 5 tasks, 10 reports. The processes are those of keshi that
speak Kafka: who sends and listens, and as many in the places of orchestrators and workers as there are. Those in the
orchestrators' place share the partitions. `python -m bench.raw hub N OF|worker TOPIC…` is one of them. Offsets are not
committed, nothing is stored.
"""

import json
import os
import signal
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from bench.progress import BenchError
from bench.stack import SYSTEMS, Stack, StackOptions, keshi_environment, shares
from keshi.dev.processes import Part, PartSpec
from keshi.runtime import topics
from keshi.runtime.kafka import new_consumer, new_producer
from keshi.runtime.settings import KafkaSettings, load

PREFIX: Final = "raw."
BYTES: Final = 600
MESSAGES: Final = 18
_REPORTS = 2 * len(SYSTEMS)
_ID = 26
_READY_SECONDS = 30.0
_RECORDS = 5_000


class Raw:
    """Messages of 600 bytes: one letter for what it is, a number for the request, and filling."""

    def ask(self, person: int) -> tuple[str, bytes]:
        """See `Wire.ask`."""
        request_id = f"{person:0{_ID}}"
        return request_id, message("C", request_id)

    def closed(self, raw: bytes) -> str | None:
        """See `Wire.closed`."""
        return _request(raw) if raw[:1] == b"Z" else None


def message(kind: str, request_id: str) -> bytes:
    """One message."""
    return f"{kind}{request_id}".ljust(BYTES, ".").encode()


def _request(raw: bytes) -> str:
    return raw[1 : 1 + _ID].decode()


@contextmanager
def running(stack: Stack, deployed: StackOptions) -> Iterator[tuple[KafkaSettings, dict[str, int]]]:
    """Run the hubs and the workers, with topics of their own, as many partitions as keshi's. Yields their pids, too."""
    kafka = load(KafkaSettings, bootstrap=stack.kafka.bootstrap, prefix=PREFIX)
    options = topics.TopicOptions(partitions=deployed.partitions, commands_partitions=deployed.partitions)
    topics.apply(kafka, topics.wanted(kafka, SYSTEMS, options), options)
    hubs = range(deployed.orchestrators)
    parts = [_part(stack, f"raw-hub-{n + 1}", ("hub", str(n), str(deployed.orchestrators))) for n in hubs]
    parts += [_part(stack, f"raw-{name}", ("worker", *systems)) for name, systems in shares(deployed.workers)]
    try:
        for part in parts:
            part.spec.log.unlink(missing_ok=True)
            part.start()
        for part in parts:
            part.wait_ready(lambda log=part.spec.log: _says_ready(log), _READY_SECONDS)  # type: ignore[misc] # mypy cannot see a lambda's defaults
        yield kafka, {part.spec.name: part.pid for part in parts}
        for part in parts:
            if not part.running():
                raise BenchError(part.obituary())
    finally:
        for part in parts:
            part.stop()


def _part(stack: Stack, name: str, arguments: Sequence[str]) -> Part:
    argv = (sys.executable, "-P", "-m", "bench.raw", *arguments)
    env = keshi_environment(stack.kafka.bootstrap, PREFIX)
    return Part(PartSpec(name=name, argv=argv, log=stack.logs / f"{name}.log", env=env))


def _says_ready(log: Path) -> bool:
    return log.exists() and "ready" in log.read_text(encoding="utf-8", errors="replace")


# --- the processes


class _Station:
    """Reads topics from their end, and sends on what each message causes.

    Args:
        names: Of the topics.
        answer: From the first letter, the request and its partition to what is sent: topic, message, partition.
        share: Which of the partitions: every so manieth, from the one of this number.
    """

    def __init__(
        self,
        names: Sequence[str],
        answer: Callable[[str, str, int], list[tuple[str, bytes, int | None]]],
        share: tuple[int, int] = (0, 1),
    ) -> None:
        first, step = share
        settings = load(KafkaSettings)
        self._prefix = settings.prefix
        self._answer = answer
        self._producer: KafkaProducer = new_producer(settings, "keshi-raw")
        self._consumer: KafkaConsumer = new_consumer(settings, None, max_poll_records=_RECORDS)
        places = [
            TopicPartition(settings.topic(name), p)
            for name in names
            for p in self._consumer.partitions_for_topic(settings.topic(name)) or ()
            if p % step == first
        ]
        self._consumer.assign(places)
        self._consumer.seek_to_end(*places)
        for place in places:
            self._consumer.position(place)
        self._stop = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: self._stop.set())

    def run(self) -> None:
        """Until SIGTERM.

        Raises:
            BenchError: a message did not arrive.
        """
        futures = []
        while not self._stop.is_set():
            for place, batch in self._consumer.poll(timeout_ms=100).items():
                for got in batch:
                    sends = self._answer(chr(got.value[0]), _request(got.value), place.partition)
                    for topic, value, partition in sends:
                        key = _request(value).encode() if partition is None else None
                        futures.append(
                            self._producer.send(self._prefix + topic, value=value, key=key, partition=partition)
                        )
            if any(f.is_done and not f.succeeded() for f in futures):
                raise BenchError("a message did not arrive")
            futures = [f for f in futures if not f.is_done]


def _hub(share: tuple[int, int]) -> _Station:
    reported: Counter[str] = Counter()

    def answer(kind: str, request_id: str, partition: int) -> list[tuple[str, bytes, int | None]]:
        if kind == "C":
            tasks = [(f"tasks.{system}", message("T", request_id), partition) for system in SYSTEMS]
            return [("requests", message("A", request_id), None), *tasks]
        reported[request_id] += 1
        if reported[request_id] < _REPORTS:
            return []
        del reported[request_id]
        return [("requests", message("Z", request_id), None)]

    return _Station(("commands", "reports"), answer, share)


def _worker(systems: Sequence[str]) -> _Station:
    def answer(_: str, request_id: str, partition: int) -> list[tuple[str, bytes, int | None]]:
        return [("reports", message("R", request_id), partition)] * (_REPORTS // len(SYSTEMS))

    return _Station([f"tasks.{system}" for system in systems], answer)


def _main() -> None:
    place, *which = sys.argv[1:]
    station = _hub((int(which[0]), int(which[1]))) if place == "hub" else _worker(which)
    sys.stdout.write(json.dumps({"event": "ready", "pid": os.getpid()}) + "\n")
    sys.stdout.flush()
    station.run()


if __name__ == "__main__":
    _main()
