"""Damages cold songs' content: thinned, missing or unknown."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from scipy import sparse

from encoder.content import Bag, ContentTable

ASSIGNMENTS = 5
UNSEEN = 3


def thinned(content: ContentTable, bag: str, seed: int, assignments: int = ASSIGNMENTS) -> ContentTable:
    """Each song keeps ``assignments`` assignments of a bag's terms, drawn at random.

    A weight is a number of assignments (people who gave the tag), rounded, at least one; frequent terms are more likely
    to be kept. Songs with fewer keep all.
    """
    rng = np.random.default_rng(seed)
    weights = content.bags[bag].weights.copy()
    for start, end in zip(weights.indptr[:-1], weights.indptr[1:], strict=True):
        given = np.maximum(np.rint(weights.data[start:end]), 1).astype(np.int64)
        if given.sum() > assignments:
            weights.data[start:end] = rng.multivariate_hypergeometric(given, assignments)
    weights.eliminate_zeros()
    return replace(content, bags={**content.bags, bag: Bag(content.bags[bag].terms, weights)})


def without(content: ContentTable, modality: str) -> ContentTable:
    """Removes the named bag or dense feature from all songs."""
    if modality in content.dense:
        blank = np.full_like(content.dense[modality], np.nan)
        return replace(content, dense={**content.dense, modality: blank})
    bag = content.bags[modality]
    empty = Bag(bag.terms, sparse.csr_matrix(bag.weights.shape, dtype=np.float32))
    return replace(content, bags={**content.bags, modality: empty})


def estranged(content: ContentTable, bag: str, count: int = UNSEEN) -> ContentTable:
    """Adds ``count`` terms to each song's bag that no other song has."""
    own = content.bags[bag]
    n = len(content)
    columns = np.arange(n * count)
    strange = sparse.csr_matrix(
        (np.ones(n * count, np.float32), columns, np.arange(0, n * count + 1, count)), shape=(n, n * count)
    )
    # One word each: a term of known words would carry information.
    terms = (*own.terms, *(f"unseen0{column}" for column in columns))
    grown = Bag(terms, sparse.hstack([own.weights, strange], "csr"))
    return replace(content, bags={**content.bags, bag: grown})


def modalities(content: ContentTable) -> tuple[str, ...]:
    """The names of all bags and dense features in use, bags first."""
    bags = [name for name, bag in content.bags.items() if bag.weights.nnz]
    dense = [name for name, values in content.dense.items() if np.isfinite(values).all(axis=1).any()]
    return (*bags, *dense)
