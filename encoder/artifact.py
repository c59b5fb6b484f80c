"""The encoder on disk, protected by checksums.

An artifact is a folder:

    manifest.json        format, version, space, dim, size and sha256 of every other file, how it was trained
    schema.json          the vocabulary, units and names of the features
    model.safetensors    what the encoder computes with: idf, network, remembered songs
    warm.safetensors     the warm songs' vectors and content, so that a later encoder can encode them again
    warm_songs.json.gz   their ids and their content's vocabulary

It is written under a temporary name and renamed, so it is complete or absent. Nothing in it is executable (no
pickle), and nothing is used before its checksum is verified. The space is named after the checksums: equal artifacts
share a space, different ones never do.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import sparse

from encoder.content import Bag, ContentTable
from encoder.context import Memory
from encoder.features import BagSchema, DenseSchema, FeatureSchema
from encoder.serving import Encoder
from encoder.trained import Trained

F32 = NDArray[np.float32]

FORMAT = "coldstart-encoder"
# Version 1 has no projection.
VERSION = 2
_READABLE = (1, 2)
_WAY_OUT = "Train it again (coldstart train) or copy the artifact again from where it came"


class ArtifactError(Exception):
    """The artifact cannot be used. The message names the file, what was expected, what was found and what to do."""


@dataclass(frozen=True, slots=True)
class Manifest:
    """What an artifact says about itself.

    Attributes:
        space: name of the embedding space, at most 32 ASCII characters.
        dim: of the vectors.
        files: name -> (bytes, sha256).
        training: configuration and figures of the training.
    """

    space: str
    dim: int
    files: Mapping[str, tuple[int, str]]
    training: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class WarmSongs:
    """The warm songs in an artifact.

    Attributes:
        content: their n ids and contents.
        vectors: float32 (n, dim), unit rows, in ``space``.
    """

    space: str
    content: ContentTable
    vectors: F32


def vacant(path: Path, name: str = "bcl") -> None:
    """Checks, before hours of training, that the artifact can be written under this path and name.

    Raises:
        ArtifactError: the path already exists.
        ValueError: the name is longer than 19 characters or has others than a-z, 0-9, - and _.
        OSError: the folder is not writable.
    """
    if not 1 <= len(name) <= 19 or not all(c.isascii() and (c.isalnum() or c in "-_") for c in name):
        raise ValueError(f"name {name!r}: 1 to 19 characters of a-z, A-Z, 0-9, - and _ are allowed")
    if path.exists() or path.is_symlink():
        raise ArtifactError(f"{path}: expected nothing there, found something. Choose another place, or delete it")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryDirectory(dir=path.parent).cleanup()
    except OSError as error:
        # Name the artifact, as the user did, not the probe.
        raise OSError(error.errno, error.strerror, str(path)) from None


def save(trained: Trained, path: Path, name: str = "bcl") -> Manifest:
    """Writes the artifact to the new folder ``path``; ``name`` begins the name of its space.

    Raises:
        ArtifactError: the path already exists.
        ValueError: the name is longer than 19 characters or has others than a-z, 0-9, - and _.
    """
    vacant(path, name)
    content = trained.warm_content
    ids = {"song_ids": content.song_ids, "bags": {name: bag.terms for name, bag in content.bags.items()}}
    files = {
        "schema.json": _json(_schema_words(trained.encoder)),
        "model.safetensors": save_tensors(_model_tensors(trained.encoder)),
        "warm.safetensors": save_tensors(_content_tensors(content) | {"vectors": trained.warm_vectors}),
        # Without a modification time, equal artifacts have equal bytes.
        "warm_songs.json.gz": gzip.compress(_json(ids), mtime=0),
    }
    sums = {name: (len(data), hashlib.sha256(data).hexdigest()) for name, data in sorted(files.items())}
    whole = hashlib.sha256("".join(digest for _, digest in sums.values()).encode()).hexdigest()
    manifest = Manifest(
        space=f"{name}-{whole[:12]}",
        dim=trained.encoder.dim,
        files=sums,
        training={"config": asdict(trained.config), "gauges": trained.gauges},
    )
    files["manifest.json"] = _json({"format": FORMAT, "version": VERSION, **asdict(manifest)})
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        for file, data in files.items():
            with open(temporary / file, "wb") as out:
                out.write(data)
                out.flush()
                os.fsync(out.fileno())
        temporary.chmod(0o755)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    return manifest


def read_manifest(path: Path, sha256: str | None = None) -> Manifest:
    """The manifest of the artifact folder ``path``.

    Args:
        sha256: of the manifest's bytes, in hex, if known; the manifest holds the checksums of all other files.

    Raises:
        ArtifactError: it is missing, unreadable by this version, or has another checksum.
    """
    file = path / "manifest.json"
    try:
        data = file.read_bytes()
        summed = hashlib.sha256(data).hexdigest()
        if sha256 is not None and summed != sha256:
            raise ArtifactError(
                f"{file}: expected sha256 {sha256}, found {summed}: the artifact was changed after it was published. "
                "Copy the published one back, or publish this one"
            )
        raw = json.loads(data)
    except FileNotFoundError:
        raise ArtifactError(
            f"{file}: expected an encoder artifact's manifest, found no such file. {_WAY_OUT}"
        ) from None
    except ValueError:
        raise ArtifactError(f"{file}: expected JSON, found something else. {_WAY_OUT}") from None
    if not isinstance(raw, dict) or raw.get("format") != FORMAT:
        found = raw.get("format") if isinstance(raw, dict) else type(raw).__name__
        raise ArtifactError(f"{file}: expected format {FORMAT!r}, found {found!r}. {_WAY_OUT}")
    if raw.get("version") not in _READABLE:
        raise ArtifactError(
            f"{file}: expected version {VERSION} or older, found {raw.get('version')!r}. "
            "Install the coldstart that wrote it, or train again with this one"
        )
    try:
        files = {str(name): (int(size), str(digest)) for name, (size, digest) in raw["files"].items()}
        return Manifest(str(raw["space"]), int(raw["dim"]), files, dict(raw["training"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ArtifactError(f"{file}: expected a whole manifest, found a torn one ({error!r}). {_WAY_OUT}") from None


def load_encoder(path: Path, manifest_sha256: str | None = None) -> Encoder:
    """The encoder in the artifact folder ``path``, ready to serve.

    Args:
        manifest_sha256: of its manifest, in hex, if known.

    Raises:
        ArtifactError: a file is missing, damaged, foreign, newer, or of another dimension than the manifest says.
    """
    manifest = read_manifest(path, manifest_sha256)
    words = _read_json(path, "schema.json", manifest)
    tensors = _read_tensors(path, "model.safetensors", manifest)
    try:
        schema = FeatureSchema(
            bags=tuple(
                BagSchema(b["name"], bool(b["words"]), tuple(b["terms"]), float(b["unit"])) for b in words["bags"]
            ),
            idf=tensors["schema.idf"],
            dense=tuple(
                DenseSchema(name, tensors[f"schema.mean.dense.{name}"], tensors[f"schema.scale.dense.{name}"])
                for name in words["dense"]
            ),
            amounts=tuple(
                DenseSchema(name, tensors[f"schema.mean.amount.{name}"], tensors[f"schema.scale.amount.{name}"])
                for name in words["amounts"]
            ),
            weights=tensors["schema.weights"],
        )
        memory = Memory(
            bags=_csr(tensors, "memory.bags", len(schema.idf)),
            dense=tensors["memory.dense"],
            vectors=tensors["memory.vectors"],
            coefficients=tensors["memory.coefficients"],
            bandwidth=float(words["bandwidth"]),
            neighbours=int(words["neighbours"]),
        )
        network = {k.removeprefix("network."): v for k, v in tensors.items() if k.startswith("network.")}
        projection = tensors.get("projection")
        encoder = Encoder(manifest.space, schema, memory, tensors["columns"], network, tensors["fallback"], projection)
        width = network["second.bias"].shape[0]
        dims = {encoder.dim, width if projection is None else projection.shape[1]}
        fitting = [network["context"].shape[1] == width]
        if projection is not None:
            fitting.append(len(projection) == width + memory.vectors.shape[1])
        if not all(fitting):
            raise ValueError(f"the network's width is {width}")
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ArtifactError(
            f"{path}: expected the parts of an encoder, found them not fitting ({error!r}). {_WAY_OUT}"
        ) from None
    if dims != {manifest.dim}:
        raise ArtifactError(
            f"{path / 'model.safetensors'}: expected dimension {manifest.dim}, found {sorted(dims)}. {_WAY_OUT}"
        )
    return encoder


def load_warm(path: Path, manifest_sha256: str | None = None) -> WarmSongs:
    """The warm songs in the artifact folder ``path``.

    Args:
        manifest_sha256: as of :func:`load_encoder`.

    Raises:
        ArtifactError: as :func:`load_encoder`.
    """
    manifest = read_manifest(path, manifest_sha256)
    ids = _read_json(path, "warm_songs.json.gz", manifest)
    tensors = _read_tensors(path, "warm.safetensors", manifest)
    try:
        content = ContentTable(
            song_ids=tuple(ids["song_ids"]),
            dense={k.removeprefix("dense."): v for k, v in tensors.items() if k.startswith("dense.")},
            bags={
                name: Bag(tuple(terms), _csr(tensors, f"bag.{name}", len(terms))) for name, terms in ids["bags"].items()
            },
        )
        vectors = tensors["vectors"]
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(
            f"{path}: expected the parts of the warm songs, found them not fitting ({error!r}). {_WAY_OUT}"
        ) from None
    expected = (len(content), manifest.dim)
    if vectors.shape != expected:
        raise ArtifactError(
            f"{path / 'warm.safetensors'}: expected vectors of shape {expected}, found {vectors.shape}. {_WAY_OUT}"
        )
    return WarmSongs(manifest.space, content, vectors)


def _json(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, sort_keys=True).encode()


def _schema_words(encoder: Encoder) -> dict[str, Any]:
    """The parts of the model that are not tensors."""
    return {
        "bags": [
            {"name": bag.name, "words": bag.words, "terms": bag.terms, "unit": bag.unit} for bag in encoder.schema.bags
        ],
        "dense": [dense.name for dense in encoder.schema.dense],
        "amounts": [amount.name for amount in encoder.schema.amounts],
        "bandwidth": encoder.memory.bandwidth,
        "neighbours": encoder.memory.neighbours,
    }


def _model_tensors(encoder: Encoder) -> dict[str, Any]:
    tensors = {
        "schema.idf": encoder.schema.idf,
        "schema.weights": encoder.schema.weights,
        "columns": encoder.columns,
        "fallback": encoder.fallback,
        "memory.dense": encoder.memory.dense,
        "memory.vectors": encoder.memory.vectors,
        "memory.coefficients": encoder.memory.coefficients,
        **_csr_tensors("memory.bags", encoder.memory.bags),
        **{f"network.{name}": value for name, value in encoder.network.items()},
    }
    if encoder.projection is not None:
        tensors["projection"] = encoder.projection
    for kind, schemas in (("dense", encoder.schema.dense), ("amount", encoder.schema.amounts)):
        for one in schemas:
            tensors |= {f"schema.mean.{kind}.{one.name}": one.mean, f"schema.scale.{kind}.{one.name}": one.scale}
    return {name: np.ascontiguousarray(value) for name, value in tensors.items()}


def _content_tensors(content: ContentTable) -> dict[str, Any]:
    tensors: dict[str, Any] = {f"dense.{n}": np.ascontiguousarray(v) for n, v in content.dense.items()}
    for name, bag in content.bags.items():
        tensors |= _csr_tensors(f"bag.{name}", bag.weights)
    return tensors


def _csr_tensors(name: str, matrix: sparse.csr_matrix) -> dict[str, Any]:
    return {
        f"{name}.data": matrix.data,
        f"{name}.indices": matrix.indices.astype(np.int32),
        f"{name}.indptr": matrix.indptr.astype(np.int64),
    }


def _csr(tensors: Mapping[str, Any], name: str, width: int) -> sparse.csr_matrix:
    indptr = tensors[f"{name}.indptr"]
    parts = (tensors[f"{name}.data"], tensors[f"{name}.indices"], indptr)
    matrix = sparse.csr_matrix(parts, shape=(len(indptr) - 1, width))
    matrix.check_format(full_check=True)
    return matrix


def _read(path: Path, name: str, manifest: Manifest) -> bytes:
    """The bytes of one file, checked against the manifest."""
    file = path / name
    if name not in manifest.files:
        raise ArtifactError(f"{path / 'manifest.json'}: expected an entry for {name}, found none. {_WAY_OUT}")
    size, digest = manifest.files[name]
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise ArtifactError(f"{file}: expected {size} bytes, found no such file. {_WAY_OUT}") from None
    found = hashlib.sha256(data).hexdigest()
    if len(data) != size or found != digest:
        raise ArtifactError(
            f"{file}: expected {size} bytes with sha256 {digest}, found {len(data)} bytes with {found}. {_WAY_OUT}"
        )
    return data


def _read_json(path: Path, name: str, manifest: Manifest) -> Any:
    data = _read(path, name, manifest)
    return json.loads(gzip.decompress(data) if name.endswith(".gz") else data)


def _read_tensors(path: Path, name: str, manifest: Manifest) -> dict[str, Any]:
    try:
        return dict(load_tensors(_read(path, name, manifest)))
    except SafetensorError as error:
        raise ArtifactError(f"{path / name}: expected tensors, found {error}. {_WAY_OUT}") from None
