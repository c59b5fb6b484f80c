"""A user who allows no profiling has no history, vector or push in the state, whatever is read in which order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import inf

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_erasure_order import NOW, SONGS, USERS, WARM, Erasure, Heard, Replay
from test_memory import bytes_of, parts

from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.partition.state_keys import ERASED, INTEREST, PUSHED, USER
from targeting.types import Listens, Mark, Match, Outcomes, OutsideVectors, PartitionInputs, Preferences, push_id
from targeting.users.erasures import NEVER, Erasures, Marker


@dataclass(frozen=True)
class Profiling:
    """What a user says of profiling; ``at``: seconds, the record's ``updated_at``."""

    user: str
    at: float
    allowed: bool


Said = Heard | Erasure | Profiling


class Reader(Replay):
    """As a worker does: at every start all preferences are read again, but what allows profiling counts once."""

    def __init__(self) -> None:
        super().__init__()
        self._preferences: list[Erasure | Profiling] = []

    def reads(self, *said: Said) -> Reader:
        self._preferences += [each for each in said if not isinstance(each, Heard)]
        self._obeys([each for each in said if isinstance(each, Heard)], said)
        return self

    def restarts(self) -> None:
        super().restarts()
        digest = self.state.digest()
        again = [each for each in self._preferences if isinstance(each, Erasure) or not each.allowed]
        self._obeys([], again)
        assert self.state.digest() == digest

    def holds_nothing_of(self, user: str) -> bool:
        last = dict(self.log)
        return not any(last.get(kind + user.encode()) for kind in (USER, PUSHED, INTEREST))

    def marker(self, user: str) -> Marker:
        return parts(self.state).erasures.of(user)  # type: ignore[no-any-return]

    def _obeys(self, heard: Sequence[Heard], said: Sequence[Said]) -> None:
        listens = Listens(
            [each.user for each in heard], [each.song for each in heard],
            np.array([each.plays for each in heard], np.float32), np.array([NOW + each.at for each in heard]),
        )  # fmt: skip
        erasures = [(each.user, NOW + each.at) for each in said if isinstance(each, Erasure)]
        profiling = [(each.user, NOW + each.at, each.allowed) for each in said if isinstance(each, Profiling)]
        listens_or_none = listens if heard else None
        self.does(PartitionInputs(NOW, listens=listens_or_none, erasures=erasures, profiling=profiling))


# What is said and what is heard never share a second: of that a history cannot tell which came first.
times = st.integers(0, 9).map(lambda n: 2.0 * n)
heard = st.builds(Heard, st.sampled_from(USERS), st.sampled_from(SONGS), times, st.integers(1, 3))
erasures = st.builds(Erasure, st.sampled_from(USERS), times.map(lambda at: at + 1.25))
profiling = st.builds(Profiling, st.sampled_from(USERS), times.map(lambda at: at + 1.5), st.booleans())
anything = st.lists(st.one_of(heard, heard, erasures, profiling, profiling), max_size=16)


def cut(data: st.DataObject, order: Sequence[Said]) -> list[Sequence[Said]]:
    ends = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=5)))
    return [order[start:end] for start, end in pairwise([0, *ends, len(order)])]


def remembered(said: Sequence[Said], user: str) -> Marker:
    """What the documentation says, told anew: the latest word since the first objection counts."""
    erased, word, objects, returns = 0.0, 0.0, False, 0
    for each in said:
        if each.user != user or isinstance(each, Heard):
            continue
        at = NOW + each.at
        if isinstance(each, Erasure):
            erased = max(erased, at)
        elif not each.allowed and at >= word:
            word, objects = at, True
        elif each.allowed and word and at > word:
            erased, word, returns = max(erased, at) if objects else erased, at, returns + objects
            objects = False
    return Marker(erased, word, objects, returns)


