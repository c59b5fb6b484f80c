"""Uploads beside a swap of models and its rollback: on a real broker, and what the figures say of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up
from streams.testbed.demo.follow import Follower
from streams.testbed.demo.swap_measurement import PHASES, Sent, SwapFigures, Target, swap_under_load


@pytest.fixture
def swapped() -> SwapFigures:
    """Two uploads a phase, 100 s apart in their phases, the second one slower; every swap is seen half-way."""
    sent, waits, spaces = {}, {}, {}
    for number, phase in enumerate(PHASES):
        for which in range(2):
            song = f"{phase} {which}"
            sent[song] = Sent(100.0 * number + which, phase, f"s-{which}")
            waits[song] = 10.0 * (number + 1) + 100.0 * which
    for song, each in sent.items():
        new = each.phase == "after" or (each.phase == "swap" and song.endswith("1")) or song == "rollback 0"
        spaces[song] = frozenset(["b" if new else "a"])
    starts = {phase: 100.0 * number for number, phase in enumerate(PHASES)}
    return SwapFigures(sent, waits, (), spaces, (), ("a", "b"), starts, 450.0)


def test_the_uploads_of_a_swap_and_its_rollback_are_answered_in_the_space_of_the_day(
    kafka: KafkaSettings, tmp_path: Path
) -> None:
    stage = set_up(kafka, "test-demo-swap.", tmp_path, 2, models=2)
    stage.start("songs", "songs")
    stage.start("audience", "audience", "--slot", "0", "--policy", "off")
    follower = Follower(stage.kafka, stage.naming)
    try:
        stage.wait_until_ready()
        target = Target(
            stage.kafka, stage.naming, (stage.models[0], stage.models[1]), stage.environment, follower, stage.workers
        )
        seen = swap_under_load(target, stage.songs, 10.0, 1.5, lambda *_: None)
    finally:
        stage.stop()
        follower.close()
    assert not seen.failed
    assert not seen.mixed
    assert not follower.doubled
    first, second = seen.models
    for phase, space in (("before", first), ("after", second), ("after rollback", first)):
        assert seen.of(phase)
        assert set().union(*(seen.spaces[song] for song in seen.of(phase))) == {space}, phase


def test_each_phase_has_its_own_figures(swapped: SwapFigures) -> None:
    figures = swapped.as_json()
    assert figures["verdict"] == "ok"
    assert list(figures["phases"]) == list(PHASES)
    assert figures["phases"]["swap"] == {
        "seconds": 100.0,
        "uploads": 2,
        "failed": 0,
        "p50_ms": 70.0,
        "p99_ms": 119.0,
        "longest_ms": 120.0,
        "spaces": {"first": 1, "second": 1, "both": 0, "no push": 0},
    }
    assert figures["phases"]["after rollback"]["seconds"] == 50.0


def test_a_song_decided_by_partitions_in_two_spaces_is_counted_as_both(swapped: SwapFigures) -> None:
    spaces = swapped.spaces | {"swap 0": frozenset("ab"), "swap 1": frozenset()}
    assert replace(swapped, spaces=spaces).as_json()["phases"]["swap"]["spaces"] == {
        "first": 0,
        "second": 0,
        "both": 1,
        "no push": 1,
    }


@pytest.mark.parametrize(
    ("song", "wait", "verdict"),
    [
        ("swap 1", 1000.0, ""),
        ("swap 1", 1001.0, "an upload waited 1,001 ms, and before the swap none more than 110 ms"),
        ("after rollback 0", 2000.0, "an upload waited 2,000 ms, and before the swap none more than 110 ms"),
        ("before 0", 5000.0, ""),
    ],
)
def test_an_upload_may_wait_a_second_for_a_swap(swapped: SwapFigures, song: str, wait: float, verdict: str) -> None:
    assert replace(swapped, waits=swapped.waits | {song: wait}).verdict == verdict


def test_a_machine_that_is_slow_without_a_swap_proves_nothing(swapped: SwapFigures) -> None:
    slow = replace(swapped, waits=swapped.waits | {"before 0": 1500.0, "rollback 0": 1700.0})
    assert slow.verdict.startswith("the machine is too busy to tell: an upload waited 1,500 ms before any swap")


def test_an_unanswered_upload_and_a_mixed_partition_are_said_first(swapped: SwapFigures) -> None:
    assert replace(swapped, failed=("after 0",)).verdict == "1 uploads were not answered by every partition"
    assert replace(swapped, mixed=("swap 0",)).verdict == "on 1 uploads one partition decided in two spaces"
