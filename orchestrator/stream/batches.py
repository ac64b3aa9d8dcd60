"""Batches of records as aiokafka reads them, past one thing that ends it: a header whose name is no UTF-8.

The broker takes such a record, and aiokafka raises at it whenever it is fetched: one message would stop its partition
for good. Here its name is read with `?` in place of what is no ASCII; value, key and offset are as they were.
"""

import struct
from collections.abc import Iterator
from typing import Any, Final

from aiokafka.consumer import fetcher
from aiokafka.record.default_records import _DefaultRecordBatchPy
from aiokafka.record.memory_records import MemoryRecords
from aiokafka.record.util import decode_varint

_LENGTH_AT: Final = 8  # behind the base offset, in every version of the format
_LENGTH: Final = struct.Struct(">i")
_ASCII_END: Final = 0x80


def read_odd_header_names() -> None:
    """Have aiokafka's consumers of this process read batches so. Its version is pinned for this, too."""
    assert fetcher.MemoryRecords in {MemoryRecords, Batches}
    fetcher.MemoryRecords = Batches


class Batches:
    """In place of `MemoryRecords`: the answer to one fetch, of one partition."""

    def __init__(self, data: bytes) -> None:
        self._theirs: Any = MemoryRecords(data)
        self._data = data
        self._at = 0

    def size_in_bytes(self) -> int:
        """Of the answer."""
        return int(self._theirs.size_in_bytes())

    def has_next(self) -> bool:
        """Whether there is another whole batch."""
        return bool(self._theirs.has_next())

    def next_batch(self) -> Any:
        """The next whole batch."""
        batch = self._theirs.next_batch()
        begin = self._at
        self._at += _LENGTH_AT + _LENGTH.size + _LENGTH.unpack_from(self._data, begin + _LENGTH_AT)[0]
        return batch if batch is None or batch.is_control_batch else _Batch(batch, self._data[begin : self._at])


class _Batch:
    """One batch; all but its records is aiokafka's."""

    def __init__(self, theirs: Any, data: bytes) -> None:
        self._theirs = theirs
        self._data = data

    def __getattr__(self, name: str) -> Any:
        return getattr(self._theirs, name)

    def __iter__(self) -> Iterator[Any]:
        try:
            return iter(list(self._theirs))
        except UnicodeDecodeError:
            return iter(_mended(self._data))


def _mended(data: bytes) -> Any:
    """The batch again, with names that can be read. Lengths stay, and the broker has checked them."""
    batch = _DefaultRecordBatchPy(data)
    batch._maybe_uncompress()  # noqa: SLF001 - aiokafka has no other
    buffer, at = batch._buffer, batch._pos  # noqa: SLF001 - as above
    for _ in range(batch._num_records):  # noqa: SLF001 - as above
        length, at = decode_varint(buffer, at)
        _mend(buffer, at)
        at += length
    return batch


def _mend(buffer: bytearray, at: int) -> None:
    """The header names of the record whose fields begin here (Kafka protocol, message format 2)."""
    for _ in ("attributes", "timestamp", "offset"):
        _, at = decode_varint(buffer, at)
    for _ in ("key", "value"):
        length, at = decode_varint(buffer, at)
        at += max(length, 0)
    headers, at = decode_varint(buffer, at)
    for _ in range(headers):
        length, at = decode_varint(buffer, at)
        buffer[at : at + length] = _readable(bytes(buffer[at : at + length]))
        length, at = decode_varint(buffer, at + length)
        at += max(length, 0)


def _readable(name: bytes) -> bytes:
    """A name of the same length that can be read."""
    try:
        name.decode()
    except UnicodeDecodeError:
        return bytes(b if b < _ASCII_END else ord("?") for b in name)
    return name
