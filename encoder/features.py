"""Turns content into numbers: a schema learned on warm songs alone, the same for training and serving.

A song is one row of blocks, one for each bag and dense feature of the warm songs:

- a bag is log(1 + weight / unit) * sqrt(idf) over the terms that warm songs use, scaled to length 1;
- a bag whose terms share words ("death metal", "melodic death metal") gets a second block, the bag of its words;
- a dense feature is standardised, divided by the root of its dimension and clipped to length 2.

A missing block is zero, halfway between "the same" and "unrelated" in squared distance. The blocks come with which
of them are missing and how large each bag is (heavily tagged songs have other audiences than sparsely tagged ones).
Terms that no warm song has are ignored and counted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from encoder.content import Bag, ContentTable

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Twice the length of an average row: an outlier counts without drowning the other blocks.
_LONGEST = 2.0

_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Features:
    """n songs as numbers.

    Attributes:
        bags: float32 csr (n, terms), the bag blocks side by side.
        dense: float32 (n, D), the dense blocks side by side.
        missing: float32 (n, blocks), 1 where a block is missing; bags first, then dense features.
        amounts: float32 (n, 2 bags), log total weight and log number of terms of each bag, standardised; 0 where it
            is missing.
        unseen: int64 (n,), each song's entries (terms, or whole dense features) that no warm song has.
    """

    bags: sparse.csr_matrix
    dense: F32
    missing: F32
    amounts: F32
    unseen: I64

    def __len__(self) -> int:
        return int(self.bags.shape[0])

    @property
    def known(self) -> NDArray[np.bool_]:
        """bool (n,): whether anything is known about the song."""
        return np.asarray((self.missing == 0).any(axis=1))

    @property
    def side(self) -> F32:
        """float32 (n, S): everything the network reads besides the bags, with amounts squared as well."""
        return np.hstack([self.dense, self.missing, self.amounts, self.amounts**2])

    def rows(self, index: I64 | slice) -> Features:
        """The given rows, in that order."""
        return Features(
            self.bags[index], self.dense[index], self.missing[index], self.amounts[index], self.unseen[index]
        )


@dataclass(frozen=True, slots=True)
class BagSchema:
    """One bag block.

    Attributes:
        name: of the bag in the content.
        words: whether the block holds the words of the bag's terms instead of the terms.
        terms: the columns of the block, in order.
        unit: typical weight of a term.
    """

    name: str
    words: bool
    terms: tuple[str, ...]
    unit: float


@dataclass(frozen=True, slots=True)
class DenseSchema:
    """One dense feature, or a bag's amounts: mean and standard deviation of each dimension, float32 (d,)."""

    name: str
    mean: F32
    scale: F32


