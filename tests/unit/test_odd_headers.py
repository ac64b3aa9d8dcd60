"""A record whose header's name is no UTF-8, which the broker takes, can be read; so can all around it."""

from typing import Self

import pytest
from aiokafka.record.default_records import DefaultRecordBatch, _DefaultRecordBatchBuilderPy
from aiokafka.record.memory_records import MemoryRecords
from hypothesis import given, settings
from hypothesis import strategies as st

from keshi.orchestrator.stream.batches import Batches

Fields = tuple[bytes | None, bytes | None, list[tuple[bytes, bytes | None]]]


class Raw(str):
    """A header's name that goes over the wire as these bytes."""

    __slots__ = ("raw",)
    raw: bytes

    def __new__(cls, raw: bytes) -> Self:
        made = super().__new__(cls, raw.hex())
        made.raw = raw
        return made

    def encode(self, *_: object) -> bytes:
        return self.raw


def batch(records: list[Fields], compression: int) -> bytes:
    builder = _DefaultRecordBatchBuilderPy(
        magic=2,
        compression_type=compression,
        is_transactional=False,
        producer_id=-1,
        producer_epoch=-1,
        base_sequence=-1,
        batch_size=1_000_000,
    )
    for n, (key, value, headers) in enumerate(records):
        builder.append(n, 1_000 + n, key, value, [(Raw(name), text) for name, text in headers])
    return bytes(builder.build())


def read(data: bytes) -> list[Fields]:
    batches = Batches(data)
    found: list[Fields] = []
    while batches.has_next():
        one = batches.next_batch()
        assert one.validate_crc()
        found += [(r.key, r.value, [(name.encode(), text) for name, text in r.headers]) for r in one]
    return found


def test_without_help_it_cannot_be_read() -> None:
    """Else all this could go."""
    data = batch([(None, b"x", [(b"\xff", b"1")])], 0)
    with pytest.raises(UnicodeDecodeError):
        list(MemoryRecords(data).next_batch())
    with pytest.raises(UnicodeDecodeError):
        list(DefaultRecordBatch(data))


NAMES = st.binary(max_size=6) | st.sampled_from([b"ce_\xff", b"ce_id", "名".encode()])
RECORDS: st.SearchStrategy[list[Fields]] = st.lists(
    st.tuples(
        st.none() | st.binary(max_size=9),
        st.none() | st.binary(max_size=200),
        st.lists(st.tuples(NAMES, st.none() | st.binary(max_size=200)), max_size=4),
    ),
    min_size=1,
    max_size=4,
)


def readable(name: bytes) -> bytes:
    try:
        name.decode()
    except UnicodeDecodeError:
        return bytes(b if b < 128 else 63 for b in name)
    return name


@settings(deadline=None)
@given(st.lists(RECORDS, min_size=1, max_size=3), st.sampled_from([0, 1]))
def test_everything_but_such_a_name_is_as_it_was(batches: list[list[Fields]], compression: int) -> None:
    """In one fetch of several batches, plain or compressed."""
    data = b"".join(batch(records, compression) for records in batches)
    expected = [
        (key, value, [(readable(n), t) for n, t in headers]) for records in batches for key, value, headers in records
    ]
    assert read(data) == expected


def test_a_fetch_that_breaks_off_gives_the_whole_batches() -> None:
    whole = batch([(b"k", b"v", [(b"\xff", None)])], 0)
    assert read(whole + whole[:-1]) == [(b"k", b"v", [(b"?", None)])]
    assert Batches(whole).size_in_bytes() == len(whole)
