"""What a batch's listens and outcomes say of pushes: marks, the counts of campaigns, thresholds, and chances."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from msgspec import structs

from targeting.arrays.id_table import I64, hash64
from targeting.partition.campaigns_in_batch import CampaignsInBatch
from targeting.partition.state import State
from targeting.partition.users_in_batch import UsersInBatch
from targeting.ranking.recalibration import Recalibration
from targeting.types import Listens, Mark, Outcomes
from targeting.users.histories import HistoryChanges
from targeting.users.push_log import Entries, Marked
from targeting.users.score_thresholds import ThresholdChanges

# What a mark counts as, for a push and for one that was held out.
_OF_PUSHED = {
    Mark.DELIVERED: "delivered",
    Mark.FAILED: "failed",
    Mark.OPENED: "opened",
    Mark.DISMISSED: "dismissed",
    Mark.EXPIRED: "expired",
    Mark.LISTENED: "listened",
    Mark.COMPLETED: "completed",
    Mark.COLLECTED: "collected",
}
_OF_HELD_OUT = {
    Mark.LISTENED: "held_out_listened",
    Mark.COMPLETED: "held_out_completed",
    Mark.COLLECTED: "held_out_collected",
}


def judged(state: State, now: float, requests: bool) -> Recalibration:
    """What is known of chances: with requests, of pushes whose wait is over, too.

    Requests are read when what came before them is; so nothing that answers a push is still to come.
    """
    known, hours = state.recalibration, state.config.answer_hours
    return known.judge(now, hours * 3600) if hours and requests else known


class Feedback:
    """Counts what becomes of the pushes of a partition, in one batch."""

    def __init__(self, state: State, users: UsersInBatch, campaigns: CampaignsInBatch, now: float) -> None:
        self._state = state
        self._users = users
        self._campaigns = campaigns
        self._now = now

    def count_listeners(self, heard: HistoryChanges) -> None:
        """Counts who heard a campaign's song for the first time; they are its audience from now on."""
        slots, counts = np.unique(heard.new_songs, return_counts=True)
        at = np.flatnonzero(np.isin(slots, self._campaign_slots()))
        if not len(at):
            return
        wanted = dict(zip(slots[at].tolist(), counts[at].tolist(), strict=True))
        opened = self._opened()
        new = dict(zip(self._state.songs.slots(opened).tolist(), opened, strict=True))
        for slot, count in wanted.items():
            each = self._campaigns.get(new.get(slot) or self._state.campaign_of_slot(slot))
            if each is not None:
                more = structs.replace(each.counts, distinct_listeners=each.counts.distinct_listeners + count)
                self._campaigns.put(replace(each, counts=more))
                # Who listens is the song's audience, whoever was thought to be.
                self._campaigns.live.joined(each.match.song_id, heard.new_users[heard.new_songs == slot])

    def marks(self, outcomes: Outcomes | None) -> Marked | None:
        """Marks that the batch's listens, and outcomes, may set on pushes; None: none."""
        parts: list[Marked] = []
        if self._users.listens is not None:
            parts += self._marks_of_listens(self._users.listens)
        if outcomes and len(outcomes.user_ids):
            rows = self._state.users.find(outcomes.user_ids)
            known = np.flatnonzero(rows >= 0)
            songs = [outcomes.song_ids[at] for at in known.tolist()]
            parts.append(Marked(rows[known], hash64(map(self._recording, songs)), outcomes.marks[known]))
        if not parts:
            return None
        users = np.concatenate([part.users for part in parts])
        keep = ~np.isin(users, self._users.erased)
        return Marked(
            users[keep],
            np.concatenate([part.recordings for part in parts])[keep],
            np.concatenate([part.marks for part in parts])[keep],
        )

    def count_marks(self, entries: Entries | None) -> ThresholdChanges | None:
        """Counts the marks that were set, each for its campaign; what they change of users' score thresholds."""
        if entries is None or not len(entries.set_users):
            return None
        out = (entries.set_before & Mark.HELD_OUT) > 0
        for mark in _OF_PUSHED:
            has = (entries.set_marks & mark) > 0
            for held, names in ((False, _OF_PUSHED), (True, _OF_HELD_OUT)):
                which = has & (out == held)
                if mark in names and which.any():
                    recordings, counts = np.unique(entries.set_recordings[which], return_counts=True)
                    for recording, count in zip(recordings.tolist(), counts.tolist(), strict=True):
                        self._add(recording, names[mark], count)
        told = ~out
        times = np.full(int(told.sum()), self._now)
        return self._state.score_thresholds.plan(entries.set_users[told], entries.set_marks[told], times)

    def learned(self, known: Recalibration, entries: Entries | None) -> Recalibration | None:
        """What pushes, marks and erasures add to what is known of chances; None where the state knows it already."""
        state, erased = self._state, self._users.erased
        if state.config.answer_hours and (entries or len(erased)):
            none = np.zeros(0, np.uint32), np.zeros(0, np.uint16)
            pushed, told = none, (*none, none[1])
            if entries:
                pushed = entries.added[3], entries.added[4]
                told = entries.set_at, entries.set_before, entries.set_marks
            forgotten = state.push_log.pushes(erased) if len(erased) else none
            known = known.count(pushed, told, forgotten, state.basis)
        return None if known is state.recalibration else known

    def _marks_of_listens(self, listens: Listens) -> list[Marked]:
        slots = self._state.songs.slots(listens.song_ids)
        at = np.flatnonzero(np.isin(slots, self._campaign_slots()))
        if not len(at):
            return []
        ids = [listens.song_ids[each] for each in at.tolist()]
        marks = np.full(len(at), Mark.LISTENED, np.uint16)
        if listens.marks is not None:
            marks |= listens.marks[at]
        return [Marked(self._users.listen_rows[at], hash64(map(self._recording, ids)), marks)]

    def _opened(self) -> list[str]:
        """Songs with a campaign that this batch opened or changed."""
        return [song_id for song_id, each in self._campaigns.changed.items() if each is not None]

    def _campaign_slots(self) -> I64:
        """The song slots of all campaigns, those of this batch among them."""
        slots, opened = self._state.campaign_slots(), self._opened()
        return np.union1d(slots, self._state.songs.slots(opened)) if opened else slots

    def _recording(self, song_id: str) -> str:
        each = self._campaigns.get(song_id)
        return each.match.recording if each else song_id

    def _add(self, recording: int, name: str, count: int) -> None:
        """Adds to a count of the campaign that pushed a recording."""
        campaigns = (self._campaigns.get(song_id) for song_id in self._state.songs_of(recording))
        # Of several songs that are one recording, the one that asked last: the same one after a restart.
        by_request = {(each.match.requested_at, each.match.song_id): each for each in campaigns if each is not None}
        if by_request:
            each = by_request[max(by_request)]
            more = structs.replace(each.counts, **{name: getattr(each.counts, name) + count})
            self._campaigns.put(replace(each, counts=more))
