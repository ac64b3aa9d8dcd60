"""`keshi submit --file` as a process on a real broker, killed and called again; the test answers in keshi's place."""

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from keshi.client import KafkaSettings, WithdrawRequest
from keshi.client.messages import event_of
from kit.answering import Keshi, answer, command, make_topics, rejection

PROGRAM = [sys.executable, "-m", "keshi.cli", "submit", "--file"]
MARK = "hanako-7391"


@pytest.fixture(scope="module")
def kafka(kafka_bootstrap: str) -> KafkaSettings:
    return make_topics(kafka_bootstrap)


@pytest.fixture(scope="module")
def running(kafka: KafkaSettings) -> Iterator[Keshi]:
    made = Keshi(kafka)
    yield made
    made.close()


@pytest.fixture
def keshi(running: Keshi) -> Keshi:
    running.from_now()
    return running


@pytest.fixture
def env(kafka: KafkaSettings) -> dict[str, str]:
    own = {n: v for n, v in os.environ.items() if not n.startswith("KESHI_")}
    return own | {"KESHI_KAFKA_BOOTSTRAP": kafka.bootstrap, "KESHI_KAFKA_PREFIX": kafka.prefix}


def write(path: Path, commands: list[Any]) -> list[str]:
    """A file of these commands; their requests."""
    path.write_bytes(b"\n".join(event_of(c, source="urn:example:dsar") for c in commands) + b"\n")
    return [c.request_id for c in commands]


def people(number: int) -> list[Any]:
    return [command(identifiers=[{"type": "email", "value": f"{MARK}@customer.example"}]) for _ in range(number)]


@pytest.fixture
def submit(env: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., subprocess.Popen[str]]]:
    with ExitStack() as processes:

        def call(*arguments: str) -> subprocess.Popen[str]:
            pipe = subprocess.PIPE
            process = subprocess.Popen(
                [*PROGRAM, *arguments], env=env, cwd=tmp_path, stdout=pipe, stderr=pipe, text=True
            )
            processes.enter_context(process)
            processes.callback(process.kill)
            return process

        yield call


def ended(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=60)
    assert MARK not in out + err
    return process.returncode, out, err


def test_killed_in_the_middle_it_sends_only_what_was_not_accepted(submit: Any, keshi: Keshi, tmp_path: Path) -> None:
    """The second run sends what nobody took, and the third nothing."""
    names = write(tmp_path / "r.jsonl", people(10))
    first = submit("r.jsonl")
    assert [r for r, _, _ in keshi.commands(10)]
    keshi.say(*(answer("RequestAccepted", n) for n in names[:4]))
    state = tmp_path / "r.jsonl.state"
    until(lambda: state.exists() and state.read_text().count("\n") == 1 + 4)
    first.send_signal(signal.SIGKILL)
    assert first.wait(30) == -signal.SIGKILL
    first.communicate()

    second = submit("r.jsonl")
    again = keshi.commands(6)
    assert sorted(r for r, _, _ in again) == sorted(names[4:])
    keshi.say(*(answer("RequestAccepted", n) for n in names[4:]))
    code, out, _ = ended(second)
    assert (code, out) == (0, "10 lines, 4 done before, 6 accepted\n")
    assert MARK not in state.read_text()

    code, out, _ = ended(submit("r.jsonl", "--json"))
    assert (code, json.loads(out)["done_before"]) == (0, 10)
    assert not keshi.waiting()


