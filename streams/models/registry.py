"""The live model, and the warm songs that it retrieves.

A cache of the topics ``models`` and ``warm-songs``, rebuilt by reading them again.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from streams.contract import vector_codec
from streams.contract.cloudevents import Headers, unpack
from streams.contract.dead_letters import headers
from streams.contract.errors import BadRecord, InvalidField
from streams.contract.internal_events import LiveModel, WarmSong
from streams.contract.topics import MODELS, WARM_SONGS, Naming
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.skipped_records import Skipped
from streams.models.learned_chances import OBJECTIVES, calibration_of
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

ENCODER = "encoder"
"""The name under which ``publish`` makes a model live."""

F32 = NDArray[np.float32]


@dataclass(slots=True)
class WarmSpace:
    """The warm songs of one embedding space, row by row: ids[i] has vector vectors[i]."""

    ids: list[str] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)
    _vectors: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    _changed: set[str] = field(default_factory=set)

    @classmethod
    def of(cls, dimension: int) -> WarmSpace:
        """An empty one."""
        return cls(_vectors=np.empty((0, dimension), np.float32))

    def __contains__(self, song_id: str) -> bool:
        return song_id in self._rows

    @property
    def vectors(self) -> F32:
        """float32 (songs, d)."""
        return self._vectors[: len(self.ids)]

    def vector(self, song_id: str) -> F32:
        """float32 (d,). Raises KeyError when the song is not here."""
        row: F32 = self._vectors[self._rows[song_id]]
        return row

    def changes(self) -> set[str]:
        """The songs added, removed or moved since the last call, for a caller that keeps something in step."""
        changed, self._changed = self._changed, set()
        return changed

    def put(self, song_id: str, vector: F32) -> None:
        row = self._rows.get(song_id)
        # Publishing a model again repeats what is known of each song: nothing changed.
        if row is not None and np.array_equal(self._vectors[row], vector):
            return
        self._changed.add(song_id)
        if row is None:
            row = len(self.ids)
            if row == len(self._vectors):
                grown = np.empty((max(1024, 2 * row), len(vector)), np.float32)
                grown[:row] = self._vectors[:row].reshape(row, len(vector))
                self._vectors = grown
            self._rows[song_id] = row
            self.ids.append(song_id)
        self._vectors[row] = vector

    def drop(self, song_id: str) -> None:
        """Remove a song; the last row takes its place."""
        row = self._rows.pop(song_id, None)
        if row is None:
            return
        self._changed.add(song_id)
        last = self.ids.pop()
        if last != song_id:
            self.ids[row] = last
            self._rows[last] = row
            self._vectors[row] = self._vectors[len(self.ids)]


class LiveView:
    """The live model and the warm songs of its space, kept up to date by :meth:`poll`.

    Of spaces that are neither live nor coming, only the songs' ids are kept. A former model that comes back has the
    topic read again from its beginning; its songs are complete when that is done.

    A record that cannot be read, or that says what cannot be, is skipped: what its key said before stands for as long
    as the log has it, and everything else is served.

    Attributes:
        model: None while nothing is published.
        version: grows whenever the model or a warm song changes.
    """

    def __init__(self, kafka: KafkaSettings, naming: Naming, clock: Clock, skipped: Skipped | None = None) -> None:
        self.model: LiveModel | None = None
        self.version = 0
        self._skipped = skipped or Skipped()
        # By dimension, too: which one a space has is known only once a model says so, and songs may be read before it.
        self._spaces: dict[tuple[str, int], WarmSpace] = {}
        self._dimensions: dict[str, int] = {}
        # Space -> ids of its songs, of former models.
        self._former: dict[str, set[str]] = {}
        self._coming_back = ""
        # Spaces of which songs came since the model flipped: another model may be on its way.
        self._touched: set[str] = set()
        self._kafka, self._clock = kafka, clock
        self._models, self._songs = naming.name(MODELS), naming.name(WARM_SONGS)
        self._flipped = False
        # Topic, partition -> behind the last record that was taken.
        self._read: dict[tuple[str, int], int] = {}
        # What must be read of the warm songs before the model is complete: partition -> offset.
        self._wanted: dict[int, int] | None = None
        self._snapshot = Snapshot(kafka, [self._songs, self._models], clock)
        for message in self._snapshot.read_to_end():
            self._take(message)
        self._follow_model()

    def poll(self, timeout: float = 0.0) -> bool:
        """Take over what has come since; True if anything did. Waits at most ``timeout`` seconds."""
        messages, before = self._snapshot.poll(timeout), self.version
        for message in messages:
            self._take(message)
        self._follow_model()
        return self.version > before

    def warm(self) -> WarmSpace | None:
        """The warm songs of the live model, or None while they are not all here.

        ``publish`` writes the songs before it flips the model, but Kafka keeps no order between topics. So the ends
        of the songs' topic are asked for when the model was seen: all that was published lies before them. A count
        would not do: songs are taken down, and others become warm. But a model with warm songs of which not one has
        its dimension is not the model of these songs.
        """
        if self.model is None or self._wanted is not None:
            return None
        space = self._spaces.setdefault((self.model.space, self.model.dim), WarmSpace.of(self.model.dim))
        return None if self.model.warm_songs and not space.ids else space

    def spaces_of(self, song_id: str) -> list[str]:
        """The spaces in which a song is warm."""
        former = [name for name, ids in list(self._former.items()) if song_id in ids]
        return list(
            dict.fromkeys([*former, *(name for (name, _), space in list(self._spaces.items()) if song_id in space)])
        )

    def close(self) -> None:
        self._snapshot.close()

    def _take(self, message: Message) -> None:
        place, offset = (message.topic() or "", message.partition() or 0), message.offset() or 0
        again = offset < self._read.get(place, 0)
        self._read[place] = max(self._read.get(place, 0), offset + 1)
        try:
            if message.topic() == self._songs:
                self._take_song(message)
            elif not again:
                # A former model that is read again must not appear live.
                self._take_model(message)
        except BadRecord as error:
            if not again:
                self._skipped.add(message, error)
        else:
            self.version += 1

    def _take_model(self, message: Message) -> None:
        if message.value() is None:
            if message.key() == ENCODER.encode():
                self.model, self._flipped = None, True
            return
        model = read_model(message.key(), message.value(), headers(message))
        if model.name != ENCODER:
            return
        known = self._dimensions.get(model.space, model.dim)
        if known != model.dim:
            raise InvalidField(f"dim: {model.dim}, a model with space {model.space!r} and dimension {known} was live")
        self.model, self._flipped = model, True

    def _take_song(self, message: Message) -> None:
        if message.value() is None:
            try:
                name, _, song_id = (message.key() or b"").decode().partition(" ")
            except UnicodeDecodeError:
                raise InvalidField(f"key: {message.key()!r} is not UTF-8") from None
            self._former.get(name, set()).discard(song_id)
            for (of, _), space in self._spaces.items():
                if of == name:
                    space.drop(song_id)
            return
        song, vector = read_song(message.key(), message.value(), headers(message))
        dimension = self._dimensions.get(song.space, len(vector))
        if len(vector) != dimension:
            raise InvalidField(f"vector: dimension {len(vector)}, space {song.space!r} has {dimension}")
        self._touched.add(song.space)
        if song.space in self._former:
            self._former[song.space].add(song.song_id)
            if song.space != self._coming_back:
                return
        place = song.space, dimension
        if place not in self._spaces:
            # Another thread may be asking for a song's spaces.
            self._spaces[place] = WarmSpace.of(dimension)
        self._spaces[place].put(song.song_id, vector)

    def _follow_model(self) -> None:
        if self._flipped:
            self._flipped = False
            self._touched.clear()
            self._read_again()
            self._wanted = self._snapshot.ends(self._songs) if self.model else None
        if self._wanted is not None and self._snapshot.reached(self._songs, self._wanted):
            self._wanted = None
            self.version += 1
            self._rest()
        if self.model is not None and self.model.space not in self._dimensions and self.warm() is not None:
            self._settle(self.model.space, self.model.dim)

    def _read_again(self) -> None:
        """If the live model is a former one, all its songs are wanted once more."""
        self._coming_back = self.model.space if self.model and self.model.space in self._former else ""
        if self._coming_back:
            self._snapshot.close()
            self._snapshot = Snapshot(self._kafka, [self._songs, self._models], self._clock)

    def _rest(self) -> None:
        """The live model is complete: of what is neither live nor coming, the ids are enough."""
        if self.model is None:
            return
        for name, dimension in [place for place in self._spaces if place[0] not in {self.model.space, *self._touched}]:
            self._former[name] = self._former.get(name, set()) | set(self._spaces[name, dimension].ids)
            del self._spaces[name, dimension]
        self._former.pop(self.model.space, None)

    def _settle(self, space: str, dimension: int) -> None:
        """A model of this space is complete: from now on the space has this dimension."""
        self._dimensions[space] = dimension
        for place in [place for place in self._spaces if place[0] == space and place[1] != dimension]:
            misfits = self._spaces.pop(place).ids
            why = f"{len(misfits)} songs of space {space!r} have dimension {place[1]}, not {dimension}: {misfits[:3]}"
            self._skipped.add_misfits(self._songs, len(misfits), why)


def read_model(key: bytes | None, value: bytes | None, headers: Headers) -> LiveModel:
    """The model in a record of ``models``.

    Raises:
        BadRecord: it holds none, or its chances are no monotone map.
    """
    # A cache must not judge dates: a record skipped now would stay missing.
    model = unpack(LiveModel, key, value, headers, math.inf).event
    try:
        for objective in OBJECTIVES:
            calibration_of(model.chances, objective)
    except ValueError as error:
        raise InvalidField(f"chances: {error}") from None
    return model


def model_status(model: LiveModel | None, in_use: str | None) -> dict[str, object] | None:
    """What is told of the live model, and of the space in which songs are served; None: no model is live."""
    if model is None:
        return None
    return {
        "name": model.name,
        "space": model.space,
        "space_in_use": in_use,
        "uri": model.uri,
        "published_at": model.published_at.isoformat(),
        "warm_songs": model.warm_songs,
    }


def read_song(key: bytes | None, value: bytes | None, headers: Headers) -> tuple[WarmSong, F32]:
    """The warm song in a record of ``warm-songs``, and its vector, float32 (d,).

    Raises:
        BadRecord: it holds none, or a vector without a direction or of another space than the song's.
    """
    song = unpack(WarmSong, key, value, headers, math.inf).event
    space, vector = vector_codec.unpack_direction(song.vector)
    if space != song.space:
        raise InvalidField(f"vector: lies in space {space!r}, the song's is {song.space!r}")
    return song, vector
