"""Audience vectors and targets of warm songs, from their listens alone."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch.nn import functional

from encoder.device import CPU, matrix

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Songs per chunk of comparisons: 60 MB if each shares listeners with 20,000 songs.
_CHUNK = 256
# Blocks of a quarter of the rank.
_BLOCKS = 8


@dataclass(frozen=True, slots=True)
class Targets:
    """The songs that each song should retrieve, padded to k columns with weight 0.

    Attributes:
        songs: int64 (n, k), the warm songs with the most similar listener sets, excluding itself.
        weights: float32 (n, k), proportional to that similarity; rows sum to 1 (0 if no listener is shared).
    """

    songs: I64
    weights: F32

    def weighed(self, importance: NDArray[np.float64]) -> Targets:
        """The same, with rows that sum to each song's importance (n,)."""
        return Targets(self.songs, (self.weights * importance[:, None]).astype(np.float32))


def listener_rows(plays: sparse.csr_matrix) -> sparse.csr_matrix:
    """float32 csr (songs, users): sets of listeners as rows of unit length."""
    rows = plays.copy().astype(np.float32)
    rows.data[:] = 1
    counts = np.diff(rows.indptr)
    return sparse.diags_array(1 / np.sqrt(np.maximum(counts, 1)), dtype=np.float32).tocsr() @ rows


def audience_vectors(
    listeners: sparse.csr_matrix,
    rank: int,
    rng: np.random.Generator,
    rare: sparse.csr_matrix | None = None,
    device: torch.device = CPU,
) -> F32:
    """float32 (songs, rank), unit rows: left singular vectors times singular values, largest first.

    The ``rare`` songs' rows follow, projected on the same right singular vectors, which they do not influence.

    Block Krylov iteration (Musco & Musco, "Randomized Block Krylov Methods", NIPS 2015, algorithm 2): the spectra here
    are flat, and it gains far more from the same matrix products than power iterations of one wide block. Returns fewer
    than ``rank`` columns if there are fewer songs or users.
    """
    n, users = listeners.shape
    rank = min(rank, n, users)
    width = max(rank // 4, 1)
    total = min(_BLOCKS * width, n, users)
    rows, columns = matrix(listeners, device), matrix(listeners.T.tocsr(), device)
    basis = torch.zeros((n, total), device=device)
    image = torch.zeros((users, total), device=device)  # columns @ basis
    block = torch.from_numpy(rng.standard_normal((n, width)).astype(np.float32)).to(device)
    for start in range(0, total, width):
        before, end = basis[:, :start], min(start + width, total)
        block = block[:, : end - start]
        # Twice, because rounding leaves a part of what is subtracted.
        for _ in range(2):
            block = torch.linalg.qr(block - before @ (before.T @ block))[0]
        basis[:, start:end] = block
        image[:, start:end] = columns @ block
        if end < total:
            block = rows @ image[:, start:end]
    values, rotation = torch.linalg.eigh((image.T @ image).double())
    values, rotation = values.flip(0)[:rank], rotation.flip(1)[:, :rank]
    vectors = basis @ (rotation * values.clamp_min(0).sqrt()).float()
    if rare is not None and rare.shape[0]:
        # With fewer songs than columns some directions have no listeners; they stay empty.
        scale = (values > 1e-9) * values.clamp_min(1e-9).rsqrt()
        vectors = torch.cat([vectors, matrix(rare, device) @ (image @ (rotation * scale).float())])
    found: F32 = functional.normalize(vectors, dim=1, eps=1e-9).cpu().numpy()
    return found


def targets(listeners: sparse.csr_matrix, k: int, rare: sparse.csr_matrix | None = None) -> Targets:
    """The k most similar warm songs of each warm song, and of each of the ``rare`` ones, by cosine of listener sets."""
    n = listeners.shape[0]
    k = min(k, n - 1)
    asked = listeners if rare is None else sparse.vstack([listeners, rare], "csr")
    transposed = listeners.T.tocsr()
    # If fewer songs share a listener, pad with the next song at weight 0, never with the song itself.
    songs = np.repeat((np.arange(asked.shape[0]) + 1)[:, None] % n, k, axis=1)
    weights = np.zeros(songs.shape, np.float32)
    for start in range(0, len(songs), _CHUNK):
        similarity = (asked[start : start + _CHUNK] @ transposed).tocsr()
        for row, (a, b) in enumerate(zip(similarity.indptr[:-1], similarity.indptr[1:], strict=True), start):
            others = a + np.flatnonzero(similarity.indices[a:b] != row)
            if len(others) > k:
                others = others[np.argpartition(similarity.data[others], -k)[-k:]]
            songs[row, : len(others)] = similarity.indices[others]
            weights[row, : len(others)] = similarity.data[others]
    weights /= np.maximum(weights.sum(axis=1, keepdims=True), 1e-12)
    return Targets(songs, weights)
