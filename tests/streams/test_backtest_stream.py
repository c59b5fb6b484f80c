"""`coldstart backtest --stream`: a worker on a real broker pushes what the replay does, and a difference is found."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from typer.testing import CliRunner

from encoder.data.generate import World, generate
from encoder.data.history import History
from encoder.data.layout import read_history
from streams.audience.main import targeting_config
from streams.cli import app
from streams.contract.cloudevents import Record
from streams.contract.topics import Topic
from streams.runtime.settings import AudienceSettings, KafkaSettings, Settings
from streams.testbed.backtest import replay_records, script
from streams.testbed.backtest.broker_replay import Streamed, compare
from streams.testbed.backtest.past_models import Trainer
from streams.testbed.backtest.plan import DEFAULT, VARIANTS, BacktestPlan
from streams.testbed.backtest.replay import Decisions, replay
from streams.testbed.backtest.script import Grown, Listened, ModelSwapped, Script, Step
from targeting.config import TargetingConfig


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("stream") / "data"
    generate(World(users=250, songs=500, history=20, late=0.5, days=40.0, seed=1), path)
    return path


@dataclass(frozen=True)
class Replayed:
    """A script and what the default arm does of it in this process, every step in one batch."""

    script: Script
    history: History
    config: TargetingConfig
    trace: Decisions

    def on(self, kafka: KafkaSettings, log: Path, batch_records: int = 10_000) -> Streamed:
        audience = AudienceSettings(batch_records=batch_records)
        reach = kafka
        return compare(self.script, self.history, self.config, self.trace, audience, reach, log, lambda *_: None)


@pytest.fixture(scope="module")
def replayed(folder: Path) -> Replayed:
    """All kinds of steps: a second model takes over, and songs grow warm."""
    history = read_history(folder)
    rules = targeting_config(Settings().audience, obey=True)
    rules = replace(rules, policy=replace(rules.policy, holdout=0.0, exploration=0.0))
    plan = BacktestPlan(
        data=folder, users=0, songs=0, seed=0, history=0.6, budget=20, window_days=5.0, campaign_days=4.0,
        retrain_days=5.0, refresh_days=1.0, warm_listeners=3, neighbours=20, cuts=0, arms=(DEFAULT,), rules=rules,
        folder=folder,
    )  # fmt: skip
    written = script.write(history, plan, script.begin(history, plan), Trainer(0), lambda *_: None)
    assert sum(isinstance(step, ModelSwapped) for step in written.steps) >= 2
    assert any(isinstance(step, ModelSwapped) and step.moved for step in written.steps)
    assert any(isinstance(step, Grown) and step.vector is not None for step in written.steps)
    config = VARIANTS[DEFAULT].config(rules)
    return Replayed(written, history, config, replay(written, history, config))


def test_a_worker_pushes_the_same(kafka: KafkaSettings, replayed: Replayed, tmp_path: Path) -> None:
    of = replayed.on(kafka, tmp_path / "log")
    assert of.alike, of
    assert of.pushes == len(replayed.trace.pushes) > 100
    assert any(push.live for push in replayed.trace.pushes)
    assert of.batches >= len([step for step in replayed.script.steps if not isinstance(step, ModelSwapped)])


@pytest.mark.long
def test_so_does_one_that_splits_every_step(kafka: KafkaSettings, replayed: Replayed, tmp_path: Path) -> None:
    of = replayed.on(kafka, tmp_path / "log", batch_records=5)
    assert of.alike, of
    assert of.split > 50
    assert of.batches > len(replayed.history) / 5


def test_one_listen_that_differs_is_found(
    kafka: KafkaSettings, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One listen of the past is of another song on the stream."""
    original = replay_records.inputs

    def inputs(step: Step, history: History) -> tuple[Topic, list[Record]]:
        if isinstance(step, Listened) and step.first == 0:
            song = history.song.copy()
            song[0] = song[np.flatnonzero(song != song[0])[0]]
            history = replace(history, song=song)
        return original(step, history)

    monkeypatch.setattr(replay_records, "inputs", inputs)
    result, figures, page = verb(kafka, folder, tmp_path)
    assert result.exit_code == 1, result.output
    assert "the stream decided differently" in result.output
    assert not figures["stream"]["alike"]
    assert not figures["stream"]["state"]
    assert figures["stream"]["restored"]
    assert "not the same" in page


def test_the_verb_says_that_it_is_the_same(kafka: KafkaSettings, folder: Path, tmp_path: Path) -> None:
    result, figures, page = verb(kafka, folder, tmp_path)
    assert result.exit_code == 0, result.output
    stream = figures["stream"]
    assert stream["alike"]
    assert stream["same"] == stream["pushes"] == stream["expected"] > 100
    words = " ".join(result.output.split())
    assert re.search(f"the same pushes as in process.{{1,5}}{stream['same']:,} of {stream['pushes']:,}", words), words
    assert "the same pushes." in page
    assert '"event": "restored"' in (tmp_path / "worker.log").read_text()


def verb(kafka: KafkaSettings, folder: Path, where: Path) -> tuple[Any, dict[str, Any], str]:
    result = CliRunner().invoke(
        app,
        [
            "backtest", "--data", str(folder), "--folder", str(where), "--json", str(where / "f.json"), "--history",
            "0.6", "--budget", "20", "--campaign", "4", "--window", "2", "--retrain", "100", "--variants", "default",
            "--audit", "0", "--stream", "--bootstrap-servers", kafka.bootstrap_servers,
        ],
    )  # fmt: skip
    return result, json.loads((where / "f.json").read_text()), (where / "report.html").read_text()
