"""How is the encoder trained? Bootstrapping contrastive learning (BCL) over warm songs.

Loss = softmax over the warm catalogue against the songs that share listeners
       + contrast * InfoNCE between two random transformations of songs drawn uniformly (:mod:`encoder.views`).

The first term sees songs as the listeners made them: the head has many listeners and gets the gradient. The second
draws every song equally often, which is the paper's remedy for the tail ("Bootstrapping Contrastive Learning
Enhanced Music Cold-Start Matching", WWW 2023 companion).
"""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from encoder import context, supervision, tuning, views
from encoder.content import ContentTable
from encoder.data.dataset import Dataset
from encoder.features import Features, FeatureSchema
from encoder.model import Batch, QueryTower
from encoder.serving import Encoder, select_columns
from encoder.truth import quartiles

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Config:
    """Everything that decides what is trained; equal configs on equal data give equal weights.

    Attributes:
        dim: of the embedding.
        factors: rank of the audience vectors that the contexts predict.
        bandwidth, ridge, neighbours, landmarks, remembered: of the contexts, see :mod:`encoder.context`.
        tune: whether the first two, and the weights of the blocks of content, are only where tuning starts from.
        contexts: whether the network reads them.
        terms: bag columns the network reads, the most frequent ones; the contexts read all.
        targets: songs with the most similar listeners that are each song's targets.
        loss: ``softmax`` over the catalogue, or ``bpr`` (Rendle et al., UAI 2009) with one uniform negative a song.
        catalogue: above so many warm songs the softmax is estimated from ``sampled`` of them, with logQ correction
            (Bengio & Senecal, IEEE TNN 2008).
        views: random transformations prepared of each song, fewer when there are more than 50,000 songs; supervision
            takes the song itself with probability ``untransformed``, else one of them.
        contrast, contrast_temperature: weight and temperature of InfoNCE.
        bag_dropout, context_dropout: shares of bag entries and of context values hidden in supervision.
        view_dropout: share of both hidden in a view of the contrastive term.
        epochs, steps: passes over the songs, of which there are fewer when they would take more than ``steps`` batches.
    """

    dim: int = 128
    factors: int = 256
    bandwidth: float = 2.0
    ridge: float = 0.25
    tune: bool = True
    neighbours: int = 20
    landmarks: int = 3072
    remembered: int = 32_768
    contexts: bool = True
    terms: int = 16_384
    hidden: int = 256
    hidden_dropout: float = 0.5
    bag_dropout: float = 0.5
    context_dropout: float = 0.2
    targets: int = 50
    loss: Literal["softmax", "bpr"] = "softmax"
    catalogue: int = 50_000
    sampled: int = 8192
    views: int = 5
    untransformed: float = 0.5
    temperature: float = 0.1
    contrast: float = 0.3
    contrast_temperature: float = 0.2
    view_dropout: float = 0.3
    epochs: int = 12
    steps: int = 500
    batch: int = 256
    rate: float = 2e-3
    warm_rate: float = 1e-3
    weight_decay: float = 1e-4
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Progress:
    """Where training stands: ``done`` of ``total`` steps of ``stage``, and the gauges known so far."""

    stage: str
    done: int
    total: int
    gauges: dict[str, float] = field(default_factory=dict)


# Versions of songs held at once: a context takes 2 KB, so that this is 500 MB.
_VERSIONS = 250_000
# Training songs whose recall is measured after each epoch.
_MEASURED = 1000

Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class Trained:
    """What training gives.

    Attributes:
        encoder: for serving; its space is named when it is saved.
        warm_content: content of the n warm songs, with their ids.
        warm_vectors: float32 (n, dim), unit rows, what a query's inner product is to be taken with.
        gauges: figures of the last epoch and of the whole run.
    """

    encoder: Encoder
    warm_content: ContentTable
    warm_vectors: F32
    config: Config
    gauges: dict[str, float]