@settings(max_examples=300, deadline=None)
@given(anything, st.data())
def test_what_is_remembered_depends_on_the_order_of_preferences_alone(said: list[Said], data: st.DataObject) -> None:
    reader, read = Reader(), list[Said]()
    for batch in cut(data, said):
        reader.reads(*batch)
        read += batch
        if data.draw(st.booleans()):
            reader.restarts()
        for user in USERS:
            assert reader.marker(user) == remembered(read, user)
            if reader.marker(user).objects:
                assert reader.holds_nothing_of(user)
    pushed = {user for user, *_ in reader.answer()}
    assert not [user for user in pushed if reader.marker(user).objects]


@settings(max_examples=300, deadline=None)
@given(anything, st.data())
def test_what_is_known_in_the_end_depends_neither_on_batches_nor_on_how_late_listens_are_read(
    life: list[Said], data: st.DataObject
) -> None:
    life.sort(key=lambda each: each.at)
    wishes = [each for each in life if not isinstance(each, Heard)]
    order: list[Said] = list(wishes)
    for each in life:
        if isinstance(each, Heard):
            earliest = next((at for at in range(len(order), 0, -1) if _before(order[at - 1], each, wishes)), 0)
            order.insert(data.draw(st.integers(earliest, len(order))), each)
    # And preferences may come again, at any time after they came.
    for each in data.draw(st.lists(st.sampled_from(wishes), max_size=4)) if wishes else []:
        order.insert(data.draw(st.integers(order.index(each) + 1, len(order))), each)
    reader = Reader()
    for batch in cut(data, order):
        reader.reads(*batch)
        if data.draw(st.booleans()):
            reader.restarts()

    counts = [each for each in life if isinstance(each, Heard) and NOW + each.at > remembered(wishes, each.user).since]
    for user in USERS:
        mine = [each for each in counts if each.user == user]
        songs = {song: at for song, (at, _) in reader.history(user).items()}
        assert songs == {each.song: max(m.at for m in mine if m.song == each.song) for each in mine}
    assert reader.answer() == Replay().reads(*counts).answer()


def _before(said: Said, listen: Heard, wishes: Sequence[Said]) -> bool:
    return said in wishes and said.at < listen.at


def test_a_history_goes_whole_and_nothing_of_any_time_comes_until_profiling_is_allowed_again() -> None:
    reader = Reader().reads(Heard("anna", "w0", 0), Heard("anna", "w1", 90), Heard("ben", "w0", 0))
    reader.reads(Profiling("anna", 10, allowed=False))
    assert reader.holds_nothing_of("anna")
    assert [user for user, *_ in reader.answer()] == ["ben"]
    assert reader.state.users == 1
    reader.reads(Heard("anna", "w1", 11), Heard("anna", "w2", 10_000))
    reader.restarts()
    assert reader.holds_nothing_of("anna")
    assert reader.state.users == 1
    reader.reads(Profiling("anna", 20, allowed=True), Heard("anna", "w2", 15), Heard("anna", "w3", 21))
    reader.restarts()
    reader.reads(Heard("anna", "w1", 12))
    assert reader.history("anna").keys() == {"w3"}
    assert [user for user, *_ in reader.answer()] == ["anna", "ben"]


@pytest.mark.parametrize("together", [True, False])
def test_an_outdated_record_turns_nothing_back(together: bool) -> None:
    reader = Reader()
    said = [
        Profiling("anna", 10, allowed=False), Profiling("anna", 9, allowed=True), Profiling("anna", 10, allowed=True),
    ]  # fmt: skip
    for batch in [said] if together else [[each] for each in said]:
        reader.reads(*batch)
    assert reader.marker("anna") == Marker(0.0, NOW + 10, objects=True)
    said = [Profiling("anna", 20, allowed=True), Profiling("anna", 30, allowed=True)]
    said += [Profiling("anna", 19, allowed=False), Profiling("anna", 29, allowed=False)]
    for batch in [said] if together else [[each] for each in said]:
        reader.reads(*batch)
    # The second time that it was allowed forgets nothing.
    assert reader.marker("anna") == Marker(NOW + 20, NOW + 30, returns=1)
    reader.reads(Profiling("anna", 30, allowed=False))
    assert reader.marker("anna").objects


