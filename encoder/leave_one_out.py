"""Fits the contexts, and predicts training songs with each song itself left out. (torch)

A training song must not see its own audience through :mod:`encoder.context`. For any content of training song i,
:class:`LeaveOneOut` gives the prediction of the model fitted without i, exactly and without refitting (the hat-matrix
identity of Allen's PRESS, Technometrics 1974).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg
from scipy.linalg import blas, lapack
from torch import Tensor

from encoder.context import Memory, squared_lengths
from encoder.device import CPU
from encoder.features import Features
from encoder.resemblance import Nearest, Products

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]

# Songs per chunk: 6 MiB of float32 against 3,072 landmarks.
_CHUNK = 512
# Random directions in which leverages are estimated first, within 9 %; those above the bound are computed exactly.
_SKETCH = 256
_LEVERAGE = 0.1


@dataclass(frozen=True, slots=True)
class LeaveOneOut:
    """The memory as its own songs see it, each with itself left out.

    Attributes:
        memory: the fitted memory.
        songs: features of the n training songs.
        vectors: float32 (n, r), their audience vectors.
        place: int64 (n,), each song's row in the memory, -1 if it is not remembered.
        ridge: float32 (n,), each song's.
        whitening: float32 (m, m), upper triangular W; the hat matrix of songs i and j is (k_i W) . (k_j W) / ridge_j.
        device: where the products are computed.
    """

    memory: Memory
    songs: Features
    vectors: F32
    place: I64
    ridge: F32
    whitening: F32
    device: torch.device = CPU

    def contexts(self, versions: Sequence[Features]) -> F32:
        """float32 (versions, n, 2 r): contexts of versions of the n training songs, each without that song."""
        memory, n = self.memory, len(self.songs)
        r = memory.vectors.shape[1]
        out = np.empty((len(versions), n, memory.width), np.float32)
        self._ridge(versions, out[..., :r])
        nearest = Nearest.among(memory.bags, memory.dense, memory.neighbours, self.device)
        for version, features in enumerate(versions):
            out[version, :, r:] = memory.mean(*nearest(features, self.place))
        return out

    def _ridge(self, versions: Sequence[Features], out: F32) -> None:
        """Writes the kernel ridge's predictions into ``out`` (versions, n, r)."""
        memory, device = self.memory, self.device
        r, m = memory.vectors.shape[1], len(memory.coefficients)
        kernel = _Kernel(memory, device)
        whitening = torch.from_numpy(self.whitening).to(device)
        # Through it, songs keep their inner products under the whitening, on average over its draws.
        sketch = whitening
        if m > _SKETCH:
            signs = np.random.default_rng(0).choice(np.array([-1, 1], np.float32), (m, _SKETCH))
            sketch = whitening @ torch.from_numpy(signs * np.float32(_SKETCH**-0.5)).to(device)
        both = torch.cat([torch.from_numpy(memory.coefficients).to(device), sketch], dim=1)
        for start in range(0, len(self.songs), _CHUNK):
            chunk = slice(start, start + _CHUNK)
            ridge, vectors = (torch.from_numpy(whole[chunk]).to(device) for whole in (self.ridge, self.vectors))
            own = self.songs.rows(chunk)
            known = kernel(own)
            predicted, hidden = torch.split(known @ both, [r, both.shape[1] - r], dim=1)
            leverage = (hidden * hidden).sum(dim=1) / ridge
            high = torch.nonzero(leverage > _LEVERAGE)[:, 0] if m > _SKETCH else torch.zeros(0, dtype=torch.int64)
            exact = _by_triangle(known[high], whitening)
            leverage[high] = (exact * exact).sum(dim=1) / ridge[high]
            influence = _by_triangle(exact, whitening, transposed=True)
            # The leverage reaches 1 only without regularisation; the floor guards against float32 rounding.
            residual = (vectors - predicted) / ((1 - leverage).clamp_min(1e-3) * ridge)[:, None]
            for version, features in enumerate(versions):
                seen = known if features is self.songs else kernel(features.rows(chunk))
                predicted, shown = torch.split(seen @ both, [r, both.shape[1] - r], dim=1)
                pull = (shown * hidden).sum(dim=1)
                pull[high] = (seen[high] * influence).sum(dim=1)
                out[version, chunk] = (predicted - pull[:, None] * residual).cpu().numpy()