def until(what: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not what():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_what_is_bad_or_rejected_stands_in_a_file_and_can_be_mended(submit: Any, keshi: Keshi, tmp_path: Path) -> None:
    """The rest goes on. When the lines are mended, only they are sent."""
    good = people(4)
    names = write(tmp_path / "r.jsonl", good)
    whole = (tmp_path / "r.jsonl").read_bytes()
    (tmp_path / "r.jsonl").write_bytes(whole + MARK.encode() + b"\n")
    process = submit("r.jsonl", "--keep-going")
    places = {r: at for r, _, at in keshi.commands(4)}
    keshi.say(*(answer("RequestAccepted", n) for n in names[:3]), rejection(names[3], places[names[3]]))
    code, out, err = ended(process)
    assert (code, out) == (3, "5 lines, 1 bad, 3 accepted, 1 rejected\n")
    assert "r.jsonl.rejects" in err
    told = [json.loads(line) for line in (tmp_path / "r.jsonl.rejects").read_text().splitlines()]
    assert [(t["line"], t["code"], t["found_by"]) for t in told] == [
        (4, "ground_unknown", "keshi"),
        (5, "not_json", "here"),
    ]
    assert told[0]["request_id"] == names[3]
    assert MARK not in json.dumps(told)

    (tmp_path / "r.jsonl").write_bytes(whole)
    process = submit("r.jsonl", "--keep-going")
    assert [r for r, _, _ in keshi.commands(1)] == [names[3]]
    keshi.say(answer("RequestClosed", names[3]))
    assert ended(process)[:2] == (0, "4 lines, 3 done before, 1 closed\n")
    assert not (tmp_path / "r.jsonl.rejects").exists()


def test_interrupted_it_goes_on_listening_for_what_was_accepted(submit: Any, keshi: Keshi, tmp_path: Path) -> None:
    """Until all is closed; a closure that came between the runs is heard, and nothing is sent twice."""
    names = write(tmp_path / "r.jsonl", people(3))
    first = submit("r.jsonl", "--wait", "closed")
    keshi.commands(3)
    keshi.say(*(answer("RequestAccepted", n, 1) for n in names), answer("RequestClosed", names[0], 2))
    state = tmp_path / "r.jsonl.state"
    until(lambda: "c " in state.read_text() and state.read_text().count("\na ") >= 2)
    first.send_signal(signal.SIGINT)
    code, _, err = ended(first)
    assert code == 130
    assert "run the same again" in err

    keshi.say(answer("RequestClosed", names[1], 2))
    second = submit("r.jsonl", "--wait", "closed", "--timeout", "2")
    code, out, err = ended(second)
    assert (code, out) == (4, "3 lines, 1 done before, 1 closed, 1 not over\n")
    assert "go on waiting" in err
    assert not keshi.waiting()


def test_it_stops_sending_when_keshi_says_nothing(submit: Any, keshi: Keshi, tmp_path: Path) -> None:
    """Not one round of waiting after the other; what is on Kafka already is not lost."""
    write(tmp_path / "r.jsonl", people(9))
    code, out, err = ended(submit("r.jsonl", "--in-flight", "3", "--timeout", "1"))
    assert (code, out) == (1, "9 lines, 9 left\n")
    assert "keshi answers nothing" in err
    assert len(keshi.commands(3)) == 3
    assert not keshi.waiting()


def test_standard_input_is_sent_without_waiting(submit: Any, keshi: Keshi, env: Any, tmp_path: Path) -> None:
    """Nothing is kept of it; withdrawals go along."""
    asked = people(3)
    withdrawal = WithdrawRequest(request_id=asked[0].request_id)
    lines = b"\n".join(event_of(c, source="urn:example:dsar") for c in (*asked, withdrawal))
    done = subprocess.run(
        [*PROGRAM, "-", "--wait", "none", "--json"],
        input=lines,
        env=env,
        cwd=tmp_path,
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    told = json.loads(done.stdout)
    assert (told["lines"], told["sent"], told["left"], told["rejects"]) == (4, 4, 0, None)
    of_first = [kind for r, kind, _ in keshi.commands(4) if r == asked[0].request_id]
    assert of_first == ["EraseSubject", "WithdrawRequest"]
    assert list(tmp_path.iterdir()) == []


def test_what_was_sent_as_it_stood_is_what_stood_there(submit: Any, keshi: Keshi, tmp_path: Path) -> None:
    """The sender's own source, id and time, not ours."""
    write(tmp_path / "r.jsonl", people(1))
    code, *_ = ended(submit("r.jsonl", "--wait", "none"))
    assert code == 0
    assert keshi.values(1) == [(tmp_path / "r.jsonl").read_bytes().strip()]


def test_a_terminal_gets_a_bar(env: Any, keshi: Keshi, tmp_path: Path) -> None:
    """That shows numbers, and nobody's data."""
    write(tmp_path / "r.jsonl", people(50))
    ours, theirs = pty.openpty()
    process = subprocess.Popen([*PROGRAM, "r.jsonl"], env=env | {"TERM": "xterm"}, cwd=tmp_path, stderr=theirs)
    os.close(theirs)
    seen = bytearray()
    reader = threading.Thread(target=_drain, args=(ours, seen))
    reader.start()
    names = [r for r, _, _ in keshi.commands(50)]
    for n, name in enumerate(names):
        keshi.say(answer("RequestAccepted", name))
        if n % 10 == 0:
            time.sleep(0.12)  # the bar moves ten times a second at most
    assert process.wait(60) == 0
    reader.join(10)
    os.close(ours)
    assert b"sending" in seen
    assert b"/50" in seen
    assert MARK.encode() not in seen


def _drain(terminal: int, seen: bytearray) -> None:
    try:
        while chunk := os.read(terminal, 4096):
            seen.extend(chunk)
    except OSError:
        return  # so ends a terminal whose other side is closed


def test_a_topic_that_is_missing_is_one_line(env: Any, tmp_path: Path) -> None:
    write(tmp_path / "r.jsonl", people(1))
    elsewhere = env | {"KESHI_KAFKA_PREFIX": f"{env['KESHI_KAFKA_PREFIX']}other."}
    done = subprocess.run(
        [*PROGRAM, "r.jsonl"], env=elsewhere, cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "keshi topics apply" in done.stderr
