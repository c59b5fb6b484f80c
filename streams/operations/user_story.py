"""Why a user was pushed a song, or was not, from the topics and the partition's changelog.

A decision itself is not stored. What is: the user's push log, which also keeps who was held out; the history; the
preferences; and the song's request and answer. The rules that hold are found again from these, as they stand now.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from streams.audience.push_rules import preferences_of
from streams.contract.events import Listen, PushOutcome, PushTarget, UserPreferences
from streams.contract.topics import AUDIENCE_STATE, LISTENS, PREFERENCES, PUSH_OUTCOMES, Naming
from streams.kafka.partitioner import partition_of
from streams.operations.bounded_reading import BoundedReader, ReadFrom
from streams.operations.song_story import SongStory, time_text
from streams.songs.song_record import recording
from targeting.arrays.id_table import hash64
from targeting.partition.state_keys import ERASED, PUSHED, USER
from targeting.rules.policy import Policy, held_out
from targeting.types import Mark, Preferences
from targeting.users import history_record, push_record
from targeting.users.erasures import NEVER, Erasures, Marker

_LISTEN = msgspec.json.Decoder(Listen)
_OUTCOME = msgspec.json.Decoder(PushOutcome)
_WISHES = msgspec.json.Decoder(UserPreferences)


@dataclass(slots=True)
class UserStory:
    """What was found of a user and a song.

    Attributes:
        push: what the user got; None: nothing that was found.
        complete: whether everything was looked at that could say so.
        held_back: why not, in words, the strongest reason first.
        outcomes, listens: of this song, oldest first.
        heard: of the song's neighbours, those in the user's history.
        told: what the state remembers of erasures and of objections to profiling.
    """

    user_id: str
    partition: int
    push: PushTarget | None = None
    complete: bool = True
    held_back: list[str] = field(default_factory=list)
    outcomes: list[dict[str, Any]] = field(default_factory=list)
    listens: list[dict[str, Any]] = field(default_factory=list)
    heard: list[str] = field(default_factory=list)
    preferences: UserPreferences | None = None
    told: Marker = NEVER

    @property
    def pushed(self) -> bool | None:
        """None: unknown, because not everything was looked at."""
        return True if self.push is not None else False if self.complete else None

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "user_id": self.user_id,
            "partition": self.partition,
            "pushed": self.pushed,
            "push": self.push and msgspec.to_builtins(self.push),
            "held_back": self.held_back,
            "neighbours_heard": self.heard,
            "outcomes": self.outcomes,
            "listens": self.listens,
            "preferences": self.preferences and msgspec.to_builtins(self.preferences),
            "no_profiling_since": time_text(self.told.said) if self.told.objects else None,
        }


def read_user(
    reader: BoundedReader, naming: Naming, story: SongStory, user_id: str, policy: Policy, erasures: Erasures
) -> UserStory:
    """What the topics say of a user and a song whose story is read.

    Args:
        policy: by which the audience workers decide; ``erasures``: empty, with their keys.
    """
    key = user_id.encode()
    home = partition_of(key, naming.audience_partitions)
    found = UserStory(user_id, home, next((each for each in story.pushes if each.user_id == user_id), None))
    since = story.since
    events = [ReadFrom(PREFERENCES, home), *(ReadFrom(topic, home, since=since) for topic in (PUSH_OUTCOMES, LISTENS))]
    for topic, message in reader.read(events, lambda each: each.key() == key):
        value = message.value()
        try:
            if topic is PREFERENCES:
                found.preferences = None if value is None else _WISHES.decode(value)
            elif topic is PUSH_OUTCOMES:
                outcome = _OUTCOME.decode(value or b"")
                if outcome.song_id == story.song_id:
                    found.outcomes.append({"outcome": outcome.outcome, "at": outcome.at.isoformat()})
            else:
                listen = _LISTEN.decode(value or b"")
                if listen.song_id == story.song_id:
                    found.listens.append({"source": listen.source, "at": listen.played_at.isoformat()})
        except msgspec.MsgspecError:
            continue
    standing: dict[bytes, bytes] = {}
    kinds = {USER + key, PUSHED + key, *(ERASED + marker for marker in erasures.markers(user_id))}
    for _, message in reader.read([ReadFrom(AUDIENCE_STATE, home)], lambda each: each.key() in kinds):
        kind, of = (message.key() or b"")[:1], (message.key() or b"")[1:]
        if kind == ERASED:
            erasures.load(of, message.value())
        else:
            standing[kind] = message.value() or b""
    found.told = erasures.of(user_id)
    _, heard = history_record.decode([standing.get(USER, b"")])
    _, pushed = push_record.decode([standing.get(PUSHED, b"")])
    neighbours = [each.song_id for each in story.request.neighbours] if story.request else []
    if neighbours:
        there = np.isin(hash64(neighbours), heard["song"])
        found.heard = [song for song, is_there in zip(neighbours, there.tolist(), strict=True) if is_there]
    found.complete = not reader.left
    if found.push is None:
        found.held_back = list(_reasons(story, found, heard["song"], pushed, policy))
    return found


def _reasons(
    story: SongStory, user: UserStory, heard: np.ndarray[Any, Any], pushed: np.ndarray[Any, Any], policy: Policy
) -> Iterator[str]:
    song = story.song
    if not user.complete:
        yield "not everything was looked at in time: the rest may hold a push, or more reasons"
        if song is None:
            return
    if song is None and story.requests:
        yield "the partitions were asked, and there is no song record: it is about to be written, or is forgotten"
    elif song is None:
        yield "no upload of the song was served: " + (
            f"refused as {story.refused[-1]['error']}: {story.refused[-1]['reason']}"
            if story.refused
            else "none was found"
        )
    if song is None:
        return
    upload = song.event()
    report = story.reports.get(user.partition)
    if user.complete and (report is None or report.revision < song.asked):
        yield f"partition {user.partition} has not answered yet"
    if user.told.objects:
        since = time_text(user.told.said)
        yield f"profiling is off since {since}: nothing that the user hears is kept, and nothing is pushed"
    elif user.preferences and not user.preferences.profiling:
        yield f"profiling is off by the preferences of {user.preferences.updated_at.isoformat()}"
    wishes = preferences_of(user.preferences) if user.preferences else policy.default
    yield from _wishes(wishes, user, upload.explicit, upload.territories, upload.artist_ids)
    if (hash64([story.song_id])[0] == heard).any():
        yield "the user has heard the song"
    yield from _log(story, upload, pushed, policy, wishes)
    if held_out(hash64([user.user_id]), story.song_id, policy)[0]:
        yield "this user is in the holdout for this song: counted, never pushed"
    if user.complete and story.request is not None and not user.heard:
        yield f"the user heard none of the {len(story.request.neighbours)} similar songs that were retrieved"
    if song.ended:
        yield f"the campaign ended: {song.ended}, at {time_text(song.ended_at)}"
    if report is not None:
        least = min((each.score for each in story.pushes if each.tier == "initial"), default=None)
        yield (
            f"of {report.counts.candidates:,} candidates in partition {user.partition} {report.counts.pushed:,} were "
            "pushed, the better ones first"
        ) + ("" if least is None else f"; the last of them had a score of {least:.3f}")


def _wishes(
    wishes: Preferences, user: UserStory, explicit: bool, territories: list[str], artists: list[str]
) -> Iterator[str]:
    when = f" (since {user.preferences.updated_at.isoformat()})" if user.preferences else " (by default)"
    if not wishes.opted_in:
        yield f"opted out{when}"
    if explicit and not wishes.allow_explicit:
        yield f"the song is explicit, which the user does not want{when}"
    if muted := wishes.muted_artists.intersection(artists):
        yield f"muted artist: {', '.join(sorted(muted))}{when}"
    if territories and wishes.country not in territories:
        yield f"the song is for {', '.join(territories[:10])}, the user's country is {wishes.country or 'unknown'}"


def _log(
    story: SongStory, upload: Any, pushed: np.ndarray[Any, Any], policy: Policy, wishes: Preferences
) -> Iterator[str]:
    """What the user's push log says against another push."""
    mine = pushed[pushed["recording"] == hash64([recording(upload)])[0]]
    for row in mine:
        out = int(row["marks"]) & Mark.HELD_OUT
        yield ("held out" if out else "the same recording was pushed before") + f", at {time_text(float(row['at']))}"
    sent = pushed[(pushed["marks"] & Mark.HELD_OUT) == 0]
    at = story.song.at if story.song else 0.0
    cap = wishes.cap or policy.cap
    if cap is not None and (near := int((np.abs(sent["at"].astype(float) - at) < cap.seconds).sum())) >= cap.pushes:
        yield f"frequency cap: {near} pushes within {cap.hours:g} h of the upload, {cap.pushes} allowed"
    if policy.artist_cap is not None and upload.artist_ids:
        same = sent[sent["artist"] == hash64([upload.artist_ids[0]])[0]]
        cap = policy.artist_cap
        if (near := int((np.abs(same["at"].astype(float) - at) < cap.seconds).sum())) >= cap.pushes:
            yield f"frequency cap of the artist: {near} pushes within {cap.hours:g} h, {cap.pushes} allowed"
