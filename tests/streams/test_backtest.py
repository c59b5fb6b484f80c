"""`coldstart backtest`: what was known when, which pushes were right, and that a look into the future is found."""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse
from typer.testing import CliRunner

from encoder.content import ContentTable, SongContent
from encoder.data.dataset import Dataset
from encoder.data.generate import World, generate
from encoder.data.history import History
from encoder.data.layout import read_history
from encoder.data.world import song_id, user_id
from streams.cli import app
from streams.runtime.exit_codes import REFUSED
from streams.testbed.backtest import replay, script
from streams.testbed.backtest.audit import Leak, audit, cuts
from streams.testbed.backtest.backtest_figures import BacktestOutcome, Judge, PushTally
from streams.testbed.backtest.past_models import PastModel, Trainer
from streams.testbed.backtest.plan import DAY, DEFAULT, VARIANTS, BacktestPlan
from streams.testbed.backtest.replay import Decisions, Pushed
from streams.testbed.backtest.script import Listened, ModelSwapped, Script, Uploaded
from targeting.calibration import Calibration
from targeting.config import TargetingConfig
from targeting.types import F32, F64, Listens, Match

HOUR = 3600.0


def told(*listens: tuple[str, str, float]) -> History:
    """A history of (user, song, time), in the order of time; every song has a tag."""
    songs = tuple(sorted({song for _, song, _ in listens}))
    users = tuple(sorted({user for user, _, _ in listens}))
    content = ContentTable.from_songs(songs, [SongContent({}, {"tags": {"any": 1.0}})] * len(songs))
    dataset = Dataset("told", content, users, sparse.csr_matrix((len(songs), len(users)), dtype=np.float32))
    return History(
        dataset,
        np.array([songs.index(song) for _, song, _ in listens], np.int32),
        np.array([users.index(user) for user, _, _ in listens], np.int32),
        np.ones(len(listens), np.float32),
        np.array([at for _, _, at in listens]),
    )


def plan(**changed: Any) -> BacktestPlan:
    return replace(
        BacktestPlan(
            data=None, users=100, songs=100, seed=0, history=0.5, budget=2, window_days=1.0, campaign_days=1.0,
            retrain_days=1000.0, refresh_days=1.0, warm_listeners=2, neighbours=5, cuts=2, arms=tuple(VARIANTS),
            rules=TargetingConfig(), folder=Path(),
        ),
        **changed,
    )  # fmt: skip


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    """It trains once on what several tests begin with."""
    return Trainer(0)


def test_a_song_has_grown_warm_with_its_last_missing_listener() -> None:
    history = told(("u", "a", 1), ("u", "a", 2), ("u", "b", 3), ("v", "a", 4), ("w", "a", 5))
    assert script._kth_listener(history, 1).tolist() == [1, 3]
    assert script._kth_listener(history, 2).tolist() == [4, np.inf]
    assert script._kth_listener(history, 3).tolist() == [5, np.inf]


def judge(history: History, uploaded: float, window: float = 1.0) -> Judge:
    match = Match("b", 1, "b", "", (), "x", np.ones(1, np.float32), (), np.zeros(0, np.float32), 2, 0, 0)
    row = history.dataset.song_ids.index("b")
    return Judge(history, plan(window_days=window), Script(0, (Uploaded(uploaded, row, match),), 0))


def right(of: Judge, *pushes: tuple[str, float]) -> tuple[float, float]:
    judged = of.judge(Decisions([Pushed(at, at, "b", user, 1.0, False) for user, at in pushes]))
    return float(judged.pushes[0]), float(judged.right[0])


def test_a_push_is_right_if_its_user_listens_after_it_within_the_window() -> None:
    """u listens at 100, v a day after it, w never, and x's first listen is the upload itself."""
    history = told(
        ("u", "a", 0), ("w", "a", 1), ("x", "b", 50), ("u", "b", 100), ("u", "b", 200), ("v", "b", 100 + DAY),
        ("w", "a", 10 * DAY),
    )  # fmt: skip
    of = judge(history, uploaded=50)
    assert of.songs == ("b",)
    assert right(of, ("u", 50)) == (1, 1)
    assert right(of, ("u", 99)) == (1, 1)
    # At the same second nobody was pushed before; after it, the second listen is no proof.
    assert right(of, ("u", 100)) == (1, 0)
    assert right(of, ("u", 101)) == (1, 0)
    assert right(of, ("v", 99)) == (1, 0)
    assert right(of, ("v", 100)) == (1, 1)
    assert right(of, ("x", 50), ("w", 50)) == (2, 0)
    # Of u and v, who listened later, u alone was known.
    assert (of.later.tolist(), of.known.tolist(), of.ceiling) == ([2], [1], 1)


