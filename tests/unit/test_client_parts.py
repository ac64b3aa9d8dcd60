"""The parts of the client that need no broker, and what importing it brings in."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kafka.future import Future
from kafka.producer.future import RecordMetadata

from keshi import client
from keshi.client import Mark, Message, Reached, RejectionCode, RequestRejected, Submitted
from keshi.client.listening import Repeats
from keshi.client.stream import Stream, StreamOptions, _Flight
from keshi.schemas.requests import EVENTS, Coordinates

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "published" / "examples"
NAME = "01KN33YH80E7QZ3V5W9T2B4M6A"


def answer(kind: str, request_id: str, sequence: int) -> Any:
    tree = json.loads((EXAMPLES / f"{kind}.json").read_bytes())["data"]
    tree["state"] |= {"request_id": request_id, "sequence": sequence}
    return EVENTS[f"keshi.{kind}.v1"].model_validate_json(json.dumps(tree))


def rejection(request_id: str, partition: int, offset: int) -> RequestRejected:
    where = Coordinates(topic="commands", partition=partition, offset=offset)
    code = RejectionCode.GROUND_UNKNOWN
    return RequestRejected(request_id=request_id, code=code, field=None, detail="no such ground", command=where)


# --- what it brings in

HEAVY = {
    "faust", "mode", "aiokafka", "fastapi", "starlette", "uvicorn", "sqlalchemy", "alembic", "psycopg", "boto3",
    "rich", "typer", "click", "httpx", "httpcore", "structlog", "opentelemetry", "tenacity", "joserfc", "cryptography",
}  # fmt: skip
MOST_MODULES = 600
"""537 when this was written, of which Python's own are 330; each of them costs some half a millisecond to import."""

LIGHT = "import sys, keshi.client; print(len(sys.modules), *sorted({m.partition('.')[0] for m in sys.modules}))"


def test_importing_the_client_brings_in_nothing_heavy() -> None:
    """Kafka and the schemas; no web, no database, no command line, no keys."""
    env = {n: v for n, v in os.environ.items() if not n.startswith("KESHI_")}
    done = subprocess.run(
        [sys.executable, "-c", LIGHT], env=env, capture_output=True, text=True, timeout=60, check=True
    )
    number, *roots = done.stdout.split()
    assert not HEAVY & set(roots)
    assert int(number) <= MOST_MODULES


def test_everything_that_is_offered_is_there_and_explained() -> None:
    """`help(keshi.client)` is enough to work with it."""
    for name in client.__all__:
        assert getattr(client, name) is not None
    methods = [m for n, m in vars(client.Client).items() if not n.startswith("_")]
    assert all(m.__doc__ for m in methods)
    assert all(kind.__doc__ for kind in (client.Client, client.Result, client.Heard, client.Mark, client.Reached))


def test_the_example_of_the_client_can_be_sent() -> None:
    """The command of its docstring passes the checks of intake."""
    from datetime import UTC, datetime  # noqa: PLC0415 - names that the example uses

    from keshi.schemas.admissible import check  # noqa: PLC0415

    code = (client.Client.__doc__ or "").partition("command = ")[2].partition("\n    with Client")[0]
    names = {"EraseSubject": client.EraseSubject, "now": datetime.now(UTC).isoformat()}
    check(eval(f"({code.strip()})", names))  # noqa: S307 - our own docstring


# --- marks


@given(st.dictionaries(st.integers(0, 999), st.integers(0, 2**53)))
def test_a_mark_comes_back_from_its_text(offsets: dict[int, int]) -> None:
    assert Mark.parse(str(Mark(offsets))) == Mark(offsets)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", "7", '{"x":1}', '{"0":-1}', '{"0":"1"}', '{"0":1.5}', '{"0":true}', "[" * 9999]
)
def test_what_is_no_mark_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no mark"):
        Mark.parse(text)


# --- repeats


@given(st.lists(st.tuples(st.sampled_from([NAME, NAME.replace("6", "7")]), st.integers(0, 6)), max_size=12))
def test_only_what_is_newer_is_new(said: list[tuple[str, int]]) -> None:
    """Sequences of each request rise strictly in what is let through, and the newest of all is among it."""
    repeats = Repeats()
    passed = [(n, s) for n, s in said if repeats.is_new(answer("RequestAccepted", n, s))]
    for name in {n for n, _ in said}:
        of_it = [s for n, s in passed if n == name]
        assert of_it == sorted(set(of_it))
        assert of_it[-1] == max(s for n, s in said if n == name)


def test_a_rejection_is_known_by_its_command() -> None:
    repeats = Repeats()
    answers = [rejection(NAME, 0, 1), rejection(NAME, 0, 1), rejection(NAME, 1, 1)]
    assert [repeats.is_new(a) for a in answers] == [True, False, True]


def test_the_memory_for_repeats_is_bounded() -> None:
    """The one that was heard of longest ago is forgotten first."""
    repeats = Repeats(limit=2)
    for n in range(3):
        assert repeats.is_new(rejection(NAME, 0, n))
    assert not repeats.is_new(rejection(NAME, 0, 2))
    assert repeats.is_new(rejection(NAME, 0, 0))
    assert len(repeats._seen) == 2


# --- the stream, where two connections meet


def flight(stream: Stream) -> _Flight:
    """A command on its way, of which Kafka has not said anything yet."""
    one = _Flight(0, Message(NAME, "EraseSubject", b"{}"), begun=float("inf"), future=Future())
    stream._sending.append(one)
    stream._awaited[NAME] = [one]
    stream._under_way = 1
    return one


def confirm(stream: Stream, one: _Flight, partition: int, offset: int) -> None:
    one.future.success(RecordMetadata("commands", partition, None, offset, 0, None, 0, 0, 0))
    stream._settle()


def test_an_answer_that_is_read_before_the_confirmation_counts() -> None:
    """Two connections have no order. Of rejections only that of this very command counts."""
    stream = Stream("commands", None, StreamOptions("accepted"))
    one = flight(stream)
    stream._heard(NAME, rejection(NAME, 1, 6))
    stream._heard(NAME, rejection(NAME, 1, 7))
    assert not stream._results
    confirm(stream, one, 1, 7)
    (result,) = stream._results
    assert (result.reached, result.sent, result.answer) == (Reached.REJECTED, Submitted(1, 7), rejection(NAME, 1, 7))
    assert (stream._under_way, stream._awaited, stream._early) == (0, {}, {})

    stream = Stream("commands", None, StreamOptions("accepted"))
    one = flight(stream)
    stream._heard(NAME, rejection(NAME, 1, 6))
    stream._heard(NAME, answer("RequestAccepted", NAME, 1))
    assert not stream._results
    confirm(stream, one, 1, 7)
    assert [r.reached for r in stream._results] == [Reached.ACCEPTED]


def test_a_send_that_was_repeated_may_have_no_offset() -> None:
    """Kafka says -1 for what it had already; then any rejection of this request in this partition is ours."""
    stream = Stream("commands", None, StreamOptions("accepted"))
    one = flight(stream)
    confirm(stream, one, 1, -1)
    stream._heard(NAME, rejection(NAME, 0, 7))
    assert not stream._results
    stream._heard(NAME, rejection(NAME, 1, 7))
    assert [r.reached for r in stream._results] == [Reached.REJECTED]


def test_a_send_that_never_ends_is_given_up() -> None:
    stream = Stream("commands", None, StreamOptions("accepted"))
    one = flight(stream)
    one.begun = 0.0
    stream._settle()
    (result,) = stream._results
    assert result.reached is Reached.NOT_SENT
    assert "KafkaTimeoutError" in str(result.error)
