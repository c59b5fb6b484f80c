"""The configuration of a training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

# Where training computes; auto is a GPU if there is one.
Device = Literal["auto", "cpu", "cuda"]


@dataclass(frozen=True, slots=True)
class TrainingConfig:
    """Everything that decides what is trained; equal configs on equal data give equal weights.

    Attributes:
        dim: of the embedding.
        factors: rank of the audience vectors that the contexts predict.
        rare: whether to train on songs with too few listeners to be warm as well: they are queries, but never
            retrieved. A song counts more, the more listeners it has.
        bandwidth, neighbours, landmarks, remembered: of the contexts, see :mod:`encoder.context`.
        ridge, ridge_noise: a song of n listeners has the ridge ``ridge`` + ``ridge_noise`` / n.
        tune: whether these two, the bandwidth and the content blocks' weights are tuned from here.
        contexts: whether the network reads them.
        closed: candidate weights of kernel ridge beside the network in retrieval, 0 for the network alone: the first,
            unless another is better on songs held back for it, see :mod:`encoder.mixture`.
        terms: number of most frequent bag columns that the network reads; the contexts read all.
        targets: number of songs with the most similar listeners that are each song's targets.
        doubt: a song of n listeners weighs n / (n + ``doubt``) in the supervised loss.
        loss: ``softmax`` over the catalogue, or ``bpr`` (Rendle et al., UAI 2009) with one uniform negative a song.
        catalogue: above this many warm songs the softmax is estimated from ``sampled`` of them, with logQ correction
            (Bengio & Senecal, IEEE TNN 2008).
        views: random transformations prepared for each song, fewer above 50,000 songs; supervision takes the song
            itself with probability ``untransformed``, else one of them.
        contrast, contrast_temperature: weight and temperature of InfoNCE.
        bag_dropout, context_dropout: shares of bag entries and of context values hidden in supervision.
        view_dropout: share of both hidden in a view of the contrastive term.
        epochs, steps: passes over the songs, fewer if they would take more than ``steps`` batches.
    """

    dim: int = 128
    factors: int = 256
    rare: bool = True
    bandwidth: float = 2.0
    ridge: float = 0.15
    ridge_noise: float = 1.0
    tune: bool = True
    neighbours: int = 20
    landmarks: int = 3072
    remembered: int = 32_768
    contexts: bool = True
    closed: tuple[float, ...] = (0.3, 0.0, 0.15, 0.45, 0.6, 0.8, 1.0)
    terms: int = 16_384
    hidden: int = 256
    hidden_dropout: float = 0.5
    bag_dropout: float = 0.5
    context_dropout: float = 0.2
    targets: int = 50
    doubt: float = 4.0
    loss: Literal["softmax", "bpr"] = "softmax"
    catalogue: int = 50_000
    sampled: int = 8192
    views: int = 5
    untransformed: float = 0.5
    temperature: float = 0.1
    contrast: float = 0.3
    contrast_temperature: float = 0.2
    view_dropout: float = 0.3
    epochs: int = 12
    steps: int = 500
    batch: int = 256
    rate: float = 2e-3
    warm_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 0