def train(
    dataset: Dataset,
    warm_rows: I64,
    config: Config | None = None,
    progress: Report | None = None,
    checkpoint: Path | None = None,
) -> Trained:
    """Trains on the songs ``warm_rows`` of ``dataset`` and on nothing else.

    With ``checkpoint`` (a file), the state is kept there after every epoch, and a run that finds it goes on from it:
    on the same machine and number of threads to the same weights, bit for bit.

    Raises:
        ValueError: fewer than two warm songs, no content, or a checkpoint of another run.
    """
    config = config or Config()
    report = progress or (lambda _: None)
    if len(warm_rows) < 2:
        raise ValueError(f"{len(warm_rows)} warm songs; at least 2 are needed, 5 listeners each")
    started = perf_counter()
    report(Progress("features", 0, 1))
    content = dataset.content.rows(warm_rows)
    schema = FeatureSchema.learn(content)
    rng = np.random.default_rng(config.seed)
    prepared_views = min(config.views, _VERSIONS // len(content))
    versions = [content, *(views.transformed(content, rng) for _ in range(prepared_views))]
    report(Progress("audiences", 0, 1))
    listeners = supervision.listener_rows(dataset.plays[warm_rows])
    vectors = supervision.audience_vectors(listeners, config.factors, rng)
    targets = supervision.targets(listeners, config.targets)
    bandwidth, ridge = config.bandwidth, config.ridge
    if config.tune:
        report(Progress("tuning", 0, 1))
        tuned = tuning.tune(schema, schema.transform(content), vectors, listeners, bandwidth, ridge, rng)
        schema, bandwidth, ridge = tuned.schema, tuned.bandwidth, tuned.ridge
    report(Progress("contexts", 0, 1))
    songs, *_ = features = [schema.transform(version) for version in versions]
    loo = context.fit(
        songs,
        vectors,
        bandwidth=bandwidth,
        ridge=ridge,
        neighbours=config.neighbours,
        landmarks=config.landmarks,
        remembered=config.remembered,
        rng=rng,
    )
    columns = _frequent(songs.bags, config.terms)
    contexts = loo.contexts(features) if config.contexts else np.zeros((len(features), len(songs), 0), np.float32)
    inputs = _Inputs(features, columns, contexts)
    prepared = perf_counter() - started
    run = _Run(config, inputs, targets, vectors)
    first = run.restore(checkpoint) if checkpoint and checkpoint.exists() else 0
    quarter = quartiles(np.diff(listeners.indptr).astype(np.int64))
    gauges: dict[str, float] = {}
    for epoch in range(first, run.epochs):
        for step in run.epoch(epoch):
            gauges |= step
            report(Progress("epochs", epoch, run.epochs, gauges))
        gauges |= run.recall(quarter)
        if checkpoint:
            run.save(checkpoint, epoch + 1)
    report(Progress("epochs", run.epochs, run.epochs, gauges))
    warm_vectors = functional.normalize(run.warm.detach(), dim=1).numpy()
    mean = warm_vectors.mean(axis=0)
    encoder = Encoder(
        space="",
        schema=schema,
        memory=loo.memory,
        columns=columns,
        network={name: value.numpy().copy() for name, value in run.tower.state_dict().items()},
        fallback=np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-9), np.float32),
    )
    seconds = perf_counter() - started
    gauges = {**gauges, "prepare_seconds": prepared, "train_seconds": seconds, "warm_songs": float(len(songs))}
    return Trained(encoder, content, warm_vectors, config, gauges)


def _frequent(bags: sparse.csr_matrix, most: int) -> I64:
    """int64: the columns that at least two songs have, the ``most`` frequent of them."""
    songs = np.bincount(bags.indices, minlength=bags.shape[1])
    order = np.argsort(-songs, kind="stable")[:most]
    return np.sort(order[songs[order] >= 2])


