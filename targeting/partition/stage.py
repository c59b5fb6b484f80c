"""What a batch does to a partition's state, computed without touching it.

The order: preferences and erasures; what expired; commands, in order, on the state before the batch's listens; listens
and outside vectors; users whose vectors changed, against the living campaigns; what is known of pushes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import msgspec
import numpy as np
from numpy.typing import NDArray

from targeting.arrays.id_table import I64, Slots, hash64
from targeting.campaigns import budget, campaign
from targeting.campaigns.campaign import CampaignRecord
from targeting.campaigns.spending import Plan, Spending
from targeting.live.live_campaigns import LiveDelta, UserHits
from targeting.live.live_campaigns import LiveStage as LivingStaging
from targeting.partition.state import (
    ACCOUNT,
    ANSWERS,
    ERASED,
    INTEREST,
    META,
    PUSHED,
    REQUEST,
    SHAPE,
    USER,
    Staged,
    State,
    due,
)
from targeting.ranking import scoring
from targeting.ranking.activity import factors
from targeting.ranking.recalibration import Examples, Recalibration
from targeting.ranking.scoring import Scored
from targeting.ranking.selection import Selection, SelectionContext, choose, song_and_artist
from targeting.rules.policy import without
from targeting.types import (
    F32,
    F64,
    Account,
    EndReason,
    Listens,
    Mark,
    Match,
    OutcomeCounts,
    OutsideVectors,
    PartitionInputs,
    PartitionOutputs,
    Preferences,
    Push,
    Reanchor,
    Takedown,
    Tier,
)
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.histories import HistoryChanges
from targeting.users.push_log import Added, Entries, Marked
from targeting.users.score_thresholds import ScoreThresholds, ThresholdChanges
from targeting.users.taste_vectors import OutsideChanges

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


# What is asked to be forgotten from before 1970 is asked from then on: a time of 0 says that nobody asked.
_EARLIEST = 1.0


class KnownUsers:
    """The users of a partition, those that become known by the batch among them."""

    def __init__(self, users: Slots, rows: I64, ids: Sequence[str]) -> None:
        self._users = users
        self._fresh = dict(zip(rows.tolist(), ids, strict=True))

    def id_of(self, row: int) -> str:
        return self._fresh.get(row) or self._users.id_of(row)

    def hashes(self, rows: I64) -> NDArray[np.uint64]:
        """As :meth:`targeting.arrays.id_table.Slots.hashes`."""
        if not self._fresh:
            return self._users.hashes(rows)
        found = np.zeros(len(rows), np.uint64)
        new = np.fromiter((row in self._fresh for row in rows.tolist()), np.bool_, len(rows))
        found[~new] = self._users.hashes(rows[~new])
        found[new] = hash64([self._fresh[row] for row in rows[new].tolist()])
        return found


@dataclass(slots=True)
class _Batch:
    """What the batch did so far, for what comes later in it."""

    campaigns: dict[str, CampaignRecord | None] = field(default_factory=dict)
    requests: set[str] = field(default_factory=set)
    added: Added = field(default_factory=Added)
    pushes: list[Push] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    accounts: list[Account] = field(default_factory=list)


class BatchStage:
    """One batch on its way. ``run`` once."""

    def __init__(self, state: State, inputs: PartitionInputs) -> None:
        self._state = state
        self._inputs = inputs
        self._now = inputs.now
        self._batch = _Batch()
        self._erasing = self._erasures(inputs.preferences)
        self._unmarked, self._markers = state.erasures.renewed(user for user, _ in inputs.preferences)
        self._markers |= {state.erasures.marker(user): time for user, time in self._erasing.items()}
        listens = inputs.listens
        self._listens = self._after_erasure(listens) if listens and len(listens.user_ids) else None
        self._vectors = self._taken(inputs.vectors) if inputs.vectors else None
        self._outside: OutsideChanges | None = None
        ids = list(self._listens.user_ids if self._listens else ())
        first_vector = len(ids)
        ids.extend(self._vectors.user_ids if self._vectors else ())
        rows, self._fresh = state.users.plan(ids)
        self._listen_rows, self._vector_rows = rows[:first_vector], rows[first_vector:]
        fresh_rows, _ = state.users.plan(self._fresh)
        self._known = KnownUsers(state.users, fresh_rows, self._fresh)
        self._preferences, self._waiting = self._wishes(fresh_rows)
        since = state.erasures.since(self._fresh)
        self._fresh_since = {
            row: self._erasing.get(user, time)
            for row, user, time in zip(fresh_rows.tolist(), self._fresh, since.tolist(), strict=True)
            if time > 0 or user in self._erasing
        }
        # Whoever is erased and is not even known has nothing to forget; the marker is set all the same.
        erased = state.users.find(list(self._erasing))
        self._erased = np.sort(erased[erased >= 0])
        self._recalibration = self._judged()
        self._deciding = SelectionContext(
            now=self._now,
            policy=state.config.policy,
            users=self._known,
            consent=state.consent,
            preferences=self._preferences,
            interest=state.interest,
            room=FrequencyCaps(
                state.config.policy, state.consent, state.ledger, self._preferences, self._batch.added, self._erased
            ),
            calibration=state.songs.calibration,
            least_chance=state.config.least_chance,
            examples=(
                self._recalibration.examples(self._now, state.basis) if state.config.answer_hours else Examples()
            ),
        )
        self._living = LivingStaging(state.living, self._now)

    def run(self) -> Staged:
        """What the batch does.

        Raises:
            ValueError: columns of different lengths.
        """
        state, batch = self._state, self._batch
        self._living.follow(state.basis, state.songs.dimension)
        self._end_what_is_due()
        for command in self._inputs.commands:
            if isinstance(command, Match):
                self._match(command)
            elif isinstance(command, Reanchor):
                self._reanchor(command)
            else:
                self._take_down(command)
        self._follow_space()
        heard = self._listen()
        self._count_listeners(heard)
        if self._vectors:
            self._outside = state.audience.plan_outside(self._vector_rows, self._vectors.vectors)
        withdrawn = self._withdrawn()
        self._meet(self._changed(heard, withdrawn), heard)
        entries = state.ledger.plan(batch.added, self._marked(), self._now)
        moved = self._count(entries)
        learned = self._learned(entries)
        batch.accounts.extend(
            each.account(self._living.prototypes(song_id))
            for song_id in batch.answers
            if (each := self._campaign(song_id)) is not None
        )
        shift = self._living.shift()
        return Staged(
            PartitionOutputs(self._records(heard, entries, moved, shift, learned), batch.pushes, batch.accounts),
            state.step,
            state.songs.sweeps,
            self._fresh,
            self._fresh_since,
            self._preferences,
            self._waiting,
            self._erased,
            self._markers,
            self._unmarked,
            batch.campaigns,
            heard,
            self._outside,
            withdrawn,
            entries,
            moved,
            shift,
            learned,
        )

    # -- users -------------------------------------------------------------------------------------------

    def _wishes(self, fresh_rows: I64) -> tuple[dict[int, Preferences | None], dict[bytes, Preferences | None]]:
        """What is said in this batch: by row of those who have one, or get one by it; of the others by their key."""
        consent, said = self._state.consent, dict(self._inputs.preferences)
        found = self._state.users.find(list(said)).tolist()
        by_row = {row: wish for row, wish in zip(found, said.values(), strict=True) if row >= 0}
        by_key = {user: wish for row, (user, wish) in zip(found, said.items(), strict=True) if row < 0}
        waiting: dict[bytes, Preferences | None] = {}
        if consent.waiting or by_key:
            columns = zip(fresh_rows.tolist(), self._fresh, consent.waited(self._fresh), strict=True)
            for row, user, before in columns:
                wish = by_key.pop(user, before)
                if before is not None:
                    waiting[consent.key(user)] = None
                if wish is not None:
                    by_row[row] = wish
        return by_row, waiting | {consent.key(user): wish for user, wish in by_key.items()}

    def _erasures(self, preferences: Sequence[tuple[str, Preferences | None]]) -> dict[str, float]:
        """Who asks to be forgotten, and has not been for this request already: preferences are read at every start."""
        asked: dict[str, float] = {}
        for user, wish in preferences:
            if wish and wish.erase_requested_at is not None:
                asked[user] = max(asked.get(user, _EARLIEST), wish.erase_requested_at)
        done = self._state.erasures.since(list(asked))
        return {user: time for (user, time), before in zip(asked.items(), done.tolist(), strict=True) if time > before}

    def _since(self, user_ids: Sequence[str]) -> F64:
        """When each user was last erased, this batch included, float64 (n,); 0 or less: never."""
        state = self._state
        rows = state.users.find(user_ids)
        since = state.since(rows)
        unknown = np.flatnonzero(rows < 0)
        if len(unknown) and len(state.erasures):
            since[unknown] = state.erasures.since([user_ids[at] for at in unknown.tolist()])
        if self._erasing:
            for at, user in enumerate(user_ids):
                if user in self._erasing:
                    since[at] = self._erasing[user]
        return since

    def _after_erasure(self, listens: Listens) -> Listens | None:
        """The listens that may still count: those from before a user's erasure do not."""
        n = len(listens.user_ids)
        marks = n if listens.marks is None else len(listens.marks)
        if not len(listens.song_ids) == len(listens.weights) == len(listens.times) == marks == n:
            raise ValueError("the columns of a batch of listens have different lengths")
        if not len(self._state.erasures) and not self._erasing:
            return listens
        keep = np.flatnonzero(listens.times > self._since(listens.user_ids))
        if len(keep) == n:
            return listens
        if not len(keep):
            return None
        return Listens(
            [listens.user_ids[at] for at in keep.tolist()],
            [listens.song_ids[at] for at in keep.tolist()],
            listens.weights[keep],
            listens.times[keep],
            None if listens.marks is None else listens.marks[keep],
        )

    def _taken(self, vectors: OutsideVectors) -> OutsideVectors | None:
        """The outside vectors that count: of the space in use, and not from before a user's erasure."""
        state = self._state
        if vectors.space != state.songs.space or not len(vectors.user_ids):
            return None
        if not len(state.erasures) and not self._erasing:
            return vectors
        keep = np.flatnonzero(vectors.times > self._since(vectors.user_ids))
        if not len(keep):
            return None
        ids = [vectors.user_ids[at] for at in keep.tolist()]
        return OutsideVectors(vectors.space, ids, vectors.vectors[keep], vectors.times[keep])

    def _withdrawn(self) -> I64:
        """The rows whose vector is their history's again."""
        vectors = self._inputs.vectors
        if vectors is None:
            return np.zeros(0, np.int64)
        gone = list(vectors.withdrawn)
        if vectors.space != self._state.songs.space:
            # What is of another space than the one in use is no vector here.
            gone += vectors.user_ids
        rows = self._state.users.find(gone)
        return np.unique(rows[rows >= 0])

    # -- campaigns ---------------------------------------------------------------------------------------

    def _campaign(self, song_id: str) -> CampaignRecord | None:
        if song_id in self._batch.campaigns:
            return self._batch.campaigns[song_id]
        return self._state.campaigns.get(song_id)

    def _put(self, each: CampaignRecord) -> None:
        self._batch.campaigns[each.match.song_id] = each

    def _answer(self, song_id: str) -> None:
        if song_id not in self._batch.answers:
            self._batch.answers.append(song_id)

    def _end(self, each: CampaignRecord, reason: EndReason) -> None:
        self._put(replace(each, ended=reason, ended_at=self._now))
        self._living.close(each.match.song_id)
        self._answer(each.match.song_id)

    def _end_what_is_due(self) -> None:
        state = self._state
        if self._now < state.next_due:
            return
        for song_id, each in sorted(state.campaigns.items()):
            if due(each, state.config) > self._now:
                continue
            if each.ended is None:
                self._end(each, EndReason.EXPIRED)
            else:
                self._batch.campaigns[song_id] = None

    def _take_down(self, command: Takedown) -> None:
        each = self._campaign(command.song_id)
        if each is None or command.revision < each.match.revision:
            return
        # A song whose budget is spent is still on its way: its listens count, and may promote it.
        if each.ended is None or (each.ended is EndReason.BUDGET and command.reason is not EndReason.BUDGET):
            self._end(each, command.reason)

    def _match(self, match: Match) -> None:
        before = self._campaign(match.song_id)
        if before and match.revision <= before.match.revision:
            if match.revision < before.match.revision:
                account = before.account()
                outdated = replace(account, revision=match.revision, ended=EndReason.SUPERSEDED, ended_at=self._now)
                self._batch.accounts.append(outdated)
            else:
                self._answer(match.song_id)
            return
        if before and before.ended is None:
            # Its last account, before the next revision's takes its place.
            self._batch.accounts.append(replace(before, ended=EndReason.SUPERSEDED, ended_at=self._now).account())
            self._living.close(match.song_id)
        elif before and match.song_id in self._batch.answers:
            self._batch.accounts.append(before.account())
        counts = replace(before.counts, candidates=0) if before else OutcomeCounts()
        self._batch.requests.add(match.song_id)
        if match.expires_at <= self._now:
            self._put(CampaignRecord(match, counts, EndReason.EXPIRED, self._now))
            self._answer(match.song_id)
            return
        self._serve(match, counts)

    def _serve(self, match: Match, counts: OutcomeCounts) -> None:
        state = self._state
        match = self._in_space(match)
        song_hash, _ = song_and_artist(match)
        scored = scoring.score(state.audience, state.songs, match, state.config.relevance, state.power)
        at_once = budget.at_once(match.budget, state.config.at_once)
        most = budget.share(at_once, state.number, state.partitions, song_hash) - counts.pushed
        chosen = choose(match, scored, self._allowed(match, scored.users), most, self._deciding)
        counts = replace(counts, candidates=len(scored.users))
        self._take(CampaignRecord(match, counts), chosen)
        self._open(match, scored)

    def _in_space(self, match: Match) -> Match:
        """The request with the song's vector in the space in use, if it brings one."""
        for space, vector in match.others:
            if space == self._state.songs.space and match.space != space:
                others = ((match.space, match.vector), *(each for each in match.others if each[0] != space))
                return replace(match, space=space, vector=vector, others=others)
        return match

    def _reanchor(self, command: Reanchor) -> None:
        each = self._campaign(command.song_id)
        if each is None or command.revision != each.match.revision or each.match.space == command.space:
            return
        before = each.match
        match = replace(
            before,
            space=command.space,
            vector=command.vector,
            neighbours=command.neighbours,
            similarities=command.similarities,
            others=((before.space, before.vector),),
        )
        self._put(replace(each, match=self._in_space(match)))
        self._batch.requests.add(command.song_id)
        self._living.close(command.song_id)

    def _follow_space(self) -> None:
        """Campaigns that are alive and not scored in the space in use are opened in it, a few in each batch."""
        state, songs = self._state, self._state.songs
        if songs.space is None:
            return
        alive = (song_id for song_id in sorted(state.live) if self._fits(song_id))
        for song_id in self._living.to_open(alive):
            each = self._campaign(song_id)
            if each is not None:
                match = self._in_space(each.match)
                if match is not each.match:
                    self._put(replace(each, match=match))
                    self._batch.requests.add(song_id)
                self._open(match, scoring.score(state.audience, songs, match, state.config.relevance, state.power))

    def _fits(self, song_id: str) -> bool:
        each = self._campaign(song_id)
        fits = each is not None and each.ended is None and self._state.songs.comparable(self._in_space(each.match))
        return fits and self._later

    @property
    def _later(self) -> bool:
        """Whether anything is kept for who comes near a song later."""
        return self._state.config.at_once < 1

    def _open(self, match: Match, scored: Scored) -> None:
        """From now on, users who come near the song are met with it."""
        each = self._campaign(match.song_id)
        if each is not None and each.ended is None and self._state.songs.comparable(match) and self._later:
            own = self._state.songs.along_axes(match.vector)
            left, users = self._state.left(each), self._state.users.used
            self._living.open(match, own, left, users, scored.listening(), self._state.power)

    def _allowed(self, match: Match, users: I64, more: Sequence[I64] = ()) -> NDArray[np.bool_]:
        """Which users (rows, ascending) may be pushed the song at all."""
        state = self._state
        recording = int(hash64([match.recording])[0])
        allowed = state.consent.allowed(match, users, self._preferences)
        return allowed & without(
            users,
            [
                state.audience.listeners_of(int(state.songs.find([match.song_id])[0])),
                state.ledger.users(recording),
                self._batch.added.of_recording(recording),
                self._erased,
                *more,
            ],
        )

    def _take(self, each: CampaignRecord, chosen: Selection) -> None:
        """A decision becomes part of the batch, and ends the campaign if it spent the last of the budget."""
        song_id = each.match.song_id
        if len(chosen.users):
            recording = int(hash64([each.match.recording])[0])
            _, artist = song_and_artist(each.match)
            self._batch.added.add(chosen.users, recording, artist, chosen.at, chosen.marks)
            self._batch.pushes.extend(self._of_generation(chosen.pushes))
        out = int(np.count_nonzero(chosen.marks & Mark.HELD_OUT))
        counts = replace(
            each.counts,
            pushed=each.counts.pushed + len(chosen.pushes),
            held_out=each.counts.held_out + out,
            explored=each.counts.explored + int(np.count_nonzero(chosen.marks & Mark.EXPLORED)),
        )
        each = replace(each, counts=counts)
        self._put(each)
        if self._state.left(each) == 0:
            self._end(each, EndReason.BUDGET)
        else:
            self._answer(song_id)

    def _of_generation(self, pushes: list[Push]) -> list[Push]:
        """The pushes, those to users who were erased before with the time of it: what was pushed then is forgotten."""
        if not len(self._state.erasures) and not self._erasing:
            return pushes
        since = self._since([push.user_id for push in pushes]).tolist()
        return [
            msgspec.structs.replace(push, erased_at=time) if time > 0 else push
            for push, time in zip(pushes, since, strict=True)
        ]

    # -- listens and vectors -----------------------------------------------------------------------------

    def _listen(self) -> HistoryChanges | None:
        listens, state = self._listens, self._state
        if listens is None:
            return None
        songs = state.songs.slots(listens.song_ids)
        return state.audience.plan(self._listen_rows, songs, listens.weights, listens.times, self._erased.tolist())

    def _changed(self, heard: HistoryChanges | None, withdrawn: I64) -> tuple[I64, F32, F32] | None:
        """Users whose vector changes, their old vectors and their new ones; None where nobody would look."""
        audience, parts = self._state.audience, []
        if not len(self._living):
            return None
        if heard:
            parts.append(audience.preview(heard))
        if self._outside:
            parts.append(audience.preview(self._outside))
        if not parts:
            return None
        gone = np.concatenate([self._erased, withdrawn])
        if len(parts) == 1 and not len(gone):
            return parts[0]
        users, old, new = (np.concatenate(columns) for columns in zip(*parts, strict=True))
        # A vector from outside stands over what listens say of the user.
        _, last = np.unique(users[::-1], return_index=True)
        keep = len(users) - 1 - last
        keep = keep[~np.isin(users[keep], gone)]
        return users[keep], old[keep], new[keep]

    def _meet(self, changed: tuple[I64, F32, F32] | None, heard: HistoryChanges | None) -> None:
        """Users who changed, against the campaigns that are alive."""
        if changed is None or not len(changed[0]):
            return
        users, policy = changed[0], self._state.config.policy
        boundaries = self._state.interest.boundaries(users, self._now)
        if not policy.enabled:
            boundaries[:] = 1
        # Whoever has no room is not even scored: with caps full, every campaign would look at the same users.
        used, pushes = self._deciding.room.used(users, np.full(len(users), self._now))
        activity, plan = self._activity(users, heard), self._plan()
        for arrivals in self._living.meet(*changed, activity, boundaries, used < pushes, plan):
            each = self._campaign(arrivals.song_id)
            if each is not None and each.ended is None:
                self._arrive(each, arrivals)

    def _plan(self) -> Plan | None:
        """How campaigns spend; None: as the time has it. By the answers of earlier batches, as a request is decided."""
        state = self._state
        if state.config.spending is Spending.PACE:
            return None
        return state.bandit.plan(state.living.places, state.campaigns.get, self._now)

    def _activity(self, users: I64, heard: HistoryChanges | None) -> F32:
        """What the scores of changed users are multiplied with, the batch's listens included, float32 (n,)."""
        power = self._state.power
        if not power:
            return np.ones(len(users), np.float32)
        counts = self._state.audience.heard(users)
        if heard and len(heard.users):
            at = np.minimum(np.searchsorted(heard.users, users), len(heard.users) - 1)
            counts = np.where(heard.users[at] == users, heard.lengths[at], counts)
        return factors(counts, power)

    def _arrive(self, each: CampaignRecord, arrivals: UserHits) -> None:
        match, state = each.match, self._state
        none = np.zeros(len(arrivals.users), np.float32)
        scored = Scored(
            arrivals.users, arrivals.fits * arrivals.activity, none, arrivals.fits, np.zeros(0, np.int32),
            np.zeros(0, np.int32), np.zeros(0, np.float32), activity=arrivals.activity,
        )  # fmt: skip
        now_heard = []
        if self._listens:
            here = state.songs.slots(self._listens.song_ids) == state.songs.slots([match.song_id])
            now_heard.append(np.unique(self._listen_rows[here]))
        allowed = self._allowed(match, arrivals.users, now_heard)
        most = state.left(each)
        if state.config.spending is Spending.BANDIT and (owed := state.bandit.owed(each)):
            # No more than these: their door is open to users who are less near than the others of the budget must be.
            most = min(most, owed)
        chosen = choose(match, scored, allowed, most, self._deciding, Tier.LIVE, arrivals.prototypes)
        if len(chosen.users):
            self._take(each, chosen)
            after = self._campaign(match.song_id)
            if after is not None:
                self._living.left(match.song_id, self._state.left(after))

    # -- what is known of pushes -------------------------------------------------------------------------

    def _marked(self) -> Marked | None:
        """Marks that listens and outcomes may set on pushes; also counts the songs' listeners."""
        parts: list[Marked] = []
        if self._listens is not None:
            parts += self._of_listens(self._listens)
        outcomes = self._inputs.outcomes
        if outcomes and len(outcomes.user_ids):
            rows = self._state.users.find(outcomes.user_ids)
            known = np.flatnonzero(rows >= 0)
            songs = [outcomes.song_ids[at] for at in known.tolist()]
            parts.append(Marked(rows[known], hash64(map(self._recording, songs)), outcomes.marks[known]))
        if not parts:
            return None
        users = np.concatenate([part.users for part in parts])
        keep = ~np.isin(users, self._erased)
        return Marked(
            users[keep],
            np.concatenate([part.recordings for part in parts])[keep],
            np.concatenate([part.marks for part in parts])[keep],
        )

    def _of_listens(self, listens: Listens) -> list[Marked]:
        slots = self._state.songs.slots(listens.song_ids)
        at = np.flatnonzero(np.isin(slots, self._campaign_slots()))
        if not len(at):
            return []
        ids = [listens.song_ids[each] for each in at.tolist()]
        marks = np.full(len(at), Mark.LISTENED, np.uint16)
        if listens.marks is not None:
            marks |= listens.marks[at]
        return [Marked(self._listen_rows[at], hash64(map(self._recording, ids)), marks)]

    def _count_listeners(self, heard: HistoryChanges | None) -> None:
        """Who heard a campaign's song for the first time."""
        if heard is None:
            return
        slots, counts = np.unique(heard.new_songs, return_counts=True)
        at = np.flatnonzero(np.isin(slots, self._campaign_slots()))
        if not len(at):
            return
        wanted = dict(zip(slots[at].tolist(), counts[at].tolist(), strict=True))
        opened = [song_id for song_id, each in self._batch.campaigns.items() if each is not None]
        new = dict(zip(self._state.songs.slots(opened).tolist(), opened, strict=True))
        for slot, count in wanted.items():
            each = self._campaign(new.get(slot) or self._state.campaign_of_slot(slot))
            if each is not None:
                more = replace(each.counts, distinct_listeners=each.counts.distinct_listeners + count)
                self._put(replace(each, counts=more))
                # Who listens is the song's audience, whoever was thought to be.
                self._living.joined(each.match.song_id, heard.new_users[heard.new_songs == slot])

    def _campaign_slots(self) -> I64:
        """The song slots of all campaigns, those of this batch among them."""
        opened = [song_id for song_id, each in self._batch.campaigns.items() if each is not None]
        slots = self._state.campaign_slots()
        return np.union1d(slots, self._state.songs.slots(opened)) if opened else slots

    def _recording(self, song_id: str) -> str:
        each = self._campaign(song_id)
        return each.match.recording if each else song_id

    def _count(self, entries: Entries | None) -> ThresholdChanges | None:
        """Counts of campaigns follow marks that were set; so do boundaries."""
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
        return self._state.interest.plan(entries.set_users[told], entries.set_marks[told], times)

    def _judged(self) -> Recalibration:
        """With requests, pushes are judged whose wait is over: requests are read when what came before them is."""
        known, hours = self._state.recalibration, self._state.config.answer_hours
        return known.judge(self._now, hours * 3600) if hours and self._inputs.commands else known

    def _learned(self, entries: Entries | None) -> Recalibration | None:
        """What pushes, marks and erasures teach; None where they teach nothing new."""
        learned, state = self._recalibration, self._state
        if state.config.answer_hours and (entries or len(self._erased)):
            none = np.zeros(0, np.uint32), np.zeros(0, np.uint16)
            pushed, told = none, (*none, none[1])
            if entries:
                pushed = entries.added[3], entries.added[4]
                told = entries.set_at, entries.set_before, entries.set_marks
            learned = learned.count(pushed, told, state.ledger.pushes(self._erased), state.basis)
        return None if learned is state.recalibration else learned

    def _add(self, recording: int, name: str, count: int) -> None:
        campaigns = (self._campaign(song_id) for song_id in self._state.songs_of(recording))
        # Of several songs that are one recording, the one that asked last: the same one after a restart.
        by_request = {(each.match.requested_at, each.match.song_id): each for each in campaigns if each is not None}
        if by_request:
            each = by_request[max(by_request)]
            more = replace(each.counts, **{name: getattr(each.counts, name) + count})
            self._put(replace(each, counts=more))

    # -- the changelog -----------------------------------------------------------------------------------

    def _records(
        self,
        heard: HistoryChanges | None,
        entries: Entries | None,
        moved: ThresholdChanges | None,
        shift: LiveDelta,
        learned: Recalibration | None,
    ) -> list[tuple[bytes, bytes | None]]:
        state, batch = self._state, self._batch
        changelog: dict[bytes, bytes | None] = {} if state.meta_written else {META: state.meta}
        changelog |= dict.fromkeys((ERASED + marker for marker in self._unmarked), None)
        for marker, time in self._markers.items():
            changelog[ERASED + marker] = state.erasures.encode(time)
        for row in self._erased.tolist():
            gone = self._known.id_of(row).encode()
            changelog |= {USER + gone: None, PUSHED + gone: None, INTEREST + gone: None}
        id_of = self._known.id_of
        if heard:
            ids = [id_of(row).encode() for row in heard.users.tolist()]
            changelog |= zip([USER + each for each in ids], state.audience.encode(heard), strict=True)
        if entries:
            ids = [id_of(row).encode() for row in entries.users.tolist()]
            changelog |= zip([PUSHED + each for each in ids], state.ledger.encode(entries), strict=True)
        if moved:
            ids = [id_of(row).encode() for row in moved.users.tolist()]
            changelog |= zip([INTEREST + each for each in ids], ScoreThresholds.encode(moved), strict=True)
        if learned:
            changelog[ANSWERS] = learned.encode()
        for song_id, told in batch.campaigns.items():
            key = song_id.encode()
            if told is None:
                changelog |= {REQUEST + key: None, ACCOUNT + key: None}
                continue
            if song_id in batch.requests:
                changelog[REQUEST + key] = campaign.encode_request(told.match)
            changelog[ACCOUNT + key] = campaign.encode_account(told)
        for song_id, record in shift.records.items():
            changelog[SHAPE + song_id.encode()] = record
        return list(changelog.items())
