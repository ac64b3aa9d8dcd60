"""Commands in CloudEvents binary mode: read like structured ones, and whatever is wrong has a reason and a field."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from keshi.orchestrator.incoming import whole
from keshi.orchestrator.stream.port import Lane, Record
from keshi.schemas.binary import Headers, is_binary
from keshi.schemas.commands import COMMANDS
from keshi.schemas.envelope import CONTENT_TYPE, MAX_COMMAND_BYTES, Attributes
from keshi.schemas.reading import Unreadable, read
from keshi.schemas.requests import RejectionCode

EXAMPLES = Path(__file__).resolve().parents[2] / "schemas" / "published" / "examples"
KINDS = sorted(k.split(".")[1] for k in COMMANDS)
MARK = "hanako-7391"


def structured(kind: str) -> bytes:
    return (EXAMPLES / f"{kind}.json").read_bytes()


def binary(
    kind: str = "EraseSubject", changed: Mapping[str, str | bytes | None] = MappingProxyType({})
) -> tuple[list[tuple[str, bytes | None]], bytes]:
    """The published example in binary mode; `changed` sets or (None) leaves out headers."""
    tree = json.loads(structured(kind))
    data = json.dumps(tree.pop("data")).encode()
    texts = {("content-type" if n == "datacontenttype" else f"ce_{n}"): v for n, v in tree.items()} | dict(changed)
    return [(n, v.encode() if isinstance(v, str) else v) for n, v in texts.items() if v is not None], data


def why(headers: Headers, raw: bytes) -> tuple[str, str | None, bool]:
    """Reason, field, and whether the sender can be told."""
    with pytest.raises(Unreadable) as caught:
        read(raw, COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)
    assert MARK not in f"{caught.value.reason} {caught.value.field} {caught.value.detail}"
    return str(caught.value.reason), caught.value.field, caught.value.request_id is not None


def reading(raw: bytes, headers: Headers) -> Unreadable | BaseModel:
    try:
        return read(raw, COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)[1]
    except Unreadable as e:
        return e


@pytest.mark.parametrize("kind", KINDS)
def test_both_modes_say_the_same(kind: str) -> None:
    headers, data = binary(kind)
    from_headers = read(data, COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)
    assert from_headers == read(structured(kind), COMMANDS, limit=MAX_COMMAND_BYTES)


@pytest.mark.parametrize(
    "headers",
    [
        [],
        [("content-type", b"application/json")],  # as a REST proxy adds it
        [("content-type", CONTENT_TYPE.encode())],
        [("Content-Type", b"APPLICATION/CloudEvents+json")],
        [("content-type", b"application/cloudevents+json"), ("ce_id", b"1"), ("ce_type", MARK.encode())],
        [("traceparent", b"\xff"), ("CE_TYPE", b"x"), ("ce-type", b"x"), ("", None)],
    ],
)
def test_what_is_not_binary_is_read_as_structured(headers: Headers) -> None:
    """A console producer's message has no headers; others' headers say nothing to us."""
    _, found = read(structured("EraseSubject"), COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)
    assert type(found).__name__ == "EraseSubject"


@pytest.mark.parametrize(
    "media_type",
    [
        None,
        "application/json",
        "Application/JSON; charset=UTF-8",
        'application/json;charset="utf-8"',
        "application/json;",
    ],
)
def test_the_data_is_json_however_it_is_written(media_type: str | None) -> None:
    headers, data = binary(changed={"content-type": media_type})
    assert read(data, COMMANDS, limit=MAX_COMMAND_BYTES, headers=headers)[0].datacontenttype == "application/json"


def test_headers_of_others_are_left_alone() -> None:
    headers, data = binary()
    more: Headers = [*headers, ("traceparent", b"\xff\xfe"), ("__TypeId__", MARK.encode()), ("traceparent", None)]
    assert read(data, COMMANDS, limit=MAX_COMMAND_BYTES, headers=more)


TOLD: Mapping[str, tuple[Mapping[str, str | bytes | None], tuple[str, str | None]]] = {
    "no id": ({"ce_id": None}, ("field_missing", "id")),
    "no source": ({"ce_source": None}, ("field_missing", "source")),
    "no type": ({"ce_type": None}, ("field_invalid", "type")),
    "no version": ({"ce_specversion": None}, ("field_invalid", "specversion")),
    "an old version": ({"ce_specversion": "0.3"}, ("field_invalid", "specversion")),
    "an unknown type": ({"ce_type": f"keshi.{MARK}.v1"}, ("type_unknown", "type")),
    "no text": ({"ce_id": b"\xff\xfe"}, ("field_invalid", "id")),
    "an absent value": ({"ce_id": b""}, ("field_invalid", "id")),
    "too long": ({"ce_id": MARK * 100}, ("field_invalid", "id")),
    "a control character": ({"ce_source": f"urn:{MARK}\x1b[2J"}, ("field_invalid", "source")),
    "NUL": ({"ce_source": f"urn:{MARK}\x00"}, ("text_invalid", "source")),
    "no time": ({"ce_time": MARK}, ("field_invalid", "time")),
    "no trace": ({"ce_traceparent": MARK}, ("field_invalid", "traceparent")),
    "an extension": ({f"ce_{MARK}": MARK}, ("field_unknown", None)),
    "data in a header": ({"ce_data": MARK}, ("field_unknown", None)),
    "not JSON by its type": ({"content-type": f"application/{MARK}"}, ("field_invalid", "datacontenttype")),
    "another charset": ({"content-type": "application/json; charset=shift_jis"}, ("field_invalid", "datacontenttype")),
}


@pytest.mark.parametrize("name", TOLD)
def test_a_wrong_header_has_a_reason_and_a_field(name: str) -> None:
    """The sender is told where the data says whose request it is; else it is quarantined, with the same field."""
    changed, (reason, field) = TOLD[name]
    headers, data = binary(changed=changed)
    assert why(headers, data) == (reason, field, True)
    stranger = json.dumps({"request_id": MARK}).encode()
    reason_then, field_then, told = why(headers, stranger)
    assert (field_then, told) == (field, False)
    assert reason_then in {"not_a_cloudevent", "type_unknown", "text_invalid", "field_unknown"}


@pytest.mark.parametrize("twice", ["ce_id", "ce_type", "ce_time", "content-type"])
def test_a_header_that_is_there_twice_is_refused(twice: str) -> None:
    """Even if both say the same: nobody knows which one another reader takes."""
    headers, data = binary()
    again = next(h for h in headers if h[0] == twice)
    field = "datacontenttype" if twice == "content-type" else twice.removeprefix("ce_")
    assert why([*headers, again], data) == ("field_invalid", field, True)


def test_two_content_types_that_contradict_each_other_are_refused() -> None:
    headers, data = binary()
    assert why([*headers, ("content-type", b"application/cloudevents+json")], data) == (
        *("field_invalid", "datacontenttype"),
        True,
    )


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (b"", ("empty", None, False)),
        (b"{", ("not_json", None, False)),
        (b'{}, "type": "x"', ("not_json", None, False)),
        (b"[]", ("field_invalid", "data", False)),
        (b'"text"', ("field_invalid", "data", False)),
        (b"{}", ("field_missing", "data.request_id", False)),
        (structured("EraseSubject"), ("field_missing", "data.request_id", False)),
        (b'{"request_id": "01KN33YH80E7QZ3V5W9T2B4M6A"}', ("field_missing", "data.identifiers", True)),
        (b'{"request_id": "01KN33YH80E7QZ3V5W9T2B4M6A\\n"}', ("field_invalid", "data.request_id", False)),
        (b'{"request_id": "\\ud800"}', ("text_invalid", "data.request_id", False)),
        (b'{"request_id": 9007199254740993}', ("number_too_large", "data.request_id", False)),
        (b" " * MAX_COMMAND_BYTES, ("too_large", None, False)),
    ],
)
def test_wrong_data_has_a_reason_and_a_field(data: bytes, expected: tuple[str, str | None, bool]) -> None:
    assert why(binary()[0], data) == expected


def test_headers_count_towards_the_limit() -> None:
    headers, data = binary()
    assert why([*headers, ("x", b"x" * MAX_COMMAND_BYTES)], data) == ("too_large", None, False)


NAMES = st.sampled_from(
    [*(f"ce_{n}" for n in Attributes.model_fields), "content-type", "Content-Type", "ce_", "ce_data", f"ce_{MARK}"]
) | st.text(max_size=6)
GOOD = {n: v for n, v in binary()[0] if v is not None}
VALUES = st.none() | st.binary(max_size=12) | st.sampled_from([*GOOD.values(), b"application/cloudevents"])


@settings(deadline=None, max_examples=300)
@given(
    st.lists(st.tuples(NAMES, VALUES), max_size=12),
    st.lists(st.sampled_from(sorted(GOOD.items())), max_size=8),
    st.sampled_from([binary()[1], structured("EraseSubject"), b"{}", b"nul", b"[1]"]) | st.binary(max_size=20),
)
@example([("ce_id", None)], [], b"{}")
@example([("ce_\udc80", b"1")], [], b"{}")
def test_no_headers_break_the_reader(
    odd: list[tuple[str, bytes | None]], good: list[tuple[str, bytes]], raw: bytes
) -> None:
    """A message is read, or there is one reason; nothing of it stands in that reason; all of it can be kept."""
    headers: Headers = [*good, *odd]
    found = reading(raw, headers)
    if isinstance(found, Unreadable):
        first = (found.field or "data").split(".")[0]
        assert first in {*Attributes.model_fields, "data"}
        assert found.request_id is None or found.reason in set(RejectionCode)
        assert MARK not in found.detail
    elif is_binary(headers):
        names = [n for n, _ in headers if n.startswith("ce_")]
        assert len(names) == len(set(names))
    record = Record(Lane("commands", 0), 0, raw, None, headers, 0)
    assert whole(record).endswith(raw)


def test_what_is_kept_of_a_binary_message_has_its_headers() -> None:
    """Who opens it later has to see what was wrong."""
    headers, data = binary(changed={"ce_id": b"\xff"})
    kept = whole(Record(Lane("commands", 0), 0, data, None, headers, 0))
    assert b"ce_id: \xff\n" in kept
    assert kept.endswith(b"\n\n" + data)
    assert whole(Record(Lane("commands", 0), 0, data, None, [("x", b"1")], 0)) == data
