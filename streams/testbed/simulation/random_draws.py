"""The random numbers that decide what a user does about a song.

Common random numbers: what a user would do about a song rests on a number that belongs to the two and to the seed, not
on what was drawn before. So two worlds that differ in who is pushed differ by that alone.
"""

from __future__ import annotations

from enum import IntEnum

import numpy as np

from targeting.arrays.id_table import I64, mixed
from targeting.types import F64


class DrawPurpose(IntEnum):
    """What is decided."""

    LISTEN = 1
    COMPLETE = 2
    COLLECT = 3
    OPEN = 4
    DISMISS = 5
    LEAVE = 6


def random_draws(seed: int, purpose: DrawPurpose, users: I64, songs: I64) -> F64:
    """The numbers of n pairs of a user and a song, float64 (n,), uniform in [0, 1)."""
    pairs = np.asarray(users, np.uint64) << np.uint64(32) | np.asarray(songs, np.uint64)
    # The salt is scrambled too: otherwise one purpose's numbers were another's, of neighbouring songs.
    salt = int(mixed(np.asarray([seed * 16 + purpose], np.uint64), 0x9E3779B97F4A7C15)[0])
    # The highest 53 bits, so that no rounding makes a 1 of them.
    return (mixed(pairs, salt) >> np.uint64(11)).astype(np.float64) * 2.0**-53
