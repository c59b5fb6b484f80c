"""State written by an earlier version is read: changelog, disk, records of the internal topics, artifacts."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from msgspec import structs

from encoder.artifact import load_encoder
from encoder.content import ContentTable, SongContent
from streams.audience.local_store import LocalStore
from streams.contract.cloudevents import unpack
from streams.contract.event_base import Event
from streams.contract.events import SongUpload
from streams.contract.internal_events import INTERNAL_EVENTS
from streams.models.registry import read_model, read_song
from streams.songs import song_record
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.rules.policy import Policy
from targeting.types import Match, PartitionInputs

FORMER = Path(__file__).parent / "former"
LEFT: dict[str, Any] = msgspec.msgpack.decode((FORMER / "records.msgpack").read_bytes())
FACTS: dict[str, Any] = LEFT["facts"]
CHANGELOG: list[tuple[bytes, bytes | None]] = [(key, value) for key, value in LEFT["changelog"]]
NOW = 1_700_000_000.0


def unpacked(name: str, where: Path) -> Path:
    with tarfile.open(FORMER / f"{name}.tar.gz") as archive:
        archive.extractall(where, filter="data")
    return where / name


def restored(records: list[tuple[bytes, bytes | None]]) -> Partition:
    """As a worker of this version would, with the songs that were warm."""
    vectors = np.random.default_rng(0).standard_normal((12, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    catalogue = Catalogue()
    catalogue.set_vectors("space", [f"s{number}" for number in range(12)], vectors)
    policy = Policy(holdout=0.1, exploration=0.1)
    partition = Partition(0, 1, catalogue, TargetingConfig(policy=policy, erasure_key=b"k" * 16))
    partition.restore(records)
    return partition


def test_a_changelog_is_restored() -> None:
    partition = restored(CHANGELOG)
    assert (partition.users, partition.campaigns) == (FACTS["users"], FACTS["campaigns"])
    told = [
        [each.song_id, *(getattr(each.counts, name) for name in ("pushed", "opened", "listened", "distinct_listeners"))]
        for each in partition.accounts()
    ]
    assert told == FACTS["accounts"]


def test_nobody_is_pushed_again_what_an_earlier_version_pushed() -> None:
    partition = restored(CHANGELOG)
    songs = {song for _, song in FACTS["pushed"]}
    for song_id in sorted(songs):
        request = Match(
            song_id, 2, song_id, "again", (), "space", np.eye(8, dtype=np.float32)[0], ("s0", "s1"),
            np.array([0.9, 0.8], np.float32), 1000, NOW + 60, NOW + 9000,
        )  # fmt: skip
        staged = partition.stage(PartitionInputs(NOW + 60, commands=[request]))
        partition.apply(staged)
        again = {(push.user_id, push.match.song_id) for push in staged.outputs.pushes}
        assert again.isdisjoint((user, song) for user, song in FACTS["pushed"] if user != "u7")
        fresh = structs.replace(request, song_id=f"not {song_id}", recording=f"not {song_id}", revision=1)
        assert partition.stage(PartitionInputs(NOW + 61, commands=[fresh])).outputs.pushes


def test_a_copy_on_disk_says_the_same(tmp_path: Path) -> None:
    class Then:
        def now(self) -> float:
            return NOW

        def monotonic(self) -> float:
            return 0.0

    store = LocalStore(unpacked("store", tmp_path), "former", 0, Then())
    entries = [(entry.key, entry.value) for entry in store.entries()]
    offset = store.offset
    store.close()
    assert offset == len(CHANGELOG)
    assert restored(list(entries)).digest() == restored(CHANGELOG).digest()


@pytest.mark.parametrize("cls", INTERNAL_EVENTS, ids=lambda cls: cls.__name__)
def test_records_of_internal_topics_are_read(cls: type[Event]) -> None:
    key, value, headers = LEFT["records"][cls.__name__]
    example = msgspec.json.decode(cls.EXAMPLE, type=cls)
    headers = [(name, content) for name, content in headers]
    if cls.__name__ == "WarmSong":
        assert read_song(key, value, headers)[0] == example
    elif cls.__name__ == "LiveModel":
        assert read_model(key, value, headers) == example
    else:
        # The example's times may have been moved since; what it is about was not.
        assert getattr(unpack(cls, key, value, headers, NOW * 2).event, "song_id") == "s-81"  # noqa: B009


def test_a_songs_record_is_read() -> None:
    key, value, _ = LEFT["records"]["songs-ledger"]
    song_record.check(key, value)
    song = song_record.read(value)
    assert song is not None
    event, expected = song.event(), msgspec.json.decode(SongUpload.EXAMPLE, type=SongUpload)
    # Dense features are kept in 32-bit floats.
    assert event.features["audio"].vector == pytest.approx(expected.features["audio"].vector)
    assert msgspec.structs.replace(event, features={}) == msgspec.structs.replace(expected, features={})


def test_an_artifact_is_loaded_and_encodes_the_same(tmp_path: Path) -> None:
    encoder = load_encoder(unpacked("artifact", tmp_path))
    expected = np.load(FORMER / "vectors.npy", allow_pickle=False)
    assert encoder.encode(cold_songs()) == pytest.approx(expected, abs=1e-5)


def cold_songs() -> ContentTable:
    """The last of 15 songs in each of four scenes, drawn as in ``tests/encoder/scenes.py`` at that commit."""
    rng = np.random.default_rng(0)
    songs = []
    for row in range(60):
        scene = row // 15
        tags = {f"scene{scene}-{t}": 1.0 for t in rng.choice(6, 3, replace=False)} | {"music": 1.0}
        sound = np.eye(4)[scene] * 3 + rng.normal(size=4)
        songs.append(SongContent(dense={"audio": sound.tolist()}, bags={"tags": tags}))
    return ContentTable.from_songs(["a", "b", "c", "d"], songs[14::15])
