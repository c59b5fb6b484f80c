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

    @property
    def vectors(self) -> F32:
        """float32 (songs, d)."""
        return self._vectors[: len(self.ids)]

    def put(self, song_id: str, vector: F32) -> None:
        row = self._rows.get(song_id)
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
        self._complete: LiveModel | None = None
        self._models = naming.name(MODELS)
        self._snapshot = Snapshot(kafka, [naming.name(WARM_SONGS), self._models], clock)
        for message in self._snapshot.read_to_end():
            self._take(message)

    def poll(self, timeout: float = 0.0) -> bool:
        """Take over what has come since; True if anything did. Waits at most ``timeout`` seconds."""
        messages = self._snapshot.poll(timeout)
        for message in messages:
            self._take(message)
        return bool(messages)

    def warm(self) -> Space | None:
        """The warm songs of the live model, or None while they are not all here.

        ``publish`` writes the songs before it flips the model, but Kafka keeps no order between topics.
        """
        if self.model is None:
            return None
        space = self._spaces.get(self.model.space, Space())
        # Once they were all here, songs may go again.
        if self._complete != self.model and len(space.ids) >= self.model.warm_songs:
            self._complete = self.model
        return space if self._complete == self.model else None

    def close(self) -> None:
        self._snapshot.close()

    def _take(self, message: Message) -> None:
        key, value = (message.key() or b"").decode(), message.value()
        if message.topic() == self._models:
            if key == ENCODER:
                self.model = None if value is None else msgspec.json.decode(value, type=LiveModel)
        else:
            name, _, song_id = key.partition(" ")
            space = self._spaces.setdefault(name, Space())
            if value is None:
                space.drop(song_id)
            else:
                space.put(song_id, vectors.unpack(msgspec.json.decode(value, type=WarmSong).vector)[1])
        self.version += 1
