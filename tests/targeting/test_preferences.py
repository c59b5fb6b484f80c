"""Preferences by number, by row, and waiting: always what was said last, and no more than is still needed."""

from __future__ import annotations

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from targeting.rules.policy import Policy, allows
from targeting.rules.quiet_hours import open_at
from targeting.types import FrequencyCap, Match, Preferences, QuietSpan
from targeting.users.preferences import PreferenceTable

MIDNIGHT = 1_700_006_400.0
SONG = Match(
    "new", 1, "new", "New", ("a1", "a2"), "space", np.ones(1, np.float32), (), np.ones(0, np.float32), 10, 0, 9,
    explicit=True, territories=("DE",),
)  # fmt: skip
NIGHT = (QuietSpan(22 * 60, 7 * 60),)
wishes = st.none() | st.builds(
    Preferences,
    opted_in=st.sampled_from([True, True, False]),
    country=st.sampled_from(["DE", "DE", None, "FR"]),
    muted_artists=st.frozensets(st.sampled_from(["a1", "a3", "a4"]), max_size=2),
    timezone=st.sampled_from(["UTC", "Asia/Kolkata"]),
    quiet=st.sampled_from([(), NIGHT]),
    cap=st.sampled_from([None, FrequencyCap(0, 1.0), FrequencyCap(2, 8192.1)]),
)
rows = st.integers(0, 7)


class Saying(RuleBasedStateMachine):
    """Users 0 to 7 with a row or without one say what they allow, come and go."""

    def __init__(self) -> None:
        super().__init__()
        self.policy = Policy(default=Preferences(quiet=(QuietSpan(0, 60),)), cap=FrequencyCap(9, 9.0))
        self.preferences = PreferenceTable(self.policy)
        self.last: dict[int, Preferences | None] = {}
        self.away = set(range(8))

    @rule(said=st.dictionaries(rows, wishes, max_size=5))
    def say(self, said: dict[int, Preferences | None]) -> None:
        self.preferences.apply({row: wish for row, wish in said.items() if row not in self.away})
        self.preferences.wait({self.preferences.key(f"u{row}"): wish for row, wish in said.items() if row in self.away})
        self.last |= said

    @rule(row=rows)
    def come(self, row: int) -> None:
        if row in self.away:
            (wish,) = self.preferences.waited([f"u{row}"])
            self.preferences.wait({self.preferences.key(f"u{row}"): None})
            self.preferences.apply({row: wish})
            self.away.discard(row)

    @rule(some=st.sets(rows))
    def go(self, some: set[int]) -> None:
        gone = sorted(some - self.away)
        self.preferences.leave(np.asarray(gone, np.int64), [f"u{row}" for row in gone])
        self.away |= some

    @rule(some=st.sets(rows))
    def say_nothing_any_more(self, some: set[int]) -> None:
        self.say(dict.fromkeys(some))

    @invariant()
    def what_was_said_last_holds(self) -> None:
        users = np.asarray(sorted(set(range(8)) - self.away), np.int64)
        said = [self.last.get(row) for row in users.tolist()]
        obeyed = [wish or self.policy.default for wish in said]
        assert self.preferences.allowed(SONG, users, {}).tolist() == [allows(wish, SONG) for wish in obeyed]
        assert self.preferences.not_before(users, MIDNIGHT, {}).tolist() == [
            open_at(MIDNIGHT, wish.timezone, wish.quiet) for wish in obeyed
        ]
        caps = [(wish and wish.cap) or self.policy.cap for wish in said]
        pushes, seconds = self.preferences.caps(users, {})
        assert list(zip(pushes, seconds, strict=True)) == [(cap.pushes, cap.seconds) for cap in caps if cap]

    @invariant()
    def nothing_is_held_that_nobody_has(self) -> None:
        said = {wish for wish in self.last.values() if wish}
        assert len(self.preferences) == len(said)
        assert self.preferences.waiting == sum(self.last.get(row) is not None for row in self.away)
        assert len(self.preferences._wishes) <= 10
        assert set(self.preferences._muting) == {
            artist for wish in self.last.values() if wish for artist in wish.muted_artists
        }


TestSaying = Saying.TestCase
TestSaying.settings = settings(max_examples=60, stateful_step_count=20, deadline=None)
