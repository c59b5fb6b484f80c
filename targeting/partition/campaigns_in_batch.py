"""The campaigns of a partition as a batch has them so far: what its commands and the time do to them, what is pushed.

Nothing of the state is touched: a changed campaign lies over the one in the state, and what comes later in the batch
sees the changed one. Commands see the state as it was before the batch's listens.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, hash64
from targeting.campaigns import budget
from targeting.campaigns.campaign import CampaignRecord
from targeting.live.live_campaigns import LiveStage
from targeting.partition.state import State, due
from targeting.partition.users_in_batch import UsersInBatch
from targeting.ranking.recalibration import Examples, Recalibration
from targeting.ranking.scored import Scored
from targeting.ranking.scoring import score
from targeting.ranking.selection import Selection, SelectionContext, choose, song_and_artist
from targeting.rules.policy import hold_back
from targeting.types import (
    Account,
    Command,
    EndReason,
    Mark,
    Match,
    OutcomeCounts,
    Push,
    Reanchor,
    Suppression,
    Takedown,
    Tier,
)
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
        suppressed: how many candidates were not pushed, by when and why.
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
        self.suppressed: Counter[tuple[Tier, Suppression]] = Counter()
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
        held = self._held_back(match, scored.users, not_to)
        chosen = choose(match, scored, held, most, self._context, tier, prototypes)
        for why in np.flatnonzero(chosen.suppressed).tolist():
            self.suppress(tier, Suppression(why), int(chosen.suppressed[why]))
        return chosen

    def suppress(self, tier: Tier, why: Suppression, users: int) -> None:
        """So many candidates are not pushed."""
        self.suppressed[tier, why] += users

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

    def _held_back(self, match: Match, users: I64, not_to: Sequence[I64]) -> NDArray[np.uint8]:
        """Why users (rows, ascending) may not be pushed the song at all: uint8 (n,), 0 where they may."""
        state, staged = self._state, self._users.preferences
        recording = int(hash64([match.recording])[0])
        held = np.zeros(len(users), np.uint8)
        refused = np.flatnonzero(~state.preferences.allowed(match, users, staged))
        if len(refused):
            out = state.preferences.opted_out(users[refused], staged)
            held[refused] = np.where(out, Suppression.OPTED_OUT, Suppression.NOT_WANTED)
        listeners = state.histories.listeners_of(int(state.songs.find([match.song_id])[0]))
        for why, rows in (
            *((Suppression.HEARD, rows) for rows in (listeners, *not_to)),
            (Suppression.ALREADY_PUSHED, state.push_log.users(recording)),
            (Suppression.ALREADY_PUSHED, self.added.of_recording(recording)),
            (Suppression.ERASED, self._users.erased),
        ):
            hold_back(held, users, rows, why)
        return held


class CampaignCommands:
    """Obeys the commands of one batch."""

    def __init__(self, state: State, campaigns: CampaignsInBatch, now: float) -> None:
        self._state = state
        self._campaigns = campaigns
        self._now = now

    def end_due(self) -> None:
        """Campaigns whose time is over end, and those that ended long ago are forgotten."""
        state = self._state
        if self._now < state.next_due:
            return
        for song_id, campaign in sorted(state.campaigns.items()):
            if due(campaign, state.config) > self._now:
                continue
            if campaign.ended is None:
                self._campaigns.end(campaign, EndReason.EXPIRED)
            else:
                self._campaigns.changed[song_id] = None

    def obey(self, commands: Sequence[Command]) -> None:
        """Obeys commands in order."""
        for command in commands:
            if isinstance(command, Match):
                self._match(command)
            elif isinstance(command, Reanchor):
                self._reanchor(command)
            else:
                self._take_down(command)

    def follow_space(self) -> None:
        """Opens campaigns that run and are not scored in the space in use, a few in each batch."""
        state = self._state
        if state.songs.space is None:
            return
        running = (song_id for song_id in sorted(state.running) if self._fits(song_id))
        for song_id in self._campaigns.live.to_open(running):
            campaign = self._campaigns.get(song_id)
            if campaign is not None:
                match = self._in_space(campaign.match)
                if match is not campaign.match:
                    self._campaigns.put(replace(campaign, match=match))
                    self._campaigns.requests.add(song_id)
                self._open(match, self._score(match))

    def _match(self, match: Match) -> None:
        """A request: the first of its revision is served, others are told the account."""
        campaigns, before = self._campaigns, self._campaigns.get(match.song_id)
        if before and match.revision <= before.match.revision:
            if match.revision < before.match.revision:
                account = before.account()
                outdated = replace(account, revision=match.revision, ended=EndReason.SUPERSEDED, ended_at=self._now)
                campaigns.accounts.append(outdated)
            else:
                campaigns.touch(match.song_id)
            return
        if before and before.ended is None:
            # Its last account, before the next revision's takes its place.
            campaigns.accounts.append(replace(before, ended=EndReason.SUPERSEDED, ended_at=self._now).account())
            campaigns.live.close(match.song_id)
        elif before and match.song_id in campaigns.touched:
            campaigns.accounts.append(before.account())
        counts = structs.replace(before.counts, candidates=0) if before else OutcomeCounts()
        campaigns.requests.add(match.song_id)
        if match.expires_at <= self._now:
            campaigns.put(CampaignRecord(match, counts, EndReason.EXPIRED, self._now))
            campaigns.touch(match.song_id)
            return
        self._serve(match, counts)

    def _serve(self, match: Match, counts: OutcomeCounts) -> None:
        state = self._state
        match = self._in_space(match)
        song_hash, _ = song_and_artist(match)
        scored = self._score(match)
        at_once = budget.at_once(match.budget, state.config.at_once)
        most = budget.share(at_once, state.number, state.partitions, song_hash) - counts.pushed
        chosen = self._campaigns.choose(match, scored, most)
        counts = structs.replace(counts, candidates=len(scored.users))
        self._campaigns.take(CampaignRecord(match, counts), chosen)
        self._open(match, scored)

    def _take_down(self, command: Takedown) -> None:
        each = self._campaigns.get(command.song_id)
        if each is None or command.revision < each.match.revision:
            return
        # A song whose budget is spent is still on its way: its listens count, and may promote it.
        if each.ended is None or (each.ended is EndReason.BUDGET and command.reason is not EndReason.BUDGET):
            self._campaigns.end(each, command.reason)

    def _reanchor(self, command: Reanchor) -> None:
        each = self._campaigns.get(command.song_id)
        if each is None or command.revision != each.match.revision or each.match.space == command.space:
            return
        before = each.match
        match = structs.replace(
            before,
            space=command.space,
            vector=command.vector,
            neighbours=command.neighbours,
            similarities=command.similarities,
            others=((before.space, before.vector),),
        )
        self._campaigns.put(replace(each, match=self._in_space(match)))
        self._campaigns.requests.add(command.song_id)
        self._campaigns.live.close(command.song_id)

    def _in_space(self, match: Match) -> Match:
        """The request with the song's vector in the space in use, if it brings one."""
        for space, vector in match.others:
            if space == self._state.songs.space and match.space != space:
                others = ((match.space, match.vector), *(each for each in match.others if each[0] != space))
                return structs.replace(match, space=space, vector=vector, others=others)
        return match

    def _score(self, match: Match) -> Scored:
        state = self._state
        return score(state.histories, state.songs, match, state.config.relevance, state.power)

    def _fits(self, song_id: str) -> bool:
        """Whether users who change can be scored against the song."""
        campaign = self._campaigns.get(song_id)
        if campaign is None or campaign.ended is not None or not self._later:
            return False
        return self._state.songs.comparable(self._in_space(campaign.match))

    @property
    def _later(self) -> bool:
        """Whether some of a budget is kept for users who come near a song later."""
        return self._state.config.at_once < 1

    def _open(self, match: Match, scored: Scored) -> None:
        """From now on, users who change are scored against the song, if its campaign runs and may be."""
        state, campaign = self._state, self._campaigns.get(match.song_id)
        if campaign is not None and campaign.ended is None and state.songs.comparable(match) and self._later:
            song_vector = state.songs.along_axes(match.vector)
            left, users = state.left(campaign), state.users.used
            self._campaigns.live.open(match, song_vector, left, users, scored.listening(), state.power)
