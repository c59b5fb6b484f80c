"""A lenient reader of record batches, whatever their producer put into them.

aiokafka fails at a header whose name is not UTF-8, on every attempt, and unpacks a batch into as many bytes as it
claims: 1 MiB of zstd can hold nine billion. Here a batch is unpacked within a bound, and whatever cannot be read
becomes one record that says so, in place of the rest of its batch. Only as many batches are unpacked at once as the
group's heartbeat can wait for.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import cramjam
from aiokafka.consumer import fetcher  # type: ignore[import-untyped]
from aiokafka.record.default_records import DefaultRecordBase, DefaultRecordBatch  # type: ignore[import-untyped]
from aiokafka.record.memory_records import MemoryRecords  # type: ignore[import-untyped]

from streams.contract.record_size import MAX_UNPACKED_BYTES, beginning
from streams.contract.unreadable import BAD_HEADER_NAME, unreadable

_HEADER: Final = DefaultRecordBase.HEADER_STRUCT
_OVERHEAD: Final = 12
_MAGIC_AT: Final = 16
_ATTRIBUTES: Final = 5
_RECORDS: Final = 12
_XERIAL: Final = b"\x82SNAPPY\0"
_XERIAL_HEADER: Final = 16
# JSON packs to a fifth or so.
_ROOM: Final = 65_536
_USUAL_RATIO: Final = 8
# Of records that a consumer is given at once, beside the batch that goes beyond it. Nothing else runs on its loop while
# they are unpacked: 64 records of 5 MB took 6 s on a busy machine, in which the group gave the consumer up (seen).
_AT_ONCE: Final = 16 * 1_048_576


@dataclass(frozen=True, slots=True)
class LenientRecord:
    """A record as aiokafka's consumer takes it."""

    offset: int
    timestamp: int
    timestamp_type: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]
    checksum: None = None


class LenientRecords:
    """The batches in the answer to a fetch; in place of aiokafka's ``MemoryRecords``."""

    def __init__(self, data: bytes) -> None:
        self._data = memoryview(data)
        self._at = 0

    def size_in_bytes(self) -> int:
        return len(self._data)

    def _end(self) -> int:
        end = self._at + _OVERHEAD
        # The last batch of a response may be cut off; one with an impossible length is never complete.
        if end > len(self._data):
            return end
        return end + max(0, int.from_bytes(self._data[self._at + 8 : end], "big", signed=True))

    def has_next(self) -> bool:
        return self._end() <= len(self._data)

    def next_batch(self) -> Any:
        start, self._at = self._at, self._end()
        whole = self._data[start : self._at]
        if len(whole) < _HEADER.size or whole[_MAGIC_AT] < 2:
            return MemoryRecords(bytes(whole)).next_batch()
        batch = DefaultRecordBatch(bytes(whole))
        # Transaction markers are written by the broker itself.
        return batch if batch.is_control_batch else LenientBatch(whole, batch)


class LenientBatch:
    """A batch of format 2. Its records are read as they are asked for."""

    def __init__(self, whole: memoryview, batch: Any) -> None:
        self._whole = whole
        self._batch = batch
        self.producer_id: int = batch.producer_id
        self.base_offset: int = batch.base_offset
        self.next_offset: int = batch.next_offset
        self.is_transactional: bool = batch.is_transactional
        self.is_control_batch = False

    def validate_crc(self) -> bool:
        return bool(self._batch.validate_crc())

    def __iter__(self) -> Iterator[Any]:
        if not _HEADER.unpack_from(self._whole)[_RECORDS]:
            return  # compaction took them all
        at, why = self.base_offset - 1, ""
        codec = self._batch.compression_type
        try:
            data, whole = unpacked(codec, self._whole[_HEADER.size :])
            if whole:
                try:
                    for record in _plain(self._whole, data) if codec else self._batch:
                        if record.offset <= at:
                            raise ValueError(f"offset {record.offset} after {at}")
                        yield record
                        at = record.offset
                    return
                except UnicodeDecodeError:
                    pass  # a header's name; read in the other way
            for each in self._read(data):
                if each.offset > at:
                    yield each
                    at = each.offset
            if whole:
                return
            why = f"it unpacks into more than {MAX_UNPACKED_BYTES:,} bytes"
        except Exception as error:  # noqa: BLE001 - whatever a producer sent, its neighbours are read
            why = f"{type(error).__name__}: {error}"
        last = self.next_offset - 1
        if at < last:
            rest = f"{at + 1} to {last}" if at + 1 < last else f"{last}"
            said = unreadable(f"offset {rest}: the batch cannot be read, {why}")
            yield LenientRecord(last, self._batch.max_timestamp, self._batch.timestamp_type, None, b"", said)

    def _read(self, data: bytearray | memoryview) -> Iterator[LenientRecord]:
        """The records in what was unpacked, up to the one that is cut.

        Raises:
            ValueError: a record is not as its lengths say.
        """
        batch, pos = self._batch, 0
        buffer = bytearray(data)
        for _ in range(_HEADER.unpack_from(self._whole)[_RECORDS]):
            try:
                length, start = _varint(buffer, pos)
            except IndexError:
                return
            pos = start + length
            if length < 0 or pos > len(buffer):
                return
            yield _record(batch, buffer, start, pos)