def test_a_song_whose_window_ends_after_the_data_is_not_judged() -> None:
    listens = (("u", "a", 0.0), ("x", "b", 50.0), ("u", "b", 2 * DAY + 50))
    assert judge(told(*listens), uploaded=50).songs == ("b",)
    assert judge(told(*listens), uploaded=51).songs == ()


def outcome(arms: dict[str, PushTally], songs: int) -> BacktestOutcome:
    return BacktestOutcome(
        plan(), "d", None, 1, 1, 0.0, 0.0, 1.0, 1, tuple(f"s{i}" for i in range(songs)), songs, 0, 3, 2, 1.5,
        arms, [], 2, {},
    )  # fmt: skip


def test_totals_and_differences_follow_from_the_songs() -> None:
    later = np.array([4.0, 0.0])
    mine = PushTally(np.array([2.0, 2.0]), np.array([2.0, 0.0]), np.array([1.0, 0.0]), later)
    theirs = PushTally(np.array([2.0, 0.0]), np.array([1.0, 0.0]), np.zeros(2), later)
    of = outcome({"random": theirs, DEFAULT: mine}, 2)
    assert of.totals(DEFAULT) == {
        "pushes": 4, "right": 2, "right_live": 1, "right_per_song": 1, "rate": 0.5, "found": 0.5, "songs_with_one": 0.5,
    }  # fmt: skip
    compared = of.compared()["random"]
    assert compared["right"].mean == 0.5
    # A song to which one of the two sent nothing has no share.
    assert (compared["rate"].mean, compared["found"].mean) == (0.5, 0.25)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A world whose songs appear throughout its hundred days; two of its listens have no date."""
    path = tmp_path_factory.mktemp("backtest") / "data"
    generate(World(users=500, songs=600, history=20, late=0.5, days=100.0, seed=1), path)
    with gzip.open(path / "interactions.csv.gz", "at") as file:
        file.write(f"{user_id(0)},{song_id(0)},1,\n{user_id(1)},{song_id(0)},1,\n")
    return path


@pytest.fixture(scope="module")
def world(folder: Path) -> History:
    return read_history(folder)


def options(folder: Path, where: Path, *more: str) -> list[str]:
    return [
        "backtest", "--data", str(folder), "--folder", str(where), "--budget", "30", "--campaign", "5",
        "--window", "10",
        "--retrain", "25", *more,
    ]  # fmt: skip


@pytest.fixture(scope="module")
def done(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, dict[str, Any], str]:
    where = tmp_path_factory.mktemp("run")
    result = CliRunner().invoke(app, options(folder, where, "--json", str(where / "f.json")))
    assert result.exit_code == 0, result.output
    return result, json.loads((where / "f.json").read_text()), (where / "report.html").read_text()


def test_everything_is_told(done: tuple[Any, dict[str, Any], str], world: History) -> None:
    result, figures, page = done
    assert figures["listens"] == len(world)
    assert figures["undated_listens"] == world.undated == 2
    assert re.search("left out: without a date.{1,5}2 ", " ".join(result.output.split()))
    assert "2 more have no date and were left out" in page
    assert figures["stream"] is None
    assert figures["judged_songs"] > 20
    assert figures["arms"].keys() == VARIANTS.keys()
    assert figures["audit"] == {"cuts": 3, "leaks": []}
    assert "0 leaks at 3 uploads" in " ".join(result.output.split())
    assert all(VARIANTS[name].words in page for name in VARIANTS)
    assert "came out the same" in page
    for name, arm in figures["arms"].items():
        assert 0 < arm["pushes"] <= 30 * figures["judged_songs"], name
        assert arm["right"] <= figures["later_listeners"]
        assert (arm["right_live"] > 0) <= (name == DEFAULT)


def test_whoever_looks_at_taste_is_better_than_chance(done: tuple[Any, dict[str, Any], str]) -> None:
    _, figures, _ = done
    assert figures["paired"]["default-random"]["rate"]["low"] > 0
    assert figures["arms"]["evidence"]["rate"] > figures["arms"]["random"]["rate"]


def test_no_step_brings_what_is_younger_and_no_listen_is_lost(world: History, trainer: Trainer) -> None:
    start = script.begin(world, plan())
    written = script.write(world, plan(), start, trainer, lambda *_: None)
    rows = 0
    for step in written.steps:
        if isinstance(step, Listened):
            assert step.first == rows
            assert step.now - HOUR <= world.at[step.first] or step.now == start
            assert world.at[step.end - 1] < step.now
            rows = step.end
        elif isinstance(step, Uploaded):
            assert world.at[rows - 1] < step.now == world.first()[step.row]
            assert world.before(step.now) == rows
    assert rows == len(world)
    assert [step.now for step in written.steps] == sorted(step.now for step in written.steps)
    assert len(written.uploads) == int((world.first() >= start).sum()) - int(np.isinf(world.first()).sum())


def test_nobody_is_pushed_beyond_budget_or_caps(world: History, trainer: Trainer) -> None:
    from streams.audience.main import targeting_config
    from streams.runtime.settings import Settings

    rules = targeting_config(Settings().audience, obey=True)
    rules = replace(rules, policy=replace(rules.policy, holdout=0.0, exploration=0.0))
    asked = plan(budget=20, rules=rules, campaign_days=5.0)
    written = script.write(world, asked, script.begin(world, asked), trainer, lambda *_: None)
    for name in (DEFAULT, "evidence"):
        trace = replay.replay(written, world, VARIANTS[name].config(rules))
        by_song: dict[str, set[str]] = {}
        by_user: dict[str, list[float]] = {}
        heard = {
            (world.dataset.song_ids[song], world.dataset.user_ids[user]): at
            for song, user, at in zip(world.song[::-1], world.user[::-1], world.at[::-1], strict=True)
        }
        for push in trace.pushes:
            assert push.user_id not in by_song.setdefault(push.song_id, set())
            by_song[push.song_id].add(push.user_id)
            by_user.setdefault(push.user_id, []).append(push.at)
            assert heard.get((push.song_id, push.user_id), np.inf) >= push.now
        assert max(map(len, by_song.values())) <= 20
        for times in by_user.values():
            assert all(late - early >= DAY for early, late in zip(sorted(times), sorted(times)[3:], strict=False))


def test_what_the_past_says_of_answers_moves_the_default_and_no_rival(world: History, trainer: Trainer) -> None:
    asked = plan(budget=20, rules=TargetingConfig(), campaign_days=5.0)
    written = script.write(world, asked, script.begin(world, asked), trainer, lambda *_: None)
    assert all(step.chances is not None for step in written.steps if isinstance(step, ModelSwapped))

    def pushed(name: str, power: float) -> list[tuple[str, str]]:
        chances = Calibration((0.0, 1.0), (0.0, 1.0), power)
        steps = [replace(step, chances=chances) if isinstance(step, ModelSwapped) else step for step in written.steps]
        trace = replay.replay(replace(written, steps=tuple(steps)), world, VARIANTS[name].config(TargetingConfig()))
        return [(push.song_id, push.user_id) for push in trace.pushes]

    def heard(pushes: list[tuple[str, str]]) -> float:
        counts = dict(
            zip(world.dataset.user_ids, np.bincount(world.user, minlength=len(world.dataset.user_ids)), strict=True)
        )
        return float(np.mean([counts[user] for _, user in pushes]))

    assert heard(pushed(DEFAULT, 2.0)) > heard(pushed(DEFAULT, 0.0))
    assert pushed("evidence", 2.0) == pushed("evidence", 0.0)


def _in_the_state(monkeypatch: pytest.MonkeyPatch) -> None:
    original = replay.listens

    def listens(history: History, step: Listened) -> Listens:
        given = original(history, step)
        if step.first:
            return given
        user, song = history.dataset.user_ids[history.user[-1]], history.dataset.song_ids[history.song[-1]]
        return Listens(
            [*given.user_ids, user], [*given.song_ids, song],
            np.append(given.weights, np.float32(1)), np.append(given.times, given.times[-1]),
        )  # fmt: skip

    monkeypatch.setattr(replay, "listens", listens)


def _in_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    original = History.known

    def known(self: History, moment: float) -> Dataset:
        def planted(column: Any, value: Any) -> Any:
            return np.concatenate([np.array([value], column.dtype), column])

        leaked = replace(
            self, song=planted(self.song, self.song[-1]), user=planted(self.user, self.user[-1]),
            plays=planted(self.plays, 1), at=planted(self.at, self.at[0]),
        )  # fmt: skip
        return original(leaked, moment)

    monkeypatch.setattr(History, "known", known)


@pytest.mark.parametrize(
    ("plant", "says"),
    [
        (_in_the_state, "without the future|with the future|knows more"),
        # It trains twice as often.
        pytest.param(_in_the_training, "the script says model", marks=pytest.mark.long),
    ],
)
def test_one_future_listen_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    says: str,
    folder: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The last listen of all is known from the beginning: to the users' state, or to a training."""
    plant(monkeypatch)
    result = CliRunner().invoke(
        app, options(folder, tmp_path, "--variants", "default", "--retrain", "1000", "--json", str(tmp_path / "f.json"))
    )
    assert result.exit_code == 1, result.output
    assert re.search(f"LEAK at .*({says})", result.output), result.output
    figures = json.loads((tmp_path / "f.json").read_text())
    assert len(figures["audit"]["leaks"]) >= 1
    assert "The future leaked" in (tmp_path / "report.html").read_text()


