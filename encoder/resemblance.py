"""Similar remembered songs for many songs at once: :class:`encoder.context.Memory` in bulk.

Common terms are cheap in a dense matrix product and expensive in a sparse one, rare terms the other way round, so the
two are handled apart. The most similar of many remembered songs are found by an inverted file (Jegou, Douze & Schmid,
"Product Quantization for Nearest Neighbor Search", TPAMI 2011, section IV). Songs lie in lists around centres. A song
is compared with those of nearby lists and those that share a rare term, by a few principal directions of the common
part plus the rare part exactly; only the best of these are compared in full.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from torch import Tensor

from encoder.device import CPU
from encoder.features import Features, select_columns

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# A term is common if one remembered song in so many has it; at most so many terms are, 12 MB against 3,072 songs.
_COMMON = 64
_MOST_COMMON = 1024
# Up to this many songs, comparing all in full is as fast.
_FEW = 8192
_DIRECTIONS = 128
# Songs compared in full for each one returned.
_SPARE = 3
# Inverted file: mean songs a list, share of all songs searched, rounds of Lloyd's algorithm.
_LIST = 128
_SHARE = 8
_ROUNDS = 5
# Queries per chunk.
_CHUNK = 1024


class Products:
    """Inner products of many songs' features with those of M songs.

    Args:
        bags, dense: of the M songs, float32 csr (M, terms) and (M, D).
        directions: if given, common terms and dense features are reduced to this many principal directions.
    """

    def __init__(
        self, bags: sparse.csr_matrix, dense: F32, device: torch.device = CPU, directions: int | None = None
    ) -> None:
        often = np.bincount(bags.indices, minlength=bags.shape[1])
        order = np.argsort(-often, kind="stable")[:_MOST_COMMON]
        common = np.zeros(bags.shape[1], bool)
        common[order[often[order] * _COMMON >= max(bags.shape[0], 1)]] = True
        self._width = int(common.sum())
        self._position = np.where(common, np.cumsum(common) - 1, -1)
        rare = np.flatnonzero(~common & (often > 0))
        self._rare_position = np.full(bags.shape[1], -1, np.int64)
        self._rare_position[rare] = np.arange(len(rare))
        self._of_rare = bags[:, rare].T.tocsr()
        self._basis: Tensor | None = None
        self._device = device
        table = self._common(bags, dense)
        self.approximate = directions is not None and directions < table.shape[1]
        if self.approximate:
            _, vectors = torch.linalg.eigh((table.T @ table).double())
            self._basis = vectors.flip(1)[:, :directions].float()
            table = table @ self._basis
        # float32 (M, d)
        self.table = table.contiguous()

    def __call__(self, songs: Features) -> Tensor:
        """float32 (n, M)."""
        products = self.directions(songs) @ self.table.T
        rare = self.rare(songs)
        self._add(products, rare, rare.indices)
        return products

    def among(self, songs: Features, places: I64) -> tuple[I64, Tensor]:
        """The given places (p,) plus those of songs that share a rare term, and the products with all of them."""
        rare = self.rare(songs)
        places = np.union1d(places, rare.indices)
        table = self.table[torch.from_numpy(places).to(self._device)]
        products = self.directions(songs) @ table.T
        self._add(products, rare, np.searchsorted(places, rare.indices))
        return places, products

    def directions(self, songs: Features) -> Tensor:
        """float32 (n, d): the songs' common part, to be multiplied with the rows of ``table``."""
        rows = self._common(songs.bags, songs.dense)
        return rows if self._basis is None else rows @ self._basis

    def rare(self, songs: Features) -> sparse.csr_matrix:
        """float32 csr (n, M): the contribution of rare terms."""
        return select_columns(songs.bags, self._rare_position, self._of_rare.shape[0]) @ self._of_rare

    def _common(self, bags: sparse.csr_matrix, dense: F32) -> Tensor:
        common = select_columns(bags, self._position, self._width).toarray()
        return torch.from_numpy(np.hstack([common, dense])).to(self._device)

    def _add(self, products: Tensor, rare: sparse.csr_matrix, columns: I64) -> None:
        rows = np.repeat(np.arange(len(products)), np.diff(rare.indptr))
        # A sparse matrix holds each place once, so adding by index loses nothing.
        flat = torch.from_numpy(rows * products.shape[1] + columns).to(self._device)
        values = torch.from_numpy(rare.data.astype(np.float32, copy=False)).to(self._device)
        products.view(-1).index_add_(0, flat, values)


