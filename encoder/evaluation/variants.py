"""The variants: a frozen config each, its open fields, and what it may see.

The baselines' own configs, used without a search, are those chosen by the search of ``hetrec2011.json``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from encoder.data.dataset import Dataset
from encoder.data.split import together
from encoder.evaluation import baselines, neural_baselines
from encoder.evaluation.content_matrix import READINGS
from encoder.evaluation.retrieval_task import ModelSpec, Vectors
from encoder.train import TrainingConfig, train

DEFAULT = "bcl"
PAPER, PAPER_TWIN = "bcl_paper", "bcl_paper_no_contrast"


@dataclass(frozen=True, slots=True)
class TrainedEncoder:
    """A configuration of :func:`encoder.train.train`."""

    config: TrainingConfig = field(default_factory=TrainingConfig)

    def fit(self, warm: Dataset, rare: Dataset, seed: int) -> Vectors:
        known, n = together(warm, rare), len(warm.song_ids)
        rows = np.arange(len(known.song_ids))
        trained = train(known, rows[:n], replace(self.config, seed=seed), rare_rows=rows[n:])
        return Vectors(trained.warm_vectors, lambda cold: trained.encoder.encode(cold.content))


@dataclass(frozen=True, slots=True)
class Variant:
    """A way of finding neighbours for cold songs.

    Attributes:
        what: a line for the report.
        model: its config without a search, and a search's first trial.
        space: field of the config -> values that the search may choose.
        needs: bags that the variant cannot do without.
        hears: whether it sees the cold songs' listens; only the ceiling does.
        apart: fields in which it differs from the default as found by the default's search; it has no search itself.
    """

    what: str
    model: ModelSpec
    space: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    hears: bool = False
    apart: Mapping[str, Any] = field(default_factory=dict)

    def varied(self, **values: Any) -> ModelSpec:
        """The model with some config fields replaced."""
        model: Any = self.model
        if isinstance(model, TrainedEncoder):
            return replace(model, config=replace(model.config, **values))
        varied: ModelSpec = replace(model, **values)
        return varied


def config_of(model: ModelSpec) -> dict[str, Any]:
    """The fields of a model's config by name."""
    described: Any = model.config if isinstance(model, TrainedEncoder) else model
    return asdict(described)


_RANKS = (64, 128, 256)
_READING = {"reading": READINGS}
# Whether to learn from songs too rare to be warm.
_RARE = {"rare": (True, False)}
_OURS = {
    "neighbours": (10, 20, 40),
    "contrast": (0.1, 0.3, 1.0),
    "bag_dropout": (0.3, 0.5),
    "epochs": (8, 12, 18),
    "rate": (2e-3, 4e-3),
    "warm_rate": (1e-3, 4e-3),
}
# The paper's encoder in our loop: a content network, BPR with uniform negatives, two random views and InfoNCE.
_PAPER = TrainingConfig(
    contexts=False,
    rare=False,
    tune=False,
    doubt=0.0,
    loss="bpr",
    views=0,
    bag_dropout=0.3,
    epochs=24,
    rate=1e-3,
    contrast=0.3,
    view_dropout=0.15,
)
_PAPERS = {
    "hidden_dropout": (0.0, 0.3, 0.5),
    "bag_dropout": (0.0, 0.3, 0.5),
    "epochs": (12, 24),
    "rate": (1e-3, 2e-3, 4e-3),
}
_VIEWS = {"contrast": (0.1, 0.3, 1.0), "contrast_temperature": (0.1, 0.2, 0.5), "view_dropout": (0.15, 0.3, 0.5)}

VARIANTS: dict[str, Variant] = {
    "random": Variant("any order", baselines.Random()),
    "popularity": Variant("the songs with the most listeners", baselines.Popularity()),
    "content_knn": Variant("cosine of content", baselines.ContentNeighbours(), _READING),
    "artist_mean": Variant(
        "mean audience vector of the artist's songs",
        baselines.ArtistMean(),
        {"rank": _RANKS, **_RARE},
        needs=("artists",),
    ),
    "ridge": Variant(
        "ridge regression from content to the audience's SVD",
        baselines.Ridge(),
        {**_READING, **_RARE, "rank": _RANKS, "penalty": (0.1, 0.3, 1.0, 3.0)},
    ),
    "propagation": Variant(
        "content neighbours, then ItemCF from them",
        baselines.Propagation(),
        {**_READING, **_RARE, "neighbours": (5, 10, 20, 40), "power": (1.0, 2.0, 4.0)},
    ),
    "dropoutnet": Variant(
        "DropoutNet (NIPS 2017)",
        neural_baselines.DropoutNet(),
        {
            **_READING,
            **_RARE,
            "rank": _RANKS,
            "hidden_share": (0.3, 0.5, 0.7),
            "dropout": (0.1, 0.3, 0.5),
            "rate": (1e-3, 2e-3, 4e-3),
        },
    ),
    "clcrec": Variant(
        "CLCRec (MM 2021)",
        neural_baselines.CLCRec(),
        {
            **_READING,
            **_RARE,
            "temperature": (0.05, 0.1, 0.2),
            "between": (0.1, 0.2, 0.5),
            "mixed": (0.2, 0.5, 0.8),
            "dropout": (0.1, 0.3, 0.5),
            "rate": (2e-3, 5e-3),
            "epochs": (2, 4, 8),
        },
    ),
    DEFAULT: Variant("the default", TrainedEncoder(), _OURS),
    "bcl_no_contrast": Variant("the default without the contrastive term", TrainedEncoder(), apart={"contrast": 0.0}),
    "bcl_no_views": Variant("the default without the prepared transformations", TrainedEncoder(), apart={"views": 0}),
    "bcl_no_context": Variant(
        "the default without what similar warm songs say", TrainedEncoder(), apart={"contexts": False}
    ),
    "bcl_no_tuning": Variant(
        "the default with every block of content weighing the same", TrainedEncoder(), apart={"tune": False}
    ),
    "bcl_no_closed": Variant(
        "the network alone, without the kernel ridge's say", TrainedEncoder(), apart={"closed": (0.0,)}
    ),
    "bcl_no_rare": Variant(
        "the default without the songs too rare to be warm, all songs trusted alike",
        TrainedEncoder(),
        apart={"rare": False, "ridge": 0.25, "ridge_noise": 0.0, "doubt": 0.0},
    ),
    "bcl_bpr": Variant("the default with BPR instead of the softmax", TrainedEncoder(), apart={"loss": "bpr"}),
    PAPER: Variant("content network, BPR, InfoNCE of two views", TrainedEncoder(_PAPER), {**_PAPERS, **_VIEWS}),
    PAPER_TWIN: Variant(
        "the same without InfoNCE", TrainedEncoder(replace(_PAPER, contrast=0.0, bag_dropout=0.0)), _PAPERS
    ),
    "ceiling": Variant(
        "the cold song's own audience in the SVD: no content, sees the answer",
        baselines.Ceiling(),
        {"rank": _RANKS},
        hears=True,
    ),
}
