"""A compacted topic kept in memory, for the partitions that this worker serves.

A compacted topic with the partitions of its source, read to its end when the first record of a partition is
served. Faust's own tables cannot serve here: they write to the partition of the *current* event, and in a batch taken
unacknowledged there is no current event.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType

from confluent_kafka import Message

from streams.contract.errors import BadRecord, Refused, broken_state
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.skipped_records import Skipped
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

Entries = dict[bytes, bytes]
"""Record key -> newest value, of one partition."""

_LOST = "a song is then one that was never uploaded, until its next upload"


class CompactedCache:
    """The entries of each partition that this worker serves, loaded when first asked for.

    Writing is the caller's: send the record, wait for the acknowledgement, then set it in the entries.

    Args:
        topic: full name of the compacted topic.
        check: raises BadRecord for an entry (key, value) that cannot be used.
        skipped: is told of such entries, which are then missing; None: nothing may be missing, so they are refused.
        without: partition -> offsets of records that are left out, because an operator said so.
        opened: called with a partition and its entries once they are read and before anybody has them, on another
            thread; may take entries out, and refuse.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        topic: str,
        clock: Clock,
        check: Callable[[bytes, bytes], None],
        skipped: Skipped | None = None,
        without: Mapping[int, Collection[int]] = MappingProxyType({}),
        opened: Callable[[int, Entries], None] | None = None,
    ) -> None:
        self.topic = topic
        self._kafka = kafka
        self._clock = clock
        self._check = check
        self._skipped = skipped
        self._without = without
        self._opened = opened
        self._partitions: dict[int, asyncio.Future[Entries]] = {}

    async def partition(self, number: int) -> Entries:
        """The entries of one partition.

        Raises:
            Unavailable: the broker does not answer.
            Refused: an entry cannot be used and must not be missing; the message names its place and the way out. Or
                ``opened`` refuses.
        """
        if number not in self._partitions:
            # On a thread: heartbeats of the group must go on while a long topic is read. Who asks meanwhile waits for
            # the same reading: entries set in one copy would be missing in another.
            self._partitions[number] = asyncio.ensure_future(asyncio.to_thread(self._read, number))
        return await asyncio.shield(self._partitions[number])

    def forget(self) -> None:
        """After a rebalance: what another worker wrote meanwhile must be read anew."""
        self._partitions.clear()

    def _read(self, number: int) -> Entries:
        without = self._without.get(number, ())
        snapshot = Snapshot(self._kafka, [self.topic], self._clock, number)
        standing: dict[bytes, Message] = {}
        try:
            for message in snapshot.read_to_end():
                if message.offset() in without:
                    continue
                if message.value() is None:
                    standing.pop(message.key() or b"", None)
                else:
                    standing[message.key() or b""] = message
        finally:
            snapshot.close()
        entries: Entries = {}
        bad: list[tuple[Message, BadRecord]] = []
        for key, message in standing.items():
            value = message.value() or b""
            try:
                self._check(key, value)
            except BadRecord as error:
                bad.append((message, error.without_frames()))
            else:
                entries[key] = value
        if bad and self._skipped is None:
            places = [(number, message.offset() or 0, str(why)) for message, why in bad]
            raise Refused(broken_state(self.topic, places, "songs.skip_ledger_records", self._without, _LOST))
        for message, why in bad:
            if self._skipped is not None:
                self._skipped.add(message, why)
        if self._opened:
            self._opened(number, entries)
        return entries
