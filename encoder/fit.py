"""The training loop: inputs, losses, optimiser and resumable state."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from scipy import sparse
from torch import Tensor
from torch.nn import functional

from encoder.device import CPU
from encoder.features import Features, select_columns
from encoder.model import NetworkBatch, QueryTower
from encoder.optimiser import AdamW
from encoder.ranks import Ranks
from encoder.supervision import Targets
from encoder.training_config import TrainingConfig

F32 = NDArray[np.float32]
I64 = NDArray[np.int64]

# Training songs whose recall is measured after each epoch.
_MEASURED = 1000
# Steps between measurements of how vectors spread.
_GAUGED = 8


class NetworkInputs:
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
        """The row of a version of each song: the song itself with the given probability, or if the view is empty."""
        if self.versions == 1:
            return songs
        rows = songs + self.songs * torch.randint(1, self.versions, songs.shape, generator=generator)
        itself = torch.rand(songs.shape, generator=generator) < untransformed
        return torch.where(itself | ~self.known[rows], songs, rows)

    def batch(self, rows: Tensor, bag: float, context: float, generator: torch.Generator) -> NetworkBatch:
        """The given rows with random shares of bag entries and context values hidden."""
        starts = self.starts[rows]
        lengths = self.starts[rows + 1] - starts
        offsets = torch.cumsum(lengths, 0) - lengths
        entries = torch.arange(int(lengths.sum())) + torch.repeat_interleave(starts - offsets, lengths)
        return NetworkBatch(
            self.indices[entries],
            offsets,
            self.values[entries] * _keep((len(entries),), bag, generator),
            self.side[rows],
            self.context[rows] * _keep((len(rows), self.context.shape[1]), context, generator),
        )


def _keep(shape: tuple[int, ...], dropout: float, generator: torch.Generator) -> Tensor:
    """Dropout multiplier: 0 with the given probability, else 1 / (1 - dropout)."""
    if dropout == 0:
        return torch.ones(shape)
    return (torch.rand(shape, generator=generator) >= dropout).float() / (1 - dropout)


class TrainingRun:
    """One training, with the weights, optimiser and random state needed to resume it.

    The songs of ``inputs`` are queries; the first ``len(vectors)`` of them are warm and can be retrieved. Songs in
    ``held`` can be retrieved but are no queries.
    """

    def __init__(
        self,
        config: TrainingConfig,
        inputs: NetworkInputs,
        targets: Targets,
        vectors: F32,
        held: I64 | None = None,
        device: torch.device = CPU,
        ranks: Ranks = Ranks(),  # noqa: B008
    ) -> None:
        self.config, self.inputs, self.device, self.ranks = config, inputs, device, ranks
        self.target_songs = torch.from_numpy(targets.songs)
        self.target_weights = torch.from_numpy(targets.weights)
        # Random numbers are drawn on the CPU on every device. All processes draw the same order of songs; everything
        # else is drawn by each process for itself.
        self.generator = torch.Generator().manual_seed(config.seed)
        self.own = self.generator if ranks.size == 1 else torch.Generator()
        tower = QueryTower(inputs.terms, inputs.side.shape[1], inputs.context.shape[1], config.hidden, config.dim)
        tower.initialise(vectors.shape[1], self.generator)
        self.catalogue = len(vectors)
        self.sampling = self.catalogue > config.catalogue
        # A batch that sees only part of the catalogue has sparse gradients; several processes exchange dense ones.
        tower.sparse = self.sampling and ranks.size == 1
        start = torch.zeros(self.catalogue, config.dim)
        width = min(config.dim, vectors.shape[1])
        start[:, :width] = torch.from_numpy(vectors[:, :width])
        # A song unlike all others may be zero in the first dimensions, and zero has no direction to learn from.
        lost = start.norm(dim=1) < 1e-6
        start[lost] = torch.randn((int(lost.sum()), config.dim), generator=self.generator)
        self.tower = tower.to(device)
        self.warm = torch.nn.Parameter(functional.normalize(start, dim=1).to(device))
        self.scale = torch.nn.Parameter(torch.tensor(-math.log(config.temperature), device=device))
        self.parameters = [*self.tower.parameters(), self.scale, self.warm]
        self.objective = ranks.together(_Objective(self))
        self.optimiser = AdamW(self.parameters, config.weight_decay)
        asked = np.arange(inputs.songs) if held is None else np.setdiff1d(np.arange(inputs.songs), held)
        self.asked = torch.from_numpy(asked)
        self.order = self.asked
        self.steps = math.ceil(len(asked) / config.batch)
        self.epochs = max(1, min(config.epochs, config.steps // self.steps))
        # Half uniform, half in proportion to how often a song is a target: those have the large logits.
        often = torch.bincount(self.target_songs.flatten(), minlength=self.catalogue).float()
        self.proposal = 0.5 / self.catalogue + 0.5 * often / often.sum()
        self._slot = torch.full((self.catalogue,), -1)

    def epoch(self, epoch: int, first: int = 0) -> Iterator[dict[str, float]]:
        """One pass over the songs from step ``first``; yields the gauges of each step."""
        if first == 0:
            self.order = self.asked[torch.randperm(len(self.asked), generator=self.generator)]
        for step in range(first, self.steps):
            at = epoch * self.steps + step
            if self.ranks.size > 1:
                self.own.manual_seed((self.config.seed * self.ranks.size + self.ranks.rank << 32) + at)
            rows = self.ranks.share(self.order[step * self.config.batch : (step + 1) * self.config.batch])
            pace = _one_cycle((at + 1) / (self.epochs * self.steps))
            loss, gauges = self.objective(rows, at % _GAUGED == 0 or step + 1 == self.steps)
            loss.backward()
            gradients = [parameter.grad for parameter in self.parameters]
            for parameter in self.parameters:
                parameter.grad = None
            rates = [self.config.rate * pace] * (len(self.parameters) - 1) + [self.config.warm_rate * pace]
            self.optimiser.step(gradients, rates)
            yield gauges

    def loss(self, songs: Tensor, gauged: bool = True) -> tuple[Tensor, dict[str, float]]:
        """Supervised plus contrastive loss of a batch of songs (B,), with gauges."""
        config = self.config
        query = self.query(songs, config.untransformed, config.bag_dropout, config.context_dropout)  # (B, dim)
        if config.loss == "bpr":
            loss = self.bpr(query, songs)
        elif self.sampling:
            loss = self.sampled_softmax(query, songs)
        else:
            loss = self.softmax(query, songs)
        gauges = {"supervised": loss.item()}
        if config.contrast:
            drawn = self.asked[torch.randint(len(self.asked), songs.shape, generator=self.own)]
            share = 1 / self.inputs.versions
            one, two = (self.query(drawn, share, config.view_dropout, config.view_dropout) for _ in range(2))
            contrastive = info_nce(one, two, config.contrast_temperature)
            loss = loss + config.contrast * contrastive
            gauges["contrastive"] = contrastive.item()
        if gauged:
            with torch.no_grad():
                gauges["alignment"] = self.alignment(query, songs)
                gauges |= collapse(query)
        return loss, gauges

    def alignment(self, query: Tensor, songs: Tensor) -> float:
        """Mean squared distance to the targets (Wang & Isola, ICML 2020): 0 when met, 2 when unrelated."""
        targets, weights = self.targets(songs)
        vectors = functional.normalize(self.warm[targets], dim=2)  # (B, k, dim)
        cosines = torch.einsum("bd,bkd->bk", query, vectors)
        return float((weights * (2 - 2 * cosines)).sum() / weights.sum().clamp_min(1e-12))

    def targets(self, songs: Tensor) -> tuple[Tensor, Tensor]:
        """Targets of the songs and their weights, (B, k) each, on the device."""
        return self.target_songs[songs].to(self.device), self.target_weights[songs].to(self.device)

    def recall(self, quarter: I64) -> dict[str, float]:
        """Share of the targets among as many retrieved songs, over evenly spaced warm songs, by their quartile.

        Contexts leave the song out, but the weights have seen it: read the trend, not the level.
        """
        songs = torch.arange(0, self.catalogue, max(1, self.catalogue // _MEASURED))
        parts = []
        warm = functional.normalize(self.warm.detach(), dim=1)
        # A batch of 256 against 200,000 warm songs has 205 MB of logits.
        for part in torch.split(songs, self.config.batch):
            logits = self.answers(part) @ warm.T
            logits[torch.arange(len(part)), part] = -torch.inf
            targets, weights = self.targets(part)
            found, true = logits.topk(targets.shape[1]).indices, weights > 0
            hits = ((found[:, None] == targets[:, :, None]).any(dim=2) & true).sum(dim=1)
            parts.append((hits / true.sum(dim=1).clamp_min(1)).cpu())
        recall = torch.cat(parts).numpy()
        quarters = quarter[songs.numpy()]
        return {
            "recall": float(recall.mean()),
            **{f"recall_q{q + 1}": float(recall[quarters == q].mean()) for q in range(4) if (quarters == q).any()},
        }

    def answers(self, rows: Tensor) -> Tensor:
        """Unit rows (B, dim) of the given rows of the inputs, nothing hidden."""
        with torch.no_grad():
            query: Tensor = self.tower(self.inputs.batch(rows, 0.0, 0.0, self.own).to(self.device))
        return query

    def softmax(self, query: Tensor, songs: Tensor) -> Tensor:
        """Cross-entropy of the targets under a softmax over all warm songs except the song itself."""
        targets, weights = self.targets(songs)
        logits = self.scale.exp() * query @ functional.normalize(self.warm, dim=1).T  # (B, n)
        own = torch.nonzero(songs < self.catalogue)[:, 0]
        logits[own, songs[own]] = -torch.inf
        found = torch.gather(functional.log_softmax(logits, dim=1), 1, targets)  # (B, k)
        # A song that shares no listener has weights 0: it counts in the contrastive term alone.
        return -(weights * found).sum() / len(songs)

    def sampled_softmax(self, query: Tensor, songs: Tensor) -> Tensor:
        """The same, with the normaliser estimated from songs drawn by ``proposal``, weighted 1 / expected draws.

        Draws of the song itself or of its targets are dropped: targets count exactly.
        """
        targets, size, slot = self.target_songs[songs], self.config.sampled, self._slot  # (B, k)
        drawn = torch.multinomial(self.proposal, size, replacement=True, generator=self.own)
        drawn, times = torch.unique(drawn, return_counts=True)  # (S,)
        # A small table holds each song of the batch once, the drawn ones first.
        slot[drawn] = torch.arange(len(drawn))
        others = torch.unique(targets[slot[targets] < 0])
        slot[others] = len(drawn) + torch.arange(len(others))
        places = slot[targets]
        itself = slot[torch.where(songs < self.catalogue, songs, targets[:, 0])]
        slot[drawn], slot[others] = -1, -1
        met = torch.cat([drawn, others]).to(self.device)
        table = functional.normalize(functional.embedding(met, self.warm, sparse=self.tower.sparse), dim=1)
        correction = torch.log(times / (size * self.proposal[drawn])).to(self.device)
        scale = self.scale.exp()
        negatives = scale * query @ table[: len(drawn)].T + correction  # (B, S)
        taken = torch.cat([places, itself[:, None]], dim=1)
        row, column = torch.nonzero((taken >= 0) & (taken < len(drawn)), as_tuple=True)
        negatives[row, taken[row, column]] = -torch.inf
        vectors = functional.embedding(places.to(self.device), table)  # (B, k, dim)
        positives = scale * torch.einsum("bd,bkd->bk", query, vectors)
        normaliser = torch.logaddexp(torch.logsumexp(positives, dim=1), torch.logsumexp(negatives, dim=1))
        weights = self.target_weights[songs].to(self.device)
        return -(weights * (positives - normaliser[:, None])).sum() / len(songs)

    def bpr(self, query: Tensor, songs: Tensor) -> Tensor:
        """-log sigmoid(positive - negative): a target drawn by weight against a song drawn uniformly."""
        weights = self.target_weights[songs]
        drawn = torch.multinomial(weights + 1e-12, 1, generator=self.own)  # (B, 1)
        positive = self.warm[torch.gather(self.target_songs[songs], 1, drawn)[:, 0]]
        negative = self.warm[torch.randint(self.catalogue, songs.shape, generator=self.own)]
        difference = functional.normalize(positive, dim=1) - functional.normalize(negative, dim=1)
        margin = self.scale.exp() * (query * difference).sum(dim=1)
        return -(functional.logsigmoid(margin) * weights.sum(dim=1).to(self.device)).sum() / len(songs)

    def query(self, songs: Tensor, untransformed: float, bag: float, context: float) -> Tensor:
        rows = self.inputs.versions_of(songs, untransformed, self.own)
        batch = self.inputs.batch(rows, bag, context, self.own)
        keep = _keep((len(songs), self.config.hidden), self.config.hidden_dropout, self.own)
        query: Tensor = self.tower(batch.to(self.device), keep.to(self.device))
        return query

    def save(self, path: Path, steps: int) -> None:
        """Writes atomically everything that the next step depends on, after ``steps`` steps."""
        state = {f"tower.{name}": value for name, value in self.tower.state_dict().items()}
        state |= {"warm": self.warm.detach(), "scale": self.scale.detach()}
        state |= {"generator": self.generator.get_state(), "order": self.order}
        state |= {f"optimiser.{name}": value for name, value in self.optimiser.state().items()}
        temporary = path.with_name(path.name + ".tmp")
        save_file(state, temporary, {"run": self._identity(), "steps": str(steps)})
        os.replace(temporary, path)

    def restore(self, path: Path) -> int:
        """Loads a saved state; returns its number of steps done."""
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
        self.order = state["order"]
        self.optimiser.restore({k[10:]: v for k, v in state.items() if k.startswith("optimiser.")})
        return int(metadata["steps"])

    def _identity(self) -> str:
        """What a checkpoint must match: the configuration and the training data."""
        data = hashlib.sha256(self.target_songs.numpy().tobytes())
        data.update(self.target_weights.numpy().tobytes())
        data.update(self.asked.numpy().tobytes())
        data.update(self.inputs.values.numpy().tobytes())
        what = {"songs": self.inputs.songs, "data": data.hexdigest()[:16], "processes": self.ranks.size, "layout": 2}
        return json.dumps({**asdict(self.config), **what})


class _Objective(torch.nn.Module):
    """A run's loss as a module, which DistributedDataParallel can wrap."""

    def __init__(self, run: TrainingRun) -> None:
        super().__init__()
        self.tower, self.scale, self.warm = run.tower, run.scale, run.warm
        self._loss = run.loss

    def forward(self, songs: Tensor, gauged: bool) -> tuple[Tensor, dict[str, float]]:
        return self._loss(songs, gauged)


def info_nce(one: Tensor, two: Tensor, temperature: float) -> Tensor:
    """Symmetric InfoNCE of unit rows (B, d): row i of one and of two are views of the same song.

    Oord, Li & Vinyals, "Representation Learning with Contrastive Predictive Coding" (2018), equation 4.
    """
    logits = one @ two.T / temperature
    own = torch.arange(len(one), device=one.device)
    return (functional.cross_entropy(logits, own) + functional.cross_entropy(logits.T, own)) / 2


def collapse(query: Tensor) -> dict[str, float]:
    """How far the vectors (B, d) spread: uniformity (Wang & Isola, ICML 2020) and mean variance times d.

    Uniformity is log mean exp(-2 |a - b|^2) over pairs: 0 when all vectors are equal, about -4 when spread evenly
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
    """Learning rate relative to its peak at the share ``at`` of the run: up for 30 %, then down, both as cosines."""
    if at < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * at / 0.3)) / 2
    return max(1e-4, (1 + math.cos(math.pi * (at - 0.3) / 0.7)) / 2)