class Nearest:
    """The ``count`` most similar of M songs, for many songs."""

    def __init__(self, bags: sparse.csr_matrix, dense: F32, count: int, products: Products, lists: Lists | None):
        self.bags, self.dense, self.count, self.products = bags, dense, min(count, bags.shape[0]), products
        self._lists = lists

    @classmethod
    def among(cls, bags: sparse.csr_matrix, dense: F32, count: int, device: torch.device = CPU) -> Nearest:
        """Compares few songs in full, and of many only candidates."""
        few = bags.shape[0] <= _FEW
        products = Products(bags, dense, device, None if few else _DIRECTIONS)
        return cls(bags, dense, count, products, None if few else Lists(products.table, _SPARE * count))

    def __call__(self, songs: Features, left_out: I64) -> tuple[I64, F32]:
        """int64 and float32 (n, count): places among the M songs, and their inner products.

        Args:
            left_out: int64 (n,), for each song a place to leave out, or -1. If fewer than ``count`` are left, it
                appears all the same, with a product of -inf.
        """
        found = np.empty((len(songs), self.count), np.int64)
        similarity = np.empty(found.shape, np.float32)
        for rows, places in self._asked(songs):
            part = songs.rows(rows)
            if places is None:
                found[rows], similarity[rows] = self._of_all(part, left_out[rows])
            else:
                found[rows], similarity[rows] = self._of_some(part, left_out[rows], places)
        return found, similarity

    def _asked(self, songs: Features) -> list[tuple[I64, I64 | None]]:
        """Groups of queries, each with its candidate places; None for all."""
        if self._lists is None:
            return [(rows, None) for rows in _split(np.arange(len(songs)))]
        nearest = [
            self._lists.nearest(self.products.directions(songs.rows(rows))) for rows in _split(np.arange(len(songs)))
        ]
        centre = np.concatenate(nearest) if nearest else np.zeros(0, np.int64)
        groups = np.split(np.argsort(centre, kind="stable"), np.cumsum(np.bincount(centre))[:-1])
        return [(rows, self._lists.near[centre[rows[0]]]) for group in groups if len(group) for rows in _split(group)]

    def _of_all(self, songs: Features, left_out: I64) -> tuple[I64, F32]:
        products = self.products(songs)
        _leave_out(products, left_out)
        best = products.topk(self.count, sorted=False)
        return best.indices.cpu().numpy(), best.values.cpu().numpy()

    def _of_some(self, songs: Features, left_out: I64, places: I64) -> tuple[I64, F32]:
        places, products = self.products.among(songs, places)
        best = products.topk(min(len(places), _SPARE * self.count), sorted=False).indices.cpu().numpy()
        candidates = places[best]
        exact = self._exact(songs, candidates)
        exact[candidates == left_out[:, None]] = -np.inf
        place = np.argpartition(exact, -self.count, axis=1)[:, -self.count :]
        return np.take_along_axis(candidates, place, axis=1), np.take_along_axis(exact, place, axis=1)

    def _exact(self, songs: Features, candidates: I64) -> F32:
        """float32 (n, c): the inner products with the given candidates."""
        n, c = candidates.shape
        own = songs.bags[np.repeat(np.arange(n), c)]
        products = np.asarray(own.multiply(self.bags[candidates.ravel()]).sum(axis=1), np.float32).reshape(n, c)
        if self.dense.shape[1]:
            products += np.einsum("nd,ncd->nc", songs.dense, self.dense[candidates])
        return products


class Lists:
    """An inverted file over M rows (M, d): lists around centres (Lloyd's k-means), and the lists near each.

    Attributes:
        near: for each centre, int64 ascending: the rows of the lists with the largest products, at least the share
            to be searched.
    """

    def __init__(self, table: Tensor, least: int) -> None:
        m = len(table)
        count = max(m // _LIST, 1)
        self._centres = table[torch.arange(count, device=table.device) * m // count].clone()
        for _ in range(_ROUNDS):
            owner = torch.from_numpy(self.nearest(table)).to(table.device)
            sums = torch.zeros_like(self._centres).index_add_(0, owner, table)
            sizes = torch.bincount(owner, minlength=count)
            kept = sizes > 0
            self._centres[kept] = sums[kept] / sizes[kept, None]
        lists = self.nearest(table)
        held = np.bincount(lists, minlength=count)
        members = np.split(np.argsort(lists, kind="stable"), np.cumsum(held)[:-1])
        # By the largest inner product, not the least distance.
        products = (self._centres @ self._centres.T).cpu().numpy()
        self.near: list[I64] = []
        for order in np.argsort(-products, axis=1, kind="stable"):
            enough = int(np.searchsorted(np.cumsum(held[order]), min(m, max(m // _SHARE, 2 * least)))) + 1
            self.near.append(np.sort(np.concatenate([members[each] for each in order[:enough]])))

    def nearest(self, rows: Tensor) -> I64:
        """int64 (n,): the centre nearest to each row (n, d)."""
        half = (self._centres * self._centres).sum(dim=1) / 2
        parts = [(part @ self._centres.T - half).argmax(dim=1) for part in torch.split(rows, _CHUNK)]
        found: I64 = torch.cat(parts).cpu().numpy()
        return found


def _split(rows: I64) -> list[I64]:
    return [rows[start : start + _CHUNK] for start in range(0, len(rows), _CHUNK)]


def _leave_out(products: Tensor, left_out: I64) -> None:
    rows = torch.from_numpy(np.flatnonzero(left_out >= 0)).to(products.device)
    products[rows, torch.from_numpy(left_out).to(products.device)[rows]] = -torch.inf
