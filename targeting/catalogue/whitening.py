"""The axes along which tastes are compared.

Songs crowd along few directions: those that tell mainstream from niche, or one large scene from another. In a plain
cosine these drown the rest, and a user of several tastes, whose vector is a mean, looks alike to everything there. So
vectors are stretched by the inverse root of the songs' own second moments (a Mahalanobis cosine), shrunk towards
leaving them as they are: seen as ridge regression, which predicts who listens from the song's vector, this is its
solution, with users brought to unit length in its norm.
"""

from __future__ import annotations

import numpy as np

from targeting.types import F32

# How much of an even spread is mixed in, in units of itself: from .1 to 1 it makes no difference. A catalogue of few
# songs tells little about directions, and gets more of it.
_EVEN = 0.25


def axes(vectors: F32) -> F32:
    """The stretch of a catalogue of unit vectors (n, d): float32 (d, d), symmetric, to be multiplied from the right.

    It is the identity for a catalogue that lies evenly in all directions, or an empty one. Being the only symmetric
    root, it hardly moves when a few songs come or go, so that processes that differ by these agree.
    """
    n, d = vectors.shape
    if not n:
        return np.eye(d, dtype=np.float32)
    values, directions = np.linalg.eigh((vectors.T @ vectors).astype(np.float64) / n)
    even = (_EVEN + d / n) / d
    stretch = np.sqrt((1 / d + even) / (np.maximum(values, 0) + even))
    return np.asarray((directions * stretch) @ directions.T, np.float32)