def test_an_objection_that_calls_itself_older_than_what_nobody_kept_is_obeyed_and_stays_so_over_restarts() -> None:
    reader = Reader().reads(Profiling("anna", 50, allowed=True)).reads(Profiling("anna", 10, allowed=False))
    reader.restarts()
    assert reader.marker("anna").objects


def test_an_erasure_asked_for_meanwhile_holds_when_profiling_is_allowed_again() -> None:
    reader = Reader().reads(Profiling("anna", 10, allowed=False), Erasure("anna", 40))
    reader.reads(Profiling("anna", 20, allowed=True))
    reader.reads(Heard("anna", "w0", 30), Heard("anna", "w1", 42))
    assert reader.history("anna").keys() == {"w1"}


def test_a_recording_that_comes_again_has_another_push_id_however_far_ahead_the_erasure_before_was() -> None:
    reader, ids = Reader().reads(Erasure("anna", 200)), set[str]()
    for at in (10, 20, 30):
        reader.reads(Profiling("anna", at, allowed=False)).reads(Profiling("anna", at + 5, allowed=True))
        reader.reads(Heard("anna", "w0", 201 + at))
        (push,) = reader.state.stage(PartitionInputs(NOW, commands=[new("a")])).outputs.pushes
        ids.add(push_id("anna", "a", push.erased_at))
    assert len(ids) == 3


# -- vectors from outside, pushes and what becomes of them


def new(song_id: str) -> Match:
    return Match(
        song_id, 1, song_id, "", (), "space", WARM[0] / np.linalg.norm(WARM[0]), SONGS,
        np.array([0.9, 0.8, 0.7, 0.6], np.float32), 1_000, NOW, NOW + 1e6,
    )  # fmt: skip


def vector(at: float) -> OutsideVectors:
    return OutsideVectors("space", ["anna"], WARM[:1], np.array([NOW + at]))


def test_a_vector_from_outside_goes_and_none_is_taken_nor_meets_a_campaign() -> None:
    reader = Reader()
    reader.does(PartitionInputs(NOW, commands=[new("a")], vectors=vector(0)))
    assert reader.state.users == 1
    reader.reads(Profiling("anna", 10, allowed=False))
    assert reader.state.users == 0
    staged = reader.state.stage(PartitionInputs(NOW, vectors=vector(1_000)))
    assert (staged.outputs.pushes, staged.changes.fresh) == ([], [])
    reader.does(PartitionInputs(NOW, vectors=vector(11)))
    reader.reads(Profiling("anna", 20, allowed=True))
    # It is read again at every start.
    reader.does(PartitionInputs(NOW, vectors=vector(11)))
    assert reader.state.users == 0
    reader.does(PartitionInputs(NOW, vectors=vector(21)))
    assert reader.state.users == 1


def test_the_batch_that_reads_the_objection_pushes_nothing_and_forgets_what_was_pushed() -> None:
    reader = Reader().reads(*(Heard(user, "w0", 0) for user in USERS))
    reader.does(PartitionInputs(NOW, commands=[new("a")]))
    (pushed,) = [push for push in reader.state.stage(PartitionInputs(NOW, commands=[new("b")])).outputs.pushes
                 if push.user_id == "anna"]  # fmt: skip
    assert pushed.erased_at is None
    said = [("anna", NOW + 10, False)]
    staged = reader.state.stage(PartitionInputs(NOW, commands=[new("c")], profiling=said))
    assert [push.user_id for push in staged.outputs.pushes] == ["ben"]
    reader.does(PartitionInputs(NOW, commands=[new("c")], profiling=said))
    # What comes of a push that is forgotten is refused by name.
    told = Outcomes(["anna"], ["a"], np.array([Mark.OPENED], np.uint16), np.array([NOW + 11]), ["some id"])
    ((at, why),) = reader.state.stage(PartitionInputs(NOW, outcomes=told)).outputs.refused
    assert at == 0
    assert "is no push" in why
    reader.reads(Profiling("anna", 20, allowed=True)).reads(Heard("anna", "w0", 21))
    pushes = reader.state.stage(PartitionInputs(NOW, commands=[new("d")])).outputs.pushes
    # The id of a push that comes again must be another.
    assert {push.user_id: push.erased_at for push in pushes} == {
        "anna": pytest.approx(NOW + 20, rel=0, abs=1e-5),
        "ben": None,
    }


