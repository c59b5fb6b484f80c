"""What became of an upload, from the topics: validated, encoded, asked, answered, pushed, refused.

Everything of a song lies under its key, in one partition of the songs' topics; what users got of it lies in theirs. The
time is bounded: the newest state of the song comes first, then what happened since its upload, and what was not looked
at in time is named.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from confluent_kafka import Message

from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.errors import BadRecord
from streams.contract.events import Campaign, PushTarget, SongUpload
from streams.contract.internal_events import CampaignReport, MatchRequest
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    DEAD_LETTERS,
    MATCH_REQUESTS,
    PUSH_TARGETS,
    SONG_UPLOADS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    Naming,
    Topic,
)
from streams.kafka.partitioner import partition_of
from streams.operations.bounded_reading import BoundedReader, ReadFrom
from streams.songs import song_record
from streams.songs.song_record import Song, report_key

# A record may have been written by a machine whose clock is a little ahead.
_MARGIN_S: Final = 5.0

_PUSH = msgspec.json.Decoder(PushTarget)
_REPORT = msgspec.json.Decoder(CampaignReport)
_CAMPAIGN = msgspec.json.Decoder(Campaign)


@dataclass(slots=True)
class SongStory:
    """What was found of a song.

    Attributes:
        song: its song record; None: no upload of it was ever served, or it is forgotten.
        uploads: events of the song, oldest first.
        refused: its dead letters.
        uploaded_at: when the oldest of them that is there was appended, Unix seconds.
        requests: partition -> when the request for the newest served revision was appended, Unix seconds.
        request: that request.
        answers: partition -> when its first report on this revision was appended, Unix seconds; reports stay a day.
        reports: partition -> its newest report.
        pushes: those found, oldest first.
    """

    song_id: str
    song: Song | None = None
    uploads: list[dict[str, Any]] = field(default_factory=list)
    uploaded_at: float | None = None
    refused: list[dict[str, Any]] = field(default_factory=list)
    requests: dict[int, float] = field(default_factory=dict)
    request: MatchRequest | None = None
    answers: dict[int, float] = field(default_factory=dict)
    reports: dict[int, CampaignReport] = field(default_factory=dict)
    campaign: Campaign | None = None
    pushes: list[PushTarget] = field(default_factory=list)

    @property
    def known(self) -> bool:
        """Whether any topic says anything of the song."""
        return bool(self.song or self.uploads or self.refused or self.campaign)

    @property
    def since(self) -> float | None:
        """From when on the song has a story, Unix seconds; None: unknown."""
        begins = self.uploaded_at if self.song is None else self.song.at
        return None if begins is None else begins - _MARGIN_S

    def document(self) -> dict[str, Any]:
        """For JSON."""
        request, campaign = self.request, self.campaign
        return {
            "song_id": self.song_id,
            "uploads": self.uploads,
            "refused": self.refused,
            "song": self._song(),
            "request": request and {
                "revision": request.revision,
                "space": self.song.space if self.song else None,
                "budget": request.budget,
                "neighbours": [[each.song_id, round(each.similarity, 4)] for each in request.neighbours],
                "sent_at": {str(number): time_text(at) for number, at in sorted(self.requests.items())},
            },
            "answers": [self._answer(number, report) for number, report in sorted(self.reports.items())],
            "campaign": campaign and msgspec.to_builtins(msgspec.structs.replace(campaign, prototypes=[])),
            "pushes": self._pushes(),
        }  # fmt: skip

    def _song(self) -> dict[str, Any] | None:
        song = self.song
        if song is None:
            return None
        return {
            "revision": song.revision,
            "space": song.space,
            "started_at": time_text(song.at),
            "expires_at": time_text(song.expires_at),
            "warm": song.warm,
            "ended": song.ended,
            "ended_at": time_text(song.ended_at) if song.ended else None,
        }

    def _answer(self, number: int, report: CampaignReport) -> dict[str, Any]:
        at = self.answers.get(number)
        return {
            "partition": number,
            "answered_at": at and time_text(at),
            "counts": msgspec.to_builtins(report.counts),
            "ended": report.ended,
        }

    def _pushes(self) -> dict[str, Any]:
        decided = [push.decided_at for push in self.pushes]
        return {
            "found": len(self.pushes),
            "first_at": min(decided).isoformat() if decided else None,
            "last_at": max(decided).isoformat() if decided else None,
            "by_reason": dict(Counter(push.reason.why for push in self.pushes)),
            "by_tier": dict(Counter(push.tier for push in self.pushes)),
            "put_off_by_quiet_hours": sum(push.not_before.timestamp() > push.decided_at.timestamp() + 1
                                          for push in self.pushes),
        }  # fmt: skip


def read_song(reader: BoundedReader, naming: Naming, song_id: str, partitions: Iterable[int]) -> SongStory:
    """What the topics say of a song.

    Args:
        partitions: of the audience, whose pushes are looked for.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    key, story = song_id.encode(), SongStory(song_id)
    home = partition_of(key, naming.songs_partitions)
    report_keys = {report_key(song_id, number) for number in range(naming.audience_partitions)}
    state = [ReadFrom(topic, home) for topic in (SONGS_LEDGER, CAMPAIGNS, SONGS_REPORTS)]
    for topic, message in reader.read(state, lambda each: each.key() == key or each.key() in report_keys):
        _note_state(story, topic, message.value())
    way = [(CAMPAIGN_REPORTS, home), *((MATCH_REQUESTS, number) for number in range(naming.audience_partitions))]
    events = [(SONG_UPLOADS, home), (DEAD_LETTERS, 0)]
    served = story.song is not None or story.campaign is not None
    _read_events(reader, story, [*events, *way] if served else events)
    if not served and story.uploads:
        # Requests go out before the song record is written, and a record may be forgotten before its pushes are.
        served = True
        _read_events(reader, story, way)
    named = b'"%s"' % msgspec.json.encode(song_id)[1:-1]
    pushed = [ReadFrom(PUSH_TARGETS, number, since=story.since) for number in partitions] if served else []
    for _, message in reader.read(pushed, lambda each: named in (each.value() or b"")):
        push = _PUSH.decode(message.value() or b"")
        if push.song_id == song_id:
            story.pushes.append(push)
    story.pushes.sort(key=lambda push: push.decided_at)
    return story


