"""The campaigns of a partition as a batch has them so far, and what it decides for them.

Nothing of the state is touched: a changed campaign lies over the one in the state, and what comes later in the batch
sees the changed one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, hash64
from targeting.campaigns.campaign import CampaignRecord
from targeting.live.live_campaigns import LiveStage
from targeting.partition.state import State
from targeting.partition.users_in_batch import UsersInBatch
from targeting.ranking.recalibration import Examples, Recalibration
from targeting.ranking.scored import Scored
from targeting.ranking.selection import Selection, SelectionContext, choose, song_and_artist
from targeting.rules.policy import without
from targeting.types import Account, EndReason, Mark, Match, Push, Tier
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.push_log import Added


class CampaignsInBatch:
    """The campaigns, and the pushes that the batch decides.

    Args:
        learned: what corrects the chances that pushes tell.

    Attributes:
        live: which campaigns are scored against users who change.
        frequency_caps: what room users have for pushes, those of this batch included.
        changed: new or changed campaigns, by song id; None: forgotten.
        requests: songs whose request is written anew.
        added: the pushes decided, by row; ``pushes``: the same, as they are told.
        accounts: what is told of campaigns so far; of the songs in ``touched``, one more when the batch is done.
    """

    def __init__(self, state: State, users: UsersInBatch, learned: Recalibration, now: float) -> None:
        self._state = state
        self._users = users
        self._now = now
        self.live = LiveStage(state.live_campaigns, now)
        self.changed: dict[str, CampaignRecord | None] = {}
        self.requests: set[str] = set()
        self.added = Added()
        self.pushes: list[Push] = []
        self.accounts: list[Account] = []
        self.touched: dict[str, None] = {}
        config = state.config
        self.frequency_caps = FrequencyCaps(
            config.policy, state.preferences, state.push_log, users.preferences, self.added, users.erased
        )
        self._context = SelectionContext(
            now=now,
            policy=config.policy,
            users=users.known,
            preferences=state.preferences,
            staged_preferences=users.preferences,
            score_thresholds=state.score_thresholds,
            frequency_caps=self.frequency_caps,
            calibration=state.songs.calibration,
            least_chance=config.least_chance,
            examples=learned.examples(now, state.basis) if config.answer_hours else Examples(),
        )

    def get(self, song_id: str) -> CampaignRecord | None:
        """A song's campaign, as the batch has left it; None: it has none."""
        if song_id in self.changed:
            return self.changed[song_id]
        return self._state.campaigns.get(song_id)

    def put(self, campaign: CampaignRecord) -> None:
        """The campaign is this from now on."""
        self.changed[campaign.match.song_id] = campaign

    def touch(self, song_id: str) -> None:
        """The song's account is told when the batch is done."""
        self.touched[song_id] = None

    def end(self, campaign: CampaignRecord, reason: EndReason) -> None:
        """The campaign ends."""
        self.put(replace(campaign, ended=reason, ended_at=self._now))
        self.live.close(campaign.match.song_id)
        self.touch(campaign.match.song_id)

    def choose(
        self,
        match: Match,
        scored: Scored,
        most: int,
        tier: Tier = Tier.INITIAL,
        prototypes: NDArray[np.int64] | None = None,
        not_to: Sequence[I64] = (),
    ) -> Selection:
        """The ``most`` best of the scored users who may be pushed the song; ``not_to``: rows who may not besides."""
        allowed = self._allowed(match, scored.users, not_to)
        return choose(match, scored, allowed, most, self._context, tier, prototypes)

    def take(self, campaign: CampaignRecord, chosen: Selection) -> None:
        """A selection becomes part of the batch, and ends the campaign if it spent the last of the budget."""
        match = campaign.match
        if len(chosen.users):
            recording = int(hash64([match.recording])[0])
            _, artist = song_and_artist(match)
            self.added.add(chosen.users, recording, artist, chosen.at, chosen.marks)
            self.pushes.extend(self._users.with_erasure_times(chosen.pushes))
        out = int(np.count_nonzero(chosen.marks & Mark.HELD_OUT))
        counts = structs.replace(
            campaign.counts,
            pushed=campaign.counts.pushed + len(chosen.pushes),
            held_out=campaign.counts.held_out + out,
            explored=campaign.counts.explored + int(np.count_nonzero(chosen.marks & Mark.EXPLORED)),
        )
        campaign = replace(campaign, counts=counts)
        self.put(campaign)
        if self._state.left(campaign) == 0:
            self.end(campaign, EndReason.BUDGET)
        else:
            self.touch(match.song_id)

    def all_accounts(self) -> list[Account]:
        """What is told outside: ``accounts``, and that of each touched song as it stands."""
        return self.accounts + [
            campaign.account(self.live.prototypes(song_id))
            for song_id in self.touched
            if (campaign := self.get(song_id)) is not None
        ]

    def _allowed(self, match: Match, users: I64, not_to: Sequence[I64]) -> NDArray[np.bool_]:
        """Which users (rows, ascending) may be pushed the song at all."""
        state = self._state
        recording = int(hash64([match.recording])[0])
        allowed = state.preferences.allowed(match, users, self._users.preferences)
        return allowed & without(
            users,
            [
                state.histories.listeners_of(int(state.songs.find([match.song_id])[0])),
                state.push_log.users(recording),
                self.added.of_recording(recording),
                self._users.erased,
                *not_to,
            ],
        )
