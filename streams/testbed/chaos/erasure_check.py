"""Checks that what was to be forgotten is gone from the state.

The changelog's keys are as documented in ``targeting/partition/changelog.py``: ``u`` history, ``p`` pushes and ``i``
boundary, each followed by the user's id; ``e`` followed by 16 bytes of BLAKE2b of the id, keyed, marks an erased user.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from hashlib import blake2b

from streams.testbed.chaos.evidence import Evidence
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.push_check import Wishes
from streams.testbed.chaos.rules import Rules

_OF_A_USER = {b"u": "a history", b"p": "pushes", b"i": "a boundary"}


def judge(evidence: Evidence, rules: Rules) -> Iterator[Judged]:
    """Of everybody who asked to be forgotten: the marker is there, of those who did not come back nothing else is, and
    those who did are known again.

    A history counts in whole seconds, and a listen may be read before the erasure that it follows. So of who came back
    within the erasure's own second, and not later, both are right: to be known and not to be.

    To be asked when every preference was consumed.
    """
    back: defaultdict[str, float] = defaultdict(float)
    for said in evidence.listens:
        back[said.key] = max(back[said.key], said.time)
    for (partition, user), asked in Wishes(evidence.preferences).erased().items():
        markers = [b"e" + blake2b(user.encode(), digest_size=16, key=key).digest() for key in rules.erasure_keys]
        marked = any(evidence.state.get((partition, marker)) is not None for marker in markers)
        unmarked = f"{user} asked to be forgotten: partition {partition} has no marker of it"
        yield "erased-marker", None if marked else unmarked
        if back[user] > asked:
            known = evidence.state.get((partition, b"u" + user.encode())) is not None
            lost = f"{user} listened after the erasure: the state of partition {partition} has no history"
            if int(back[user]) > asked:
                yield "returned", None if known else lost
            continue
        for kind, what in _OF_A_USER.items():
            left = evidence.state.get((partition, kind + user.encode())) is not None
            still = f"{user} asked to be forgotten and did not come back: the state still has {what}"
            yield "erased-state", still if left else None