class _Inputs:
    """The network's inputs of all versions of the n training songs; row v n + i is version v of song i."""

    def __init__(self, versions: list[Features], columns: I64, contexts: F32) -> None:
        position = np.full(versions[0].bags.shape[1], -1, np.int64)
        position[columns] = np.arange(len(columns))
        bags = sparse.vstack([select_columns(v.bags, position, len(columns)) for v in versions]).tocsr()
        self.songs, self.versions, self.terms = len(versions[0]), len(versions), len(columns)
        self.known = torch.from_numpy(np.concatenate([v.known for v in versions]))
        self.starts = torch.from_numpy(bags.indptr.astype(np.int64))
        self.indices = torch.from_numpy(bags.indices.astype(np.int64))
        self.values = torch.from_numpy(bags.data)
        self.side = torch.from_numpy(np.vstack([v.side for v in versions]))
        self.context = torch.from_numpy(contexts.reshape(len(self.side), -1))

    def versions_of(self, songs: Tensor, untransformed: float, generator: torch.Generator) -> Tensor:
        """The row of a version of each song: itself with the given probability, or when the view has nothing left."""
        if self.versions == 1:
            return songs
        rows = songs + self.songs * torch.randint(1, self.versions, songs.shape, generator=generator)
        itself = torch.rand(songs.shape, generator=generator) < untransformed
        return torch.where(itself | ~self.known[rows], songs, rows)

    def batch(self, rows: Tensor, bag: float, context: float, generator: torch.Generator) -> Batch:
        """The given rows with random shares of their bag entries and of their context values hidden."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        offsets = torch.cumsum(lengths, 0) - lengths
        entries = torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - offsets, lengths)
        return Batch(
            self.indices[entries],
            offsets,
            self.values[entries] * _keep((len(entries),), bag, generator),
            self.side[rows],
            self.context[rows] * _keep((len(rows), self.context.shape[1]), context, generator),
        )


def _keep(shape: tuple[int, ...], dropout: float, generator: torch.Generator) -> Tensor:
    """Dropout's multiplier: 0 with the given probability, else 1 / (1 - dropout)."""
    if dropout == 0:
        return torch.ones(shape)
    return (torch.rand(shape, generator=generator) >= dropout).float() / (1 - dropout)


