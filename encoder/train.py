"""Trains the encoder: Bootstrapping Contrastive Learning (BCL) over warm songs.

Loss = softmax over the warm catalogue against the songs that share listeners
       + contrast * InfoNCE between two random transformations of songs drawn uniformly (:mod:`encoder.views`).

In the first term, songs with many listeners get most of the gradient. The second draws every song equally often, the
paper's remedy for the tail ("Bootstrapping Contrastive Learning
Enhanced Music Cold-Start Matching", WWW 2023 companion).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]
from torch.nn import functional

from encoder import leave_one_out, mixture, supervision, tuning, views
from encoder.data.dataset import Dataset
from encoder.device import chosen
from encoder.features import FeatureSchema
from encoder.fit import NetworkInputs, TrainingRun
from encoder.ranks import Ranks
from encoder.serving import Encoder, joined
from encoder.trained import Trained
from encoder.training_config import Device, TrainingConfig
from encoder.truth import quartiles

__all__ = ["Progress", "Report", "Trained", "TrainingConfig", "train"]

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Progress:
    """Progress of a training: ``done`` of ``total`` steps of ``stage``, and the gauges so far."""

    stage: str
    done: int
    total: int
    gauges: dict[str, float] = field(default_factory=dict)


# Versions of songs held at once: 500 MB at 2 KB a context.
_VERSIONS = 250_000

# Up to this many songs, one thread: steps are too small to share, and on a busy machine threads wait for each other
# (137 s with two threads, 13 s with one, for 2,545 songs).
_SINGLE = 10_000

# Steps between checkpoints within an epoch.
_SAVED = 100

Report = Callable[[Progress], None]


def train(
    dataset: Dataset,
    warm_rows: I64,
    config: TrainingConfig | None = None,
    progress: Report | None = None,
    checkpoint: Path | None = None,
    *,
    rare_rows: I64 | None = None,
    device: Device = "cpu",
) -> Trained:
    """Trains on the songs ``warm_rows`` of ``dataset``, on ``rare_rows`` if the config says so, and on nothing else.

    With ``checkpoint`` (a file), the state is saved there after every epoch and every hundred steps, and a run that
    finds it resumes: on the same machine, device and number of threads to the same weights, bit for bit.

    Under torchrun, processes share the network's batches and end with equal weights (:mod:`encoder.ranks`); each
    prepares its own data, and only the first writes the checkpoint.

    Raises:
        ValueError: fewer than two warm songs, no content, a checkpoint of another run, or ``cuda`` without a GPU.
    """
    if len(warm_rows) < 2:
        raise ValueError(f"{len(warm_rows)} warm songs; at least 2 are needed, 5 listeners each")
    threads = 1 if len(warm_rows) <= _SINGLE else None
    with threadpool_limits(limits=threads):
        config = config or TrainingConfig()
        rare = rare_rows if config.rare and rare_rows is not None else np.zeros(0, np.int64)
        return _train(dataset, warm_rows, rare, config, progress or (lambda _: None), checkpoint, chosen(device))


def _train(
    dataset: Dataset,
    warm_rows: I64,
    rare_rows: I64,
    config: TrainingConfig,
    report: Report,
    checkpoint: Path | None,
    device: torch.device,
) -> Trained:
    ranks = Ranks.of_environment(device)
    started = perf_counter()
    report(Progress("features", 0, 1))
    # Warm songs first: only they can be retrieved.
    warm = len(warm_rows)
    content = dataset.content.rows(np.concatenate([warm_rows, rare_rows]))
    schema = FeatureSchema.learn(content)
    rng = np.random.default_rng(config.seed)
    prepared_views = min(config.views, _VERSIONS // len(content))
    versions = [content, *(views.transformed(content, rng) for _ in range(prepared_views))]
    report(Progress("audiences", 0, 1))
    listeners = supervision.listener_rows(dataset.plays[warm_rows])
    rare = supervision.listener_rows(dataset.plays[rare_rows])
    vectors = supervision.audience_vectors(listeners, config.factors, rng, rare, device)
    counts = np.maximum(np.diff(np.concatenate([listeners.indptr, listeners.indptr[-1] + rare.indptr[1:]])), 1)
    targets = supervision.targets(listeners, config.targets, rare).weighed(counts / (counts + config.doubt))
    bandwidth, ridge = config.bandwidth, (config.ridge + config.ridge_noise / counts).astype(np.float32)
    if config.tune:
        report(Progress("tuning", 0, 1))
        known = schema.transform(content.rows(np.arange(warm)))
        tuned = tuning.tune(schema, known, vectors[:warm], listeners, bandwidth, ridge[:warm], rng)
        schema, bandwidth, ridge = tuned.schema, tuned.bandwidth, ridge * np.float32(tuned.ridge)
    report(Progress("contexts", 0, 1))
    songs, *_ = features = [schema.transform(version) for version in versions]
    loo = leave_one_out.fit(
        songs,
        vectors,
        bandwidth=bandwidth,
        ridge=ridge,
        neighbours=config.neighbours,
        landmarks=config.landmarks,
        remembered=config.remembered,
        rng=rng,
        warm=warm,
        device=device,
    )
    columns = _frequent(songs.bags, config.terms)
    contexts = loo.contexts(features) if config.contexts else np.zeros((len(features), len(songs), 0), np.float32)
    inputs = NetworkInputs(features, columns, contexts)
    prepared = perf_counter() - started
    held = mixture.held_back(warm, rng) if config.contexts and len(config.closed) > 1 else np.zeros(0, np.int64)
    run = TrainingRun(config, inputs, targets, vectors[:warm], held, device, ranks)
    done = run.restore(checkpoint) if checkpoint and checkpoint.exists() else 0
    quarter = quartiles(np.diff(listeners.indptr).astype(np.int64))
    gauges: dict[str, float] = {}
    while done < run.epochs * run.steps:
        epoch, first = divmod(done, run.steps)
        for step in run.epoch(epoch, first):
            done += 1
            gauges |= step
            report(Progress("epochs", epoch, run.epochs, gauges))
            if checkpoint and ranks.rank == 0 and (done % _SAVED == 0 or done % run.steps == 0):
                run.save(checkpoint, done)
        gauges |= run.recall(quarter)
    report(Progress("epochs", run.epochs, run.epochs, gauges))
    warm_vectors = functional.normalize(run.warm.detach(), dim=1).cpu().numpy()
    projection, weight = None, config.closed[0] if config.contexts else 0.0
    report(Progress("mixing", 0, 1))
    if len(held):
        asked = []
        # As they are, and one transformed version.
        for version in range(min(2, len(features))):
            rows = torch.from_numpy(held + version * len(songs))
            asked.append((run.answers(rows).cpu().numpy(), contexts[version, held, : vectors.shape[1]]))
        weight = mixture.best_weight(asked, warm_vectors, vectors[:warm], targets, held, config.closed)
    if weight:
        projection = mixture.projection(warm_vectors, vectors[:warm], weight)
        warm_vectors = joined(warm_vectors, vectors[:warm], projection)
    report(Progress("mixing", 1, 1))
    mean = warm_vectors.mean(axis=0)
    encoder = Encoder(
        space="",
        schema=schema,
        memory=loo.memory,
        columns=columns,
        network={name: value.cpu().numpy().copy() for name, value in run.tower.state_dict().items()},
        fallback=np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32),
        projection=projection,
    )
    seconds = perf_counter() - started
    gauges = {**gauges, "prepare_seconds": prepared, "train_seconds": seconds, "warm_songs": float(warm)}
    gauges |= {"rare_songs": float(len(rare_rows)), "closed": weight}
    return Trained(encoder, content.rows(np.arange(warm)), warm_vectors, config, gauges)


def _frequent(bags: sparse.csr_matrix, most: int) -> I64:
    """int64: the ``most`` frequent columns among those that at least two songs have."""
    songs = np.bincount(bags.indices, minlength=bags.shape[1])
    order = np.argsort(-songs, kind="stable")[:most]
    return np.sort(order[songs[order] >= 2])
