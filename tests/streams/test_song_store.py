"""What a songs worker remembers of a partition, and when it looks again."""

from __future__ import annotations

import asyncio

from installation import Installation

from streams.contract.cloudevents import Record
from streams.contract.topics import SONGS_LEDGER
from streams.runtime.clock import SystemClock
from streams.songs.song_store import CompactedCache


def kept(here: Installation) -> CompactedCache:
    return CompactedCache(here.kafka, here.naming.name(SONGS_LEDGER), SystemClock(), lambda *_: None)


def write(here: Installation, partition: int, *entries: tuple[bytes, bytes | None]) -> None:
    here.send_all(SONGS_LEDGER, [Record(key, value, []) for key, value in entries], partition)  # type: ignore[arg-type]


def test_the_newest_value_of_each_key_without_the_deleted_ones(here: Installation) -> None:
    write(here, 0, (b"a", b"1"), (b"b", b"1"), (b"a", b"2"), (b"b", None), (b"c", b"1"), (b"never", None))
    write(here, 1, (b"other", b"1"))
    store = kept(here)
    assert asyncio.run(store.partition(0)) == {b"a": b"2", b"c": b"1"}
    assert asyncio.run(store.partition(1)) == {b"other": b"1"}


def test_it_is_read_once_until_a_rebalance(here: Installation) -> None:
    store = kept(here)
    mine = asyncio.run(store.partition(0))
    assert mine == {}
    mine[b"set"] = b"by me"
    write(here, 0, (b"new", b"by another"))
    assert asyncio.run(store.partition(0)) == {b"set": b"by me"}
    store.forget()
    # What was never written to the topic is not remembered either.
    assert asyncio.run(store.partition(0)) == {b"new": b"by another"}


def test_who_asks_while_it_is_read_gets_the_same_entries(here: Installation) -> None:
    async def both() -> bool:
        first, second = await asyncio.gather(store.partition(0), store.partition(0))
        return first is second

    store = kept(here)
    assert asyncio.run(both())
