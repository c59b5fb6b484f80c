"""An artifact goes live: every warm song first, then the model, and nothing of a torn one."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import msgspec
import numpy as np
import pytest
from installation import PATIENCE_S, Installation
from prometheus_client import CollectorRegistry
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors
from scipy import sparse

from encoder import artifact
from encoder import train as training
from encoder.artifact import ArtifactError, load_warm, read_manifest
from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from streams.contract.cloudevents import Record
from streams.contract.errors import InvalidField, PartitionMismatch, Refused, Unavailable
from streams.contract.event_base import LARGEST
from streams.contract.internal_events import LiveModel, WarmSong
from streams.contract.topics import MODELS, WARM_SONGS, Naming
from streams.contract.vector_codec import unpack
from streams.models import learned_chances
from streams.models.learned_chances import LearnedChances
from streams.models.publish import _fitting, publish
from streams.models.registry import ENCODER, LiveView, WarmSpace
from streams.runtime.clock import ManualClock, SystemClock
from streams.runtime.metrics import SongsMetrics
from streams.runtime.settings import KafkaSettings
from streams.songs.matcher import Matcher
from streams.songs.model_swap import LiveMatcher, load_encoder
from targeting.calibration import Calibration

NOW = 1_800_000_000.0


@pytest.fixture(scope="module")
def small() -> Dataset:
    """40 songs and 60 users who listen to three in ten of them, whatever their content."""
    rng = np.random.default_rng(0)
    songs = [
        SongContent({"audio": rng.normal(size=3).tolist()}, {"tags": {f"tag{row % 4}": 1.0, "music": 0.5}})
        for row in range(40)
    ]
    return Dataset(
        name="small",
        content=ContentTable.from_songs([f"song{row}" for row in range(40)], songs),
        user_ids=tuple(f"user{row}" for row in range(60)),
        plays=sparse.csr_matrix((rng.random((40, 60)) < 0.3).astype(np.float32)),
    )


@pytest.fixture(scope="module")
def model(small: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small trained encoder."""
    config = training.TrainingConfig(seed=0, dim=16, factors=12, hidden=16, epochs=1, batch=16, targets=5, neighbours=3)
    path = tmp_path_factory.mktemp("publishing") / "model"
    artifact.save(training.train(small, np.arange(40), config), path)
    return path


class Noon(SystemClock):
    """Deadlines run, the wall clock stands."""

    def now(self) -> float:
        return NOW


def test_topics_with_other_partitions_than_the_settings_say_are_refused_by_the_rule_of_the_roles(
    here: Installation, model: Path
) -> None:
    wrong = replace(here.naming, songs_partitions=3)
    with pytest.raises(
        PartitionMismatch, match=r"topics\.songs_partitions = 3: topic \S+warm-songs has 2; songs would"
    ):
        publish(model, here.kafka, wrong, SystemClock())
    assert here.read(WARM_SONGS) == []


def test_what_is_published_is_what_is_live(here: Installation, model: Path) -> None:
    warm, manifest = load_warm(model), read_manifest(model)
    total = len(warm.content)
    progress: list[tuple[int, int]] = []
    live = publish(model, here.kafka, here.naming, Noon(), lambda done, of: progress.append((done, of)))
    assert (live.space, live.dim, live.warm_songs) == (manifest.space, manifest.dim, total)
    assert live.manifest_sha256 == sha256((model / "manifest.json").read_bytes()).hexdigest()
    assert live.published_at.timestamp() == NOW
    assert progress[-1] == (total, total)

    with closing(LiveView(here.kafka, here.naming, SystemClock())) as view:
        assert view.model == live
        space = view.warm()
        assert space is not None
        vectors = dict(zip(space.ids, space.vectors, strict=True))
    assert vectors.keys() == set(warm.content.song_ids)
    for song_id, vector in zip(warm.content.song_ids, warm.vectors, strict=True):
        np.testing.assert_array_equal(vectors[song_id], vector)

    # A later encoder can take the songs over: their content is whole.
    for message in here.read(WARM_SONGS):
        song = msgspec.json.decode(message.value() or b"", type=WarmSong)
        assert message.key() == f"{manifest.space} {song.song_id}".encode()
        dense = {name: np.frombuffer(vector, "<f4").tolist() for name, vector in song.features.items()}
        assert SongContent(dense, song.bags) == warm.content.song(warm.content.song_ids.index(song.song_id))
    np.testing.assert_array_equal(
        load_encoder(live).encode(warm.content), artifact.load_encoder(model).encode(warm.content)
    )


