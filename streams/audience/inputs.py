"""What does a batch of records say to targeting, and which of them are bad?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar, cast

import numpy as np
from confluent_kafka import Message

from streams import vectors
from streams.dead_letters import DeadLetter, Origin, dead_letter
from streams.envelope import Headers, Received, unpack
from streams.errors import BadRecord
from streams.events import Event, Listen, MatchRequest, UserPreferences
from targeting.types import End, Inputs, Listens, Match, Preferences, Takedown

E = TypeVar("E", bound=Event)
T = TypeVar("T")


@dataclass(slots=True)
class Records:
    """The records of one partition in one batch, by topic, in offset order."""

    preferences: list[Message] = field(default_factory=list)
    commands: list[Message] = field(default_factory=list)
    listens: list[Message] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.preferences) + len(self.commands) + len(self.listens)


@dataclass(slots=True)
class Decoded:
    """The inputs in a batch, and a dead letter with stage and error class for each bad record."""

    inputs: Inputs
    bad: list[tuple[DeadLetter, str, str]]


def decode(records: Records, now: float, answered: Callable[[Message], bool]) -> Decoded:
    """Read a batch.

    Args:
        now: Unix seconds; events further ahead are bad.
        answered: whether a record was consumed in an earlier life: preferences are read again at every start,
            but a bad one gets one dead letter only.
    """
    bad: list[tuple[DeadLetter, str, str]] = []

    def good(stage: str, cls: type[E], messages: Iterable[Message], read: Callable[[Received[E]], T]) -> list[T]:
        out = []
        for message in messages:
            try:
                out.append(read(unpack(cls, message.key(), message.value(), headers(message), now)))
            except BadRecord as error:
                if not answered(message):
                    bad.append((dead_letter(origin(message), stage, error), stage, type(error).__name__))
        return out

    preferences: list[tuple[str, Preferences | None]] = []
    for message in records.preferences:
        if message.value() is None:
            preferences.append(((message.key() or b"").decode("utf-8", "replace"), None))
        else:
            preferences += good("audience.preferences", UserPreferences, [message], _preferences)
    inputs = Inputs(
        now=now,
        preferences=preferences,
        commands=good("audience.commands", MatchRequest, records.commands, _command),
        listens=_listens(good("audience.listens", Listen, records.listens, _same)),
    )
    return Decoded(inputs, bad)


def origin(message: Message) -> Origin:
    """Where a record was found."""
    return Origin(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=message.key(),
        value=message.value(),
        headers=headers(message),
    )


def headers(message: Message) -> Headers:
    """A consumed record's headers; confluent-kafka's type also allows what only a producer may give."""
    return cast(Headers, message.headers() or [])


def _same(received: Received[Listen]) -> Received[Listen]:
    return received


def _preferences(received: Received[UserPreferences]) -> tuple[str, Preferences]:
    event = received.event
    return event.user_id, Preferences(
        user_id=event.user_id,
        opted_in=event.opted_in,
        country=event.country,
        muted_artists=frozenset(event.muted_artists),
        allow_explicit=event.allow_explicit,
    )


def _command(received: Received[MatchRequest]) -> Match | Takedown:
    event = received.event
    if MatchRequest.taken_down(received.type):
        return Takedown(event.song_id, event.revision, End.TAKEN_DOWN)
    space, vector = vectors.unpack(event.vector)
    return Match(
        song_id=event.song_id,
        revision=event.revision,
        recording=event.recording,
        title=event.title,
        artist_ids=tuple(event.artist_ids),
        space=space,
        vector=vector,
        neighbours=tuple(neighbour.song_id for neighbour in event.neighbours),
        similarities=np.array([neighbour.similarity for neighbour in event.neighbours], np.float32),
        budget=event.budget,
        requested_at=event.uploaded_at.timestamp(),
        expires_at=event.expires_at.timestamp(),
        explicit=event.explicit,
        territories=tuple(event.territories),
        available_from=event.available_from.timestamp() if event.available_from else 0.0,
    )


def _listens(received: Sequence[Received[Listen]]) -> Listens | None:
    if not received:
        return None
    return Listens(
        user_ids=[each.event.user_id for each in received],
        song_ids=[each.event.song_id for each in received],
        weights=np.array([each.event.plays for each in received], np.float32),
        times=np.array([each.time for each in received], np.float64),
    )
