"""What came back: pushes, answers and dead letters, and after how long."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Message, TopicPartition

from streams.contract.cloudevents import decoded
from streams.contract.events import PushTarget
from streams.contract.internal_events import CampaignReport, MatchRequest, Neighbour
from streams.contract.topics import CAMPAIGN_REPORTS, DEAD_LETTERS, MATCH_REQUESTS, PUSH_TARGETS, Naming
from streams.kafka.clients import consumer
from streams.runtime.settings import KafkaSettings
from targeting.types import Tier

_PUSH = msgspec.json.Decoder(PushTarget)
_REPORT = msgspec.json.Decoder(CampaignReport)
_REQUESTED = MatchRequest.REQUESTED.encode()


@dataclass(slots=True)
class Answer:
    """What one upload led to. Times are Unix seconds, as the reader saw the records.

    Attributes:
        pushes: (score, user_id), in the order of arrival.
        neighbours: the retrieved warm songs.
        answered: partitions that reported.
        decided: when the last push came that was decided at the request itself, not later as tastes moved.
        spaces: (partition, space) of those pushes.
    """

    first: float = 0.0
    last: float = 0.0
    decided: float = 0.0
    spaces: set[tuple[int, str]] = field(default_factory=set)
    pushes: list[tuple[float, str]] = field(default_factory=list)
    neighbours: list[Neighbour] = field(default_factory=list)
    answered: set[int] = field(default_factory=set)


class Follower:
    """Reads the outputs on a thread of its own, as a push system would: committed records only.

    Attributes:
        answers: song_id -> what came back for it.
        push_ids: every push_id seen.
        doubled: push_ids that came twice.
        dead: dead letters, as (value, error class, message).
        spaces: partition -> the space in which it decided on a request last.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming) -> None:
        self.answers: dict[str, Answer] = {}
        self.push_ids: set[str] = set()
        self.doubled: list[str] = []
        self.dead: list[tuple[bytes | None, str, str]] = []
        self.spaces: dict[int, str] = {}
        self.failure: BaseException | None = None
        self._readers = {
            naming.name(PUSH_TARGETS): self._push,
            naming.name(CAMPAIGN_REPORTS): self._report,
            naming.name(MATCH_REQUESTS): self._request,
            naming.name(DEAD_LETTERS): self._dead,
        }
        self._consumer = consumer(kafka, f"{naming.prefix}demo")
        self._consumer.assign(
            [
                TopicPartition(naming.name(topic), partition, OFFSET_BEGINNING)
                for topic in (PUSH_TARGETS, CAMPAIGN_REPORTS, DEAD_LETTERS)
                for partition in range(naming.partitions(topic))
            ]
            # Every partition gets the same requests.
            + [TopicPartition(naming.name(MATCH_REQUESTS), 0, OFFSET_BEGINNING)]
        )
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._thread.start()

    def answered(self, song_id: str) -> set[int]:
        """The partitions that answered an upload."""
        answer = self.answers.get(song_id)
        return answer.answered if answer else set()

    def close(self) -> None:
        self._stop.set()
        self._thread.join()
        self._consumer.close()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.is_set():
                first = self._consumer.poll(0.1)
                if first is None:
                    continue
                now = time.time()
                for message in (first, *self._consumer.consume(5000, 0)):
                    if message.error() is None:
                        # Anybody may send anything: what cannot be read is the roles' to bury.
                        with suppress(msgspec.DecodeError, KeyError):
                            self._readers[message.topic() or ""](message, now)
        except BaseException as error:  # noqa: BLE001 - shown by close()
            self.failure = error

    def _answer(self, song_id: str) -> Answer:
        return self.answers.setdefault(song_id, Answer())

    def _push(self, message: Message, now: float) -> None:
        push = _PUSH.decode(message.value() or b"")
        if push.push_id in self.push_ids:
            self.doubled.append(push.push_id)
        self.push_ids.add(push.push_id)
        answer = self._answer(push.song_id)
        answer.first = answer.first or now
        answer.last = now
        if push.tier == Tier.INITIAL.value:
            partition = message.partition() or 0
            self.spaces[partition] = push.space
            answer.decided = now
            answer.spaces.add((partition, push.space))
        answer.pushes.append((push.score, push.user_id))

    def _report(self, message: Message, _: float) -> None:
        report = _REPORT.decode(message.value() or b"")
        self._answer(report.song_id).answered.add(report.partition)

    def _request(self, message: Message, _: float) -> None:
        attributes = dict(message.headers() or ())
        if attributes["ce_type"] != _REQUESTED:
            return  # a command: what it retrieves is not what the pushes were decided by
        request = decoded(MatchRequest, message.value() or b"", attributes)
        self._answer(request.song_id).neighbours = request.neighbours

    def _dead(self, message: Message, _: float) -> None:
        found = dict(message.headers() or ())
        error, reason = (str(found[name], "utf-8") for name in ("dl_error", "dl_message"))  # type: ignore[arg-type]
        self.dead.append((message.value(), error, reason))