class BoundedResult(fetcher.FetchResult):  # type: ignore[misc]
    """What was fetched of a partition and not yet given out; in place of aiokafka's ``FetchResult``."""

    def getall(self, max_records: int | None = None) -> list[Any]:
        """The next records: so many, or so many bytes of them."""
        found: list[Any] = []
        size = 0
        while size < _AT_ONCE and (max_records is None or len(found) < max_records):
            record = self.getone()
            if record is None:
                break
            found.append(record)
            size += max(0, record.serialized_key_size) + max(0, record.serialized_value_size)
        return found


def _varint(buffer: bytearray, at: int) -> tuple[int, int]:
    """A signed number of variable length, and where it ends. aiokafka's own reads beyond a buffer's end (seen).

    Raises:
        IndexError: it does not end within the buffer.
        ValueError: it is longer than any number of the protocol.
    """
    value = shift = 0
    while True:
        byte = buffer[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return (value >> 1) ^ -(value & 1), at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than ten bytes")


def _record(batch: Any, buffer: bytearray, at: int, end: int) -> LenientRecord:
    def number() -> int:
        nonlocal at
        value, at = _varint(buffer, at)
        return int(value)

    def part() -> bytes | None:
        nonlocal at
        if (size := number()) < 0:
            return None
        if at + size > end:
            raise ValueError("a part that is longer than its record")
        at += size
        return bytes(buffer[at - size : at])

    at += 1  # attributes, unused
    moment, offset = number(), number()
    key, value = part(), part()
    headers: list[tuple[str, bytes | None]] | None = []
    for _ in range(number()):
        name, said = part(), part()
        try:
            text = (name or b"").decode()
        except UnicodeDecodeError:
            headers = None
        if headers is not None:
            headers.append((text, said))
    if at != end:
        raise ValueError(f"a record of {end - at} bytes more than its parts")
    logged = batch.timestamp_type == DefaultRecordBase.LOG_APPEND_TIME
    return LenientRecord(
        batch.base_offset + offset,
        batch.max_timestamp if logged else batch.first_timestamp + moment,
        batch.timestamp_type,
        key,
        value,
        unreadable(BAD_HEADER_NAME) if headers is None else headers,
    )


def _plain(whole: memoryview, data: bytearray | memoryview) -> Any:
    """A batch with its records unpacked, for aiokafka's fast reader, which looks at no checksum by itself."""
    fields = list(_HEADER.unpack_from(whole))
    fields[_ATTRIBUTES] &= ~DefaultRecordBase.CODEC_MASK
    return DefaultRecordBatch(b"".join((_HEADER.pack(*fields), data)))


def unpacked(codec: int, data: memoryview, most: int = MAX_UNPACKED_BYTES) -> tuple[bytearray | memoryview, bool]:
    """At most the first ``most`` bytes of what was packed, and whether they are all.

    Raises:
        Exception: the bytes are not what the codec makes.
    """
    if codec == DefaultRecordBase.CODEC_NONE:
        return data, True
    if codec == DefaultRecordBase.CODEC_GZIP:
        return _gunzipped(data, most)
    if codec == DefaultRecordBase.CODEC_SNAPPY:
        return _unsnapped(data, most)
    if codec == DefaultRecordBase.CODEC_LZ4:
        return _into(cramjam.lz4.decompress_into, data, most)
    if codec == DefaultRecordBase.CODEC_ZSTD:
        return _into(cramjam.zstd.decompress_into, data, most)
    raise ValueError(f"compression codec {codec} is unknown")


def _into(
    unpack: Callable[[bytes, bytearray], int], data: memoryview, most: int
) -> tuple[bytearray | memoryview, bool]:
    # A bytearray is zeroed when it is made: room for the most would cost every batch tens of milliseconds.
    size = min(most, max(_ROOM, _USUAL_RATIO * len(data)))
    while True:
        room = bytearray(size)
        try:
            return memoryview(room)[: unpack(bytes(data), room)], True
        except cramjam.DecompressionError as error:
            if "whole buffer" not in str(error):
                raise
        if size == most:
            return room, False
        size = min(most, 8 * size)


def _gunzipped(data: memoryview, most: int) -> tuple[bytearray, bool]:
    out = bytearray()
    left: bytes | memoryview = data
    while len(left) and len(out) < most:
        member = zlib.decompressobj(wbits=31)
        out += member.decompress(left, most - len(out))
        if not member.eof:
            return out, False
        left = member.unused_data
    return out, not len(left)


def _unsnapped(data: memoryview, most: int) -> tuple[bytearray, bool]:
    """A snappy block cannot grow by more than a factor of 22, but claims a size that is believed."""
    out = bytearray()
    if bytes(data[: len(_XERIAL)]) != _XERIAL:
        return (bytearray(), False) if _claimed(data) > most else (bytearray(cramjam.snappy.decompress_raw(data)), True)
    at = _XERIAL_HEADER
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        block = data[at + 4 : at + 4 + size]
        if len(out) + _claimed(block) > most:
            return out, False
        out += cramjam.snappy.decompress_raw(block)
        at += 4 + size
    return out, True


def _claimed(block: memoryview) -> int:
    return int(cramjam.snappy.decompress_raw_len(bytes(block)))


def kept(part: bytes | None) -> bytes | None:
    """What a consumer keeps of a key or value, as its deserializer."""
    return None if part is None else beginning(part)


def read_leniently() -> None:
    """Have every consumer of aiokafka in this process read batches in this way."""
    if fetcher.MemoryRecords not in (MemoryRecords, LenientRecords):
        raise TypeError(
            f"aiokafka's consumer reads batches by {fetcher.MemoryRecords!r}: not the version this was made for"
        )
    fetcher.MemoryRecords = LenientRecords
    fetcher.FetchResult = BoundedResult