class _Kernel:
    """Kernel values of many songs against a memory's landmarks."""

    def __init__(self, memory: Memory, device: torch.device) -> None:
        m = len(memory.coefficients)
        self._products = Products(memory.bags[:m], memory.dense[:m], device)
        squares = squared_lengths(memory.bags[:m], memory.dense[:m])
        self._squares = torch.from_numpy(squares).to(device)
        self._bandwidth = memory.bandwidth

    def __call__(self, songs: Features) -> Tensor:
        """float32 (n, m)."""
        products = self._products(songs)
        squares = torch.from_numpy(squared_lengths(songs.bags, songs.dense)).to(products.device)
        # Minus half the squared distance.
        products.sub_(self._squares / 2).sub_(squares[:, None] / 2).clamp_(max=0)
        return products.mul_(self._bandwidth).exp_()


def fit(
    songs: Features,
    vectors: F32,
    *,
    bandwidth: float,
    ridge: F32,
    neighbours: int,
    landmarks: int,
    remembered: int,
    rng: np.random.Generator,
    warm: int | None = None,
    device: torch.device = CPU,
) -> LeaveOneOut:
    """Fits both predictions of ``vectors`` (n, r) from the songs' features.

    Minimises sum_i |f(x_i) - v_i|^2 / ridge_i + |f|^2 in the kernel's space, over at most ``landmarks`` songs drawn
    at random; the neighbours come from at most ``remembered`` songs, which include the landmarks. The first ``warm``
    songs are drawn before any other, because more is known of them.
    """
    n, r = vectors.shape
    warm = n if warm is None else warm
    order = np.concatenate([rng.permutation(warm), warm + rng.permutation(n - warm)])[: max(landmarks, remembered)]
    m = min(landmarks, n)
    empty = np.zeros((m, r), np.float32)
    memory = Memory(songs.bags[order], songs.dense[order], vectors[order], empty, bandwidth, neighbours)
    kernel = _Kernel(memory, device)
    gram, moment = _Squares(m, device), torch.zeros((m, r), dtype=torch.float64, device=device)
    for start in range(0, n, _CHUNK):
        chunk = slice(start, start + _CHUNK)
        scale = torch.from_numpy(1 / np.sqrt(ridge[chunk, None].astype(np.float64))).to(device)
        rows = kernel(songs.rows(chunk)) * scale  # float64
        gram.add(rows)
        moment += rows.T @ (torch.from_numpy(vectors[chunk]).to(device) * scale)
    # Songs of equal content make this singular, and rounding to float32 moves its eigenvalues by up to m * 6e-8, 2e-4
    # for 4,096 landmarks. With 1e-5 the factorisation failed on songs with only an artist and an album.
    total = gram.sum() + kernel(songs.rows(order[:m])).cpu().numpy().astype(np.float64)
    total[np.diag_indices(m)] += 1e-3
    upper = linalg.cholesky(total, overwrite_a=True)
    # whitening = upper^-1, so that whitening whitening^T = (gram + own)^-1
    whitening, _ = lapack.dtrtri(upper)
    coefficients = linalg.solve_triangular(upper, linalg.solve_triangular(upper, moment.cpu().numpy(), trans="T"))
    memory = replace(memory, coefficients=np.ascontiguousarray(coefficients, np.float32))
    place = np.full(n, -1, np.int64)
    place[order] = np.arange(len(order))
    return LeaveOneOut(memory, songs, vectors, place, ridge, np.ascontiguousarray(whitening, np.float32), device)


class _Squares:
    """The sum of rows.T @ rows over many float64 rows (n, m)."""

    def __init__(self, m: int, device: torch.device) -> None:
        self._on_card = torch.zeros((m, m), dtype=torch.float64, device=device) if device.type != "cpu" else None
        self._here = np.zeros((m, m), order="F")

    def add(self, rows: Tensor) -> None:
        if self._on_card is not None:
            self._on_card.addmm_(rows.T, rows)
        else:
            # A factorisation reads the upper triangle alone: half of the work.
            self._here = blas.dsyrk(1.0, rows.numpy().T, beta=1.0, c=self._here, overwrite_c=1)

    def sum(self) -> F64:
        """float64 (m, m), at least its upper triangle."""
        return self._here if self._on_card is None else np.asfortranarray(self._on_card.cpu().numpy())


def _by_triangle(rows: Tensor, upper: Tensor, transposed: bool = False) -> Tensor:
    """rows @ upper or rows @ upper.T, on the CPU in half the time of a full matrix."""
    if rows.device.type != "cpu":
        return rows @ (upper.T if transposed else upper)
    # In Fortran order, a C array is its own transpose.
    product = blas.strmm(1.0, upper.numpy().T, rows.numpy().T, lower=1, trans_a=int(transposed))
    return torch.from_numpy(product.T)
