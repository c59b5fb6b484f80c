"""Which chances do a model's scores stand for, and how do they travel with it?

Fitted where the answer is known: a tenth of the warm songs is made cold, a second encoder is trained without them, and
its scores are held against who listens. A chance is then that of being among a song's listeners, not of answering a
push.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.errors import Refused
from streams.events import Chances
from targeting.calibration import Calibration

# Workers read maps and fit none: what fitting takes is imported by it alone.
if TYPE_CHECKING:
    from encoder.data.dataset import Dataset
    from encoder.train import Config, Progress

_FILE = "chances.json"
MEANS = "chance of being among the song's listeners"


def fit(
    dataset: Dataset, rows: NDArray[np.int64], config: Config, progress: Callable[[Progress], None] | None = None
) -> Calibration:
    """The map from scores to chances of the encoder that this config trains on these songs, the rare ones among them.

    Takes as long as the training itself.

    Raises:
        ValueError: too few songs to hold some back.
    """
    from encoder.data.split import songs_of, split
    from encoder.train import train
    from targeting.evaluation import Case
    from targeting.evaluation.reliability import fitted

    songs = songs_of(dataset, rows)
    parts = split(songs, config.seed)
    known, hidden = songs_of(songs, parts.warm), songs_of(songs, parts.cold)
    trained = train(songs, parts.warm, config, progress, rare_rows=parts.rare)
    case = Case(
        name="made cold",
        song_ids=hidden.song_ids,
        plays=known.plays,
        vectors=trained.warm_vectors,
        queries=trained.encoder.encode(hidden.content),
        truth=hidden.plays,
        played_at=known.last_played(),
    )
    return fitted([case])


def save(calibration: Calibration, artifact: Path) -> None:
    """Lay the map beside the model in its artifact folder."""
    chances = Chances(scores=list(calibration.scores), chances=list(calibration.chances), means=MEANS)
    temporary = artifact / f"{_FILE}.tmp"
    temporary.write_bytes(msgspec.json.encode(chances))
    os.replace(temporary, artifact / _FILE)


def load(artifact: Path) -> Chances | None:
    """The map in an artifact folder; None if it was trained without one.

    Raises:
        Refused: there is one that is torn or no monotone map.
    """
    file = artifact / _FILE
    if not file.exists():
        return None
    try:
        chances = msgspec.json.decode(file.read_bytes(), type=Chances)
        calibration_of(chances)
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused(f"{file}: {error}. Train again with --calibrate, or delete the file") from None
    return chances


def calibration_of(chances: Chances | None) -> Calibration | None:
    """The map as targeting applies it."""
    return None if chances is None else Calibration(tuple(chances.scores), tuple(chances.chances))
