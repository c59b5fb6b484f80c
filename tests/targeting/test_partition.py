"""A partition as a deterministic state machine: staged, applied, restored, digested."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import structs

from targeting.catalogue.catalogue import Catalogue
from targeting.live.cat_config import CatConfig
from targeting.partition.partition import ForeignStateError, Partition, Staged, TargetingConfig
from targeting.rules.policy import Policy
from targeting.types import (
    Account,
    EndReason,
    Listens,
    Mark,
    Match,
    Outcomes,
    OutsideVectors,
    PartitionInputs,
    PartitionOutputs,
    Preferences,
    PushReason,
    Takedown,
)  # fmt: skip

D, WARM = 8, 12
VECTORS = np.random.default_rng(0).standard_normal((WARM, D)).astype(np.float32)
VECTORS /= np.linalg.norm(VECTORS, axis=1, keepdims=True)
NOW = 1_700_000_000.0


def catalogue() -> Catalogue:
    songs = Catalogue()
    songs.set_vectors("space", [f"s{i}" for i in range(WARM)], VECTORS)
    return songs


def asking(song_id: str = "new", near: int = 0, **changes: object) -> Match:
    similarities = VECTORS @ VECTORS[near]
    order = np.argsort(-similarities)[:6]
    match = Match(
        song_id, 1, song_id, "New", ("artist",), "space", VECTORS[near],
        tuple(f"s{i}" for i in order), np.maximum(similarities[order], 0.1).astype(np.float32),
        1000, NOW, NOW + 1000,
    )  # fmt: skip
    return structs.replace(match, **changes)  # type: ignore[arg-type]


def hearing(pairs: Sequence[tuple[str, str]], time: float = NOW) -> Listens:
    return Listens(
        [user for user, _ in pairs],
        [song for _, song in pairs],
        np.ones(len(pairs), np.float32),
        np.full(len(pairs), time),
    )


class Driver:
    """A partition with its changelog."""

    def __init__(self, config: TargetingConfig | None = None, number: int = 0, partitions: int = 1) -> None:
        self.config, self.number, self.partitions = config, number, partitions
        self.partition = Partition(number, partitions, catalogue(), config)
        self.log: list[tuple[bytes, bytes | None]] = []

    def do(self, *commands: Match | Takedown, now: float = NOW, **inputs: object) -> PartitionOutputs:
        staged = self.partition.stage(PartitionInputs(now, commands=commands, **inputs))  # type: ignore[arg-type]
        self.partition.apply(staged)
        self.log += staged.outputs.changelog
        return staged.outputs

    def restored(self) -> Partition:
        fresh = Partition(self.number, self.partitions, catalogue(), self.config)
        fresh.restore(self.log)
        return fresh


@pytest.fixture
def driver() -> Driver:
    """200 users; user i heard songs i % 12 and (i + 1) % 12."""
    made = Driver()
    made.do(listens=hearing([(f"u{i}", f"s{(i + more) % WARM}") for i in range(200) for more in (0, 1)]))
    return made


def test_a_request_is_served_best_first_with_reasons(driver: Driver) -> None:
    outputs = driver.do(asking(budget=100))
    (account,) = outputs.accounts
    assert (account.counts.pushed, account.counts.distinct_listeners, account.ended) == (70, 0, None)
    assert len({push.user_id for push in outputs.pushes}) == len(outputs.pushes) == 70
    scores = [push.score for push in outputs.pushes]
    assert scores == sorted(scores, reverse=True)
    assert 0 < scores[-1] <= scores[0] <= 1
    for push in outputs.pushes:
        i = int(push.user_id[1:])
        heard = {f"s{i % WARM}", f"s{(i + 1) % WARM}"} & {*push.match.neighbours}
        assert {*push.songs} == heard
        assert push.why in (PushReason.EVIDENCE, PushReason.DIRECT)
        assert list(push.songs) == sorted(push.songs, key=push.match.neighbours.index)


def test_all_partitions_together_spend_the_share_of_the_budget() -> None:
    pushed = 0
    for number in range(3):
        driver = Driver(number=number, partitions=3)
        driver.do(listens=hearing([(f"{number}-{i}", f"s{i % WARM}") for i in range(300)]))
        pushed += len(driver.do(asking(budget=100)).pushes)
    assert pushed == 70


def test_nobody_is_pushed_what_was_heard(driver: Driver) -> None:
    listeners = {f"u{i}" for i in range(0, 200, 3)}
    driver.do(listens=hearing([(user, "new") for user in sorted(listeners)]))
    pushed = {push.user_id for push in driver.do(asking()).pushes}
    assert pushed
    assert pushed.isdisjoint(listeners)


def test_a_recording_comes_once_in_one_batch_in_the_next_and_after_a_restart(driver: Driver) -> None:
    first = driver.do(asking("a", recording="r", budget=30), asking("b", recording="r", budget=1000))
    again = driver.do(asking("c", recording="r"))
    pushed = [push.user_id for push in [*first.pushes, *again.pushes]]
    assert len(pushed) == len({*pushed})
    assert not again.pushes
    assert [account.counts.pushed for account in first.accounts] == [21, len(pushed) - 21]
    after = driver.restored().stage(PartitionInputs(NOW, commands=[asking("d", recording="r")]))
    assert not after.outputs.pushes
    assert after.outputs.accounts[0].counts.candidates > 0


def test_the_first_request_wins_and_repeats_give_the_same_account(driver: Driver) -> None:
    first = driver.do(asking(budget=10), asking(budget=1000))
    again = driver.do(asking(near=3))
    assert len(first.pushes) == 7
    assert not again.pushes
    assert not again.changelog
    assert len(first.accounts) == 1
    assert _same(first.accounts[0], again.accounts[0])
    assert _same(first.accounts[0], driver.restored().accounts()[0])


def test_a_higher_revision_supersedes_and_keeps_what_was_spent(driver: Driver) -> None:
    one = driver.do(asking(budget=20))
    two = driver.do(asking(revision=3, near=4, budget=40))
    assert [(a.revision, a.ended, a.counts.pushed) for a in two.accounts] == [
        (1, EndReason.SUPERSEDED, 14),
        (3, None, 28),
    ]
    assert len(two.pushes) == 14
    assert {p.user_id for p in one.pushes}.isdisjoint(p.user_id for p in two.pushes)
    lower = driver.do(asking(revision=2))
    assert [(a.revision, a.ended) for a in lower.accounts] == [(2, EndReason.SUPERSEDED)]
    assert not lower.pushes
    assert len(driver.partition.accounts()) == 1


def test_a_request_past_its_end_is_answered_so(driver: Driver) -> None:
    outputs = driver.do(asking(expires_at=NOW))
    assert [(a.counts.candidates, a.counts.pushed, a.ended) for a in outputs.accounts] == [(0, 0, EndReason.EXPIRED)]
    assert not outputs.pushes
    assert driver.do(asking(expires_at=NOW + 9)).accounts[0].ended is EndReason.EXPIRED


def test_a_campaign_ends_when_its_time_comes(driver: Driver) -> None:
    driver.do(asking())
    assert not driver.do(now=NOW + 999).accounts
    (account,) = driver.do(now=NOW + 1000).accounts
    assert account.ended is EndReason.EXPIRED
    assert not driver.partition.accounts()
    assert not driver.do(now=NOW + 1001).accounts


def test_a_takedown_ends_it_for_good(driver: Driver) -> None:
    driver.do(asking(revision=2))
    assert not driver.do(Takedown("new", 1, EndReason.TAKEN_DOWN)).accounts
    (account,) = driver.do(Takedown("new", 2, EndReason.PROMOTED)).accounts
    assert account.ended is EndReason.PROMOTED
    assert driver.do(asking(revision=2)).accounts[0].ended is EndReason.PROMOTED
    assert not driver.do(Takedown("new", 2, EndReason.TAKEN_DOWN)).accounts
    assert not driver.do(Takedown("unheard of", 2, EndReason.TAKEN_DOWN)).accounts
    assert driver.restored().digest() == driver.partition.digest()


def test_every_request_is_answered_also_without_users() -> None:
    driver = Driver()
    (account,) = driver.do(asking(), listens=None).accounts
    assert (account.counts.candidates, account.counts.pushed, account.ended) == (0, 0, None)
    assert account.prototypes.vectors.shape == (0, D)


def test_without_retrieved_songs_the_vector_alone_decides(driver: Driver) -> None:
    outputs = driver.do(asking(neighbours=(), similarities=np.zeros(0, np.float32), budget=10))
    assert outputs.accounts[0].counts.candidates == 200
    assert {push.why for push in outputs.pushes} == {PushReason.DIRECT}
    # Song 0 stands at the end of the circle of users: who heard it is nearest.
    assert {int(push.user_id[1:]) % WARM for push in outputs.pushes} <= {0, WARM - 1}


@pytest.mark.parametrize("change", [{"space": "other"}, {"vector": np.ones(D + 1, np.float32)}])
def test_a_vector_that_cannot_be_compared_leaves_evidence(driver: Driver, change: dict[str, object]) -> None:
    outputs = driver.do(asking(**change))
    assert outputs.pushes
    assert {push.why for push in outputs.pushes} == {PushReason.EVIDENCE}
    assert not len(outputs.accounts[0].prototypes.members)


def test_preferences_are_obeyed_in_their_own_batch_and_later(driver: Driver) -> None:
    out = [f"u{i}" for i in range(0, 200, 2)]
    wishes = [(user, Preferences(opted_in=False)) for user in out]
    one = driver.do(asking("a"), preferences=wishes)
    two = driver.do(asking("b"), preferences=[(out[0], None)])
    assert {push.user_id for push in one.pushes} == {f"u{i}" for i in range(200)} & {
        push.user_id for push in one.pushes
    } - {*out}
    assert {push.user_id for push in two.pushes} & {*out} <= {out[0]}
    assert not [key for key, _ in one.changelog if key[:1] == b"u"]


def test_an_opt_out_before_the_first_listen_holds() -> None:
    driver = Driver()
    driver.do(preferences=[("a", Preferences(opted_in=False)), ("b", Preferences())])
    driver.do(listens=hearing([("a", "s0"), ("b", "s0")]))
    assert [push.user_id for push in driver.do(asking()).pushes] == ["b"]


def test_policy_off_leaves_heard_and_pushed() -> None:
    driver = Driver(TargetingConfig(policy=Policy(enabled=False)))
    driver.do(listens=hearing([("a", "s0"), ("b", "s0"), ("b", "new")]))
    driver.do(preferences=[("a", Preferences(opted_in=False))])
    assert [push.user_id for push in driver.do(asking()).pushes] == ["a"]
    # The same recording under another song id: b was not pushed it yet, a was.
    again = asking("other", recording="new")
    assert [push.user_id for push in driver.do(again, structs.replace(again, song_id="third")).pushes] == ["b"]


def test_listeners_of_a_campaign_are_counted_once_each(driver: Driver) -> None:
    driver.do(asking())
    driver.do(listens=hearing([("u1", "new"), ("u1", "new"), ("u2", "new"), ("u2", "s0")]))
    driver.do(listens=hearing([("u2", "new"), ("someone", "new")]))
    assert [account.counts.distinct_listeners for account in driver.partition.accounts()] == [3]
    # The same batch: the request comes first.
    driver.do(asking("b"), listens=hearing([("u7", "b")]))
    driver.do(Takedown("b", 1, EndReason.TAKEN_DOWN), listens=hearing([("u8", "b")]))
    # A song that was stopped goes on being counted until it is forgotten.
    assert driver.do(asking("b")).accounts[0].counts.distinct_listeners == 2
    assert driver.restored().digest() == driver.partition.digest()


def test_small_prototypes_stay_inside() -> None:
    driver = Driver(TargetingConfig(cat=CatConfig(centroids=8)))
    driver.do(listens=hearing([(f"u{i}", f"s{(i + more) % WARM}") for i in range(200) for more in (0, 1)]))
    (account,) = driver.do(asking()).accounts
    assert (account.prototypes.members >= 10).all()
    assert len(account.prototypes.members) > 1
    np.testing.assert_allclose(np.linalg.norm(account.prototypes.vectors, axis=1), 1, atol=1e-5)
    few = Driver()
    few.do(listens=hearing([(f"u{i}", "s0") for i in range(9)]))
    assert few.do(asking()).accounts[0].prototypes.members.tolist() == []


def test_only_the_last_staged_batch_can_be_applied(driver: Driver) -> None:
    stale = driver.partition.stage(PartitionInputs(NOW, commands=[asking()]))
    driver.do(asking("b"))
    with pytest.raises(ValueError, match="step"):
        driver.partition.apply(stale)


def test_another_partitions_changelog_is_refused(driver: Driver) -> None:
    for number, partitions in ((0, 2), (1, 2)):
        with pytest.raises(ForeignStateError):
            Partition(number, partitions, catalogue()).restore(driver.log)
    with pytest.raises(ValueError, match="unknown kind"):
        Partition(0, 1, catalogue()).restore([(b"?", b"")])
    with pytest.raises(ValueError, match="no partition"):
        Partition(2, 2, catalogue())


def test_a_deleted_record_is_gone(driver: Driver) -> None:
    driver.do(asking())
    gone = [(b"uu1", None), (b"pu2", None), (b"cnew", None), (b"nnew", None)]
    restored = Partition(0, 1, catalogue())
    restored.restore([*driver.log, *gone])
    kept = Partition(0, 1, catalogue())
    last = {**dict(driver.log), **dict(gone)}
    kept.restore((key, value) for key, value in last.items() if value is not None)
    assert restored.digest() == kept.digest() != driver.partition.digest()


def test_the_digest_sees_every_part(driver: Driver) -> None:
    seen = {driver.partition.digest()}
    for inputs in (
        {"listens": hearing([("u1", "s9")])},
        {"listens": hearing([("u1", "s9")])},
        {"listens": hearing([("u1", "s9")], NOW + 1)},
    ):
        driver.do(**inputs)  # type: ignore[arg-type]
        seen.add(driver.partition.digest())
    driver.do(asking())
    seen.add(driver.partition.digest())
    assert len(seen) == 5


# -- any sequence of batches -----------------------------------------------------------------------------------

users = st.sampled_from([f"u{i}" for i in range(8)])
listens = st.lists(st.tuples(users, st.sampled_from([f"s{i}" for i in range(6)] + ["n0", "n1"])), max_size=12)
commands = st.lists(
    st.one_of(
        st.builds(
            lambda song, revision, near, budget, recording, end: asking(
                f"n{song}", near, revision=revision, budget=budget, recording=f"r{recording}", expires_at=NOW + end
            ),
            st.integers(0, 3), st.integers(1, 3), st.integers(0, 5), st.integers(0, 12), st.integers(0, 2),
            st.integers(0, 8),
        ),
        st.builds(
            lambda song, revision, end: Takedown(f"n{song}", revision, end),
            st.integers(0, 3), st.integers(1, 3), st.sampled_from(EndReason),
        ),
    ),
    max_size=4,
)  # fmt: skip
preferences = st.lists(st.tuples(users, st.booleans(), st.sampled_from([False, False, True])), max_size=3)
outside = st.lists(st.tuples(users, st.sampled_from([0, 1, 2, None])), max_size=3, unique_by=lambda each: each[0])
outcomes = st.lists(st.tuples(users, st.sampled_from(["n0", "n1"]), st.sampled_from(list(Mark)[2:7])), max_size=4)
batches = st.lists(st.tuples(listens, commands, preferences, outside, outcomes), max_size=6)
Batch = tuple[
    list[tuple[str, str]], list[Match | Takedown], list[tuple[str, bool, bool]], list[tuple[str, int | None]],
    list[tuple[str, str, Mark]],
]  # fmt: skip


def inputs_of(at: int, batch: Batch) -> PartitionInputs:
    """All listens and outside vectors are from NOW, so that an erasure in any batch is later."""
    pairs, told, wishes, vectors, became = batch
    given_to = [(user, near) for user, near in vectors if near is not None]
    return PartitionInputs(
        NOW + at,
        [(user, Preferences(opted_in=willing)) for user, willing, _ in wishes],
        told,
        hearing(pairs) if pairs else None,
        OutsideVectors(
            "space", [user for user, _ in given_to], VECTORS[[near for _, near in given_to]],
            np.full(len(given_to), NOW), [user for user, near in vectors if near is None],
        ),
        Outcomes(
            [user for user, _, _ in became], [song for _, song, _ in became],
            np.asarray([mark for _, _, mark in became], np.uint16), np.full(len(became), NOW + at),
        ),
        [(user, NOW + at) for user, _, erase in wishes if erase],
    )  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(batches, st.booleans())
def test_whatever_comes_state_is_restored_and_nobody_gets_a_recording_twice(
    sequence: list[Batch], living: bool
) -> None:
    driver = Driver(TargetingConfig(history=4, scored=1000 if living else 0))
    pushed, out, gone = set[tuple[str, str]](), dict[str, bool](), set[str]()
    for at, batch in enumerate(sequence):
        inputs = inputs_of(at, batch)
        for user, wish in inputs.preferences:
            assert wish is not None
            out[user] = wish.opted_in
        for user, _ in inputs.erasures:
            gone.add(user)
            pushed = {(who, recording) for who, recording in pushed if who != user}
        before = driver.partition.digest()
        staged, again = driver.partition.stage(inputs), driver.partition.stage(inputs)
        assert driver.partition.digest() == before
        assert _told(staged) == _told(again)
        driver.partition.apply(staged)
        driver.log += staged.outputs.changelog
        for push in staged.outputs.pushes:
            assert (push.user_id, push.match.recording) not in pushed
            assert out.get(push.user_id, True)
            assert push.user_id not in gone
            pushed.add((push.user_id, push.match.recording))
        assert len({key for key, _ in staged.outputs.changelog}) == len(staged.outputs.changelog)
        matches = [command for command in batch[1] if isinstance(command, Match)]
        answered = [(account.song_id, account.revision) for account in staged.outputs.accounts]
        assert all((match.song_id, match.revision) in answered for match in matches)
        kept = {key for key, value in dict(driver.log).items() if value is not None}
        assert not kept & {kind + user.encode() for kind in (b"u", b"p", b"i") for user in gone}
    restored = driver.restored()
    assert restored.digest() == driver.partition.digest()
    for one, other in zip(restored.accounts(), driver.partition.accounts(), strict=True):
        assert _same(one, other)
    if living or any(batch[3] for batch in sequence):
        # Statistics that moved since they were written, and vectors whose topic is read again, are in no changelog.
        return
    # What comes next is decided alike.
    wishes = [(user, willing, False) for user, willing in sorted(out.items())]
    follow = inputs_of(7, ([("u0", "s0"), ("new", "s1")], [asking("n9")], wishes, [], []))
    assert sorted(key for key, _ in restored.stage(follow).outputs.changelog) == sorted(
        key for key, _ in driver.partition.stage(follow).outputs.changelog
    )


def _told(staged: Staged) -> tuple[object, ...]:
    outputs = staged.outputs
    return (
        outputs.changelog,
        [(push.user_id, push.match.song_id, push.score, push.why, push.songs) for push in outputs.pushes],
        [(a.song_id, a.revision, a.counts, a.ended) for a in outputs.accounts],
    )


def _same(one: Account, other: Account) -> bool:
    return replace(one, prototypes=other.prototypes) == other and np.array_equal(
        one.prototypes.vectors, other.prototypes.vectors
    )
