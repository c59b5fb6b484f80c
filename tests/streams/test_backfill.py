"""History that is loaded is there once, whatever interrupts the load."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from installation import Installation
from test_erased import CLOCK, Scene

from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.layout import read_dataset
from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.errors import Refused
from streams.contract.events import Listen
from streams.contract.topics import LISTENS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.operations import backfill
from streams.operations.backfill import AggregatedHistory, history_of, load
from streams.operations.state_digest import digest
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition

ROOT = Path(__file__).parents[2]
IDS = st.text(min_size=1, max_size=12).filter(lambda text: text.isprintable())


@st.composite
def histories(draw: st.DrawFn) -> AggregatedHistory:
    users = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    songs = draw(st.lists(IDS, min_size=1, max_size=4, unique=True))
    counts = [draw(st.integers(0, len(songs))) for _ in users]
    n = sum(counts)
    plays = draw(st.lists(st.floats(0.1, 1e12), min_size=n, max_size=n))
    dated = draw(st.booleans())
    times = draw(st.lists(st.integers(0, 1_700_000_000), min_size=n, max_size=n)) if dated else None
    heard = [number for count in counts for number in range(count)]
    starts = np.cumsum([0, *counts])
    columns = np.array(heard, np.int32), np.array(plays, np.float32)
    return AggregatedHistory(
        tuple(users), tuple(songs), starts, *columns, None if times is None else np.array(times, np.int64)
    )


@given(histories(), st.data())
def test_every_listen_is_an_event_of_the_contract_wherever_a_load_goes_on(
    history: AggregatedHistory, data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(history)))
    found = [
        each
        for start, end in ((0, cut), (cut, len(history)))
        if end > start
        for each in backfill._records(history, "name", 1_600_000_000, start, end)
    ]
    assert len(found) == len(history)
    at = 0
    for user, (start, end) in enumerate(zip(history.starts, history.starts[1:], strict=False)):
        for place in range(int(start), int(end)):
            key, id, stamp, value = found[at]
            said = [("ce_id", id), ("ce_time", stamp), ("ce_type", Listen.TYPES[0].encode()), ("ce_source", b"s")]
            event = unpack(Listen, key, value, [*said, ("ce_specversion", b"1.0")], 1.8e9).event
            assert (event.user_id, event.song_id) == (history.user_ids[user], history.song_ids[history.songs[place]])
            assert event.plays == min(max(1, int(history.plays[place])), 2**31 - 1)
            time = 1_600_000_000 if history.times is None else history.times[place]
            assert event.played_at.timestamp() == time
            at += 1
    assert len({id for _, id, _, _ in found}) == len(found)


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path, session_s=6.0)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("world")
    generate(World(users=300, songs=600, seed=5, history=30.0), path)
    return path


@pytest.fixture(scope="module")
def dataset(data: Path) -> Dataset:
    return read_dataset(data)


def plays(here: Installation) -> dict[tuple[str, str], int]:
    """Of each user and song, as a reader of committed transactions sees them; a pair is there once."""
    found: dict[tuple[str, str], int] = {}
    for message in here.read(LISTENS):
        event = unpack(Listen, message.key(), message.value(), headers(message), CLOCK.now()).event
        assert (event.user_id, event.song_id) not in found
        found[event.user_id, event.song_id] = event.plays
    return found


def wanted(dataset: Dataset) -> dict[tuple[str, str], int]:
    cells = dataset.plays.tocoo()
    return {
        (dataset.user_ids[user], dataset.song_ids[song]): max(1, int(count))
        for song, user, count in zip(cells.row, cells.col, cells.data, strict=True)
    }


def test_a_load_that_was_killed_goes_on_and_the_state_is_the_same(scene: Scene, data: Path, dataset: Dataset) -> None:
    here = scene.here
    environment = {**os.environ, **scene.environment, "PYTHONPATH": str(ROOT)}
    script = (
        "import sys, time; from streams.operations import backfill; backfill._AT_ONCE = 500\n"
        "said = backfill.write_note\n"
        "def slow(*args): said(*args); time.sleep(0.2)\n"
        "backfill.write_note = slow\n"
        "from streams.cli import main; main()"
    )
    command = [sys.executable, "-c", script, "backfill", "--data", str(data), "--no-wait", *scene.options]
    first = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = CLOCK.monotonic() + 60
    while not here.read(LISTENS):
        assert CLOCK.monotonic() < deadline
    first.send_signal(signal.SIGKILL)
    first.wait()
    total = dataset.plays.nnz
    there = len(here.read(LISTENS))
    assert 0 < there < total
    done = load(here.kafka, here.naming, CLOCK, history_of(dataset))
    assert (done.before, done.sent) == (there, total - there)
    assert plays(here) == wanted(dataset)
    # Once more: there is nothing left to do.
    assert load(here.kafka, here.naming, CLOCK, history_of(dataset)).sent == 0
    assert len(here.read(LISTENS)) == total
    assert digests(scene) == in_one_go(scene, dataset)


def digests(scene: Scene) -> list[str]:
    here = scene.here
    ends = [max(message.offset() or 0 for message in here.read(LISTENS, partition)) for partition in (0, 1)]
    scene.work(lambda: all(here.committed("audience", LISTENS, p) > end for p, end in enumerate(ends)))

    def new(number: int) -> Partition:
        return Partition(number, 2, Catalogue(), TargetingConfig())

    found = [digest(here.kafka, here.naming, partition, CLOCK, new) for partition in (0, 1)]
    return [each.digest for each in found if each is not None]


def in_one_go(scene: Scene, dataset: Dataset) -> list[str]:
    """The digests of an installation into which the same is loaded without an interruption."""
    naming = Naming(f"{scene.here.naming.prefix}whole.", 2, 2)
    create_topics(admin(scene.here.kafka), naming, 1)
    whole = Scene(Installation(scene.here.kafka, naming), scene.folder / "whole", session_s=6.0)
    load(whole.here.kafka, naming, CLOCK, history_of(dataset))
    return digests(whole)


def test_an_id_that_no_event_takes_is_refused(dataset: Dataset) -> None:
    with pytest.raises(Refused, match="129 characters"):
        history_of(replace(dataset, user_ids=("u" * 129, *dataset.user_ids[1:])))
