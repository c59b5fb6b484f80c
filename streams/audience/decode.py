"""Turns the records of a batch into inputs for targeting, and the bad ones into dead letters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from streams.audience.deduplication import Deduplication, ListensSeen
from streams.audience.placement import misplaced, read_users_events
from streams.audience.preference_records import DecodedPreferences, wanted
from streams.audience.withdrawals import user_of
from streams.contract import vector_codec
from streams.contract.cloudevents import (
    EventColumns,
    ReceivedEvent,
    append_time,
    unpack,
)
from streams.contract.dead_letters import DeadLetter, dead_letter, headers, origin
from streams.contract.errors import BadRecord, FromTheFuture, InvalidField
from streams.contract.event_base import MAX_ID_LENGTH, Event
from streams.contract.events import Listen, PushOutcome, UserPreferences
from streams.contract.internal_events import MatchRequest
from streams.runtime.bad_record_burst import source_of
from targeting.types import (
    Command,
    EndReason,
    Listens,
    Mark,
    Match,
    Outcomes,
    OutsideVectors,
    PartitionInputs,
    Reanchor,
    Takedown,
)

E = TypeVar("E", bound=Event)

_ENDS: Final = {MatchRequest.TAKEN_DOWN: EndReason.TAKEN_DOWN, MatchRequest.PROMOTED: EndReason.PROMOTED}
_OUTCOMES: Final = {
    "delivered": Mark.DELIVERED,
    "failed": Mark.FAILED,
    "opened": Mark.OPENED,
    "dismissed": Mark.DISMISSED,
    "expired": Mark.EXPIRED,
}

# A timestamp in seconds, or none at all, would have every erasure outweigh the vector.
_EARLIEST_MADE: Final = datetime(2001, 1, 1, tzinfo=UTC).timestamp()
# The broker lets through what lies five minutes ahead of its own clock. This is for vectors from before it looked: they
# would outweigh every erasure. Wide, so that a worker's clock that is behind buries nothing.
_MOST_AHEAD: Final = 86_400.0


@dataclass(slots=True)
class Records:
    """The records of one partition in one batch, by input, in offset order."""

    preferences: list[Message] = field(default_factory=list)
    commands: list[Message] = field(default_factory=list)
    listens: list[Message] = field(default_factory=list)
    vectors: list[Message] = field(default_factory=list)
    outcomes: list[Message] = field(default_factory=list)

    def __len__(self) -> int:
        return sum(map(len, self.by_input().values()))

    def by_input(self) -> dict[str, list[Message]]:
        return {name: getattr(self, name) for name in INPUTS}


STAGE: Final = "audience."
"""Before the name of an input: the stage at which its bad records are met."""

INPUTS: Final = tuple(each.name for each in fields(Records))
"""The inputs of a partition, by name."""


@dataclass(frozen=True, slots=True)
class SpaceInUse:
    """The space in use: its name, and the dimension of its vectors."""

    name: str
    dimension: int


@dataclass(slots=True)
class Decoded:
    """The inputs in a batch, and a dead letter with stage and error class for each bad record.

    Attributes:
        seen: the batch's listens, to be remembered once they are committed.
        repeated: how many listens are left out because they were counted before.
        sources: who sent good records, by input.
        outcomes: the records of the inputs' outcomes, place by place.
    """

    inputs: PartitionInputs
    bad: list[tuple[DeadLetter, str, str]]
    seen: ListensSeen | None = None
    repeated: int = 0
    sources: dict[str, set[str]] = field(default_factory=dict)
    outcomes: Sequence[Message] = ()


class Decoder:
    """Reads one batch of one partition.

    Args:
        now: Unix seconds; what is decided is decided at that moment.
        answered: whether a record was consumed in an earlier life: preferences and outside vectors are read again
            at every start, but a bad one gets one dead letter only.
        partitions: of the audience.
    """

    def __init__(self, now: float, answered: Callable[[Message], bool], partitions: int) -> None:
        self._now = now
        self._partitions = partitions
        self._answered = answered
        self._bad: list[tuple[DeadLetter, str, str]] = []
        self._sources: dict[str, set[str]] = {}
        self._outcome_messages: list[Message] = []

    def decode(self, records: Records, space: SpaceInUse | None, repeats: Deduplication) -> Decoded:
        """Read a batch.

        Args:
            space: vectors from outside in any other space count as withdrawn; None: there is no model yet.
            repeats: knows the listens before this batch.
        """
        listens, seen = self._listens(records.listens, repeats)
        wishes = self._preferences(records.preferences)
        inputs = PartitionInputs(
            now=self._now,
            preferences=wishes.preferences,
            erasures=wishes.erasures,
            profiling=wishes.profiling,
            commands=self._commands(records.commands, space),
            listens=listens,
            vectors=self._vectors(records.vectors, space) if records.vectors and space else None,
            outcomes=self._outcomes(records.outcomes),
        )
        repeated = seen.listens - len(seen.keep) if seen else 0
        return Decoded(inputs, self._bad, seen, repeated, self._sources, self._outcome_messages)

    def _bury(self, message: Message, stage: str, error: BadRecord) -> None:
        if not self._answered(message):
            self._bad.append((dead_letter(origin(message), stage, error), stage, type(error).__name__))

    def _many(self, stage: str, cls: type[E], messages: Sequence[Message]) -> EventColumns[E]:
        found = read_users_events(cls, messages, self._now, self._partitions)
        for at, error in found.bad:
            self._bury(messages[at], stage, error)
        self._sources[stage.removeprefix(STAGE)] = {
            source.decode("utf-8", "backslashreplace") for source in found.sources
        }
        return found

    def _preferences(self, messages: list[Message]) -> DecodedPreferences:
        """What users want, the bad records answered."""
        if not messages:
            return DecodedPreferences()
        full = [message for message in messages if message.value() is not None]
        found = self._many("audience.preferences", UserPreferences, full)
        gone = [message for message in messages if message.value() is None and user_of(message.key()) is not None]
        elsewhere = dict(misplaced(gone, self._partitions))
        for at, error in elsewhere.items():
            self._bury(gone[at], "audience.preferences", error)
        deletions = [message for at, message in enumerate(gone) if at not in elsewhere]
        return wanted(full, found, deletions, self._now, self._answered)

    def _commands(self, messages: list[Message], space: SpaceInUse | None) -> list[Command]:
        out: list[Command] = []
        for message in messages:
            try:
                appended = append_time(message.timestamp(), self._now)
                received = unpack(MatchRequest, message.key(), message.value(), headers(message), appended)
                out.append(_command(received, space))
                self._sources.setdefault("commands", set()).add(source_of(headers(message)))
            except BadRecord as error:
                self._bury(message, "audience.commands", error)
        return out

    def _listens(self, messages: list[Message], repeats: Deduplication) -> tuple[Listens | None, ListensSeen | None]:
        if not messages:
            return None, None
        found = self._many("audience.listens", Listen, messages)
        events, times = found.events, found.times
        seen = repeats.look(*_ids(found, messages))
        if len(seen.keep) < len(events):
            events, times = [events[at] for at in seen.keep], [times[at] for at in seen.keep]
        if not events:
            return None, seen
        listens = Listens(
            user_ids=[event.user_id for event in events],
            song_ids=[event.song_id for event in events],
            weights=np.array([event.plays for event in events], np.float32),
            times=np.array(times, np.float64),
            marks=_marks(events),
        )
        return listens, seen

    def _outcomes(self, messages: list[Message]) -> Outcomes | None:
        if not messages:
            return None
        found = self._many("audience.outcomes", PushOutcome, messages)
        self._outcome_messages = [messages[at] for at in found.at]
        if not found.events:
            return None
        return Outcomes(
            user_ids=[event.user_id for event in found.events],
            song_ids=[event.song_id for event in found.events],
            marks=np.array([_OUTCOMES[event.outcome] for event in found.events], np.uint16),
            times=np.array([event.at.timestamp() for event in found.events], np.float64),
            push_ids=[event.push_id for event in found.events],
        )

    def _vectors(self, messages: list[Message], space: SpaceInUse) -> OutsideVectors | None:
        users = self._users(messages)
        stamps = np.array([message.timestamp()[1] for message in messages], np.float64) / 1000
        values = list(map(Message.value, messages))
        for at in np.flatnonzero((stamps < _EARLIEST_MADE) | (stamps > self._now + _MOST_AHEAD)).tolist():
            # A deletion needs no time.
            if users[at] is not None and values[at] is not None:
                self._bury(messages[at], "audience.vectors", _bad_time(stamps[at], self._now))
                users[at] = None
        full = [at for at, value in enumerate(values) if value is not None and users[at]]
        row_of = np.full(len(messages), -1, np.int64)
        matrix = np.zeros((0, space.dimension), np.float32)
        if full:
            places = np.asarray(full)
            found = vector_codec.unpack_space([values[at] or b"" for at in full], space.name, space.dimension)
            matrix = found.vectors
            row_of[places[found.at]] = np.arange(len(found.at))
            for at, error in found.bad:
                self._bury(messages[full[at]], "audience.vectors", error)
                users[full[at]] = None
        # The last good record of a user says it, so that the state does not depend on where batches end.
        last = {user: at for at, user in enumerate(users) if user is not None}
        if not last:
            return None
        who, at_of = list(last), np.fromiter(last.values(), np.int64, len(last))
        rows = row_of[at_of]
        taken = rows >= 0
        if taken.all():
            withdrawn: list[str] = []
        else:
            withdrawn = [who[at] for at in np.flatnonzero(~taken).tolist()]
            who = [who[at] for at in np.flatnonzero(taken).tolist()]
        kept = rows[taken]
        if len(kept) < len(matrix) or (np.diff(kept) != 1).any():
            matrix = matrix[kept]
        return OutsideVectors(space.name, who, matrix, stamps[at_of[taken]], withdrawn)

    def _users(self, messages: list[Message]) -> list[str | None]:
        """Whose record each is; None for one with a bad key, or in the wrong partition, which is buried."""
        users = self._named(messages)
        places = [at for at, user in enumerate(users) if user is not None]
        for place, error in misplaced([messages[at] for at in places], self._partitions):
            self._bury(messages[places[place]], "audience.vectors", error)
            users[places[place]] = None
        return users

    def _named(self, messages: list[Message]) -> list[str | None]:
        """Who each record's key names; None for a bad key, which is buried."""
        keys: list[Any] = list(map(Message.key, messages))
        # A batch of good keys takes the short way; one that is not sends the batch the long one, which says which.
        with suppress(UnicodeDecodeError, TypeError):
            lengths = set(map(len, keys))
            # No more characters than bytes.
            if min(lengths) >= 1 and max(lengths) <= MAX_ID_LENGTH:
                return [key.decode() for key in keys]
        users: list[str | None] = []
        for at, key in enumerate(key or b"" for key in keys):
            try:
                user = key.decode()
                if not 1 <= len(user) <= MAX_ID_LENGTH:
                    raise InvalidField(f"key: {len(user)} characters, 1 to {MAX_ID_LENGTH} allowed")
                users.append(user)
            except UnicodeDecodeError:
                self._bury(messages[at], "audience.vectors", InvalidField(f"key: {key!r} is not UTF-8"))
                users.append(None)
            except InvalidField as error:
                self._bury(messages[at], "audience.vectors", error)
                users.append(None)
        return users


