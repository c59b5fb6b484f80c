"""What is read of a batch, whatever its producer put into it."""

from __future__ import annotations

import tracemalloc
from typing import Any

import pytest
from aiokafka import TopicPartition  # type: ignore[import-untyped]
from aiokafka.consumer import fetcher  # type: ignore[import-untyped]
from aiokafka.record.default_records import DefaultRecordBatchBuilder  # type: ignore[import-untyped]
from hypothesis import given
from hypothesis import strategies as st

from streams.contract.unreadable import UNREADABLE
from streams.kafka.batches import LenientRecords, kept, read_leniently, unpacked

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
HUGE = 70_000_000
HEADERS = [("a", b"1"), ("b", None)]


def batch(values: list[bytes | None], codec: int, headers: list[tuple[str, bytes | None]] = HEADERS) -> bytes:
    built = DefaultRecordBatchBuilder(
        magic=2, compression_type=codec, is_transactional=False, producer_id=-1, producer_epoch=-1, base_sequence=-1,
        batch_size=200_000_000,
    )  # fmt: skip
    for offset, value in enumerate(values):
        assert built.append(offset, 1_700_000_000_000 + offset, b"key", value, headers) is not None
    return bytes(built.build())


def read(data: bytes) -> list[Any]:
    records = LenientRecords(data)
    found = []
    while records.has_next():
        found += list(records.next_batch())
    return found


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_batch_of_any_codec_is_read_as_it_was_written(codec: int) -> None:
    data = batch([b"x" * 40_000, None, b""], codec)
    assert LenientRecords(data).next_batch().validate_crc()
    found = read(data + data + data[:50])
    said = [(each.offset, each.timestamp, each.key, each.value, list(each.headers)) for each in found]
    expected = [(n, 1_700_000_000_000 + n, b"key", v, HEADERS) for n, v in enumerate([b"x" * 40_000, None, b""])]
    assert said == expected * 2


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
def test_a_header_name_that_is_not_utf_8_makes_its_record_unreadable_and_no_other(codec: int) -> None:
    from streams.kafka import batches

    one = bytearray(batch([b"0", b"1", b"2"], 0, [("\x7f", b"v")]))
    # The second record's.
    at = one.index(b"\x7f", one.index(b"\x7f") + 1)
    one[at] = 0xFF
    records, packed = bytes(one[batches._HEADER.size :]), bytearray(one[: batches._HEADER.size])
    packed[22] = codec
    found = read(_again(bytes(packed), _packed(codec, records)))
    assert [(each.offset, each.value) for each in found] == [(0, b"0"), (1, b"1"), (2, b"2")]
    assert [each.headers[0][0] for each in found] == ["\x7f", UNREADABLE, "\x7f"]


def _packed(codec: int, data: bytes) -> bytes:
    from aiokafka import codec as codecs

    pack = {1: codecs.gzip_encode, 2: codecs.snappy_encode, 3: codecs.lz4_encode, 4: codecs.zstd_encode}
    return bytes(pack[codec](data)) if codec else data


def _again(header: bytes, records: bytes) -> bytes:
    return header[:8] + (len(header) - 12 + len(records)).to_bytes(4, "big") + header[12:] + records


@pytest.mark.parametrize("codec", [1, 2, 3, 4], ids=list(CODECS)[1:])
def test_a_batch_that_unpacks_into_70_megabytes_takes_no_more_than_its_bound(codec: int) -> None:
    data = batch([b"before", bytes(HUGE), b"behind"], codec)
    tracemalloc.start()
    try:
        found = read(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 160_000_000
    assert [(each.offset, each.value) for each in found] == [(0, b"before"), (2, b"")]
    reason = b"offset 1 to 2: the batch cannot be read, it unpacks into more than 67,108,864 bytes"
    assert list(found[1].headers) == [(UNREADABLE, reason)]


class Position:
    """Where a consumer stands in a partition, as aiokafka asks and tells."""

    active, paused, position = True, False, 0

    def state_value(self, _: TopicPartition) -> Position:
        return self

    def consumed_to(self, offset: int) -> None:
        self.position = offset


@pytest.mark.parametrize(("size", "expected"), [(5_000_000, [4, 4, 2]), (100, [10])])
def test_no_more_is_given_out_at_once_than_the_heartbeat_can_wait_for(size: int, expected: list[int]) -> None:
    read_leniently()
    place, position = TopicPartition("t", 0), Position()
    one, data = batch([bytes(size)], 4), b""
    for offset in range(10):
        data += offset.to_bytes(8, "big") + one[8:]
    records = fetcher.PartitionRecords(place, LenientRecords(data), [], 0, None, kept, True, fetcher.READ_COMMITTED)
    result = fetcher.FetchResult(place, assignment=position, partition_records=records, backoff=0)
    found: list[list[int]] = []
    while result.has_more():
        found.append([record.offset for record in result.getall(64)])
        assert position.position == sum(map(len, found))
    assert [len(each) for each in found if each] == expected
    assert [offset for each in found for offset in each] == list(range(10))


def test_two_gzip_members_are_one_after_the_other() -> None:
    from gzip import compress

    data = compress(b"one") + compress(b"two")
    assert unpacked(1, memoryview(data)) == (bytearray(b"onetwo"), True)
    assert unpacked(1, memoryview(data), 5) == (bytearray(b"onetw"), False)


@given(
    codec=st.sampled_from(list(CODECS.values())),
    changes=st.lists(st.tuples(st.integers(23, 400), st.integers(0, 255)), max_size=5),
    end=st.integers(0, 400) | st.none(),
)
def test_whatever_bytes_a_batch_has_its_offsets_are_told_up_to_its_end(
    codec: int, changes: list[tuple[int, int]], end: int | None
) -> None:
    data = bytearray(batch([bytes(range(200)), None, b"v"], codec))
    for at, value in changes:
        # Not the header, whose checks are the broker's.
        if 61 <= at < len(data):
            data[at] = value
    if end is not None and 61 <= end < len(data):
        data[8:12] = (end - 12).to_bytes(4, "big")
        del data[end:]
    offsets = [each.offset for each in read(bytes(data))]
    assert offsets == sorted(set(offsets))
    assert offsets[-1] >= 2
