"""Lag of every declared input and every other group of the installation, over a window of samples."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Final

from streams.audience.positions import TOPIC_OF
from streams.contract.topics import Naming
from streams.kafka.consumer_lag import Lag, LagSurveyor, Survey
from streams.operations.lag_judge import LagSample, PartitionState, judge
from streams.operations.move_group import AUDIENCE
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from streams.songs.input_topics import INPUTS, group_of

_SAMPLES: Final = 6
"""In a window. Fewer tell too little of a group that commits seldom."""


@dataclass(frozen=True, slots=True)
class JudgedLag:
    """One group on one partition, with its state; None while too little is known."""

    lag: Lag
    state: PartitionState | None


@dataclass(frozen=True, slots=True)
class JudgedSurvey:
    """All of them at the end of a window; ``gaps`` as of :class:`streams.kafka.consumer_lag.Survey`."""

    rows: list[JudgedLag]
    gaps: list[str]


def declared_inputs(naming: Naming) -> Mapping[str, list[str]]:
    """Group of each role -> the topics whose offsets it commits, full names; also those that it assigns itself."""
    return {
        group_of(naming): [naming.name(topic) for topic in INPUTS],
        f"{naming.prefix}{AUDIENCE}": [naming.name(topic) for topic in TOPIC_OF.values()],
    }


def windows(kafka: KafkaSettings, naming: Naming, clock: Clock, window_s: float) -> Iterator[JudgedSurvey]:
    """The lags sample after sample, each judged over the window that ends with it, without an end.

    Raises:
        Unavailable: the cluster does not answer within ``kafka.request_timeout_s``.
    """
    history: dict[tuple[str, str, int], deque[LagSample]] = {}
    with closing(LagSurveyor(kafka, naming, clock, declared_inputs(naming))) as surveyor:
        while True:
            due = clock.monotonic() + window_s / (_SAMPLES - 1)
            yield _judged(surveyor.survey(), history)
            time.sleep(max(0.0, due - clock.monotonic()))


def one_window(kafka: KafkaSettings, naming: Naming, clock: Clock, window_s: float) -> JudgedSurvey:
    """The lags at the end of one window, which ends early once every partition is OK.

    Raises:
        Unavailable: the cluster does not answer within ``kafka.request_timeout_s``.
    """
    for number, found in enumerate(windows(kafka, naming, clock, window_s), 1):
        if number == _SAMPLES or all(row.state is PartitionState.OK for row in found.rows):
            return found
    raise AssertionError("windows do not end")


def _judged(survey: Survey, history: dict[tuple[str, str, int], deque[LagSample]]) -> JudgedSurvey:
    rows = []
    for lag in survey.lags:
        samples = history.setdefault((lag.group, lag.topic, lag.partition), deque(maxlen=_SAMPLES))
        samples.append(LagSample(lag.committed, lag.records, lag.served))
        state = judge(samples)
        # What a slow committer does shows only in a whole window.
        known = state is PartitionState.OK or len(samples) == _SAMPLES
        rows.append(JudgedLag(lag, state if known else None))
    return JudgedSurvey(rows, survey.gaps)
