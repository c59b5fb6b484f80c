"""Which promises can be checked from the topics alone, and are they kept?

It shares no code with the roles but the declaration of events and topics: what it knows, a stranger could read.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field

import msgspec
from confluent_kafka import Message

from streams.clock import Clock
from streams.events import CampaignReport, PushTarget, SongUpload, UserPreferences
from streams.settings import Kafka
from streams.snapshot import Snapshot
from streams.topics import (
    CAMPAIGN_REPORTS,
    DEAD_LETTERS,
    PREFERENCES,
    PUSH_TARGETS,
    SONG_UPLOADS,
    Naming,
    Topic,
)


@dataclass(slots=True)
class Verdict:
    """What was looked at, and every promise that was broken, in words."""

    uploads: int = 0
    pushes: int = 0
    dead_letters: int = 0
    preferences: int = 0
    violations: list[str] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Said:
    """A user's preferences at an offset of their partition."""

    offset: int
    preferences: UserPreferences


def check(kafka: Kafka, naming: Naming, clock: Clock, budget_at_once: float = 0.7) -> Verdict:
    """Read everything and judge it. To be called when nothing is on its way any more.

    - every upload is answered by every partition, or is in dead-letters;
    - a push_id stands once, and a recording is pushed to a user once, whatever its song;
    - of no song more than its share of the budget is pushed at the request;
    - no push to a user who, by the preferences before the push's own ``preferences_offset``, was opted out, had
      muted one of its artists or did not allow what is explicit;
    - no push before its song's upload names it, and none to a territory that is not the user's.
    """
    verdict = Verdict()

    def read(topic: Topic) -> list[Message]:
        snapshot = Snapshot(kafka, [naming.name(topic)], clock)
        try:
            return list(snapshot.read_to_end())
        finally:
            snapshot.close()

    dead = {(header(m, "dl_topic"), header(m, "dl_partition"), header(m, "dl_offset")) for m in read(DEAD_LETTERS)}
    verdict.dead_letters = len(dead)
    songs: dict[str, SongUpload] = {}
    for message in read(SONG_UPLOADS):
        place = (naming.name(SONG_UPLOADS), str(message.partition()), str(message.offset()))
        if place in dead:
            continue
        song = msgspec.json.decode(message.value() or b"", type=SongUpload)
        verdict.uploads += 1
        if song.song_id not in songs or song.revision > songs[song.song_id].revision:
            songs[song.song_id] = song
    answered: defaultdict[str, set[int]] = defaultdict(set)
    for message in read(CAMPAIGN_REPORTS):
        report = msgspec.json.decode(message.value() or b"", type=CampaignReport)
        answered[report.song_id].add(report.partition)
    everyone = set(range(naming.audience_partitions))
    for song_id in songs:
        if answered[song_id] != everyone:
            missing = sorted(everyone - answered[song_id])
            verdict.violations.append(f"upload of {song_id}: not answered by partitions {missing}")

    said: defaultdict[tuple[int, str], list[_Said]] = defaultdict(list)
    for message in read(PREFERENCES):
        wish = msgspec.json.decode(message.value() or b"", type=UserPreferences)
        said[message.partition() or 0, wish.user_id].append(_Said(message.offset() or 0, wish))
        verdict.preferences += 1

    ids: set[str] = set()
    recordings: set[tuple[str, str]] = set()
    pushed: defaultdict[str, int] = defaultdict(int)
    for message in read(PUSH_TARGETS):
        push = msgspec.json.decode(message.value() or b"", type=PushTarget)
        verdict.pushes += 1
        what = f"push {push.push_id} of {push.song_id} to {push.user_id}"
        if push.push_id in ids:
            verdict.violations.append(f"{what}: stands twice")
        ids.add(push.push_id)
        uploaded = songs.get(push.song_id)
        if uploaded is None:
            verdict.violations.append(f"{what}: the song was never uploaded")
            continue
        recording = uploaded.recording_id or uploaded.song_id
        if (push.user_id, recording) in recordings:
            verdict.violations.append(f"{what}: the recording was pushed to this user before")
        recordings.add((push.user_id, recording))
        pushed[push.song_id] += 1
        known = [each for each in said[message.partition() or 0, push.user_id] if each.offset < push.preferences_offset]
        if known:
            verdict.violations += [f"{what}: {why}" for why in _against(known[-1].preferences, uploaded)]
    for song_id, count in pushed.items():
        budget = songs[song_id].budget
        if budget is not None and count > round(budget * budget_at_once):
            verdict.violations.append(f"{song_id}: {count} pushes, {round(budget * budget_at_once)} allowed at once")
    return verdict


def header(message: Message, name: str) -> str:
    value = dict(message.headers() or ()).get(name)
    return value.decode() if isinstance(value, bytes) else ""


def _against(wish: UserPreferences, song: SongUpload) -> list[str]:
    """What in a user's preferences speaks against a push of this song."""
    muted = sorted(set(wish.muted_artists) & set(song.artist_ids))
    return [
        *(["the user had opted out"] if not wish.opted_in else []),
        *([f"the user had muted {', '.join(muted)}"] if muted else []),
        *(["explicit, which the user does not allow"] if song.explicit and not wish.allow_explicit else []),
        *(
            [f"not for {wish.country}"]
            if song.territories and wish.country is not None and wish.country not in song.territories
            else []
        ),
    ]
