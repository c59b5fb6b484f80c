"""Models trained on the past alone, and what is most similar to a song by them."""

from __future__ import annotations

from dataclasses import dataclass, field
from hashlib import sha256

import numpy as np

from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.data.split import MIN_LISTENERS
from encoder.serving import Encoder
from streams.contract.errors import Refused
from streams.models.learned_chances import fit
from targeting.calibration import Calibration
from targeting.index import WarmIndex, make_index
from targeting.types import F32


@dataclass(slots=True)
class PastModel:
    """An encoder, its space, and the songs that can be retrieved in it; these become more.

    Attributes:
        space: names the encoder's inputs, so that the same past gives the same name.
        ids, vectors: of the songs it was trained on; float32 (n, d), unit rows.
        chances: what the past says of who answers; None if there were too few songs to ask.
    """

    space: str
    encoder: Encoder
    ids: tuple[str, ...]
    vectors: F32
    chances: Calibration | None
    _index: WarmIndex = field(init=False)
    _names: list[str] = field(default_factory=list)
    _known: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._index = make_index(self.vectors.shape[1])
        self.add(self.ids, self.vectors)

    def add(self, ids: tuple[str, ...], vectors: F32) -> None:
        """Make further songs retrievable."""
        self._index.add(np.arange(len(self._names), len(self._names) + len(ids)), vectors)
        self._names.extend(ids)
        self._known.update(ids)

    def holds(self, song_id: str) -> bool:
        """Whether a song can be retrieved."""
        return song_id in self._known

    def encode(self, content: ContentTable) -> F32:
        """Unit vectors of songs by their content alone, float32 (n, d)."""
        return self.encoder.encode(content)

    def similar(self, song_id: str, vector: F32, count: int) -> tuple[tuple[str, ...], F32]:
        """The most similar songs but the song itself, nearest first, and their cosines."""
        labels, cosines = self._index.search(vector[None], count + 1)
        named = [
            (self._names[label], cosine) for label, cosine in zip(labels[0].tolist(), cosines[0].tolist(), strict=True)
        ]
        others = [each for each in named if each[0] != song_id][:count]
        return tuple(name for name, _ in others), np.array([cosine for _, cosine in others], np.float32)


class Trainer:
    """Trains on data sets of the past; the same data set is not trained on twice."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._trained: dict[str, tuple[Encoder, tuple[str, ...], F32, Calibration | None]] = {}
        self.trainings = 0

    def train(self, dataset: Dataset) -> PastModel:
        """A model of the songs with enough listeners; takes two trainings, the second to calibrate scores.

        Raises:
            Refused: there are too few of them.
        """
        # Torch is needed here alone.
        from encoder import train as training

        name = fingerprint(dataset)
        if name not in self._trained:
            warm = np.flatnonzero(np.diff(dataset.plays.indptr) >= MIN_LISTENERS)
            config = training.TrainingConfig(seed=self._seed)
            try:
                trained = training.train(dataset, warm, config)
                fitted = fit(dataset, np.arange(dataset.plays.shape[0]), config)
            except ValueError as error:
                raise Refused(
                    f"{len(warm)} songs have {MIN_LISTENERS} listeners by then, too few to train on ({error}); "
                    "begin later with a larger --history"
                ) from None
            self.trainings += 1
            chances = fitted.answers if fitted else None
            self._trained[name] = trained.encoder, trained.warm_content.song_ids, trained.warm_vectors, chances
        return PastModel(name, *self._trained[name])


def fingerprint(dataset: Dataset) -> str:
    """Differs where anything that a training reads differs."""
    seen = sha256()
    for array in (dataset.plays.data, dataset.plays.indices, dataset.plays.indptr, dataset.played_at):
        seen.update(b"none" if array is None else np.ascontiguousarray(array).tobytes())
    seen.update(repr((dataset.song_ids, dataset.user_ids)).encode())
    for name, values in sorted(dataset.content.dense.items()):
        seen.update(name.encode() + np.ascontiguousarray(values).tobytes())
    for name, bag in sorted(dataset.content.bags.items()):
        seen.update(repr((name, bag.terms)).encode())
        for part in (bag.weights.data, bag.weights.indices, bag.weights.indptr):
            seen.update(np.ascontiguousarray(part).tobytes())
    return seen.hexdigest()[:16]
