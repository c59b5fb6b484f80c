"""The order of a batch: what it does to a partition's state, computed without touching it.

Preferences and erasures; campaigns whose time is over; commands, in order, on the state before the batch's listens;
listens and vectors from outside; users whose vectors changed, against the live campaigns; what is known of pushes.
"""

from __future__ import annotations

from targeting.partition import changelog
from targeting.partition.campaign_commands import CampaignCommands
from targeting.partition.campaigns_in_batch import CampaignsInBatch
from targeting.partition.feedback import Feedback, judged
from targeting.partition.live_pushes import LivePushes
from targeting.partition.state import Staged, State, StateChanges
from targeting.partition.users_in_batch import UsersInBatch
from targeting.types import PartitionInputs, PartitionOutputs


def stage(state: State, inputs: PartitionInputs) -> Staged:
    """What a batch does.

    Raises:
        ValueError: columns of different lengths.
    """
    now = inputs.now
    users = UsersInBatch(state, inputs)
    known = judged(state, now, bool(inputs.commands))
    campaigns = CampaignsInBatch(state, users, known, now)
    campaigns.live.follow(state.basis, state.songs.dimension)

    commands = CampaignCommands(state, campaigns, now)
    commands.end_due()
    commands.obey(inputs.commands)
    commands.follow_space()

    feedback = Feedback(state, users, campaigns, now)
    heard = outside = None
    if users.listens:
        songs = state.songs.slots(users.listens.song_ids)
        weights, times = users.listens.weights, users.listens.times
        heard = state.histories.plan(users.listen_rows, songs, weights, times, users.erased.tolist())
        feedback.count_listeners(heard)
    if users.vectors:
        outside = state.histories.plan_outside(users.vector_rows, users.vectors.vectors)
    withdrawn = users.withdrawn()
    if heard or outside:
        LivePushes(state, users, campaigns, now, heard, outside, withdrawn).push()

    entries = state.push_log.plan(campaigns.added, feedback.marks(inputs.outcomes), now)
    thresholds = feedback.count_marks(entries)
    learned = feedback.learned(known, entries)
    accounts = campaigns.all_accounts()
    changes = StateChanges(
        fresh=users.fresh,
        fresh_since=users.fresh_since,
        preferences=users.preferences,
        waiting=users.waiting,
        erased=users.erased,
        markers=users.markers,
        unmarked=users.unmarked,
        campaigns=campaigns.changed,
        requests=campaigns.requests,
        heard=heard,
        outside=outside,
        withdrawn=withdrawn,
        pushes=entries,
        score_thresholds=thresholds,
        live=campaigns.live.delta(),
        recalibration=learned,
    )
    records = changelog.records_of(state, changes, users.known.id_of)
    outputs = PartitionOutputs(records, campaigns.pushes, accounts)
    return Staged(outputs, state.step, state.songs.sweeps, changes)
