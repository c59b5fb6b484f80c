"""What does this worker remember of the songs of its partitions, and how is it restored?

A compacted topic with the partitions of its source, read to its end when the first record of a partition is
served. Faust's own tables cannot serve here: they write to the partition of the *current* event, and in a batch taken
unacknowledged there is no current event.
"""

from __future__ import annotations

import asyncio

from streams.clock import Clock
from streams.settings import Kafka
from streams.snapshot import Snapshot

Entries = dict[bytes, bytes]
"""Record key -> newest value, of one partition."""


class Kept:
    """The entries of each partition that this worker serves, loaded when first asked for.

    Writing is the caller's: send the record, wait for the acknowledgement, then set it in the entries.

    Args:
        topic: full name of the compacted topic.
    """

    def __init__(self, kafka: Kafka, topic: str, clock: Clock) -> None:
        self.topic = topic
        self._kafka = kafka
        self._clock = clock
        self._partitions: dict[int, asyncio.Future[Entries]] = {}

    async def partition(self, number: int) -> Entries:
        """The entries of one partition.

        Raises:
            Unavailable: the broker does not answer.
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
        snapshot = Snapshot(self._kafka, [self.topic], self._clock, number)
        entries: Entries = {}
        try:
            for message in snapshot.read_to_end():
                key, value = message.key() or b"", message.value()
                if value is None:
                    entries.pop(key, None)
                else:
                    entries[key] = value
        finally:
            snapshot.close()
        return entries
