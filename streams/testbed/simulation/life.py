"""What happens in the world: who comes across which song, who listens, and how pushes are answered.

Plain arrays, no Kafka. Listening is taste (:func:`encoder.data.world.affinity` at that moment); coming across a song is
what pushes change: a song that somebody hears is come across by friends, and by everybody the more it is heard.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from encoder.data.world import CHUNK, DAY, affinity, catalogue, people
from streams.testbed.simulation.random_draws import DrawPurpose, random_draws
from streams.testbed.simulation.scenario import Scenario
from targeting.arrays.id_table import I64
from targeting.types import F64

Mask = NDArray[np.bool_]

# The last songs that a user heard, of which friends may hear.
_LATELY = 6


@dataclass(frozen=True, slots=True)
class WorldListens:
    """Who listened to what: n each. ``first``: the user's first listen to the song."""

    users: I64
    songs: I64
    at: F64
    first: Mask
    completed: Mask
    collected: Mask

    def __len__(self) -> int:
        return len(self.users)


@dataclass(frozen=True, slots=True)
class PushResponses:
    """What became of n pushes: exactly one of ``failed``, ``opened``, ``dismissed`` and ``expired`` each.

    Attributes:
        failed: the user had opted out by then.
        listened: of the opened; ``listens`` are theirs, in order.
        left: users who opted out over these pushes, int64.
    """

    failed: Mask
    opened: Mask
    dismissed: Mask
    expired: Mask
    listened: Mask
    listens: WorldListens
    left: I64


