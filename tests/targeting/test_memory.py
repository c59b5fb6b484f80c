"""Memory is bounded by what is still needed, whatever comes and goes, and what is decided does not depend on that.

Sizes are those of tables, not of the process.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_partition import NOW, VECTORS, WARM, Batch, Driver, asking, batches, catalogue, hearing, inputs_of

from targeting.arrays.id_table import hash64
from targeting.catalogue.catalogue import _FEW, Catalogue
from targeting.partition.partition import Partition, TargetingConfig
from targeting.types import (
    EndReason,
    FrequencyCap,
    Listens,
    Mark,
    Outcomes,
    OutsideVectors,
    PartitionInputs,
    PartitionOutputs,
    Preferences,
    Takedown,
)

SOME = 2_000


def parts(partition: Partition) -> Any:
    return partition._state


class WithoutSongs(pickle.Pickler):
    """What songs keep is of nobody."""

    def persistent_id(self, each: object) -> str | None:
        return "songs" if isinstance(each, Catalogue) else None


def bytes_of(state: Any) -> bytes:
    """All that a partition keeps in memory."""
    into = io.BytesIO()
    WithoutSongs(into).dump(state)
    return into.getvalue()


def plays(user: str, songs: Iterator[int], count: int) -> Listens:
    ids = [f"x{next(songs)}" for _ in range(count)]
    return Listens([user] * count, ids, np.ones(count, np.float32), np.full(count, NOW))


def counting() -> Iterator[int]:
    yield from range(10**9)


def test_one_user_who_plays_ten_times_as_many_songs_as_are_kept_leaves_the_table_small() -> None:
    driver, songs = Driver(TargetingConfig(history=50)), counting()
    driver.do(asking())
    state = parts(driver.partition)
    sizes = []
    for _ in range(10 * _FEW // 8192):
        driver.do(listens=plays("u", songs, 8192))
        sizes.append((len(state.songs), len(state.songs._slot_of_id), len(state.songs._hashes)))
    most = _FEW + 2 * 8192
    assert max(slots for slots, _, _ in sizes) <= most
    assert max(named for _, named, _ in sizes) <= most
    assert state.histories._listeners.entries == 50
    # The songs that matter are still there: the catalogue, the campaign's, the ones heard last.
    assert (state.songs.find([*(f"s{i}" for i in range(WARM)), "new"]) >= 0).all()
    assert driver.restored().digest() == driver.partition.digest()


def test_an_aborted_batch_leaves_no_song_behind() -> None:
    driver, songs = Driver(), counting()
    driver.do(listens=hearing([("a", "s0")]))
    for _ in range(4 * _FEW // 8192):
        driver.partition.stage(PartitionInputs(NOW, listens=plays("u", songs, 8192)))
    assert len(parts(driver.partition).songs) <= _FEW + 2 * 8192


def test_songs_are_not_forgotten_under_a_batch_of_another_partition() -> None:
    songs, count = catalogue(), counting()
    one, other = (Partition(number, 2, songs) for number in range(2))
    waiting = one.stage(PartitionInputs(NOW, listens=plays("a", count, 5)))
    for _ in range(4):
        other.apply(other.stage(PartitionInputs(NOW, listens=plays("b", count, 8192))))
    one.apply(waiting)
    assert songs.sweeps == 0
    one.stage(PartitionInputs(NOW))
    assert songs.sweeps == 1
    assert songs.find(["x0", "x4"]).min() >= 0


def test_a_batch_from_before_a_sweep_is_refused() -> None:
    driver = Driver()
    staged = driver.partition.stage(PartitionInputs(NOW, listens=hearing([("a", "s0")])))
    parts(driver.partition).songs.sweep()
    with pytest.raises(ValueError, match="forgotten"):
        driver.partition.apply(staged)


def test_a_song_between_two_chunks_of_a_restore_is_not_forgotten() -> None:
    driver = Driver()
    driver.do(listens=hearing([("a", "y0"), ("b", "y1"), ("a", "s0")]))
    fresh = Partition(0, 1, catalogue())
    state = parts(fresh)

    def interrupted() -> Iterator[tuple[bytes, bytes | None]]:
        for number, record in enumerate(driver.log * 4000):
            if number == 9000:
                state.songs.sweep()
                assert (state.songs.find(["y0", "y1"]) >= 0).all()
            yield record

    fresh.restore(interrupted())
    assert fresh.digest() == driver.partition.digest()


def test_users_who_only_send_preferences_have_no_row() -> None:
    driver = Driver()
    wishes = [(f"p{i}", Preferences(opted_in=i % 3 > 0, cap=FrequencyCap(i % 5, 8.0))) for i in range(SOME)]
    driver.do(preferences=wishes)
    state = parts(driver.partition)
    assert driver.partition.users == len(state.users) == 0
    assert (state.preferences.waiting, len(state.preferences)) == (SOME, 10)
    # They are obeyed from the first listen on.
    driver.do(listens=hearing([(user, "s0") for user, _ in wishes]))
    assert state.preferences.waiting == 0
    pushed = [push.user_id for push in driver.do(asking()).pushes]
    assert pushed
    assert {int(user[1:]) % 3 for user in pushed} == {1, 2}
    assert {int(user[1:]) % 5 for user in pushed} == {1, 2, 3, 4}
    driver.do(preferences=[(user, None) for user, _ in wishes])
    assert len(state.preferences) == 0


def test_preferences_that_are_withdrawn_leave_nothing() -> None:
    driver, state = Driver(), None
    for start in range(0, 10 * SOME, SOME):
        users = [f"p{i}" for i in range(start, start + SOME)]
        driver.do(preferences=[(user, Preferences(muted_artists=frozenset({user, "a"}))) for user in users])
        driver.do(preferences=[(user, None) for user in users])
        state = parts(driver.partition).preferences
        assert (len(state), state.waiting, len(state._muting)) == (0, 0, 0)
        assert len(state._wishes) <= SOME + 1


def test_users_who_come_and_are_erased_leave_no_row_and_no_name() -> None:
    driver = Driver()
    driver.do(listens=hearing([(f"stays{i}", f"s{i % WARM}") for i in range(50)]))
    driver.do(asking(budget=1000))
    state = parts(driver.partition)
    for start in range(0, 1000, 100):
        users = [f"gone-user-{i}" for i in range(start, start + 100)]
        driver.do(listens=hearing([(user, f"s{at % WARM}") for at, user in enumerate(users)]))
        driver.do(asking(f"n{start}", budget=100))
        out = Preferences(opted_in=False)
        driver.do(preferences=[(user, out) for user in users], erasures=[(user, NOW + start + 1) for user in users])
        assert driver.partition.users == 50
        assert len(state.users) <= 150
        assert state.histories._heard.entries == 50
        assert state.preferences.waiting == start + 100
    # The records of prototypes that name them are written again, a few in each batch.
    for _ in range(10):
        driver.do()
    memory = bytes_of(state)
    assert b"stays7" in memory
    assert hash64(["stays7"]).tobytes() in memory
    for user in ("gone-user-3", "gone-user-999"):
        assert user.encode() not in memory
        assert hash64([user]).tobytes() not in memory
    # An opt-out outlives the erasure that came with it.
    driver.do(listens=hearing([("gone-user-3", "s0")], NOW + 5000), now=NOW + 5000)
    late = driver.do(asking("late", expires_at=NOW + 9000), now=NOW + 5000).pushes
    assert late
    assert "gone-user-3" not in {push.user_id for push in late}
    assert driver.restored().digest() == driver.partition.digest()


def test_users_known_by_a_vector_alone_go_with_it() -> None:
    driver = Driver()
    users = [f"v{i}" for i in range(100)]

    def given(ids: list[str], withdrawn: list[str]) -> PartitionOutputs:
        vectors = np.tile(VECTORS[0], (len(ids), 1)) if ids else np.zeros((0, VECTORS.shape[1]), np.float32)
        return driver.do(vectors=OutsideVectors("space", ids, vectors, np.full(len(ids), NOW), withdrawn))

    given(users, [])
    assert driver.partition.users == 100
    given([], users[:40])
    assert driver.partition.users == 60
    assert len(driver.do(asking(neighbours=(), similarities=np.zeros(0, np.float32))).pushes) == 60
    # Who was pushed is remembered without a vector too.
    given([], users[40:])
    assert driver.partition.users == 60
    driver.do(Takedown("new", 1, EndReason.TAKEN_DOWN))
    given([f"w{i}" for i in range(40)], [])
    assert len(parts(driver.partition).users) == 100
    songs = parts(driver.partition).songs
    songs.set_vectors("other", ["s0"], np.ones((1, 3), np.float32))
    driver.do()
    assert driver.partition.users == 60
    assert driver.restored().digest() == driver.partition.digest()


def test_records_that_delete_make_no_user_known() -> None:
    driver = Driver()
    driver.do(listens=hearing([("a", "s0")]))
    driver.log += [(kind + f"gone{i}".encode(), None) for i in range(100) for kind in (b"u", b"p", b"i")]
    restored = driver.restored()
    assert (restored.users, restored.digest()) == (1, driver.partition.digest())


def test_recordings_and_artists_that_nobody_was_pushed_are_forgotten() -> None:
    driver = Driver(TargetingConfig(ended_days=0.0))
    ledger = parts(driver.partition).push_log
    for number in range(40):
        now = NOW + 10_000.0 * number
        users = [f"u{number}-{i}" for i in range(20)]
        driver.do(listens=hearing([(user, "s0") for user in users], now), now=now)
        song = asking(f"n{number}", artist_ids=(f"a{number}",), requested_at=now, expires_at=now + 100)
        assert driver.do(song, now=now).pushes
        assert len(ledger._of_recording) == len(ledger._of_artist) == 1
        driver.do(erasures=[(user, now + 1) for user in users], now=now + 2)
        assert len(ledger._of_recording) == len(ledger._of_artist) == 0
        assert len(ledger._of_recording._rows._length) <= 1024
        # It ends, and is forgotten by the next batch.
        driver.do(now=now + 200)
        driver.do(now=now + 201)
    assert parts(driver.partition)._songs_of == {}


def test_a_recording_is_its_other_songs_again_once_the_later_song_is_forgotten() -> None:
    driver = Driver(TargetingConfig(ended_days=0.0))
    driver.do(listens=hearing([(f"u{i}", "s0") for i in range(20)]))
    # More budget than there are users, so that the first song's campaign goes on.
    driver.do(asking("first", recording="r", budget=1000))
    driver.do(asking("later", recording="r", requested_at=NOW + 1, expires_at=NOW + 10), now=NOW + 1)

    def opened(user: str, now: float) -> dict[str, int]:
        outcomes = Outcomes([user], ["first"], np.asarray([Mark.OPENED], np.uint16), np.asarray([now]))
        again = driver.restored()
        driver.do(outcomes=outcomes, now=now)
        again.apply(again.stage(PartitionInputs(now, outcomes=outcomes)))
        assert again.digest() == driver.partition.digest()
        return {account.song_id: account.counts.opened for account in driver.partition.accounts()}

    assert opened("u0", NOW + 2) == {"first": 0, "later": 1}
    # A change of the first one does not make it the later one.
    driver.do(listens=hearing([("u9", "first")], NOW + 3), now=NOW + 3)
    assert opened("u1", NOW + 4) == {"first": 0, "later": 2}
    driver.do(now=NOW + 30)
    driver.do(now=NOW + 31)
    assert opened("u2", NOW + 32) == {"first": 1}


# -- the same decisions, whatever was forgotten and whatever rows were given


def told(outputs: PartitionOutputs) -> tuple[object, ...]:
    # A last bit of a sum may depend on where it stands in memory.
    records = {key: value if key[:1] != b"k" else None for key, value in outputs.changelog if key[:1] not in b"em"}
    pushes = [(push.user_id, push.match.song_id, push.why, push.songs, push.not_before) for push in outputs.pushes]
    return records, sorted(pushes), [(each.song_id, each.revision, each.counts) for each in outputs.accounts]


@settings(max_examples=60, deadline=None)
@given(batches, st.lists(st.booleans(), min_size=6, max_size=6), st.booleans())
def test_sweeps_and_rows_that_were_others_change_nothing(
    sequence: list[Batch], sweeps: list[bool], living: bool
) -> None:
    config = TargetingConfig(history=4, scored=1000 if living else 0)
    plain, other = Driver(config), Driver(config)
    # Rows and slots that were somebody else's before, in another order.
    junk = [f"j{i}" for i in range(12)]
    other.do(listens=hearing([(user, f"junk{at}") for at, user in enumerate(junk)], NOW - 50), now=NOW - 50)
    other.do(erasures=[(user, NOW - 10) for user in (*junk[::2], *junk[1::2])], now=NOW - 9)
    parts(other.partition).songs.sweep()
    assert other.partition.users == 0
    for at, batch in enumerate(sequence):
        if sweeps[at]:
            parts(other.partition).songs.sweep()
        inputs = inputs_of(at, batch)
        one, two = (driver.partition.stage(inputs) for driver in (plain, other))
        assert told(one.outputs) == told(two.outputs)
        for driver, staged in ((plain, one), (other, two)):
            driver.partition.apply(staged)
            driver.log += staged.outputs.changelog
        assert plain.partition.users == other.partition.users
    restored = other.restored()
    assert restored.digest() == other.partition.digest()
    if not any(batch[3] for batch in sequence):
        # Vectors from outside come back from their own topic.
        assert restored.users == other.partition.users
