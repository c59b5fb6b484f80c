"""An upload from end to end, again and again: how long until every partition has answered it?

A probe is a real upload. Its id begins with ``SongUpload.PROBES``, so the songs role asks with a
budget of 0: every partition decides, answers, and pushes nobody. Each probe is another revision of the same song, so
that they leave one campaign, however many there are.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec

from streams.contract.cloudevents import pack
from streams.contract.events import Campaign, SongUpload
from streams.contract.topics import CAMPAIGNS, SONG_UPLOADS, Naming
from streams.kafka.clients import hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.partitioner import partition_of
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

_SOURCE: Final = "coldstart/probe"
_LIFE: Final = timedelta(hours=1)

_CAMPAIGN = msgspec.json.Decoder(Campaign)


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """How one probe went.

    Attributes:
        seconds: until every partition had answered, or until the patience was over.
        missing: partitions that had not answered by then; empty: all is well.
    """

    song_id: str
    revision: int
    seconds: float
    missing: frozenset[int]

    @property
    def answered(self) -> bool:
        return not self.missing


class Probe:
    """Sends probes, one after the other, and follows the ``campaigns`` topic for their answers.

    Args:
        name: tells several probes of an installation apart; by default this host's.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming, clock: Clock, name: str | None = None) -> None:
        self._naming = naming
        self._clock = clock
        self._timeout = kafka.request_timeout_s
        self.song_id = SongUpload.PROBES + (name or socket.gethostname())[:100]
        self._producer = producer(kafka)
        partition = partition_of(self.song_id.encode(), naming.songs_partitions)
        self._campaigns = Snapshot(kafka, [naming.name(CAMPAIGNS)], clock, partition)
        self._revision = 0
        for _ in self._campaigns.read_to_end():
            pass

    def send(self, patience_s: float) -> ProbeAnswer:
        """One probe: publish, and wait until every partition has answered, or for so many seconds."""
        # Of a clock that was set back the next revision still is a higher one.
        self._revision = max(self._revision + 1, int(self._clock.now() * 1000))
        upload = SongUpload(
            song_id=self.song_id, revision=self._revision, title="probe", tags={"probe": 1.0},
            expires_at=datetime.fromtimestamp(self._clock.now(), UTC) + _LIFE,
        )  # fmt: skip
        id = f"{self.song_id}/{self._revision}"
        record = pack(upload, ce_type=SongUpload.UPDATED, id=id, source=_SOURCE, time=self._clock.now())
        started = self._clock.monotonic()
        hand_over(self._producer, self._naming.name(SONG_UPLOADS), record)
        self._producer.flush(patience_s)
        missing = frozenset(range(self._naming.audience_partitions))
        while missing and (left := started + patience_s - self._clock.monotonic()) > 0:
            for message in self._campaigns.poll(min(left, 0.2)):
                if message.key() == self.song_id.encode() and message.value():
                    campaign = _CAMPAIGN.decode(message.value() or b"")
                    if campaign.revision >= self._revision:
                        missing = missing - frozenset(campaign.counts.answered)
        return ProbeAnswer(self.song_id, self._revision, self._clock.monotonic() - started, missing)

    def close(self) -> None:
        self._campaigns.close()