def counted(messages: Sequence[Message], now: float, repeats: Deduplication, partitions: int) -> ListensSeen:
    """The listens of an earlier life, which were committed then: to be remembered, not to be counted again.

    Whatever was bad then has its dead letter, and is bad again.
    """
    found = read_users_events(Listen, messages, now, partitions)
    return repeats.look(*_ids(found, messages))


def _bad_time(stamp: float, now: float) -> BadRecord:
    if stamp > now:
        return FromTheFuture(
            f"timestamp: {stamp - now:.0f} s ahead of the clock, {_MOST_AHEAD:.0f} allowed; it says when the vector "
            "was made"
        )
    return InvalidField(f"timestamp: {stamp * 1000:.0f} ms is no time at which a vector was made; is it in seconds?")


def _ids(found: EventColumns[Listen], messages: Sequence[Message]) -> tuple[list[str], list[int]]:
    """Id and offset of each good listen."""
    if len(found.at) < len(messages):
        messages = [messages[at] for at in found.at]
    return [event.listen_id for event in found.events], [message.offset() or 0 for message in messages]


def _marks(events: Sequence[Listen]) -> NDArray[np.uint16] | None:
    """What is known of each listen; None where nothing is known of any."""
    completed = np.array([event.completed is True for event in events], np.uint16)
    collected = np.array([event.collected for event in events], np.uint16)
    marks = completed * np.uint16(Mark.COMPLETED) | collected * np.uint16(Mark.COLLECTED)
    return marks if marks.any() else None


