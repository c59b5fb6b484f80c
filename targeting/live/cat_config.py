"""The settings of incremental CAT."""

from __future__ import annotations

from dataclasses import dataclass, field

from targeting.clustering.kmeans import Clustering
from targeting.live.centroid_sums import MOST_MEMBERS


@dataclass(frozen=True, slots=True)
class CatConfig:
    """How campaigns follow their audience.

    Attributes:
        centroids: of a campaign, at most 127. Of users who were no candidates, one finds more listeners than several:
            AUC .715, .707, .688, .675 with 1, 2, 4, 8 (Last.fm, seed 0, candidates weighed by score^4).
        sample: members of a campaign's sample.
        half_life: observations of a campaign's members after which a share weighs half of a new one.
        recluster: observations after which a campaign is due for clustering again.
        clustering: how; its ``prototypes`` and ``sample`` are those above.

    Raises:
        ValueError: a number out of its range.
    """

    centroids: int = 1
    sample: int = 1024
    half_life: float = 1024.0
    recluster: int = 4096
    clustering: Clustering = field(default_factory=lambda: Clustering(restarts=1, rounds=2))

    def __post_init__(self) -> None:
        if not 1 <= self.centroids <= 127:
            raise ValueError(f"centroids={self.centroids}: 1 to 127")
        if not 1 <= self.sample <= MOST_MEMBERS:
            raise ValueError(f"sample={self.sample}: 1 to {MOST_MEMBERS}")
        if not self.half_life > 0 or self.recluster < 1:
            raise ValueError(f"half_life={self.half_life}, recluster={self.recluster}: more than 0")