# -- what is kept of it


def test_of_users_who_never_object_nothing_is_kept() -> None:
    def partition(profiling: list[tuple[str, float, bool]]) -> Partition:
        songs = Catalogue()
        songs.set_vectors("space", SONGS, WARM)
        partition = Partition(0, 1, songs)
        # Its key is the process's own.
        parts(partition).preferences._key = b"k"
        users = [f"u{number}" for number in range(1_000)]
        preferences = [(user, Preferences()) for user in users]
        partition.apply(partition.stage(PartitionInputs(NOW, preferences=preferences, profiling=profiling)))
        return partition

    says = [(f"u{number}", NOW, True) for number in range(1_000)]
    assert bytes_of(parts(partition(says))) == bytes_of(parts(partition([])))
    assert len(bytes_of(parts(partition([*says, ("u1", NOW, False)])))) > len(bytes_of(parts(partition(says))))


def test_what_is_remembered_comes_back_from_its_record_and_names_nobody() -> None:
    erasures, again = Erasures(b"key"), Erasures(b"key")
    told = {"anna": Marker(0.0, 5.0, objects=True), "ben": Marker(7.0, 7.0, returns=2), "carla": Marker(3.0)}
    for user, each in told.items():
        erasures.set(erasures.marker(user), each)
    for marker, record in erasures.records():
        again.load(marker, record)
        assert not any(user.encode() in marker + record for user in told)
    assert {user: again.of(user) for user in told} == told
    assert again.of("dora") == NEVER
    assert again.since([*told, "dora"]).tolist() == [inf, pytest.approx(7.0), 3.0, -inf]
    assert again.records() == erasures.records()
    # Whoever never objected has the record that a former version writes.
    assert [len(record) for _, record in erasures.records()] == [30, 30, 17]


def test_an_objection_outlives_the_key_that_it_was_remembered_by() -> None:
    log: list[tuple[bytes, bytes | None]] = []
    for keys in ((b"a",), (b"b", b"a"), (b"b",), (b"c", b"b")):
        songs = Catalogue()
        songs.set_vectors("space", SONGS, WARM)
        config = TargetingConfig(erasure_key=keys[0], former_erasure_keys=keys[1:])
        state = Partition(0, 1, songs, config)
        state.restore(log)
        said = [] if log else [("anna", NOW, False)]
        listens = Listens(["anna"], ["w0"], np.ones(1, np.float32), np.full(1, NOW + 5))
        inputs = PartitionInputs(NOW, preferences=[("anna", Preferences())], profiling=said, listens=listens)
        staged = state.stage(inputs)
        state.apply(staged)
        log += staged.outputs.changelog
        assert state.users == 0
        assert parts(state).erasures.of("anna") == Marker(0.0, NOW, objects=True)
        assert parts(state).erasures.objected == 1
        assert sum(key[:1] == ERASED and value is not None for key, value in dict(log).items()) == 1


def test_two_keys_that_remember_one_user_are_joined_to_what_was_said_last() -> None:
    objected, lifted = Marker(2.0, 5.0, objects=True), Marker(7.0, 7.0, returns=1)
    for pair in ((objected, lifted), (lifted, objected)):
        assert pair[0].joined(pair[1]) == lifted
    assert Marker(9.0).joined(objected) == Marker(9.0, 5.0, objects=True)