def _read_events(reader: BoundedReader, story: SongStory, places: Iterable[tuple[Topic, int]]) -> None:
    """What topics of events say of the song since its story begins."""
    key, since = story.song_id.encode(), story.since
    wanted = [ReadFrom(topic, partition, since=since) for topic, partition in places]
    for topic, message in reader.read(wanted, lambda each: each.key() == key):
        try:
            if _note_event(story, topic, message):
                reader.finish(message)
        except (BadRecord, msgspec.MsgspecError):
            # It has a dead letter, which says more.
            continue


def _note_state(story: SongStory, topic: Topic, value: bytes | None) -> None:
    if topic is SONGS_LEDGER:
        story.song = song_record.read(value)
    elif topic is CAMPAIGNS:
        story.campaign = None if value is None else _CAMPAIGN.decode(value)
    elif value is not None:
        report = _REPORT.decode(value)
        story.reports[report.partition] = report


def _note_event(story: SongStory, topic: Topic, message: Message) -> bool:
    """Whether this was the last event that its partition can tell of the song: the request named in the song record."""
    at = message.timestamp()[1] / 1000
    if topic is DEAD_LETTERS:
        told = {name: (value or b"").decode("utf-8", "replace") for name, value in headers(message)}
        story.refused.append({
            "at": time_text(at), "topic": told.get("dl_topic"), "stage": told.get("dl_stage"),
            "error": told.get("dl_error"), "reason": told.get("dl_message"),
        })  # fmt: skip
        return False
    if topic is SONG_UPLOADS:
        received = unpack(SongUpload, message.key(), message.value(), headers(message), math.inf)
        story.uploaded_at = min(at, story.uploaded_at or at)
        story.uploads.append({
            "at": time_text(at), "partition": message.partition(), "offset": message.offset(),
            "type": received.type, "id": received.id, "source": received.source, "revision": received.event.revision,
            "title": received.event.title,
        })  # fmt: skip
    elif topic is MATCH_REQUESTS:
        asked = unpack(MatchRequest, message.key(), message.value(), headers(message), math.inf)
        if asked.type == MatchRequest.REQUESTED:
            story.request = asked.event
            story.requests[message.partition() or 0] = at
            return story.song is not None and asked.event.revision == story.song.asked
    else:
        report = unpack(CampaignReport, message.key(), message.value(), headers(message), math.inf).event
        if story.song is None or report.revision == story.song.asked:
            story.answers.setdefault(report.partition, at)
        known = story.reports.get(report.partition)
        if known is None or report.version > known.version:
            story.reports[report.partition] = report
    return False


def time_text(seconds: float) -> str:
    """RFC 3339, UTC."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")
