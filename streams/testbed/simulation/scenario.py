"""The world that is simulated, and how its people behave."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from encoder.data.world import DAY, World
from streams.contract.errors import Refused
from targeting.arrays.id_table import I64


@dataclass(frozen=True, slots=True)
class Habits:
    """How people come across songs and answer pushes. All of them are assumptions; none is measured.

    Attributes:
        plays: what a user of average activity comes across in a day, in a push or not: a song of their own library, one
            that a friend heard lately, or one among all by how many hear it already.
        library, friends: shares of these; the rest browse.
        shelf: a new song is come across by browsing as if it had so many listeners.
        circle: friends of a user.
        opened, opened_anyway: a push of a song that one is sure to like is opened with the first chance, of one that
            one is sure not to like with the first times the second.
        dismissed: of pushes that are not opened, so many are dismissed, the others expire unseen.
        tires: a push within ``fatigue_days`` takes this share of the next one's chance to be opened.
        fatigue_days: time in which what earlier pushes leave behind falls to 1/e.
        patience: pushes not listened to, counted in the same way, that are borne without a thought of opting out.
        leaves: chance to opt out at each further one, times how many there are beyond patience.
    """

    plays: float = 10.0
    library: float = 0.4
    friends: float = 0.2
    shelf: float = 20.0
    circle: int = 8
    opened: float = 0.9
    opened_anyway: float = 0.25
    dismissed: float = 0.3
    tires: float = 0.15
    fatigue_days: float = 3.0
    patience: float = 3.0
    leaves: float = 0.03


@dataclass(frozen=True)
class Scenario:
    """A world and what is uploaded into it.

    Attributes:
        users: all of them; ``late`` is the share that joins while the world is watched.
        warm, new: songs that are known from the start, and songs that are uploaded.
        days: watched. Uploads are spread over all but the last ``watch`` of them, so that each new song is watched for
            as long.
        past: days of history, from which the encoder is trained and the users' vectors are made.
        shown: songs that a user of average activity was shown in it.
        drift: mean angle, in radians, that a taste turns over past and watched days together.
        budget: pushes for each new song.
        campaign_days: for so long a new song may be pushed.
        caps: pushes a user in a day; one of them at most by one artist.
    """

    users: int = 2000
    warm: int = 600
    new: int = 120
    seed: int = 0
    days: int = 14
    watch: int = 6
    past: int = 60
    shown: float = 800.0
    late: float = 0.1
    drift: float = 0.8
    budget: int = 120
    campaign_days: float = 6.0
    caps: int = 2
    habits: Habits = field(default_factory=Habits)

    def __post_init__(self) -> None:
        if not 1 <= self.watch < self.days:
            raise Refused(
                f"days = {self.days}: songs are watched for {self.watch} days, so that it must be more than that"
            )
        try:
            _ = self.world
        except ValueError as error:
            raise Refused(str(error)) from None

    @cached_property
    def world(self) -> World:
        """What is true in it: tastes, songs, content (:mod:`encoder.data.world`)."""
        return World(
            users=self.users,
            songs=self.warm + self.new,
            seed=self.seed,
            drift=self.drift,
            late=0.0,
            start=0.0,
            days=float(self.past + self.days),
        )

    @property
    def launch(self) -> float:
        """When watching begins, in seconds since the world's start."""
        return self.past * DAY

    @cached_property
    def is_new(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        """Which songs are uploaded, bool (songs,)."""
        new = np.zeros(self.warm + self.new, np.bool_)
        new[self._random(0).permutation(len(new))[: self.new]] = True
        return new

    @cached_property
    def new_songs(self) -> I64:
        """The rows of the new songs in the order of their uploads, int64 (new,)."""
        return self._random(1).permutation(np.flatnonzero(self.is_new))

    @cached_property
    def uploaded(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """When each of ``new_songs`` is uploaded, float64 (new,), seconds since the world's start, ascending."""
        span = (self.days - self.watch) * DAY
        return self.launch + np.sort(self._random(2).uniform(0, span, self.new))

    @cached_property
    def joined(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """When each user joined, float64 (users,), seconds since the world's start."""
        rng = self._random(3)
        when = self.launch + rng.uniform(0, (self.days - 1) * DAY, self.users)
        return np.where(rng.uniform(size=self.users) < self.late, when, 0.0)

    def _random(self, purpose: int) -> np.random.Generator:
        # Beyond the purposes that the world itself uses.
        return np.random.default_rng([self.seed, 100 + purpose])
