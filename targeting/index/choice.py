"""The index that an installation uses: hnswlib where it is installed, the exact one where it is not.

hnswlib comes as source, and not every machine can compile it. The exact index gives the right neighbours at a cost that
grows with the catalogue: `docs/adr/0012-index-without-a-compiler.md` has the figures.
"""

from __future__ import annotations

from enum import StrEnum
from importlib.util import find_spec

from targeting.index.base import WarmIndex
from targeting.index.exact import ExactIndex


class IndexKind(StrEnum):
    """How warm songs are searched."""

    AUTO = "auto"
    """``HNSW`` where it is installed, otherwise ``EXACT``."""
    HNSW = "hnsw"
    EXACT = "exact"


class MissingIndexError(Exception):
    """The index asked for is not installed here."""


def resolved(kind: IndexKind = IndexKind.AUTO) -> IndexKind:
    """The kind that :func:`make_index` makes: ``HNSW`` or ``EXACT``.

    Raises:
        MissingIndexError: ``HNSW`` was asked for, and hnswlib is not installed.
    """
    if kind is IndexKind.EXACT:
        return kind
    if find_spec("hnswlib") is not None:
        return IndexKind.HNSW
    if kind is IndexKind.HNSW:
        raise MissingIndexError("hnswlib is not installed: pip install 'coldstart[hnsw]', which needs a C++ compiler")
    return IndexKind.EXACT


def make_index(dimension: int, kind: IndexKind = IndexKind.AUTO) -> WarmIndex:
    """An empty index of vectors of so many dimensions.

    Raises:
        MissingIndexError: see :func:`resolved`.
    """
    if resolved(kind) is IndexKind.EXACT:
        return ExactIndex(dimension)
    # Loaded only where it is used: it may not be there.
    from targeting.index.hnsw import HnswIndex

    return HnswIndex(dimension)
