"""Which warm songs are most similar to a vector? One interface, an exact and an approximate implementation."""

from targeting.index.base import Labels, UnusableIndexError, WarmIndex
from targeting.index.exact import ExactIndex
from targeting.index.hnsw import HnswIndex, HnswSettings

__all__ = ["ExactIndex", "HnswIndex", "HnswSettings", "Labels", "UnusableIndexError", "WarmIndex"]
