"""An erasure forgets what came before it, whichever is read first: itself, or what was heard after it."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from targeting.arrays.id_table import hash64
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition
from targeting.partition.state_keys import INTEREST, PUSHED, USER
from targeting.types import EndReason, Listens, Match, PartitionInputs, Preferences, Takedown
from targeting.users import history_record

NOW = 1_700_000_000.0
USERS = ("anna", "ben")
SONGS = tuple(f"w{number}" for number in range(4))
WARM = np.random.default_rng(0).normal(size=(len(SONGS), 8)).astype(np.float32)


@dataclass(frozen=True)
class Heard:
    """A listen; ``at``: seconds."""

    user: str
    song: str
    at: float
    plays: int = 1


@dataclass(frozen=True)
class Erasure:
    """A request to forget; ``at``: seconds."""

    user: str
    at: float


Said = Heard | Erasure


class Replay:
    """A partition that reads what was said, in batches, and may be restored between them."""

    def __init__(self) -> None:
        self.log: list[tuple[bytes, bytes | None]] = []
        self.state = self._new()

    @staticmethod
    def _new() -> Partition:
        songs = Catalogue()
        songs.set_vectors("space", SONGS, WARM)
        return Partition(0, 1, songs)

    def reads(self, *said: Said) -> Replay:
        heard = [each for each in said if isinstance(each, Heard)]
        erased = [(each.user, NOW + each.at) for each in said if isinstance(each, Erasure)]
        listens = Listens(
            [each.user for each in heard],
            [each.song for each in heard],
            np.array([each.plays for each in heard], np.float32),
            np.array([NOW + each.at for each in heard]),
        )
        self.does(PartitionInputs(NOW, listens=listens if heard else None, erasures=erased))
        return self

    def does(self, inputs: PartitionInputs) -> None:
        staged = self.state.stage(inputs)
        self.state.apply(staged)
        self.log += staged.outputs.changelog

    def restarts(self) -> None:
        digest = self.state.digest()
        self.state = self._new()
        self.state.restore(self.log)
        assert self.state.digest() == digest

    def history(self, user: str) -> dict[str, tuple[float, float]]:
        """Seconds of the last listen and plays, by song, as the changelog has it."""
        record = dict(self.log).get(USER + user.encode())
        _, entries = history_record.decode([record or b""])
        named = {int(hash64([song])[0]): song for song in SONGS}
        return {named[int(e["song"])]: (float(e["time"]) - NOW, float(e["weight"])) for e in entries}

    def answer(self) -> list[tuple[str, str, tuple[str, ...], float]]:
        """Who is pushed a new song, and why: by what is derived from histories."""
        match = Match(
            "new", 1, "new", "", (), "space", WARM[0] / np.linalg.norm(WARM[0]), SONGS,
            np.array([0.9, 0.8, 0.7, 0.6], np.float32), 1_000, NOW, NOW + 1e6,
        )  # fmt: skip
        pushes = self.state.stage(PartitionInputs(NOW, commands=[match])).outputs.pushes
        return sorted((push.user_id, push.why, push.songs, round(push.score, 5)) for push in pushes)


# Erasures and listens never share a second: of that the history cannot tell which came first.
heard = st.builds(
    Heard, st.sampled_from(USERS), st.sampled_from(SONGS), st.integers(0, 6).map(lambda n: 2.0 * n), st.integers(1, 3)
)
erasures = st.builds(Erasure, st.sampled_from(USERS), st.integers(0, 6).map(lambda n: 2.0 * n + 1.5))


@settings(max_examples=300, deadline=None)
@given(st.lists(st.one_of(heard, heard, erasures), max_size=14), st.data())
def test_what_is_known_does_not_depend_on_the_order_in_which_listens_and_erasures_are_read(
    said: list[Said], data: st.DataObject
) -> None:
    order = data.draw(st.permutations(said))
    ends = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=4)))
    replay = Replay()
    for start, end in pairwise([0, *ends, len(order)]):
        replay.reads(*order[start:end])
        if data.draw(st.booleans()):
            replay.restarts()
    replay.restarts()

    asked = {user: max((e.at for e in said if isinstance(e, Erasure) and e.user == user), default=-1) for user in USERS}
    counts = [each for each in said if isinstance(each, Heard) and each.at > asked[each.user]]
    for user in USERS:
        mine = [each for each in counts if each.user == user]
        found = replay.history(user)
        assert {song: at for song, (at, _) in found.items()} == {
            song: max(each.at for each in mine if each.song == song) for song in {each.song for each in mine}
        }
        for song, (_, plays) in found.items():
            since = sum(each.plays for each in mine if each.song == song)
            assert 1 <= plays <= since
    # And all that is derived from histories is as if nothing from before had ever been heard.
    assert replay.answer() == Replay().reads(*counts).answer()


@pytest.mark.parametrize("restored", [False, True])
def test_plays_from_before_are_not_counted_with_those_after(restored: bool) -> None:
    replay = Replay().reads(Heard("anna", "w0", 0, plays=9), Heard("anna", "w1", 1), Heard("anna", "w0", 4, plays=2))
    if restored:
        replay.restarts()
    replay.reads(Erasure("anna", 2.5))
    assert replay.history("anna") == {"w0": (4.0, 1.0)}
    replay.reads(Heard("anna", "w0", 9, plays=2))
    assert replay.history("anna") == {"w0": (9.0, 3.0)}


def test_of_the_erasures_own_second_only_what_is_read_later_counts() -> None:
    after = Heard("anna", "w0", 2.7)
    assert Replay().reads(after).reads(Erasure("anna", 2.5)).history("anna") == {}
    assert Replay().reads(Erasure("anna", 2.5)).reads(after).history("anna") == {"w0": (2.0, 1.0)}


def test_who_comes_back_is_no_new_listener_and_what_they_were_told_is_gone() -> None:
    replay = Replay().reads(Heard("anna", "w1", 1), Heard("ben", "w1", 1))
    match = Match(
        "w3", 1, "w3", "", (), "space", WARM[1] / np.linalg.norm(WARM[1]), SONGS[:3],
        np.array([0.9, 0.8, 0.7], np.float32), 1_000, NOW, NOW + 1e6,
    )  # fmt: skip
    replay.does(PartitionInputs(NOW, commands=[match]))
    replay.reads(Heard("anna", "w3", 5))
    assert replay.log
    assert dict(replay.log)[PUSHED + b"anna"]
    replay.reads(Erasure("anna", 2.5))
    assert replay.history("anna") == {"w3": (5.0, 1.0)}
    assert not dict(replay.log)[PUSHED + b"anna"]
    assert not dict(replay.log).get(INTEREST + b"anna")
    replay.reads(Heard("anna", "w3", 7))
    replay.does(PartitionInputs(NOW, [("anna", Preferences())], [Takedown("w3", 1, EndReason.TAKEN_DOWN)]))
    (account,) = replay.state.changed_accounts()
    assert account.counts.distinct_listeners == 1
