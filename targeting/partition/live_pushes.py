"""Pushes to users whose vector changes: new listens or a vector from outside bring them near a live campaign's song."""

from __future__ import annotations

import numpy as np

from targeting.arrays.id_table import I64
from targeting.campaigns.campaign import CampaignRecord
from targeting.campaigns.spending import Plan, Spending
from targeting.live.live_campaigns import UserHits
from targeting.partition.campaigns_in_batch import CampaignsInBatch
from targeting.partition.state import State
from targeting.partition.users_in_batch import UsersInBatch
from targeting.ranking.activity import factors
from targeting.ranking.scored import Scored
from targeting.types import F32, Suppression, Tier
from targeting.users.histories import HistoryChanges
from targeting.users.taste_vectors import OutsideChanges


class LivePushes:
    """Matches the users of one batch who change with the live campaigns.

    Args:
        heard: what the batch's listens change; None: nothing. ``outside``: the same of its vectors from outside.
        withdrawn: int64, rows of users who have their history's vector again.
    """

    def __init__(
        self,
        state: State,
        users: UsersInBatch,
        campaigns: CampaignsInBatch,
        now: float,
        heard: HistoryChanges | None,
        outside: OutsideChanges | None,
        withdrawn: I64,
    ) -> None:
        self._state = state
        self._users = users
        self._campaigns = campaigns
        self._now = now
        self._heard = heard
        self._outside = outside
        self._withdrawn = withdrawn

    def push(self) -> None:
        """Pushes the songs of live campaigns to users who come near them."""
        changed = self._changed()
        if changed is None or not len(changed[0]):
            return
        users = changed[0]
        thresholds = self._state.score_thresholds.thresholds(users, self._now)
        if not self._state.config.policy.enabled:
            thresholds[:] = 1
        # Whoever has no room is not even scored: with caps full, every campaign would look at the same users.
        used, pushes = self._campaigns.frequency_caps.used(users, np.full(len(users), self._now))
        self._campaigns.suppress(Tier.LIVE, Suppression.FREQUENCY_CAP, int(np.count_nonzero(used >= pushes)))
        activity, plan = self._activity(users), self._plan()
        for hits in self._campaigns.live.match(*changed, activity, thresholds, used < pushes, plan):
            campaign = self._campaigns.get(hits.song_id)
            if campaign is not None and campaign.ended is None:
                self._push(campaign, hits)

    def _changed(self) -> tuple[I64, F32, F32] | None:
        """Users whose vector changes, their old vectors and their new ones; None where nobody would look."""
        histories, parts = self._state.histories, []
        if not len(self._campaigns.live):
            return None
        if self._heard:
            parts.append(histories.taste.preview(self._heard.vectors))
        if self._outside:
            parts.append(histories.taste.preview(self._outside))
        if not parts:
            return None
        gone = np.concatenate([self._users.erased, self._withdrawn])
        if len(parts) == 1 and not len(gone):
            return parts[0]
        users, old, new = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        # A vector from outside stands over what listens say of the user.
        _, last = np.unique(users[::-1], return_index=True)
        keep = len(users) - 1 - last
        keep = keep[~np.isin(users[keep], gone)]
        return users[keep], old[keep], new[keep]

    def _plan(self) -> Plan | None:
        """How campaigns spend; None: as the time has it. By the answers of earlier batches, as a request is decided."""
        state = self._state
        if state.config.spending is Spending.PACE:
            return None
        return state.bandit.plan(state.live_campaigns.places, state.campaigns.get, self._now)

    def _activity(self, users: I64) -> F32:
        """What the scores of changed users are multiplied with, the batch's listens included, float32 (n,)."""
        power, heard = self._state.power, self._heard
        if not power:
            return np.ones(len(users), np.float32)
        counts = self._state.histories.heard(users)
        if heard and len(heard.users):
            at = np.minimum(np.searchsorted(heard.users, users), len(heard.users) - 1)
            counts = np.where(heard.users[at] == users, heard.lengths[at], counts)
        return factors(counts, power)

    def _push(self, campaign: CampaignRecord, hits: UserHits) -> None:
        match, state = campaign.match, self._state
        none = np.zeros(len(hits.users), np.float32)
        scored = Scored(
            hits.users, hits.fits * hits.activity, none, hits.fits, np.zeros(0, np.int32),
            np.zeros(0, np.int32), np.zeros(0, np.float32), activity=hits.activity,
        )  # fmt: skip
        most = state.left(campaign)
        if state.config.spending is Spending.BANDIT and (owed := state.bandit.owed(campaign)):
            # No more than these: their door is open to users who are less near than the others of the budget must be.
            most = min(most, owed)
        now_heard = self._now_heard(match.song_id)
        chosen = self._campaigns.choose(match, scored, most, Tier.LIVE, hits.prototypes, now_heard)
        if len(chosen.users):
            self._campaigns.take(campaign, chosen)
            after = self._campaigns.get(match.song_id)
            if after is not None:
                self._campaigns.live.left(match.song_id, state.left(after))

    def _now_heard(self, song_id: str) -> list[I64]:
        """The rows of users who hear the song in this very batch."""
        listens, songs = self._users.listens, self._state.songs
        if listens is None:
            return []
        here = songs.slots(listens.song_ids) == songs.slots([song_id])
        return [np.unique(self._users.listen_rows[here])]