def _in_the_index(monkeypatch: pytest.MonkeyPatch) -> None:
    """The vectors of warm songs, as they are retrieved, know how often the songs will be heard."""
    begin, add, whole = script._Writer.__init__, PastModel.add, list[History]()

    def init(self: script._Writer, history: History, *more: Any) -> None:
        whole[:] = [history]
        begin(self, history, *more)

    def learned(self: PastModel, ids: tuple[str, ...], vectors: F32) -> None:
        history = whole[0]
        rows = [history.dataset.song_ids.index(song_id) for song_id in ids]
        heard = np.bincount(history.song, minlength=len(history.dataset.song_ids))[rows]
        vectors = vectors + np.float32(1e-3) * heard[:, None].astype(np.float32) * np.roll(vectors, 1, axis=1)
        add(self, ids, vectors / np.linalg.norm(vectors, axis=1, keepdims=True))

    monkeypatch.setattr(script._Writer, "__init__", init)
    monkeypatch.setattr(PastModel, "add", learned)


def _in_the_promotions(monkeypatch: pytest.MonkeyPatch) -> None:
    """A song joins the index before it has its listeners, because it will have them."""
    original = script._kth_listener

    def at_once(history: History, count: int) -> F64:
        return np.where(np.isfinite(original(history, count)), history.first(), np.inf)

    monkeypatch.setattr(script, "_kth_listener", at_once)


