"""Keeps the songs of a worker's partitions as they are published.

A new space is prepared beside the one in use, a piece per round, while requests are answered in the old one. It comes
into use when every partition is ready.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import numpy as np
import structlog

from streams.audience.decode import SpaceInUse
from streams.contract.internal_events import LiveModel
from streams.models.learned_chances import Objective, calibration_of
from streams.models.registry import LiveView
from targeting.calibration import Calibration
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition

# Entries of histories: some tens of milliseconds, for which a request may have to wait.
_PREPARED_AT_ONCE: Final = 200_000

_log = structlog.get_logger(__name__)


class CatalogueSync:
    """Takes over what :class:`streams.models.registry.LiveView` shows.

    Args:
        catalogue: of all partitions of this process.
        objective: what chances stand for.
    """

    def __init__(self, view: LiveView, catalogue: Catalogue, objective: Objective) -> None:
        self._view = view
        self._catalogue = catalogue
        self._objective: Objective = objective
        self._seen_version = -1
        self._seen_model: LiveModel | None = None
        self._chances: Calibration | None = None

    @property
    def space(self) -> SpaceInUse | None:
        """In which requests are answered; None: there is no model yet."""
        catalogue = self._catalogue
        return None if catalogue.space is None else SpaceInUse(catalogue.space, catalogue.dimension)

    def follow(self, partitions: Collection[Partition]) -> None:
        """Once a round: take over what was published, and go on preparing the coming space."""
        self._view.poll()
        if self._view.version != self._seen_version:
            self._take_over()
        catalogue = self._catalogue
        # Ready partitions cost nothing; the first that is not ready gets this round's share.
        if catalogue.coming is not None and all(each.prepare(_PREPARED_AT_ONCE) for each in partitions):
            catalogue.switch()
            catalogue.calibration = self._chances
            _log.info("space in use", space=catalogue.space)

    def _take_over(self) -> None:
        warm, model, catalogue = self._view.warm(), self._view.model, self._catalogue
        if warm is None or model is None:
            return
        changed = sorted(warm.changes())
        if model != self._seen_model:
            (catalogue.set_vectors if catalogue.space is None else catalogue.prepare)(
                model.space, warm.ids, warm.vectors
            )
        elif changed:
            # Promoted or taken-down songs: the cost depends on them, not on the catalogue's size.
            nothing = np.zeros(model.dim, np.float32)
            vectors = [warm.vector(song_id) if song_id in warm else nothing for song_id in changed]
            catalogue.add(model.space, changed, np.stack(vectors))
        self._seen_model, self._seen_version = model, self._view.version
        self._chances = calibration_of(model.chances, self._objective)
        if catalogue.coming is None:
            catalogue.calibration = self._chances