def test_publishing_again_changes_nothing_but_the_date(here: Installation, model: Path) -> None:
    first = publish(model, here.kafka, here.naming, ManualClock(NOW))
    again = publish(model, here.kafka, here.naming, ManualClock(NOW + 60))
    assert msgspec.structs.replace(again, published_at=first.published_at) == first
    records = here.read(WARM_SONGS)
    assert len(records) == 2 * first.warm_songs
    assert len({(message.key(), message.value()) for message in records}) == first.warm_songs
    assert [message.key() for message in here.read(MODELS)] == [ENCODER.encode()] * 2


def test_nothing_is_said_of_a_torn_artifact(here: Installation, model: Path, tmp_path: Path) -> None:
    for torn in ("model.safetensors", "warm.safetensors", "warm_songs.json.gz", "schema.json"):
        copy = Path(shutil.copytree(model, tmp_path / torn))
        data = bytearray((copy / torn).read_bytes())
        data[len(data) // 2] ^= 1
        (copy / torn).write_bytes(data)
        with pytest.raises(ArtifactError, match=torn):
            publish(copy, here.kafka, here.naming, SystemClock())
    assert here.read(WARM_SONGS) == here.read(MODELS) == []


def test_missing_topics_are_named(kafka: KafkaSettings, prefix: str, model: Path) -> None:
    with pytest.raises(Unavailable, match=rf"{prefix}.*topics create"):
        publish(model, kafka, Naming(prefix, 1, 1), SystemClock())


def test_a_worker_refuses_an_artifact_that_is_not_the_published_one(here: Installation, model: Path) -> None:
    live: LiveModel = publish(model, here.kafka, here.naming, SystemClock())
    with pytest.raises(Refused, match=r"holds space .*published was 'other-1'"):
        load_encoder(msgspec.structs.replace(live, space="other-1"))
    with pytest.raises(Refused, match=r"s3://bucket/model.*not a file"):
        load_encoder(msgspec.structs.replace(live, uri="s3://bucket/model"))


def tampered(artifact_: Path) -> str:
    """Give an artifact other weights and a manifest that agrees with them; the manifest's new sum."""
    file, manifest = artifact_ / "model.safetensors", artifact_ / "manifest.json"
    tensors = load_tensors(file.read_bytes())
    tensors["network.context"] = tensors["network.context"] + 1
    file.write_bytes(save_tensors(tensors))
    told = json.loads(manifest.read_bytes())
    told["files"]["model.safetensors"] = [file.stat().st_size, sha256(file.read_bytes()).hexdigest()]
    manifest.write_text(json.dumps(told))
    return sha256(manifest.read_bytes()).hexdigest()


def test_an_artifact_with_other_weights_a_consistent_manifest_and_the_same_space_is_refused_with_both_sums(
    here: Installation, model: Path, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(model, tmp_path / "copy"))
    live = publish(copy, here.kafka, here.naming, SystemClock())
    found = tampered(copy)
    # By itself it is whole.
    assert artifact.load_encoder(copy).space == live.space
    with pytest.raises(ArtifactError) as caught:
        load_encoder(live)
    assert f"expected sha256 {live.manifest_sha256}, found {found}" in str(caught.value)
    assert str(copy / "manifest.json") in str(caught.value)


def test_a_worker_keeps_its_model_when_the_next_one_was_tampered_with_until_it_is_published_anew(
    here: Installation, model: Path, tmp_path: Path
) -> None:
    first = publish(model, here.kafka, here.naming, SystemClock())
    with closing(LiveView(here.kafka, here.naming, SystemClock())) as view:
        serving = LiveMatcher(view, SongsMetrics(CollectorRegistry()), SystemClock(), 60.0)
        serving.wait()
        other = Path(shutil.copytree(model, tmp_path / "other"))
        manifest = json.loads((other / "manifest.json").read_bytes())
        (other / "manifest.json").write_text(json.dumps(manifest | {"space": "bcl-other"}))
        second = publish(other, here.kafka, here.naming, SystemClock())
        tampered(other)
        follow(view, second)
        serving.wait()
        assert (serving().space, serving().other) == (first.space, None)
        third = publish(other, here.kafka, here.naming, SystemClock())
        follow(view, third)
        serving.wait()
        assert serving().space == "bcl-other"


def follow(view: LiveView, model: LiveModel) -> None:
    """Until the view has the model and its songs."""
    deadline = SystemClock().monotonic() + PATIENCE_S
    while view.model != model or view.warm() is None:
        assert SystemClock().monotonic() < deadline
        view.poll(0.1)


@pytest.mark.parametrize("uri", ["file://[::1", "file:///%00", "models/m1", ""])
def test_an_address_of_a_model_that_is_none_is_refused_by_name(uri: str) -> None:
    live = msgspec.json.decode(LiveModel.EXAMPLE.encode(), type=LiveModel)
    with pytest.raises(Refused, match="model encoder"):
        load_encoder(msgspec.structs.replace(live, uri=uri))


def test_content_that_the_model_cannot_take_is_refused_by_name_or_left_out(model: Path) -> None:
    matcher = Matcher.build(artifact.load_encoder(model), WarmSpace())
    registry = CollectorRegistry()
    metrics = SongsMetrics(registry)
    with pytest.raises(InvalidField, match=r"features\.audio\.vector: 2 values, the live model takes 3"):
        matcher.fitting(SongContent({"audio": [1.0, 2.0]}), metrics)
    bags = {"tags": {"tag1": 1.0}}
    songs = [SongContent({"audio": [1.0, 2.0, 3.0]}, bags)] * 2
    # Two uploads may even differ in the size of a feature that the model never met.
    strange = [SongContent(song.dense | {"lyrics:x": [1.0] * size}, bags) for size, song in enumerate(songs, 1)]
    assert [matcher.fitting(song, metrics) for song in strange] == songs
    assert registry.get_sample_value("coldstart_unseen_content_total") == 2
    huge = SongContent({"audio": [LARGEST, -LARGEST, LARGEST]}, {"tags": {"tag1": LARGEST, "music": LARGEST}})
    for matched in matcher.match([*songs, matcher.fitting(huge, metrics)], 5, metrics):
        assert np.linalg.norm(unpack(matched.vector)[1]) == pytest.approx(1, abs=1e-5)
        assert matched.neighbours == []


def test_the_chances_of_a_models_scores_travel_with_it(here: Installation, model: Path, tmp_path: Path) -> None:
    calibrated = tmp_path / "calibrated"
    shutil.copytree(model, calibrated)
    liking = Calibration((0.1, 0.5), (0.02, 0.4))
    answers = Calibration((0.05, 0.3), (0.01, 0.5), activity=0.25)
    learned_chances.save(LearnedChances(liking, answers), calibrated)

    live = publish(calibrated, here.kafka, here.naming, SystemClock())
    with closing(LiveView(here.kafka, here.naming, SystemClock())) as view:
        assert view.model == live
    assert learned_chances.calibration_of(live.chances, "liking") == liking
    assert learned_chances.calibration_of(live.chances, "answers") == answers

    # As it was written before anything was known of activity.
    (calibrated / "chances.json").write_text('{"scores":[0.1,0.5],"chances":[0.02,0.4],"means":"x"}')
    live = publish(calibrated, here.kafka, here.naming, SystemClock())
    assert learned_chances.calibration_of(live.chances, "answers") == liking

    for broken, said in (
        ('"scores":[0.5,0.1],"chances":[0.1,0.2]', "scores must ascend"),
        (
            '"scores":[0.1],"chances":[0.1],"answers":{"activity":0.2,"scores":[1],"chances":[0.2,0.3]}',
            "1 scores and 2",
        ),
        ('"scores":[0.1],"chances":[0.1],"answers":{"activity":3,"scores":[1],"chances":[0.2]}', "<= 2"),
    ):
        (calibrated / "chances.json").write_text(f'{{"means":"x",{broken}}}')
        with pytest.raises(Refused, match=said):
            publish(calibrated, here.kafka, here.naming, SystemClock())


def test_chances_are_learnt_from_warm_songs_made_cold(small: Dataset) -> None:
    config = training.TrainingConfig(seed=0, dim=16, factors=12, hidden=16, epochs=1, batch=16, targets=5, neighbours=3)
    found = learned_chances.fit(small, np.arange(40), config)
    assert found is not None
    base = small.plays.nnz / np.prod(small.plays.shape)
    # Listens are drawn without regard to content, so that every score stands for about the same chance.
    assert found.liking.chance(np.array([0.5], np.float32))[0] == pytest.approx(base, abs=0.15)
    # Of 4 songs made cold with 18 listeners on average, nothing is to be learnt of activity.
    assert found.answers == found.liking


def test_of_too_few_songs_no_chances_are_learnt(small: Dataset) -> None:
    config = training.TrainingConfig(seed=0, dim=16, factors=12, hidden=16, epochs=1, batch=16, targets=5, neighbours=3)
    assert learned_chances.fit(small, np.arange(5), config) is None


@pytest.mark.parametrize(
    ("record", "said"),
    [
        (Record(b"space " + b"s" * 129, b"{}", []), "an id of 129 characters, 1 to 128 allowed"),
        (Record(b"space s", b"x" * WARM_SONGS.largest, []), "2,097,152 allowed"),
    ],
)
def test_a_warm_song_that_is_too_long_for_a_record_is_refused_by_name(record: Record, said: str) -> None:
    with pytest.raises(Refused, match=said):
        _fitting(record)
    assert _fitting(Record(b"space s", b"{}", []))
