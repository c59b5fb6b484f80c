"""Which outcomes tell of pushes that were made, and follow from what is known of them; and why the others do not."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import numpy as np

from targeting.arrays.id_table import hash64
from targeting.partition.campaigns_in_batch import CampaignsInBatch
from targeting.partition.state import State
from targeting.partition.users_in_batch import UsersInBatch
from targeting.types import Mark, Outcomes, push_id

Checked = tuple[Outcomes, list[tuple[int, str]]]

CLOCKS_DIFFER_S: Final = 300.0
"""Seconds that an outcome may lie before what it answers."""

_SEEN: Final = Mark.OPENED | Mark.DISMISSED | Mark.EXPIRED
_UNSENT: Final = Mark.FAILED | Mark.EXPIRED
# What rules a mark out: of those that end a push the first one stands, and what was delivered did not fail.
_RULED_OUT_BY: Final = {
    Mark.DELIVERED: _UNSENT,
    Mark.FAILED: Mark.DELIVERED | _SEEN,
    Mark.OPENED: Mark.FAILED | Mark.DISMISSED | Mark.EXPIRED,
    Mark.DISMISSED: Mark.FAILED | Mark.OPENED | Mark.EXPIRED,
    Mark.EXPIRED: Mark.FAILED | Mark.OPENED | Mark.DISMISSED,
}
_TOLD: Final = (Mark.DELIVERED, Mark.FAILED, Mark.OPENED, Mark.DISMISSED, Mark.EXPIRED)


def checked(state: State, users: UsersInBatch, campaigns: CampaignsInBatch, outcomes: Outcomes) -> Checked:
    """The outcomes of a batch that count, and place and reason of each of the others, ascending.

    What is said again of a push is no contradiction, and neither is a delivery that is told after what came of it.
    """
    rows = state.users.find(outcomes.user_ids)
    matches = [each.match if (each := campaigns.get(song_id)) else None for song_id in outcomes.song_ids]
    recordings = [
        match.recording if match else song_id for match, song_id in zip(matches, outcomes.song_ids, strict=True)
    ]
    there, not_before, before = state.push_log.look(rows, hash64(recordings))
    there &= (before & Mark.HELD_OUT) == 0
    erased, since = set(users.erased.tolist()), users.since(outcomes.user_ids).tolist()
    seen: dict[tuple[int, str], int] = {}
    keep, refused = [], []
    for at, user in enumerate(outcomes.user_ids):
        row = int(rows[at])
        if row in erased:
            continue
        # Of who allows no profiling no push is remembered, and none would have an id.
        if not there[at] or (
            outcomes.push_ids is not None
            and outcomes.push_ids[at] != push_id(user, recordings[at], since[at] if since[at] > 0 else None)
        ):
            id = f"{outcomes.push_ids[at]!r} " if outcomes.push_ids is not None else ""
            refused.append((at, f"push_id: {id}is no push of song {outcomes.song_ids[at]!r} to user {user!r}"))
            continue
        mark, place = Mark(int(outcomes.marks[at])), (row, recordings[at])
        known = seen.get(place, int(before[at]))
        match = matches[at]
        earliest = float(not_before[at]) if mark not in _UNSENT else match.requested_at if match else 0.0
        if (
            other := next((each for each in _TOLD if known & _RULED_OUT_BY.get(mark, Mark(0)) & each), None)
        ) and not known & mark:
            refused.append((at, f"outcome: {_name(mark)} after {_name(other)}"))
        elif outcomes.times[at] < earliest - CLOCKS_DIFFER_S:
            what = "the push may be sent" if mark not in _UNSENT else "its song was uploaded"
            refused.append((at, f"at: {_time(outcomes.times[at])} is before {what}, {_time(earliest)}"))
        else:
            seen[place] = known | mark
            keep.append(at)
    if len(keep) == len(outcomes.user_ids):
        return outcomes, []
    return _chosen(outcomes, keep), refused


def _chosen(outcomes: Outcomes, keep: list[int]) -> Outcomes:
    return Outcomes(
        [outcomes.user_ids[at] for at in keep],
        [outcomes.song_ids[at] for at in keep],
        outcomes.marks[np.asarray(keep, np.int64)],
        outcomes.times[np.asarray(keep, np.int64)],
    )


def _name(mark: Mark) -> str:
    return (mark.name or "").lower()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat()