@dataclass(frozen=True, slots=True)
class FeatureSchema:
    """What was learned from the content of warm songs.

    Attributes:
        bags: the bag blocks in column order.
        idf: float32 (terms,) over all bag blocks; its root multiplies a term's weight.
        dense: the dense blocks in column order.
        amounts: one entry for each bag that is not a bag of words.
        weights: float32 (blocks,), each block's share of a squared distance; they sum to 1.
    """

    bags: tuple[BagSchema, ...]
    idf: F32
    dense: tuple[DenseSchema, ...]
    amounts: tuple[DenseSchema, ...]
    weights: F32
    _columns: tuple[Mapping[str, int], ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        columns: list[dict[str, int]] = []
        start = 0
        for bag in self.bags:
            columns.append({term: start + i for i, term in enumerate(bag.terms)})
            start += len(bag.terms)
        object.__setattr__(self, "_columns", tuple(columns))

    @classmethod
    def learn(cls, warm: ContentTable) -> FeatureSchema:
        """The schema of the given songs, all blocks weighted equally.

        Raises:
            ValueError: no song has any content.
        """
        bags, idf, amounts = [], [], []
        n = len(warm)
        for name in sorted(warm.bags):
            bag = warm.bags[name]
            used = bag.weights.data > 0
            if not used.any():
                continue
            unit = float(np.median(bag.weights.data[used]))
            terms, songs = _used(bag)
            shared, songs_of_words = _used(in_words(bag))
            bags.append(BagSchema(name, False, terms, unit))
            amounts.append(_standard(name, _amounts(bag, unit)))
            idf.append(np.log((1 + n) / (1 + songs)) + 1)
            if len(shared) < len(terms):
                bags.append(BagSchema(name, True, shared, unit))
                idf.append(np.log((1 + n) / (1 + songs_of_words)) + 1)
        dense = [
            _standard(name, values)
            for name, values in sorted(warm.dense.items())
            if np.isfinite(values).all(axis=1).any()
        ]
        blocks = len(bags) + len(dense)
        if not blocks:
            raise ValueError("no warm song has any content (tags or dense vectors) to learn from")
        return cls(
            tuple(bags),
            np.concatenate(idf).astype(np.float32) if idf else np.zeros(0, np.float32),
            tuple(dense),
            tuple(amounts),
            np.full(blocks, 1 / blocks, np.float32),
        )

    def transform(self, songs: ContentTable) -> Features:
        """The songs as numbers.

        Raises:
            ValueError: a dense feature has another dimension than the warm songs'.
        """
        n = len(songs)
        missing = np.ones((n, len(self.bags) + len(self.dense)), np.float32)
        unseen = np.zeros(n, np.int64)
        for name in songs.bags.keys() - {schema.name for schema in self.bags}:
            unseen += np.diff(songs.bags[name].weights.indptr)
        parts = []
        for b, schema in enumerate(self.bags):
            if schema.name in songs.bags:
                bag = songs.bags[schema.name]
                rows, columns, values, strange = self._bag(b, in_words(bag) if schema.words else bag, missing[:, b])
                parts.append((rows, columns, values))
                if not schema.words:
                    unseen += strange
        blocks = []
        names = {schema.name for schema in self.dense}
        for name in songs.dense.keys() - names:
            unseen += np.isfinite(songs.dense[name]).all(axis=1)
        for d, vector in enumerate(self.dense, start=len(self.bags)):
            if vector.name in songs.dense:
                blocks.append(self._dense(vector, songs.dense[vector.name], missing[:, d], self.weights[d]))
            else:
                blocks.append(np.zeros((n, len(vector.mean)), np.float32))
        rows = np.concatenate([part[0] for part in parts]) if parts else np.zeros(0, np.int64)
        columns = np.concatenate([part[1] for part in parts]) if parts else np.zeros(0, np.int64)
        values = np.concatenate([part[2] for part in parts]) if parts else np.zeros(0, np.float32)
        bags = sparse.csr_matrix((values, (rows, columns)), shape=(n, len(self.idf)), dtype=np.float32)
        dense = np.hstack(blocks) if blocks else np.zeros((n, 0), np.float32)
        amounts = [self._amounts(schema, songs.bags.get(schema.name), n) for schema in self.amounts]
        return Features(bags, dense, missing, np.hstack(amounts) if amounts else np.zeros((n, 0), np.float32), unseen)

    def _amounts(self, schema: DenseSchema, bag: Bag | None, n: int) -> F32:
        """float32 (n, 2): amounts of seen terms in each song's bag, clipped at four deviations; 0 if there are none."""
        if bag is None:
            return np.zeros((n, 2), np.float32)
        b, block = next((b, block) for b, block in enumerate(self.bags) if block.name == schema.name)
        seen = np.array([term in self._columns[b] for term in bag.terms], bool)
        known = Bag((), bag.weights[:, np.flatnonzero(seen)])
        values = np.clip((_amounts(known, block.unit) - schema.mean) / schema.scale, -4, 4)
        return np.asarray(np.nan_to_num(values, nan=0.0), np.float32)

    def _bag(self, b: int, bag: Bag, missing: F32) -> tuple[I64, I64, F32, I64]:
        """(rows, columns, values) of bag block ``b``, and each song's number of unseen entries, (n,).

        Marks in ``missing`` which songs have the block.
        """
        n = len(missing)
        lookup = self._columns[b]
        column_of = np.fromiter((lookup.get(term, -1) for term in bag.terms), np.int64, len(bag.terms))
        rows = np.repeat(np.arange(n), np.diff(bag.weights.indptr))
        columns = column_of[bag.weights.indices]
        used = bag.weights.data > 0
        unseen = np.bincount(rows[used & (columns < 0)], minlength=n)
        used &= columns >= 0
        rows, columns = rows[used], columns[used]
        values = np.log1p(bag.weights.data[used] / self.bags[b].unit) * np.sqrt(self.idf[columns])
        squares = np.bincount(rows, values.astype(np.float64) ** 2, minlength=n)
        missing[squares > 0] = 0
        scale = np.sqrt(self.weights[b] / np.maximum(squares, 1e-30))
        return rows, columns, (values * scale[rows]).astype(np.float32), unseen

    @staticmethod
    def _dense(schema: DenseSchema, values: F32, missing: F32, weight: np.float32) -> F32:
        """float32 (n, d): one dense block; marks in ``missing`` which songs have it."""
        if values.shape[1] != len(schema.mean):
            raise ValueError(
                f"dense feature {schema.name!r} has {values.shape[1]} values; the encoder was trained on "
                f"{len(schema.mean)}. Send vectors of the model that made the training data, or train again"
            )
        present = np.asarray(np.isfinite(values).all(axis=1))
        missing[present] = 0
        block = (np.where(present[:, None], values, schema.mean) - schema.mean) / schema.scale
        block /= np.sqrt(block.shape[1])
        lengths = np.linalg.norm(block, axis=1, keepdims=True)
        block *= np.sqrt(weight) * np.minimum(1, _LONGEST / np.maximum(lengths, 1e-12))
        return block.astype(np.float32)


def in_words(bag: Bag) -> Bag:
    """The bag over the words of its terms; a word weighs as much as all terms that contain it together."""
    vocabulary: dict[str, int] = {}
    terms, words = [], []
    for t, term in enumerate(bag.terms):
        for word in dict.fromkeys(_WORD.findall(term.lower())):
            terms.append(t)
            words.append(vocabulary.setdefault(word, len(vocabulary)))
    spelling = sparse.csr_matrix(
        (np.ones(len(terms), np.float32), (terms, words)), shape=(len(bag.terms), len(vocabulary))
    )
    return Bag(tuple(vocabulary), (bag.weights @ spelling).tocsr())


def _amounts(bag: Bag, unit: float) -> F32:
    """float32 (n, 2): log total weight in units and log number of terms; NaN for an empty bag."""
    present = sparse.csr_matrix(bag.weights > 0)
    counts = np.asarray(present.sum(axis=1), np.float64).ravel()
    totals = np.asarray(bag.weights.multiply(present).sum(axis=1), np.float64).ravel() / unit
    return np.where(counts[:, None] > 0, np.log1p(np.stack([totals, counts], axis=1)), np.nan).astype(np.float32)


def _standard(name: str, values: F32) -> DenseSchema:
    """Mean and deviation of the rows (n, d) without NaN; there is at least one."""
    finite = values[np.isfinite(values).all(axis=1)].astype(np.float64)
    scale = finite.std(axis=0)
    # A constant dimension carries nothing: scale 1 keeps it at zero and avoids a division by zero.
    scale[scale < 1e-6] = 1.0
    return DenseSchema(name, finite.mean(axis=0).astype(np.float32), scale.astype(np.float32))


def _used(bag: Bag) -> tuple[tuple[str, ...], I64]:
    """The terms in use, sorted, and the number of songs with each."""
    songs = np.bincount(bag.weights.indices[bag.weights.data > 0], minlength=len(bag.terms))
    kept = sorted(np.flatnonzero(songs), key=lambda t: bag.terms[t])
    return tuple(bag.terms[t] for t in kept), songs[kept]


def select_columns(bags: sparse.csr_matrix, position: I64, width: int) -> sparse.csr_matrix:
    """csr (n, width): column c of ``bags`` moved to ``position[c]``, dropped where that is -1."""
    columns = position[bags.indices]
    kept = columns >= 0
    ends = np.concatenate([[0], np.cumsum(kept)])[bags.indptr]
    return sparse.csr_matrix((bags.data[kept], columns[kept], ends), shape=(bags.shape[0], width))