def _command(received: ReceivedEvent[MatchRequest], in_use: SpaceInUse | None) -> Command:
    event = received.event
    if received.type in _ENDS:
        return Takedown(event.song_id, event.revision, _ENDS[received.type])
    space, vector = _direction(event.vector, in_use)
    neighbours = tuple(neighbour.song_id for neighbour in event.neighbours)
    similarities = np.array([neighbour.similarity for neighbour in event.neighbours], np.float32)
    if received.type == MatchRequest.REANCHORED:
        return Reanchor(event.song_id, event.revision, space, vector, neighbours, similarities)
    return Match(
        song_id=event.song_id,
        revision=event.revision,
        recording=event.recording,
        title=event.title,
        artist_ids=tuple(event.artist_ids),
        space=space,
        vector=vector,
        neighbours=neighbours,
        similarities=similarities,
        budget=event.budget,
        requested_at=event.uploaded_at.timestamp(),
        expires_at=event.expires_at.timestamp(),
        explicit=event.explicit,
        territories=tuple(event.territories),
        available_from=event.available_from.timestamp() if event.available_from else 0.0,
        others=tuple(_direction(other, in_use) for other in event.other_vectors),
    )


def _direction(data: bytes, in_use: SpaceInUse | None) -> tuple[str, NDArray[np.float32]]:
    space, vector = vector_codec.unpack_direction(data)
    if in_use is not None and space == in_use.name and len(vector) != in_use.dimension:
        raise InvalidField(f"vector: dimension {len(vector)}, space {space!r} has {in_use.dimension}")
    return space, vector
