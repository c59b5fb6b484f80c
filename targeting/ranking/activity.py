"""How much a user's activity counts.

Who listens to more songs answers more often, whatever the song. A user's score is multiplied with a power of the
number of songs that the user heard; the power belongs to what is known of answers
(:class:`targeting.calibration.Calibration`), and is 0 where activity tells nothing. A factor, so that it means the same
beside every score: the request's, that of one sign alone, and the cosine of a user who comes near later.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from targeting.arrays.id_table import I64
from targeting.types import F32
from targeting.users.histories import HISTORY


def factors(heard: I64, power: float) -> F32:
    """What the scores of users who heard so many songs, int64 (n,), are multiplied with; float32 (n,) in (0, 1].

    ``((1 + heard) / (1 + HISTORY)) ** power``: 1 for who heard as many as are remembered, so that scores stay in [0, 1]
    and comparable, whatever the partition.
    """
    return _table(power)[np.minimum(heard, HISTORY)]


@lru_cache(maxsize=8)
def _table(power: float) -> F32:
    """The factor of every number of songs; looked up, because a request asks for those of all its candidates."""
    table = np.power((1 + np.arange(HISTORY + 1)) / (1 + HISTORY), power).astype(np.float32)
    table.setflags(write=False)
    return table
