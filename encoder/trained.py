"""The result of a training: what evaluation uses and an artifact holds. No torch."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.content import ContentTable
from encoder.serving import Encoder
from encoder.training_config import TrainingConfig

F32 = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained encoder and the warm songs in its space.

    Attributes:
        encoder: for serving; its space is named when it is saved.
        warm_content: content of the n warm songs, with their ids.
        warm_vectors: float32 (n, dim), unit rows: what encoded songs are matched against by inner product.
        gauges: figures of the last epoch and of the whole run.
    """

    encoder: Encoder
    warm_content: ContentTable
    warm_vectors: F32
    config: TrainingConfig
    gauges: dict[str, float]
