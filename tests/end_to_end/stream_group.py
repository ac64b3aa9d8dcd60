"""Starts hosts as processes of their own and reads the books that their engines keep."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from kafka import KafkaAdminClient, KafkaProducer

from end_to_end.stream_process import connect

STAGES = ("commands", "reports")
SESSION_SECONDS = 6.0


def wait_for(what: str, seconds: float, condition: Callable[[], Any]) -> Any:
    """Wait until a condition is true and return what it said; fail by name when the time is over."""
    deadline = time.monotonic() + seconds
    while not (said := condition()):
        assert time.monotonic() < deadline, f"{what}: not within {seconds} s"
        time.sleep(0.05)
    return said


@dataclass
class Member:
    """One host process."""

    process: subprocess.Popen[str]
    health_port: int

    @property
    def pid(self) -> int:
        return self.process.pid

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    def ends(self, seconds: float) -> int:
        return self.process.wait(seconds)

    def answer(self, path: str) -> int:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.health_port}{path}", timeout=5) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code


@dataclass
class Group:
    """A consumer group of hosts over two topics of its own."""

    bootstrap: str
    prefix: str
    directory: Path
    partitions: dict[str, int] = field(default_factory=lambda: {"commands": 3, "reports": 4})
    options: dict[str, Any] = field(default_factory=dict)
    members: list[Member] = field(default_factory=list)
    sent: dict[str, int] = field(default_factory=lambda: dict.fromkeys(STAGES, 0))

    def __post_init__(self) -> None:
        self.books = self.directory / "books.sqlite"
        self.db = connect(self.books)
        self.make_topics()
        self._producer = KafkaProducer(bootstrap_servers=self.bootstrap, acks="all", linger_ms=2)

    def make_topics(self) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.create_topics(
            {
                self.prefix + stage: {"num_partitions": self.partitions[stage], "replication_factor": 1}
                for stage in STAGES
            }
        )
        admin.close()

    def delete_topics(self) -> None:
        admin = KafkaAdminClient(bootstrap_servers=self.bootstrap)
        admin.delete_topics([self.prefix + stage for stage in STAGES])
        admin.close()

    def start(self, **more: Any) -> Member:
        options = {
            "bootstrap": self.bootstrap,
            "prefix": self.prefix,
            "books": str(self.books),
            "session": SESSION_SECONDS,
            **self.options,
            **more,
        }
        with (self.directory / "members.log").open("a") as log:
            process = subprocess.Popen(
                [sys.executable, str(Path(__file__).with_name("stream_process.py")), json.dumps(options)],
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )
        assert process.stdout is not None
        member = Member(process, json.loads(process.stdout.readline())["health"])
        self.members.append(member)
        return member

    def send(self, stage: str, count: int) -> None:
        """Send, and wait until the broker has it all."""
        topic = self.prefix + stage
        futures = []
        for _ in range(count):
            number = self.sent[stage]
            futures.append(self._producer.send(topic, b"secret-%d" % number, partition=number % self.partitions[stage]))
            self.sent[stage] = number + 1
        self._producer.flush()
        for future in futures:
            future.get(timeout=10)

    def owners(self) -> dict[tuple[str, int], int]:
        """Lane to the process that took it last."""
        return {(stage, part): pid for stage, part, pid in self.db.execute("SELECT stage, part, pid FROM lane")}

    def all_owned_by(self, *members: Member) -> bool:
        """Every lane belongs to one of these, and each of them has some."""
        owners = self.owners()
        return len(owners) == sum(self.partitions.values()) and set(owners.values()) == {m.pid for m in members}

    def done(self) -> int:
        return int(self.db.execute("SELECT count(*) FROM done").fetchone()[0])

    def all_done(self) -> bool:
        return self.done() == sum(self.sent.values())

    def check_once_and_in_order(self) -> None:
        """No hole, and each offset after the one before it: a second one would have broken a primary key."""
        found = self.db.execute("SELECT stage, part, at, value FROM done ORDER BY rowid").fetchall()
        following: dict[tuple[str, int], int] = {}
        for stage, part, at, value in found:
            assert at == following.get((stage, part), 0), f"{stage}/{part}"
            following[stage, part] = at + 1
            assert value == b"secret-%d" % (at * self.partitions[stage] + part)
        assert len(found) == sum(self.sent.values())

    def end(self) -> None:
        """End what still runs, by pid."""
        for member in self.members:
            if member.process.poll() is None:
                member.signal(signal.SIGKILL)
            member.process.wait(10)
            if member.process.stdout is not None:
                member.process.stdout.close()
        self._producer.close()
        self.db.close()


class Load:
    """Sends to both topics in the background until told to stop."""

    def __init__(self, group: Group, per_second: int) -> None:
        self._group = group
        self._pause = 20 / per_second
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        while not self._stop.wait(self._pause):
            for stage in STAGES:
                self._group.send(stage, 10)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
