"""The Java example, compiled and run with Kafka's own client: what it sends is read, and it hears the answer."""

import os
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from keshi.client import EraseSubject, KafkaSettings, Submitted
from keshi.dev.errors import MissingError
from keshi.dev.fetch import java, kafka_jars
from keshi.schemas.admissible import check
from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import MAX_COMMAND_BYTES
from keshi.schemas.reading import read
from kit.answering import Keshi, answer, make_topics, rejection

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "java" / "EraseAndWait.java"


@pytest.fixture(scope="module")
def classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled without a warning."""
    compiler = shutil.which("javac")
    if compiler is None:
        raise MissingError("javac is not on PATH: install a JDK (Debian: apt-get install openjdk-17-jdk-headless)")
    target = tmp_path_factory.mktemp("classes")
    options = ["--release", "17", "-Xlint:all,-classfile", "-Werror", "-cp", f"{kafka_jars()}/*", "-d", str(target)]
    done = subprocess.run([compiler, *options, SOURCE], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return target


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str) -> KafkaSettings:
    return make_topics(kafka_bootstrap)


@pytest.fixture(scope="module")
def keshi(kafka: KafkaSettings) -> Iterator[Keshi]:
    made = Keshi(kafka)
    yield made
    made.close()


@pytest.mark.parametrize(
    ("mode", "outcome", "code", "said"),
    [
        ("structured", "closed", 0, r"closed: \w+"),
        ("binary", "rejected", 3, "rejected: ground_unknown at data.ground"),
    ],
)
def test_it_sends_a_command_and_hears_what_became_of_it(
    mode: str, outcome: str, code: int, said: str, classes: Path, kafka: KafkaSettings, keshi: Keshi
) -> None:
    heard: list[tuple[EraseSubject, bool]] = []

    def answering() -> None:
        (record,) = keshi.records(1)
        _, command = read(record.value, COMMANDS, limit=MAX_COMMAND_BYTES, headers=record.headers)
        assert isinstance(command, EraseSubject)
        check(command)
        assert record.key == command.request_id.encode()
        heard.append((command, any(name.startswith("ce_") for name, _ in record.headers)))
        name, place = command.request_id, Submitted(record.partition, record.offset)
        other = rejection(name, Submitted(place.partition, place.offset + 10**6))
        last = answer("RequestClosed", name, 2) if outcome == "closed" else rejection(name, place)
        keshi.say(answer("RequestAccepted", "01KN33YH80E7QZ3V5W9T2B4M6A"), other, answer("RequestAccepted", name), last)

    thread = threading.Thread(target=answering)
    thread.start()
    path = f"{classes}:{kafka_jars()}/*"
    options = ["-Dorg.slf4j.simpleLogger.defaultLogLevel=warn", "-XX:TieredStopAtLevel=1"]
    done = subprocess.run(
        [java(), *options, "-cp", path, "EraseAndWait", kafka.bootstrap, "customer_id", "C-000001", mode],
        env=os.environ | {"KESHI_KAFKA_PREFIX": kafka.prefix},
        capture_output=True,
        text=True,
        timeout=90,
        check=False,
    )
    thread.join(10)
    ((command, in_headers),) = heard
    assert (done.returncode, in_headers) == (code, mode == "binary"), done.stderr
    assert re.fullmatch(rf"{command.request_id}\n{said}\n", done.stdout)
    assert [(i.type, i.value) for i in command.identifiers] == [("customer_id", "C-000001")]
