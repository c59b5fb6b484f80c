"""An awaited producer: a send ends when the broker has acknowledged it.

Faust's ``send`` only hands a record to its producer. Callers here await what they get back: it returns when the broker
has acknowledged the record, and raises otherwise.
"""

from __future__ import annotations

from collections.abc import Awaitable, Sequence
from typing import Any

from streams.contract.cloudevents import Record
from streams.contract.dead_letters import Origin, dead_letter
from streams.contract.errors import BadRecord
from streams.contract.topics import DEAD_LETTERS, MATCH_REQUESTS, Naming, Topic
from streams.runtime.bad_record_burst import Bad, source_of
from streams.runtime.dead_letter_log import DeadLetterLog

Sent = Awaitable[Any]


class AwaitedProducer:
    """Our topics as Faust topics of raw bytes: we decode, so that we can bury bad records.

    Args:
        letters: told of every dead letter.
    """

    def __init__(self, app: Any, naming: Naming, letters: DeadLetterLog) -> None:
        self._app = app
        self._naming = naming
        self.letters = letters
        self._topics: dict[str, Any] = {}
        self._buried: dict[tuple[str, int, int], Bad] = {}

    def topic(self, topic: Topic) -> Any:
        """Faust's topic, for an agent or to send to."""
        if topic.name not in self._topics:
            self._topics[topic.name] = self._app.topic(
                self._naming.name(topic),
                key_type=bytes,
                value_type=bytes,
                key_serializer="raw",
                value_serializer="raw",
                partitions=self._naming.partitions(topic),
            )
        return self._topics[topic.name]

    async def send(self, topic: Topic, record: Record, partition: int | None = None) -> Sent:
        """Hand over one record."""
        return await self._hand_over(topic, record.key, record.value, record.headers, partition)

    async def put(self, topic: Topic, key: bytes, value: bytes | None, partition: int | None = None) -> Sent:
        """Hand over a value that is no event; None: a tombstone."""
        return await self._hand_over(topic, key, value, [], partition)

    async def send_to_all_partitions(self, record: Record) -> list[Sent]:
        """Hand over a command to every audience partition."""
        return [await self.send(MATCH_REQUESTS, record, each) for each in range(self._naming.audience_partitions)]

    async def bury(self, message: Any, stage: str, error: BadRecord) -> Sent:
        """Hand over the dead letter of a bad record that Faust read."""
        found = Origin(
            topic=message.topic,
            partition=message.partition,
            offset=message.offset,
            timestamp_ms=round(message.timestamp * 1000),
            key=message.key,
            value=message.value,
            headers=list(message.headers or ()),
        )
        if error.malformed:
            self._buried[found.topic, found.partition, found.offset] = Bad(
                source_of(found.headers), stage, type(error).__name__, str(error)
            )
        return await self.bury_found(found, stage, error)

    def buried(self) -> dict[tuple[str, int, int], Bad]:
        """What Faust read and was buried since this was last asked, by topic, partition and offset."""
        buried, self._buried = self._buried, {}
        return buried

    async def bury_found(self, found: Origin, stage: str, error: BadRecord) -> Sent:
        """Hand over the dead letter of a bad record."""
        letter = dead_letter(found, stage, error)
        self.letters.note(stage, type(error).__name__, str(error))
        return await self._hand_over(DEAD_LETTERS, letter.key, letter.value, letter.headers, None)

    async def _hand_over(
        self, topic: Topic, key: Any, value: Any, headers: Sequence[tuple[str, Any]], partition: int | None
    ) -> Sent:
        # Not attached to the current event: Faust would send it only when that event is acknowledged.
        sent: Sent = await self.topic(topic).send(
            key=key, value=value, headers=list(headers), partition=partition, force=True
        )
        return sent
