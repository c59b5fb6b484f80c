"""Whether pushes make listeners, measured against those who were held out.

A random share of those who would be pushed is held out. They differ from the pushed only by the push, so the
difference between the two is the push's effect. Both count everyone who listened, whether or not the push was seen.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from streams.contract.events import Counts

_Z = 1.959963984540054
"""Of a 95 % interval."""
_POWER = 0.8416212335729143
"""For an 80 % chance to detect a real difference."""

MEASURES = ("listened", "completed", "collected")


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Uplift:
    """One measure of the treated against the held out, in pairs of a user and a song.

    Attributes:
        treated, treated_of, held_out, held_out_of: how many of how many did.
        difference: of the two rates, with Newcombe's interval (Statist. Med. 17, 1998, method 10); None where nobody
            was pushed or held out.
        ratio: of the two rates, with Katz's interval (Biometrics 34, 1978), half a user added to each where one is 0.
        missing: held out who are still needed, as many pushed in proportion, to see a difference of this size with a
            chance of 80 %; 0: it is seen. None where nothing can be said of the size.
    """

    measure: str
    treated: int
    treated_of: int
    held_out: int
    held_out_of: int
    difference: Interval | None
    ratio: Interval | None
    missing: int | None

    @property
    def clear(self) -> bool:
        """Whether the interval of the difference excludes 0."""
        return self.difference is not None and (self.difference.low > 0 or self.difference.high < 0)


def uplift(counts: Counts) -> list[Uplift]:
    """The uplift in every measure of :data:`MEASURES`."""
    return [
        compared(name, getattr(counts, name), counts.pushed, getattr(counts, f"held_out_{name}"), counts.held_out)
        for name in MEASURES
    ]


def compared(measure: str, treated: int, treated_of: int, held_out: int, held_out_of: int) -> Uplift:
    """Treated against held out."""
    # A record may claim anything; no more than all of them listened.
    treated, held_out = min(treated, treated_of), min(held_out, held_out_of)
    if not treated_of or not held_out_of:
        return Uplift(measure, treated, treated_of, held_out, held_out_of, None, None, None)
    one, other = treated / treated_of, held_out / held_out_of
    low_1, high_1 = _wilson(treated, treated_of)
    low_0, high_0 = _wilson(held_out, held_out_of)
    gap = one - other
    difference = Interval(
        gap,
        # Rounding carries the last digit beyond what a difference of shares can be.
        max(-1.0, gap - math.hypot(one - low_1, high_0 - other)),
        min(1.0, gap + math.hypot(high_1 - one, other - low_0)),
    )
    found = Uplift(
        measure, treated, treated_of, held_out, held_out_of, difference,
        _ratio(treated, treated_of, held_out, held_out_of), None,
    )  # fmt: skip
    if found.clear:
        return _with(found, 0)
    # Rates of nobody are never quite 0: half a user is added.
    one, other = (treated + 0.5) / (treated_of + 1), (held_out + 0.5) / (held_out_of + 1)
    if one == other:
        return found
    spread = one * (1 - one) * held_out_of / treated_of + other * (1 - other)
    needed = math.ceil((_Z + _POWER) ** 2 * spread / (one - other) ** 2)
    return _with(found, max(1, needed - held_out_of))


def _with(found: Uplift, missing: int) -> Uplift:
    return Uplift(
        found.measure, found.treated, found.treated_of, found.held_out, found.held_out_of, found.difference,
        found.ratio, missing,
    )  # fmt: skip


def _ratio(a: int, n: int, b: int, m: int) -> Interval | None:
    if not a and not b:
        return None
    add = 0.0 if a and b else 0.5
    one, other = (a + add) / (n + add), (b + add) / (m + add)
    spread = math.sqrt(max(0.0, 1 / (a + add) - 1 / (n + add) + 1 / (b + add) - 1 / (m + add)))
    ratio = one / other
    return Interval(ratio, ratio * math.exp(-_Z * spread), ratio * math.exp(_Z * spread))


def _wilson(k: int, n: int) -> tuple[float, float]:
    """Wilson's score interval of a rate."""
    rate, square = k / n, _Z**2
    centre = (rate + square / (2 * n)) / (1 + square / n)
    half = _Z / (1 + square / n) * math.sqrt(rate * (1 - rate) / n + square / (4 * n**2))
    return max(0.0, centre - half), min(1.0, centre + half)
