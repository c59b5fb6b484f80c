"""Indexes of warm songs: one interface, an exact and an approximate implementation.

The approximate one is loaded when it is asked for: hnswlib is not installed everywhere.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from targeting.index.base import Labels, UnusableIndexError, WarmIndex
from targeting.index.choice import IndexKind, MissingIndexError, make_index, resolved
from targeting.index.exact import ExactIndex

if TYPE_CHECKING:
    from targeting.index.hnsw import HnswIndex, HnswSettings

__all__ = [
    "ExactIndex",
    "HnswIndex",
    "HnswSettings",
    "IndexKind",
    "Labels",
    "MissingIndexError",
    "UnusableIndexError",
    "WarmIndex",
    "make_index",
]


def __getattr__(name: str) -> Any:
    if name not in ("HnswIndex", "HnswSettings"):
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Where hnswlib is missing, the error says how it is installed.
    resolved(IndexKind.HNSW)
    from targeting.index import hnsw

    return getattr(hnsw, name)
