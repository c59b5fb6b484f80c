"""The approximate index: hnswlib, with each of its traps (0.8.0) closed behind the interface.

The graph's own labels are never used again: adding a song anew marks its old entry deleted and inserts a
fresh one (hnswlib's ``replace_deleted`` doubles a label that exists, and its update in place wears the
graph). When deleted entries outnumber the live ones the graph is built anew beside the old one and takes
its place in one assignment.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import hnswlib
import numpy as np

from targeting.index.base import Labels, UnusableIndexError, checked, checked_k, last_of_each
from targeting.index.exact import ExactIndex
from targeting.types import F32

FORMAT = 1
MANIFEST = "manifest.json"
_FIRST_CAPACITY = 1024
# Searches wait while so many are inserted: 1 ms (median) among 2,400 songs of 128 dimensions, 5 among 20,000.
_INSERTED_AT_ONCE = 16


@dataclass(frozen=True, slots=True)
class HnswSettings:
    """The graph's shape.

    Attributes:
        links: neighbours of an entry ("M"); more of them: better recall, more memory.
        build_breadth: candidates kept while inserting ("ef_construction").
        search_breadth: candidates kept while searching ("ef"); raised to 2 k where k asks for more.
        threads: of hnswlib, per call. One: insertion order, and so the graph, is the same each time.
    """

    links: int = 16
    build_breadth: int = 200
    search_breadth: int = 200
    threads: int = 1
    seed: int = 0


class HnswIndex:
    """Approximate search in a hierarchical navigable small world graph; see :class:`targeting.index.base.WarmIndex`.

    Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using Hierarchical Navigable Small
    World graphs", IEEE TPAMI 2020.

    A lock keeps searches out while the graph changes: hnswlib's ``knn_query`` is not safe beside ``add_items`` (its
    README says so), and an insertion that resizes crashes the process under a search. Many songs are inserted a few
    at a time, so that searches go between.

    Args:
        dimension: d; vectors and queries are float32 (n, d), and of unit length where cosines are wanted.
        settings: the graph's shape; None: the defaults of :class:`HnswSettings`.
    """

    def __init__(self, dimension: int, settings: HnswSettings | None = None) -> None:
        self._dimension = dimension
        self._settings = settings or HnswSettings()
        self._lock = threading.Lock()
        self._graph = self._new_graph(_FIRST_CAPACITY)
        self._entry_of: dict[int, int] = {}  # label -> the graph's entry
        self._label_of = np.full(_FIRST_CAPACITY, -1, np.int64)  # entry -> label, -1 deleted
        self._entries = 0

    @property
    def dimension(self) -> int:
        return self._dimension

    def __len__(self) -> int:
        return len(self._entry_of)

    def add(self, labels: Sequence[int] | Labels, vectors: F32) -> None:
        new_labels, new_vectors = last_of_each(labels, checked(vectors, self._dimension, "vectors"))
        for start in range(0, len(new_labels), _INSERTED_AT_ONCE):
            some = slice(start, start + _INSERTED_AT_ONCE)
            with self._lock:
                self._delete(new_labels[some])
                self._insert(new_labels[some], new_vectors[some])
        self._rebuild_if_worn()

    def remove(self, labels: Sequence[int] | Labels) -> None:
        with self._lock:
            self._delete(np.asarray(labels, np.int64))
        self._rebuild_if_worn()

    def search(self, queries: F32, k: int) -> tuple[Labels, F32]:
        array = checked(queries, self._dimension, "queries")
        with self._lock:
            k = checked_k(k, len(self._entry_of))
            if not k or not len(array):
                return np.empty((len(array), k), np.int64), np.empty((len(array), k), np.float32)
            # Set at every search: a loaded graph has forgotten it, and below k hnswlib raises.
            self._graph.set_ef(max(self._settings.search_breadth, 2 * k))
            try:
                entries, distances = self._graph.knn_query(array, k, num_threads=self._settings.threads)
            except RuntimeError:
                # Deletions can cut the graph so that fewer than k entries are reached, and hnswlib then
                # fails the whole batch. The exact answer is slower, and right.
                live, vectors = self._live()
                exact = ExactIndex(self._dimension)
                exact.add(live, vectors)
                return exact.search(array, k)
            return self._label_of[entries.astype(np.int64)], (1.0 - distances).astype(np.float32)

    def save(self, directory: Path, space: str) -> None:
        """Writes the index so that :meth:`load` finds the old one or the new one, never a mixture.

        Args:
            space: the embedding space of the vectors.

        Raises:
            OSError: it could not be written.
        """
        directory.mkdir(parents=True, exist_ok=True)
        with self._lock:
            part = directory / f"graph.{os.getpid()}.part"
            # hnswlib returns silently when it cannot write, so the place is tried first.
            part.write_bytes(b"")
            self._graph.save_index(str(part))
            label_of = self._label_of[: self._entries].tolist()
        digest = _sha256(part)
        graph = directory / f"graph-{digest[:16]}.bin"
        os.replace(part, graph)
        manifest = {
            "format": FORMAT,
            "space": space,
            "dimension": self._dimension,
            "settings": asdict(self._settings),
            "graph": graph.name,
            "bytes": graph.stat().st_size,
            "sha256": digest,
            "labels": label_of,
        }
        text = json.dumps(manifest)
        manifest_part = directory / f"{MANIFEST}.{os.getpid()}.part"
        manifest_part.write_text(json.dumps({"sha256": hashlib.sha256(text.encode()).hexdigest(), "body": text}))
        os.replace(manifest_part, directory / MANIFEST)
        for old in directory.glob("graph-*.bin"):
            if old != graph:
                old.unlink()

    @classmethod
    def load(cls, directory: Path, space: str, dimension: int) -> HnswIndex:
        """Reads what :meth:`save` wrote.

        Raises:
            UnusableIndexError: it is missing, torn, of another space, dimension or format. hnswlib itself
                loads all of these silently and crashes the process later.
        """
        manifest = _read_manifest(directory)
        for key, wanted in (("format", FORMAT), ("space", space), ("dimension", dimension)):
            if manifest[key] != wanted:
                raise UnusableIndexError(f"{directory}: {key} is {manifest[key]!r}, wanted {wanted!r}")
        path = directory / str(manifest["graph"])
        if not path.is_file() or path.stat().st_size != manifest["bytes"]:
            raise UnusableIndexError(f"{path}: missing or of another length than its manifest says")
        if _sha256(path) != manifest["sha256"]:
            raise UnusableIndexError(f"{path}: its sha256 is not the manifest's")
        index = cls(dimension, HnswSettings(**manifest["settings"]))
        label_of = np.asarray(manifest["labels"], np.int64)
        capacity = max(_FIRST_CAPACITY, len(label_of))
        index._graph.load_index(str(path), max_elements=capacity)
        index._label_of = np.full(capacity, -1, np.int64)
        index._label_of[: len(label_of)] = label_of
        index._entries = len(label_of)
        live = np.flatnonzero(label_of >= 0)
        index._entry_of = dict(zip(label_of[live].tolist(), live.tolist(), strict=True))
        return index

    def _new_graph(self, capacity: int) -> Any:
        graph = hnswlib.Index(space="ip", dim=self._dimension)
        graph.init_index(
            max_elements=capacity,
            M=self._settings.links,
            ef_construction=self._settings.build_breadth,
            random_seed=self._settings.seed,
        )
        return graph

    def _delete(self, labels: Labels) -> None:
        for label in labels.tolist():
            entry = self._entry_of.pop(label, None)
            if entry is not None:
                self._graph.mark_deleted(entry)
                self._label_of[entry] = -1

    def _insert(self, labels: Labels, vectors: F32) -> None:
        end = self._entries + len(labels)
        if end > len(self._label_of):
            capacity = max(end, 2 * len(self._label_of))
            self._graph.resize_index(capacity)
            self._label_of = np.concatenate([self._label_of, np.full(capacity - len(self._label_of), -1, np.int64)])
        entries = np.arange(self._entries, end)
        if len(labels):
            self._graph.add_items(vectors, entries, num_threads=self._settings.threads)
        self._label_of[entries] = labels
        self._entry_of.update(zip(labels.tolist(), entries.tolist(), strict=True))
        self._entries = end

    def _live(self) -> tuple[Labels, F32]:
        entries = np.flatnonzero(self._label_of[: self._entries] >= 0)
        if not len(entries):
            return np.empty(0, np.int64), np.empty((0, self._dimension), np.float32)
        vectors = np.asarray(self._graph.get_items(entries, return_type="numpy"), np.float32)
        return self._label_of[entries], vectors

    def _rebuild_if_worn(self) -> None:
        deleted = self._entries - len(self._entry_of)
        if deleted <= max(len(self._entry_of), _FIRST_CAPACITY):
            return
        with self._lock:
            labels, vectors = self._live()
        fresh = HnswIndex(self._dimension, self._settings)
        fresh.add(labels, vectors)
        with self._lock:
            self._graph, self._label_of = fresh._graph, fresh._label_of
            self._entry_of, self._entries = fresh._entry_of, fresh._entries


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _read_manifest(directory: Path) -> dict[str, Any]:
    path = directory / MANIFEST
    try:
        outer = json.loads(path.read_text())
        if hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
            raise UnusableIndexError(f"{path}: its own sha256 does not hold")
        manifest = json.loads(outer["body"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UnusableIndexError(f"{path}: cannot be read as a manifest: {error}") from error
    if not isinstance(manifest, dict) or not manifest.keys() >= {
        "format",
        "space",
        "dimension",
        "settings",
        "graph",
        "bytes",
        "sha256",
        "labels",
    }:
        raise UnusableIndexError(f"{path}: is not the manifest of an index")
    return manifest
