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


def checked(state: State, users: UsersInBatch, campaigns: CampaignsInBatch, told: Outcomes) -> Checked:
    """The outcomes of a batch that count, and place and reason of each of the others, ascending.

    What is said again of a push is no contradiction, and neither is a delivery that is told after what came of it.
    """
    rows = state.users.find(told.user_ids)
    matches = [each.match if (each := campaigns.get(song_id)) else None for song_id in told.song_ids]
    recordings = [match.recording if match else song_id for match, song_id in zip(matches, told.song_ids, strict=True)]
    there, not_before, before = state.push_log.look(rows, hash64(recordings))
    there &= (before & Mark.HELD_OUT) == 0
    erased, since = set(users.erased.tolist()), users.since(told.user_ids).tolist()
    seen: dict[tuple[int, str], int] = {}
    keep, refused = [], []
    for at, user in enumerate(told.user_ids):
        row = int(rows[at])
        if row in erased:
            continue
        # Of who allows no profiling no push is remembered, and none would have an id.
        if not there[at] or (
            told.push_ids is not None
            and told.push_ids[at] != push_id(user, recordings[at], since[at] if since[at] > 0 else None)
        ):
            id = f"{told.push_ids[at]!r} " if told.push_ids is not None else ""
            refused.append((at, f"push_id: {id}is no push of song {told.song_ids[at]!r} to user {user!r}"))
            continue
        mark, place = Mark(int(told.marks[at])), (row, recordings[at])
        known = seen.get(place, int(before[at]))
        match = matches[at]
        earliest = float(not_before[at]) if mark not in _UNSENT else match.requested_at if match else 0.0
        if (
            other := next((each for each in _TOLD if known & _RULED_OUT_BY.get(mark, Mark(0)) & each), None)
        ) and not known & mark:
            refused.append((at, f"outcome: {_name(mark)} after {_name(other)}"))
        elif told.times[at] < earliest - CLOCKS_DIFFER_S:
            what = "the push may be sent" if mark not in _UNSENT else "its song was uploaded"
            refused.append((at, f"at: {_time(told.times[at])} is before {what}, {_time(earliest)}"))
        else:
            seen[place] = known | mark
            keep.append(at)
    if len(keep) == len(told.user_ids):
        return told, []
    return _chosen(told, keep), refused


def _chosen(told: Outcomes, keep: list[int]) -> Outcomes:
    return Outcomes(
        [told.user_ids[at] for at in keep],
        [told.song_ids[at] for at in keep],
        told.marks[np.asarray(keep, np.int64)],
        told.times[np.asarray(keep, np.int64)],
    )


def _name(mark: Mark) -> str:
    return (mark.name or "").lower()


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(float(seconds), UTC).isoformat()