class Life:
    """One run of a scenario. Times are seconds since the world's start; rows are the world's.

    Attributes:
        heard: bool (users, songs), who listened to what so far.
        shown: int64 (songs,), how often anybody came across a song since the launch, pushes among it.
        plays, completed, collected: int64 (songs,), listens since the launch, those to the end, and collects.
        pushed, opted_out: int64 and bool (users,), pushes delivered, and who takes none any more.
        first: (song, seconds) of every first listen since the launch, in order, as arrays int64 and float64.
    """

    def __init__(self, scenario: Scenario) -> None:
        self.scenario = scenario
        world, users, songs = scenario.world, scenario.users, scenario.world.songs
        self.activity = np.concatenate([people(world, chunk).activity for chunk in range(-(-users // CHUNK))])
        self.heard = np.zeros((users, songs), np.bool_)
        self.listeners = np.zeros(songs, np.int64)
        self.shown = np.zeros(songs, np.int64)
        self.plays, self.completed, self.collected = np.zeros((3, songs), np.int64)
        self.pushed = np.zeros(users, np.int64)
        self.opted_out = np.zeros(users, np.bool_)
        self._library = np.zeros((users, songs), np.int32)
        self._owned = np.zeros(users, np.int64)
        self._lately = np.full((users, _LATELY), -1, np.int64)
        self._released = np.full(songs, -np.inf)
        self._released[scenario.new_songs] = scenario.uploaded
        self._annoyed, self._tired, self._told = np.zeros(users), np.zeros(users), np.zeros(users)
        self._circle = self._random(1).integers(0, users, (users, scenario.habits.circle))
        self._first: list[tuple[I64, F64]] = []
        self.past = self._live_the_past()

    @property
    def first(self) -> tuple[I64, F64]:
        songs = [each for each, _ in self._first] or [np.zeros(0, np.int64)]
        return np.concatenate(songs), np.concatenate([each for _, each in self._first] or [np.zeros(0)])

    def affinity(self, users: I64, songs: I64, at: F64 | float) -> F64:
        """The chance that who comes across a song listens, float64 (n,)."""
        return affinity(self.scenario.world, users, songs, at) if len(users) else np.zeros(0)

    def live(self, start: float, end: float) -> WorldListens:
        """A span of time without pushes: what people come across by themselves, and listen to.

        As many users come across as many songs whatever was pushed; which songs, depends on who hears what by then.
        """
        scenario, habits = self.scenario, self.scenario.habits
        rng = self._random(2, round(start))
        # Before anything is looked at, so that the draws are the same in every world.
        counts = rng.poisson(habits.plays * (end - start) / DAY * self.activity)
        users = np.repeat(np.arange(scenario.users), counts)
        at = rng.uniform(start, end, len(users))
        kind, pick, friend = rng.uniform(size=(3, len(users)))
        here = scenario.joined[users] <= at
        users, at, kind, pick, friend = users[here], at[here], kind[here], pick[here], friend[here]

        songs = self._browsed(pick, start)
        told = (kind >= habits.library) & (kind < habits.library + habits.friends)
        friends = self._circle[users, (friend * habits.circle).astype(np.int64)]
        lately = self._lately[friends, (pick * _LATELY).astype(np.int64)]
        songs = np.where(told & (lately >= 0), lately, songs)
        owned = self._owned[users]
        again = (kind < habits.library) & (owned > 0)
        songs = np.where(again, self._library[users, (pick * owned).astype(np.int64)], songs)
        out = self._released[songs] <= at
        users, songs, at = users[out], songs[out], at[out]
        order = np.argsort(at, kind="stable")
        users, songs, at = users[order], songs[order], at[order]
        self.shown += np.bincount(songs, minlength=len(self.shown))
        return self._listen(users, songs, at)

    def answer(self, users: I64, songs: I64, at: float) -> PushResponses:
        """Pushes reach their users at a moment, those of one user in the order given."""
        n = len(users)
        failed, opened, listened = np.zeros((3, n), np.bool_)
        left = np.zeros(n, np.bool_)
        liking = self.affinity(users, songs, at)
        # One push of each user at a time: the next one meets who was disturbed by it.
        turn = _occurrence(users)
        for number in range(int(turn.max(initial=-1)) + 1):
            which = np.flatnonzero(turn == number)
            failed[which], opened[which], listened[which], left[which] = self._told_of(
                users[which], songs[which], liking[which], at
            )
        self.shown += np.bincount(songs[~failed], minlength=len(self.shown))
        self.pushed += np.bincount(users[~failed], minlength=len(self.pushed))
        unopened = ~opened & ~failed
        dismissed = unopened & (self._draws(DrawPurpose.DISMISS, users, songs) < self.scenario.habits.dismissed)
        heard = self._listen(users[listened], songs[listened], np.full(int(listened.sum()), at))
        return PushResponses(failed, opened, dismissed, unopened & ~dismissed, listened, heard, users[left])

    # -- inside ------------------------------------------------------------------------------------------

    def _told_of(self, users: I64, songs: I64, liking: F64, at: float) -> tuple[Mask, Mask, Mask, Mask]:
        """Distinct users: whose push failed, who opened it, who listened, who opted out over it."""
        habits = self.scenario.habits
        failed = self.opted_out[users]
        kept = np.exp(-(at - self._told[users]) / (habits.fatigue_days * DAY))
        tired, annoyed = self._tired[users] * kept, self._annoyed[users] * kept
        interest = habits.opened * (habits.opened_anyway + (1 - habits.opened_anyway) * liking)
        opened = ~failed & (self._draws(DrawPurpose.OPEN, users, songs) < interest * (1 - habits.tires) ** tired)
        listened = opened & (self._draws(DrawPurpose.LISTEN, users, songs) < liking)
        annoyed += ~listened
        reached = users[~failed]
        self._tired[reached], self._annoyed[reached] = (tired + 1)[~failed], annoyed[~failed]
        self._told[reached] = at
        hazard = habits.leaves * np.maximum(annoyed - habits.patience, 0)
        left = ~failed & ~listened & (self._draws(DrawPurpose.LEAVE, users, songs) < hazard)
        self.opted_out[users[left]] = True
        return failed, opened, listened, left

    def _listen(self, users: I64, songs: I64, at: F64) -> WorldListens:
        """Of those who came across songs, those who listen; in the order given."""
        liking = self.affinity(users, songs, at)
        # Who owns a song listens as long as it is liked; the purpose is the one that let them listen first.
        does = self._draws(DrawPurpose.LISTEN, users, songs) < liking
        users, songs, at, liking = users[does], songs[does], at[does], liking[does]
        pair = users * self.heard.shape[1] + songs
        first = np.zeros(len(pair), np.bool_)
        first[np.unique(pair, return_index=True)[1]] = True
        first &= ~self.heard[users, songs]
        self._own(users[first], songs[first])
        self._first.append((songs[first], at[first]))
        # Of what a user heard in this span, the last ones: earlier ones are written over.
        place = _occurrence(users) % _LATELY
        self._lately[users, place] = songs
        completed = self._draws(DrawPurpose.COMPLETE, users, songs) < 0.3 + 0.6 * liking
        collected = first & (self._draws(DrawPurpose.COLLECT, users, songs) < 0.3 * liking**2)
        for column, which in (
            (self.plays, songs),
            (self.completed, songs[completed]),
            (self.collected, songs[collected]),
        ):
            column += np.bincount(which, minlength=len(column))
        return WorldListens(users, songs, at, first, completed, collected)

    def _own(self, users: I64, songs: I64) -> None:
        place = self._owned[users] + _occurrence(users)
        self._library[users, place] = songs
        self._owned += np.bincount(users, minlength=len(self._owned))
        self.heard[users, songs] = True
        self.listeners += np.bincount(songs, minlength=len(self.listeners))

    def _browsed(self, pick: F64, at: float) -> I64:
        """Songs by how many hear them; a new one as if the shelf's number heard it more."""
        out = self._released <= at
        weight = self.listeners + self.scenario.habits.shelf * self.scenario.is_new
        # Songs that nobody hears yet are not lost for good.
        ends = np.cumsum(np.where(out, np.maximum(weight, 0.1), 0.0))
        found: I64 = np.searchsorted(ends, pick * ends[-1], side="right")
        return np.minimum(found, len(ends) - 1)

    def _live_the_past(self) -> WorldListens:
        """The listens before the launch, user by user: of warm songs, by those who were there."""
        scenario = self.scenario
        rng, songs = self._random(0), catalogue(scenario.world)
        exposure = np.where(scenario.is_new, 0.0, songs.exposure)
        ends = np.cumsum(exposure / exposure.sum())
        counts = rng.poisson(scenario.shown * self.activity)
        user = np.repeat(np.arange(scenario.users), counts)
        song = np.minimum(np.searchsorted(ends, rng.uniform(size=len(user)), side="right"), len(ends) - 1)
        song[scenario.is_new[song]] = np.flatnonzero(~scenario.is_new)[-1]
        pair = np.unique(user * len(ends) + song)
        user, song = pair // len(ends), pair % len(ends)
        at = np.floor(rng.uniform(0, scenario.launch, len(user)))
        here = scenario.joined[user] == 0
        user, song, at = user[here], song[here], at[here]
        found = self._listen(user, song, at)
        for column in (self.shown, self.plays, self.completed, self.collected):
            column[:] = 0
        self._first.clear()
        return found

    def _draws(self, purpose: DrawPurpose, users: I64, songs: I64) -> F64:
        return random_draws(self.scenario.seed, purpose, users, songs)

    def _random(self, purpose: int, part: int = 0) -> np.random.Generator:
        return np.random.default_rng([self.scenario.seed, 200 + purpose, part])


def _occurrence(users: I64) -> I64:
    """How many of the same user stand before each, int64 (n,)."""
    order = np.argsort(users, kind="stable")
    _, first, counts = np.unique(users[order], return_index=True, return_counts=True)
    place = np.empty(len(users), np.int64)
    place[order] = np.arange(len(users)) - np.repeat(first, counts)
    return place
