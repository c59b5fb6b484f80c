"""Which model is live, and which warm songs does it retrieve?

A cache of the topics ``models`` and ``warm-songs``, rebuilt by reading them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import msgspec
import numpy as np
from confluent_kafka import Message
from numpy.typing import NDArray

from streams import vectors
from streams.clock import Clock
from streams.events import LiveModel, WarmSong
from streams.settings import Kafka
from streams.snapshot import Snapshot
from streams.topics import MODELS, WARM_SONGS, Naming

ENCODER = "encoder"
"""The name under which ``publish`` makes a model live."""

F32 = NDArray[np.float32]


@dataclass(slots=True)
class Space:
    """The warm songs of one embedding space, row by row: ids[i] has vector vectors[i]."""

    ids: list[str] = field(default_factory=list)
    _rows: dict[str, int] = field(default_factory=dict)
    _vectors: F32 = field(default_factory=lambda: np.empty((0, 0), np.float32))
    _changed: set[str] = field(default_factory=set)

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
        """The songs that came, went or moved since this was last asked: for the one who keeps something in step."""
        changed, self._changed = self._changed, set()
        return changed

    def put(self, song_id: str, vector: F32) -> None:
        row = self._rows.get(song_id)
        # A model that is published again says of each song what is known: nobody must do anything about it.
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

    Attributes:
        model: None while nothing is published.
        version: grows whenever the model or a warm song changes.
    """

    def __init__(self, kafka: Kafka, naming: Naming, clock: Clock) -> None:
        self.model: LiveModel | None = None
        self.version = 0
        self._spaces: dict[str, Space] = {}
        self._models, self._songs = naming.name(MODELS), naming.name(WARM_SONGS)
        self._flipped = False
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

    def warm(self) -> Space | None:
        """The warm songs of the live model, or None while they are not all here.

        ``publish`` writes the songs before it flips the model, but Kafka keeps no order between topics. So the ends
        of the songs' topic are asked for when the model was seen: all that was published lies before them. A count
        would not do: songs are taken down, and others become warm.
        """
        if self.model is None or self._wanted is not None:
            return None
        return self._spaces.setdefault(self.model.space, Space())

    def spaces_of(self, song_id: str) -> list[str]:
        """The spaces in which a song is warm."""
        return [name for name, space in list(self._spaces.items()) if song_id in space]

    def close(self) -> None:
        self._snapshot.close()

    def _take(self, message: Message) -> None:
        key, value = (message.key() or b"").decode(), message.value()
        if message.topic() == self._models:
            if key == ENCODER:
                self.model = None if value is None else msgspec.json.decode(value, type=LiveModel)
                self._flipped = True
        else:
            name, _, song_id = key.partition(" ")
            space = self._spaces.setdefault(name, Space())
            if value is None:
                space.drop(song_id)
            else:
                space.put(song_id, vectors.unpack(msgspec.json.decode(value, type=WarmSong).vector)[1])
        self.version += 1

    def _follow_model(self) -> None:
        if self._flipped:
            self._flipped = False
            self._wanted = self._snapshot.ends(self._songs) if self.model else None
        if self._wanted is not None and self._snapshot.reached(self._songs, self._wanted):
            self._wanted = None
            self.version += 1