@pytest.mark.parametrize(
    ("plant", "says"),
    [(_in_the_index, "the script says upload of"), (_in_the_promotions, "the script says song .* warm at")],
)
def test_a_song_that_knows_its_future_is_found(
    plant: Callable[[pytest.MonkeyPatch], None],
    says: str,
    world: History,
    trainer: Trainer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = plan(warm_listeners=20)
    config, start = VARIANTS[DEFAULT].config(asked.rules), script.begin(world, asked)

    def leaks() -> list[Leak]:
        written = script.write(world, asked, start, trainer, lambda *_: None)
        moments = cuts(written, 2)
        trace = replay.replay(written, world, config, looks=moments)
        return audit(world, asked, written, trace, config, trainer, moments, lambda *_: None)

    assert leaks() == []
    plant(monkeypatch)
    found = leaks()
    assert found
    assert all(re.match(says, leak.where) for leak in found), found


def test_cuts_lie_at_uploads_and_apart() -> None:
    match = Match("b", 1, "b", "", (), "x", np.ones(1, np.float32), (), np.zeros(0, np.float32), 2, 0, 0)
    written = Script(0, tuple(Uploaded(float(now), 0, match) for now in range(100)), 0)
    assert cuts(written, 3) == [24.0, 49.0, 74.0]
    assert cuts(written, 0) == []
    assert cuts(Script(0, written.steps[:2], 0), 3) == [0.0, 1.0]


def lay(path: Path, listens: str) -> Path:
    path.mkdir()
    (path / "songs.csv.gz").write_bytes(gzip.compress(b"song_id,genre\na,x\nb,y\n"))
    (path / "interactions.csv.gz").write_bytes(gzip.compress(listens.encode()))
    return path


@pytest.mark.parametrize(
    ("listens", "more", "says"),
    [
        ("user_id,song_id,play_count\nu,a,1\n", [], "no listen has a date"),
        ("user_id,song_id,play_count,played_at\nu,a,1,\n", [], "no listen has a date"),
        ("user_id,song_id,play_count,played_at\nu,a,1,5\nu,b,1,9\n", [], "too few to train on"),
        (
            "user_id,song_id,play_count,played_at\nu,a,1,5\n",
            ["--variants", "riddle"],
            "riddle unknown; allowed: random",
        ),
    ],
)
def test_what_cannot_be_replayed_is_refused(tmp_path: Path, listens: str, more: list[str], says: str) -> None:
    result = CliRunner().invoke(app, options(lay(tmp_path / "data", listens), tmp_path / "run", *more))
    assert result.exit_code == REFUSED, result.output
    assert says in " ".join(result.output.split())
