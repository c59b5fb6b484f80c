"""The chances that a model's scores stand for: learned at training, carried by its artifact.

Fitted where the answer is known: a tenth of the warm songs is held back as cold, a second encoder is trained without
them, and its scores are compared with who listens. The weight of users' activity is fitted the same way. A chance is
then that of being among a song's listeners, not of answering a push.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, get_args

import msgspec
import numpy as np
from numpy.typing import NDArray

from streams.contract.errors import Refused
from streams.contract.internal_events import Answers, Chances
from targeting.calibration import Calibration

# Workers only read maps; what fitting needs is imported when fitting.
if TYPE_CHECKING:
    from encoder.data.dataset import Dataset
    from encoder.train import Progress
    from encoder.training_config import Device, TrainingConfig

_FILE = "chances.json"
MEANS = "chance of being among the song's listeners"

Objective = Literal["answers", "liking"]
OBJECTIVES: tuple[Objective, ...] = get_args(Objective)


@dataclass(frozen=True, slots=True)
class LearnedChances:
    """The chances of a model's scores: of what fits alone, and of what fits times activity."""

    liking: Calibration
    answers: Calibration


def fit(
    dataset: Dataset,
    rows: NDArray[np.int64],
    config: TrainingConfig,
    progress: Callable[[Progress], None] | None = None,
    device: Device = "cpu",
) -> LearnedChances | None:
    """The maps from scores to chances of the encoder that this config trains on these songs, the rare ones among them.

    Takes as long as the training itself. None: too few songs to hold some back.
    """
    from encoder.data.split import COLD_SHARE, MIN_LISTENERS, songs_of, split
    from encoder.train import train
    from targeting.evaluation import Case, fitted
    from targeting.evaluation.activity_power import strength

    songs = songs_of(dataset, rows)
    if round(np.count_nonzero(np.diff(songs.plays.indptr) >= MIN_LISTENERS) * COLD_SHARE) == 0:
        return None
    parts = split(songs, config.seed)
    known, hidden = songs_of(songs, parts.warm), songs_of(songs, parts.cold)
    trained = train(songs, parts.warm, config, progress, rare_rows=parts.rare, device=device)
    case = Case(
        name="made cold",
        song_ids=hidden.song_ids,
        plays=known.plays,
        vectors=trained.warm_vectors,
        queries=trained.encoder.encode(hidden.content),
        truth=hidden.plays,
        played_at=known.last_played(),
    )
    liking = fitted([case])
    activity = strength([case])
    return LearnedChances(liking, fitted([case], activity=activity) if activity else liking)


def save(found: LearnedChances, artifact: Path) -> None:
    """Lay the maps beside the model in its artifact folder."""
    liking, answers = found.liking, found.answers
    chances = Chances(
        scores=list(liking.scores),
        chances=list(liking.chances),
        means=MEANS,
        answers=Answers(answers.activity, list(answers.scores), list(answers.chances)),
    )
    temporary = artifact / f"{_FILE}.tmp"
    temporary.write_bytes(msgspec.json.encode(chances))
    os.replace(temporary, artifact / _FILE)


def load(artifact: Path) -> Chances | None:
    """The maps in an artifact folder; None if it was trained without them.

    Raises:
        Refused: there is one that is torn or no monotone map.
    """
    file = artifact / _FILE
    if not file.exists():
        return None
    try:
        chances = msgspec.json.decode(file.read_bytes(), type=Chances)
        for objective in OBJECTIVES:
            calibration_of(chances, objective)
    except (msgspec.DecodeError, ValueError) as error:
        raise Refused(f"{file}: {error}. Train again with --calibrate, or delete the file") from None
    return chances


def calibration_of(chances: Chances | None, objective: Objective) -> Calibration | None:
    """The map as targeting applies it.

    Raises:
        ValueError: it is no monotone map.
    """
    if chances is None:
        return None
    if objective == "answers" and chances.answers is not None:
        answers = chances.answers
        return Calibration(tuple(answers.scores), tuple(answers.chances), answers.activity)
    return Calibration(tuple(chances.scores), tuple(chances.chances))
