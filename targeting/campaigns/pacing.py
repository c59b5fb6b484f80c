"""The score threshold with which a budget lasts until its campaign ends.

A threshold is a function of what the campaign saw when it opened, of what is left and of the time: nothing is learned
on the way, so nothing is to be stored, and the same counts at the same time give the same threshold everywhere.

Above a high score, fewer users are found in an exponential way: ``scale`` is by how much the score rises until 1/e of
them is left (the mean excess over a high quantile; peaks over threshold, Pickands 1975). So how many are reached is
governed by adding to the threshold in units of ``scale``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from targeting.types import F32, F64

# The tail is looked at above this share of the users: 100 of a sample of 2,000 tell its scale to a tenth.
_TAIL = 0.05
# How hard to steer, in scales for a budget's worth of pushes ahead of or behind the plan. If ten times as many users
# come as expected, a surplus of 12 % of the budget holds the rate; twice as hard would let single pushes of small
# budgets be felt.
_STEER = 20.0
# A slow campaign takes users as if ten times as many were wanted, and no worse ones: an unspent budget harms less.
_LOWEST = float(np.log(10))


@dataclass(frozen=True, slots=True)
class Opening:
    """What a campaign saw as it opened.

    Attributes:
        first: the score that as many users reach as there are pushes.
        scale: by how much the score rises until 1/e of the users above it is left.
    """

    first: float
    scale: float


def opening(scores: F32, share: float) -> Opening:
    """The threshold that a ``share`` of the users reaches, from the scores of some of them, float32 (n,).

    Shares too small to be seen among n are told by the tail. Without scores every positive one is enough.
    """
    if not len(scores):
        return Opening(float(np.finfo(np.float32).tiny), 1e-3)
    ranked = np.sort(np.asarray(scores, np.float64))
    tail = max(int(len(ranked) * _TAIL), 1)
    base = float(ranked[-tail - 1]) if tail < len(ranked) else float(ranked[0])
    # All alike: any step is as good.
    scale = max(float((ranked[-tail:] - base).mean()), 1e-6)
    share = min(max(share, 1e-9), 1.0)
    above = tail / len(ranked)
    if share < above:
        return Opening(base + scale * float(np.log(above / share)), scale)
    return Opening(float(ranked[max(len(ranked) - int(np.ceil(len(ranked) * share)), 0)]), scale)


def thresholds(
    first: F64, scale: F64, budget: F64, remaining: F64, opened: F64, ends: F64, now: float, rate: F64 | float = 1.0
) -> F32:
    """The score that is enough now in each campaign, float32 (A,); infinite where nothing is left, or no time.

    Args:
        first, scale: of :class:`Opening`.
        budget, remaining: pushes for the time since ``opened``, and those of them not yet made.
        opened, ends, now: Unix seconds.
        rate: how many times as fast as the time alone would have it the budget is planned to be spent.
    """
    passed = np.clip(rate * (now - opened) / np.maximum(ends - opened, 1.0), 0, 1)
    ahead = (budget - remaining) / np.maximum(budget, 1) - passed
    found = first + scale * np.maximum(_STEER * ahead, -_LOWEST)
    return np.where((remaining > 0) & (now < ends), found, np.inf).astype(np.float32)
