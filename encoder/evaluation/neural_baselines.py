"""DropoutNet and CLCRec, published neural methods for cold items, in small.

Both recommend items to users. Here songs retrieve songs, by cosine of the item vectors that they learn. Content enters
as the first principal directions of its rows, as in DropoutNet, section 5.1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import sparse
from scipy.sparse.linalg import svds
from torch import Tensor, nn
from torch.nn import functional

from encoder import supervision
from encoder.data.dataset import Dataset
from encoder.data.split import together
from encoder.evaluation.content_matrix import ContentMatrix, Reading, unit
from encoder.evaluation.retrieval_task import Vectors

F32 = NDArray[np.float32]

CONTENT = 300
HIDDEN = 256
# Users whose preferences a batch of items must match; all if there are fewer.
USERS = 1024
NEGATIVES = 256
# Maximum number of batches, so a large data set takes minutes, not hours; HetRec's artists take 1,000.
STEPS = 4000


@dataclass(frozen=True, slots=True)
class DropoutNet:
    """Volkovs, Yu & Poutanen, "DropoutNet: Addressing Cold Start in Recommender Systems" (NIPS 2017).

    An item network sees preference factors and content, a user network preference factors; their inner products
    reproduce those of the factors while an item's factors are hidden with probability ``hidden_share`` (equation 2), so
    content can stand in for them. A cold song's factors are zero.
    """

    reading: Reading = "schema"
    rare: bool = True
    rank: int = 128
    hidden_share: float = 0.3
    dropout: float = 0.1
    rate: float = 4e-3
    epochs: int = 20

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:
        known, n = together(warm, rare) if self.rare else warm, len(warm.song_ids)
        generator = torch.Generator().manual_seed(seed)
        content = _DenseContent(known, self.reading, seed)
        items, users = _factors(known, self.rank, seed)
        rows = torch.from_numpy(content.rows(known))
        item_net = _network(items.shape[1] + rows.shape[1], self.rank, generator)
        user_net = _network(users.shape[1], self.rank, generator)
        for batch in _steps((item_net, user_net), len(rows), 256, self.epochs, self.rate, generator):
            some = torch.randint(len(users), (min(USERS, len(users)),), generator=generator)
            shown = torch.rand((len(batch), 1), generator=generator) >= self.hidden_share
            inputs = torch.cat([items[batch] * shown, rows[batch]], dim=1)
            predicted = item_net(_drop(inputs, self.dropout, generator)) @ user_net(users[some]).T
            torch.autograd.backward(functional.mse_loss(predicted, items[batch] @ users[some].T))

        def encode(preferences: Tensor, song_rows: Tensor) -> F32:
            with torch.no_grad():
                return unit(item_net(torch.cat([preferences, song_rows], dim=1)).numpy())

        def encode_cold(cold: Dataset) -> F32:
            song_rows = torch.from_numpy(content.rows(cold))
            return encode(torch.zeros(len(song_rows), items.shape[1]), song_rows)

        return Vectors(encode(items[:n], rows[:n]), encode_cold)


@dataclass(frozen=True, slots=True)
class CLCRec:
    """Wei et al., "Contrastive Learning for Cold-Start Recommendation" (MM 2021).

    Free vectors of items and users, and an encoder of content. Two InfoNCE terms: a user finds their item, whose
    vector is replaced by its content's with probability ``mixed`` (equations 9 to 11), and an item's vector finds
    its content (equation 6), weighted ``between`` and 1 - ``between``. A cold song's vector is its content's.
    """

    reading: Reading = "logs"
    rare: bool = True
    dim: int = 128
    temperature: float = 0.1
    between: float = 0.2
    mixed: float = 0.5
    dropout: float = 0.3
    rate: float = 5e-3
    epochs: int = 4

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:
        known, n = together(warm, rare) if self.rare else warm, len(warm.song_ids)
        generator = torch.Generator().manual_seed(seed)
        content = _DenseContent(known, self.reading, seed)
        rows = torch.from_numpy(content.rows(known))
        songs, users = (torch.from_numpy(index.astype(np.int64)) for index in known.plays.nonzero())
        network = _network(rows.shape[1], self.dim, generator)
        free = nn.ParameterList(
            torch.randn(count, self.dim, generator=generator) * 0.1 for count in (len(rows), len(warm.user_ids))
        )
        items, people = free

        def of_content(index: Tensor) -> Tensor:
            return functional.normalize(network(_drop(rows[index], self.dropout, generator)), dim=1)

        for batch in _steps((network, free), len(songs), 256, self.epochs, self.rate, generator):
            others = torch.randint(len(rows), (NEGATIVES,), generator=generator)
            drawn = torch.cat([songs[batch], others])
            vectors, told = functional.normalize(items[drawn], dim=1), of_content(drawn)
            mixed = torch.rand((len(drawn), 1), generator=generator) < self.mixed
            listeners = functional.normalize(people[users[batch]], dim=1)
            loss = self.between * self._contrast(vectors[: len(batch)], told, drawn)
            loss = loss + (1 - self.between) * self._contrast(listeners, torch.where(mixed, told, vectors), drawn)
            torch.autograd.backward(loss)

        def encode(cold: Dataset) -> F32:
            with torch.no_grad():
                return unit(network(torch.from_numpy(content.rows(cold))).numpy())

        return Vectors(unit(items.detach()[:n].numpy()), encode)

    def _contrast(self, anchors: Tensor, candidates: Tensor, drawn: Tensor) -> Tensor:
        """InfoNCE of the anchors (B, d): candidate row i, of song ``drawn[i]``, is right, the rows from B on wrong."""
        n = len(anchors)
        right = (anchors * candidates[:n]).sum(dim=1, keepdim=True)
        wrong = anchors @ candidates[n:].T
        # A song drawn against itself is no negative.
        wrong = wrong.masked_fill(drawn[:n, None] == drawn[None, n:], -torch.inf)
        return -functional.log_softmax(torch.cat([right, wrong], dim=1) / self.temperature, dim=1)[:, 0].mean()


class _DenseContent:
    """Content as float32 (n, at most 300), scaled to a mean row length of 1."""

    def __init__(self, warm: Dataset, reading: Reading, seed: int) -> None:
        self._inputs = ContentMatrix.learn(warm, reading, seed)
        rows = self._inputs.rows(warm.content)
        width = min(CONTENT, min(rows.shape) - 1)
        self._directions = svds(rows, k=width, random_state=seed)[2].T.astype(np.float32)
        # Unit variance over all entries, which is what networks are initialised for.
        self._scale = 1 / max(float((rows @ self._directions).std()), 1e-9)

    def rows(self, songs: Dataset) -> F32:
        return np.asarray(self._inputs.rows(songs.content) @ self._directions * self._scale, np.float32)


def _factors(warm: Dataset, rank: int, seed: int) -> tuple[Tensor, Tensor]:
    """Preference factors (songs, r) and (users, r): SVD of the unit listener rows, scaled to products of variance 1."""
    listeners: sparse.csr_matrix = supervision.listener_rows(warm.plays)
    left, values, right = svds(listeners, k=min(rank, min(listeners.shape) - 1), random_state=seed)
    items, users = left * np.sqrt(values), right.T * np.sqrt(values)
    # Standard deviation of items @ users.T, without forming it.
    spread = math.sqrt(float(((items.T @ items) * (users.T @ users)).sum()) / (len(items) * len(users)))
    scale = 1 / math.sqrt(max(spread, 1e-12))
    return torch.from_numpy((items * scale).astype(np.float32)), torch.from_numpy((users * scale).astype(np.float32))


def _network(width: int, dim: int, generator: torch.Generator) -> nn.Sequential:
    first, second = nn.Linear(width, HIDDEN), nn.Linear(HIDDEN, dim)
    with torch.no_grad():
        for layer in (first, second):
            bound = layer.in_features**-0.5
            layer.weight.uniform_(-bound, bound, generator=generator)
            layer.bias.zero_()
    return nn.Sequential(first, nn.Tanh(), second)


def _drop(values: Tensor, share: float, generator: torch.Generator) -> Tensor:
    return values * (torch.rand(values.shape, generator=generator) >= share) / (1 - share)


def _steps(
    modules: tuple[nn.Module, ...], n: int, batch: int, epochs: int, rate: float, generator: torch.Generator
) -> Iterator[Tensor]:
    """Batches of 0..n-1; the caller computes the gradients, and the next batch takes the step.

    Ends after ``epochs`` passes or STEPS batches.
    """
    optimiser = torch.optim.Adam([p for module in modules for p in module.parameters()], lr=rate)
    each = math.ceil(n / batch)
    total = min(epochs * each, STEPS)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, rate, total_steps=total)
    for step in range(total):
        if step % each == 0:
            order = torch.randperm(n, generator=generator)
        start = step % each * batch
        optimiser.zero_grad(set_to_none=True)
        yield order[start : start + batch]
        optimiser.step()
        schedule.step()
