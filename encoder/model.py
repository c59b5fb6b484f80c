"""The network: content and its contexts -> a unit vector in the space of the warm songs.

The supervision and the second view follow "Bootstrapping Contrastive Learning Enhanced Music Cold-Start
Matching" (WWW 2023 companion); the tower itself is ours:

    query = unit( linear(x) + linear(context) + MLP(LayerNorm([hidden(x), context])) )

with x the song's features and context the predictions of :mod:`encoder.context`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional


@dataclass(frozen=True, slots=True)
class NetworkBatch:
    """The network's input for B songs.

    Attributes:
        indices, offsets, values: the bag entries of all rows, as ``embedding_bag`` takes them.
        side: (B, S), :attr:`encoder.features.Features.side`.
        context: (B, C).
    """

    indices: Tensor
    offsets: Tensor
    values: Tensor
    side: Tensor
    context: Tensor

    def to(self, device: torch.device) -> NetworkBatch:
        parts = (self.indices, self.offsets, self.values, self.side, self.context)
        return NetworkBatch(*(part.to(device) for part in parts))


class QueryTower(nn.Module):
    """Maps a :class:`NetworkBatch` to unit rows (B, dim). The caller draws the dropout masks."""

    def __init__(self, terms: int, side: int, context: int, hidden: int, dim: int) -> None:
        super().__init__()
        self.dim = dim
        # With a sparse gradient, the bag's holds only the rows of the batch's terms.
        self.sparse = False
        # One table for both uses of the bag: dim columns feed the query, hidden columns the MLP.
        self.bag = nn.Parameter(torch.zeros(terms, dim + hidden))
        self.side = nn.Parameter(torch.zeros(side, dim + hidden))
        self.context = nn.Parameter(torch.zeros(context, dim))
        self.norm = nn.LayerNorm(hidden + context)
        self.first = nn.Linear(hidden + context, hidden)
        self.second = nn.Linear(hidden, dim)

    def initialise(self, vectors: int, generator: torch.Generator) -> None:
        """Starts from the mean of the contexts' first ``dim`` columns, so training begins at their quality.

        ``vectors`` is the width of one context; each is a prediction in the same basis as the warm vectors.
        """
        with torch.no_grad():
            for parameter in (self.bag[:, self.dim :], self.side[:, self.dim :]):
                parameter.normal_(0, 0.05, generator=generator)
            for layer in (self.first, self.second):
                bound = layer.in_features**-0.5
                layer.weight.uniform_(-bound, bound, generator=generator)
                layer.bias.zero_()
            self.second.weight.mul_(0.1)
            width = min(self.dim, vectors)
            # Without contexts there is nothing to start from.
            for start in range(0, self.context.shape[0], vectors):
                self.context[start : start + width, :width] += torch.eye(width)

    def forward(self, batch: NetworkBatch, keep: Tensor | None = None) -> Tensor:
        """Unit rows (B, dim). ``keep`` (B, hidden) is the hidden layer's dropout mask."""
        x = functional.embedding_bag(
            batch.indices, self.bag, batch.offsets, None, 2.0, False, "sum", self.sparse, batch.values
        )  # (B, dim + hidden)
        x = x + batch.side @ self.side
        hidden = torch.cat([x[:, self.dim :], batch.context], dim=1)  # (B, hidden + C)
        hidden = functional.gelu(self.first(self.norm(hidden)))  # (B, hidden)
        if keep is not None:
            hidden = hidden * keep
        query = x[:, : self.dim] + batch.context @ self.context + self.second(hidden)  # (B, dim)
        return functional.normalize(query, dim=1, eps=1e-9)
