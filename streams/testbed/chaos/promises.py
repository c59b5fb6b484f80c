"""Every promise that is judged, by a short name that each violation begins with."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

PROMISES: Final = {
    # What came in.
    "stopped": "no role exits by itself, except while the broker or the disk that it needs is broken",
    "unburied": "a record that cannot be decoded has a dead letter",
    "refused-unburied": "a record that the contract refuses has a dead letter",
    "good-buried": "a record that the contract allows has none",
    "dead-letter-twice": "a bad record has one dead letter; an upload, served at least once, may have more",
    "dead-letter-wrong": "a dead letter names a record that is there, and holds its bytes, or their size and SHA-256",
    # Uploads and campaigns.
    "unanswered": "every accepted upload is answered by every partition",
    "never-uploaded": "a song never uploaded, or in an aborted transaction, is requested, shown and pushed nowhere",
    "old-revision": "no older revision is pushed after a newer one, or has the campaign in the end",
    "budget": "no song is pushed more often than its budget",
    "budget-at-once": "the request itself spends no more than its share of the budget",
    "taken-down": "a song that was taken down ends so, and is not warm",
    "goes-on": "a campaign that was ended by command has ended in every partition",
    "revived": "a campaign that ended does not come back",
    "push-after-end": "nothing is pushed once the campaign ended in the partition",
    "promoted-early": "no song is promoted before enough users listened",
    "promoted-cold": "a promoted song is among the warm songs",
    "unpromoted": "a song with enough listeners is promoted",
    "spaces": "a vector is of a published space, and stands with vectors of that space alone",
    # Reports.
    "unreported": "a partition that pushes a song reports on it",
    "count-pushes": "a partition's newest report counts the pushes that stand",
    "count-listeners": "reports count the users who listened",
    "count-deliveries": "reports count the pushes that were delivered",
    # Users.
    "opted-out": "no user is pushed who had opted out by the preferences that the push says it obeyed",
    "opt-out-late": "by the broker's clock, an opt-out, erasure or objection stops pushes within the README's bounds",
    "preferences-back": "preferences that were obeyed once are obeyed from then on",
    "muted": "no song by an artist whom the user muted is pushed",
    "explicit": "nothing explicit is pushed to a user who does not allow it",
    "territory": "no song is pushed outside its territories",
    "cap": "no span of the cap's length holds more pushes than the cap",
    "artist-cap": "no span of the artist cap's length holds more pushes of one artist",
    "quiet-hours": "no push is due in its user's quiet hours",
    "too-early": "no push is due before its decision or its song's release",
    "expired": "no push is due once its song expired",
    "push-twice": "a push_id occurs once",
    "recording-twice": "a recording is pushed to a user once between two erasures, and under another push_id after one",
    "reason": "a push names only songs that its user heard",
    "push-deleted": "a push is never deleted",
    "held-out": "no user is pushed a song for which they are held out",
    "experiment": "a push names its experiment exactly where users are held out",
    "holdout-empty": "some users are held out",
    # Erasure.
    "erased-pushed": "nothing from before an erasure leads to a push after it",
    "erased-marker": "an erasure leaves its marker",
    "erased-state": "the state holds nothing of an erased user who did not come back",
    "erased-written": "nothing about an erased user who did not come back is written again",
    "profiled": "no user is pushed who allowed no profiling by the preferences that the push says it obeyed",
    "profiled-state": "the state holds nothing of a user who allows no profiling, and nothing about them is written",
    "returned": "a user who listens after an erasure has a history again",
    # State.
    "state": "changelog, disk and each worker agree on the state",
}
"""Name -> what is promised."""

Judged = tuple[str, str | None]
"""Where a promise could have been broken: its name, and how it was; None: it was kept."""


def broken(promise: str, what: str) -> str:
    """A violation: the promise's name, then what was found.

    Raises:
        ValueError: there is no such promise.
    """
    if promise not in PROMISES:
        raise ValueError(f"{promise!r} is no promise")
    return f"{promise}: {what}"


def violations(judged: Iterable[Judged]) -> list[str]:
    """Those that were broken, in words."""
    return [broken(promise, what) for promise, what in judged if what is not None]


def name_of(violation: str) -> str:
    """The promise that a violation breaks."""
    return violation.partition(": ")[0]