class _Run:
    """One training: weights, optimiser and random state, by which it can be stopped and resumed."""

    def __init__(self, config: Config, inputs: _Inputs, targets: supervision.Targets, vectors: F32) -> None:
        self.config = config
        self.inputs = inputs
        self.target_songs = torch.from_numpy(targets.songs)
        self.target_weights = torch.from_numpy(targets.weights)
        self.generator = torch.Generator().manual_seed(config.seed)
        self.tower = QueryTower(inputs.terms, inputs.side.shape[1], inputs.context.shape[1], config.hidden, config.dim)
        self.tower.initialise(vectors.shape[1], self.generator)
        start = torch.zeros(inputs.songs, config.dim)
        width = min(config.dim, vectors.shape[1])
        start[:, :width] = torch.from_numpy(vectors[:, :width])
        self.warm = torch.nn.Parameter(functional.normalize(start, dim=1))
        self.scale = torch.nn.Parameter(torch.tensor(-math.log(config.temperature)))
        self.parameters = [*self.tower.parameters(), self.scale, self.warm]
        self.optimiser = torch.optim.AdamW(
            [{"params": self.parameters[:-1]}, {"params": [self.warm]}], weight_decay=config.weight_decay
        )
        self.steps = math.ceil(inputs.songs / config.batch)
        self.epochs = max(1, min(config.epochs, config.steps // self.steps))
        # Half uniform, half as often as a song is a target: these have the large logits.
        often = torch.bincount(self.target_songs.flatten(), minlength=inputs.songs).float()
        self.proposal = 0.5 / inputs.songs + 0.5 * often / often.sum()

    def epoch(self, epoch: int) -> Iterator[dict[str, float]]:
        """One pass over the songs; yields the gauges of each step."""
        order = torch.randperm(self.inputs.songs, generator=self.generator)
        for step in range(self.steps):
            rows = order[step * self.config.batch : (step + 1) * self.config.batch]
            pace = _one_cycle((epoch * self.steps + step + 1) / (self.epochs * self.steps))
            for group, rate in zip(self.optimiser.param_groups, (self.config.rate, self.config.warm_rate), strict=True):
                group["lr"] = rate * pace
            loss, gauges = self.loss(rows)
            self.optimiser.zero_grad(set_to_none=True)
            torch.autograd.backward(loss)
            self.optimiser.step()
            yield gauges

    def loss(self, songs: Tensor) -> tuple[Tensor, dict[str, float]]:
        """Supervised plus contrastive loss of a batch of songs (B,), and what it looks like inside."""
        config = self.config
        query = self.query(songs, config.untransformed, config.bag_dropout, config.context_dropout)  # (B, dim)
        if config.loss == "bpr":
            loss = self.bpr(query, songs)
        elif self.inputs.songs > config.catalogue:
            loss = self.sampled_softmax(query, songs)
        else:
            loss = self.softmax(query, songs)
        gauges = {"supervised": loss.item()}
        if config.contrast:
            drawn = torch.randint(self.inputs.songs, songs.shape, generator=self.generator)
            share = 1 / self.inputs.versions
            one, two = (self.query(drawn, share, config.view_dropout, config.view_dropout) for _ in range(2))
            contrastive = info_nce(one, two, config.contrast_temperature)
            loss = loss + config.contrast * contrastive
            gauges["contrastive"] = contrastive.item()
        with torch.no_grad():
            gauges["alignment"] = self.alignment(query, songs)
            gauges |= collapse(query)
        return loss, gauges

    def alignment(self, query: Tensor, songs: Tensor) -> float:
        """Mean squared distance to the targets (Wang & Isola, ICML 2020): 0 when met, 2 when unrelated."""
        weights = self.target_weights[songs]
        targets = functional.normalize(self.warm[self.target_songs[songs]], dim=2)  # (B, k, dim)
        cosines = torch.einsum("bd,bkd->bk", query, targets)
        return float((weights * (2 - 2 * cosines)).sum() / weights.sum().clamp_min(1e-12))

    def recall(self, quarter: I64) -> dict[str, float]:
        """Share of the targets among as many retrieved songs, over evenly spaced training songs, by their quartile.

        Contexts leave the song out, but the weights have seen it: the trend tells, not the level.
        """
        songs = torch.arange(0, self.inputs.songs, max(1, self.inputs.songs // _MEASURED))
        with torch.no_grad():
            query = self.tower(self.inputs.batch(songs, 0.0, 0.0, self.generator))
            logits = query @ functional.normalize(self.warm, dim=1).T
        logits[torch.arange(len(songs)), songs] = -torch.inf
        found = torch.zeros_like(logits).scatter_(1, logits.topk(self.target_songs.shape[1]).indices, 1.0)
        true = self.target_weights[songs] > 0
        hits = (torch.gather(found, 1, self.target_songs[songs]) * true).sum(dim=1)
        recall = (hits / true.sum(dim=1).clamp_min(1)).numpy()
        part = quarter[songs.numpy()]
        return {
            "recall": float(recall.mean()),
            **{f"recall_q{q + 1}": float(recall[part == q].mean()) for q in range(4) if (part == q).any()},
        }

    def softmax(self, query: Tensor, songs: Tensor) -> Tensor:
        """Cross-entropy of the targets under a softmax over all warm songs but the song itself."""
        logits = self.scale.exp() * query @ functional.normalize(self.warm, dim=1).T  # (B, n)
        logits[torch.arange(len(songs)), songs] = -torch.inf
        found = torch.gather(functional.log_softmax(logits, dim=1), 1, self.target_songs[songs])  # (B, k)
        # A song that shares no listener has weights 0: it teaches nothing here, only in the contrastive term.
        return -(self.target_weights[songs] * found).sum() / len(songs)

    def sampled_softmax(self, query: Tensor, songs: Tensor) -> Tensor:
        """The same with the normaliser estimated from songs drawn by ``proposal``, each weighing 1 / expected draws.

        A drawn song that is the song itself or one of its targets is left out: targets count exactly.
        """
        targets, size = self.target_songs[songs], self.config.sampled  # (B, k)
        drawn = torch.multinomial(self.proposal, size, replacement=True, generator=self.generator)  # (S,)
        scale = self.scale.exp()
        warm = functional.normalize(self.warm[drawn], dim=1)  # (S, dim)
        negatives = scale * query @ warm.T - torch.log(size * self.proposal[drawn])  # (B, S)
        taken = torch.zeros(len(songs), self.inputs.songs, dtype=torch.bool)
        taken.scatter_(1, torch.cat([targets, songs[:, None]], dim=1), True)
        negatives = negatives.masked_fill(taken[:, drawn], -torch.inf)
        positives = functional.normalize(self.warm[targets], dim=2)  # (B, k, dim)
        positives = scale * torch.einsum("bd,bkd->bk", query, positives)
        normaliser = torch.logsumexp(torch.cat([positives, negatives], dim=1), dim=1, keepdim=True)
        return -(self.target_weights[songs] * (positives - normaliser)).sum() / len(songs)

    def bpr(self, query: Tensor, songs: Tensor) -> Tensor:
        """-log sigmoid(positive - negative): a target drawn by weight against a song drawn uniformly."""
        weights = self.target_weights[songs]
        drawn = torch.multinomial(weights + 1e-12, 1, generator=self.generator)  # (B, 1)
        positive = self.warm[torch.gather(self.target_songs[songs], 1, drawn)[:, 0]]
        negative = self.warm[torch.randint(self.inputs.songs, songs.shape, generator=self.generator)]
        difference = functional.normalize(positive, dim=1) - functional.normalize(negative, dim=1)
        margin = self.scale.exp() * (query * difference).sum(dim=1)
        return -(functional.logsigmoid(margin) * (weights.sum(dim=1) > 0)).sum() / len(songs)

    def query(self, songs: Tensor, untransformed: float, bag: float, context: float) -> Tensor:
        rows = self.inputs.versions_of(songs, untransformed, self.generator)
        batch = self.inputs.batch(rows, bag, context, self.generator)
        keep = _keep((len(songs), self.config.hidden), self.config.hidden_dropout, self.generator)
        query: Tensor = self.tower(batch, keep)
        return query

    def save(self, path: Path, epochs: int) -> None:
        """Writes everything that the next epoch depends on, whole or not at all."""
        state = {f"tower.{name}": value for name, value in self.tower.state_dict().items()}
        state |= {"warm": self.warm.detach(), "scale": self.scale.detach()}
        state["generator"] = self.generator.get_state()
        for i, parameter in enumerate(self.parameters):
            state |= {f"optimiser.{i}.{name}": value for name, value in self.optimiser.state[parameter].items()}
        temporary = path.with_name(path.name + ".tmp")
        save_file(state, temporary, {"run": self._identity(), "epochs": str(epochs)})
        os.replace(temporary, path)

    def restore(self, path: Path) -> int:
        """Takes over a saved state; returns how many epochs it has behind it."""
        from safetensors import safe_open

        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.get("run") != self._identity():
            raise ValueError(
                f"checkpoint {path} belongs to another run: it holds {metadata.get('run')}, this is "
                f"{self._identity()}. Delete it to start afresh, or train with the same data and configuration"
            )
        state = load_file(path)
        self.tower.load_state_dict({k[6:]: v for k, v in state.items() if k.startswith("tower.")})
        with torch.no_grad():
            self.warm.copy_(state["warm"])
            self.scale.copy_(state["scale"])
        self.generator.set_state(state["generator"])
        for i, parameter in enumerate(self.parameters):
            prefix = f"optimiser.{i}."
            self.optimiser.state[parameter] = {k[len(prefix) :]: v for k, v in state.items() if k.startswith(prefix)}
        return int(metadata["epochs"])

    def _identity(self) -> str:
        """What a checkpoint must agree with: the configuration, and what is trained on."""
        data = hashlib.sha256(self.target_songs.numpy().tobytes())
        data.update(self.inputs.values.numpy().tobytes())
        return json.dumps({**asdict(self.config), "songs": self.inputs.songs, "data": data.hexdigest()[:16]})


def info_nce(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of unit rows (B, d): row i of one and of two are views of the same song.

    Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), equation 4.
    """
    logits = one @ two.T / temperature
    own = torch.arange(len(one))
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def collapse(query: Tensor) -> dict[str, float]:
    """Whether the vectors (B, d) still spread: uniformity (Wang & Isola, ICML 2020) and mean variance times d.

    Uniformity is log mean exp(-2 |a - b|^2) over pairs: 0 when all vectors are one, about -4 when spread evenly
    in many dimensions. The variance is 1 when spread evenly around the origin and 0 when collapsed.
    """
    similarity = query @ query.T
    pairs = torch.triu(torch.ones_like(similarity), diagonal=1) > 0
    uniformity = torch.log(torch.exp(-2 * (2 - 2 * similarity[pairs])).mean()) if pairs.any() else torch.zeros(())
    return {
        "uniformity": float(uniformity),
        "variance": float(query.var(dim=0, correction=0).sum()),
    }


def _one_cycle(at: float) -> float:
    """Learning rate over its peak at the share ``at`` of the run: up for 30 %, then down, both as cosines."""
    if at < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * at / 0.3)) / 2
    return max(1e-4, (1 + math.cos(math.pi * (at - 0.3) / 0.7)) / 2)
