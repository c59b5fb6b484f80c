"""Checks that what was to be forgotten is gone from the state.

The changelog's keys are as documented in ``targeting/partition/state_keys.py``: ``u`` history, ``p`` pushes and ``i``
score threshold, each followed by the user's id; ``e`` followed by 16 bytes of BLAKE2b of the id, keyed, marks a user
who was erased or allows no profiling.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b

from streams.testbed.chaos.evidence import Evidence
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.push_check import Wishes
from streams.testbed.chaos.rules import Rules

_OF_A_USER = {b"u": "a history", b"p": "pushes", b"i": "a score threshold"}


def judge(evidence: Evidence, rules: Rules) -> Iterator[Judged]:
    """Of everybody who asked to be forgotten: the marker is there, of those who did not come back nothing else is, and
    those who did are known again.

    A history counts in whole seconds, and a listen may be read before the erasure that it follows. So of who came back
    within the erasure's own second, and not later, both are right: to be known and not to be.

    Of everybody who allows no profiling: the marker is there, and nothing else is. Of who allowed it again, a listen
    must be later than that to bring them back, and appended so much later that it cannot have been read before the
    objection, which forgets what has any time.

    To be asked when every preference was consumed.
    """
    back: defaultdict[str, float] = defaultdict(float)
    wishes = Wishes(evidence.preferences)
    for said in evidence.listens:
        words = wishes.words((said.partition, said.key))
        if not words or said.appended > words[-1].appended + rules.latest_s:
            back[said.key] = max(back[said.key], said.time)
    for partition, user in wishes.objectors():
        held = [what for kind, what in _OF_A_USER.items() if _has(evidence, partition, kind + user.encode())]
        held += [] if _marked(evidence, rules, partition, user) else ["no marker of it"]
        still = f"{user} allows no profiling: the state of partition {partition} has {', '.join(held)}"
        yield "profiled-state", still if held else None
    for (partition, user), asked in wishes.erased().items():
        unmarked = f"{user} asked to be forgotten: partition {partition} has no marker of it"
        yield "erased-marker", None if _marked(evidence, rules, partition, user) else unmarked
        words = wishes.words((partition, user))
        # While there is no profiling nobody comes back, and afterwards not by what was heard before.
        since = max([asked, *(word.at for word in words)])
        if words and (words[-1].objects or back[user] <= since):
            continue
        if back[user] > since:
            known = _has(evidence, partition, b"u" + user.encode())
            lost = f"{user} listened after the erasure: the state of partition {partition} has no history"
            if int(back[user]) > since:
                yield "returned", None if known else lost
            continue
        for kind, what in _OF_A_USER.items():
            still = f"{user} asked to be forgotten and did not come back: the state still has {what}"
            yield "erased-state", still if _has(evidence, partition, kind + user.encode()) else None


def _has(evidence: Evidence, partition: int, key: bytes) -> bool:
    return evidence.state.get((partition, key)) is not None


def _marked(evidence: Evidence, rules: Rules, partition: int, user: str) -> bool:
    hashes = (blake2b(user.encode(), digest_size=16, key=key).digest() for key in rules.erasure_keys)
    return any(_has(evidence, partition, b"e" + each) for each in hashes)
