"""What was promised, in numbers: the settings that the system ran with, and nothing of how it keeps them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Self

from streams.runtime.settings import Settings


@dataclass(frozen=True, slots=True)
class AtMost:
    """So many pushes in any span of so many seconds."""

    pushes: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Rules:
    """What :class:`~streams.runtime.settings.AudienceSettings` and
    :class:`~streams.runtime.settings.SongsSettings` promise, in the same words.

    Attributes:
        cap, artist_cap: None: nothing was promised.
        budget: of a song whose upload does not say.
        at_once: share of a budget that may be spent on the request itself.
        late_s: how long after 99 of 100 withdrawals pushes may go on, by the broker's clock, seconds.
        latest_s: how long after any, whatever is broken meanwhile.
    """

    cap: AtMost | None = None
    artist_cap: AtMost | None = None
    holdout: float = 0.0
    salt: str = "1"
    erasure_keys: tuple[bytes, ...] = field(default=(b"coldstart",), repr=False)
    budget: int = 1000
    at_once: float = 0.7
    warm_listeners: int = 20
    late_s: float = 1.0
    latest_s: float = 12.0

    @classmethod
    def of(cls, settings: Settings) -> Self:
        audience = settings.audience
        return cls(
            cap=AtMost(audience.cap_pushes, audience.cap_hours * 3600),
            artist_cap=AtMost(audience.artist_cap_pushes, audience.artist_cap_hours * 3600),
            holdout=audience.holdout,
            salt=audience.holdout_salt,
            erasure_keys=audience.erasure_keys,
            budget=settings.songs.budget,
            at_once=audience.at_once,
            warm_listeners=settings.songs.warm_listeners,
            # The preferences' end is asked for before the batch; from then on it has what the watchdog allows, and two
            # seconds to be read.
            late_s=audience.transaction_timeout_s,
            latest_s=audience.watchdog_s + 2,
        )
