"""Checks that a worker on a broker pushes what the replay in this process pushes.

The script is played once more, for the default, through Kafka: an installation of its own with one audience
partition, read by the audience's real :class:`~streams.audience.worker.Worker`. Its clock shows event time, so that
caps, pacing and the ends of campaigns are what they were; how long anything takes is measured by this machine's.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory

from confluent_kafka import KafkaException

from encoder.data.history import History
from streams.audience.fetching import explained
from streams.operations.state_digest import digest
from streams.runtime.clock import SystemClock
from streams.runtime.settings import AudienceSettings, KafkaSettings
from streams.testbed.backtest import replay_records
from streams.testbed.backtest.replay import Decisions, Pushed, replay
from streams.testbed.backtest.script import Script
from streams.testbed.backtest.step_player import Player, Tell, installation, logged, pushes
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition


@dataclass(frozen=True, slots=True)
class Streamed:
    """The stream beside the replay in this process.

    Attributes:
        pushes, expected: on the stream, and in this process in the worker's batches.
        same: those of them, in order, that are the same push: song, user, moments, tier, and score to its 6 digits.
        first: the first that is not, in words.
        state: whether the worker's state is that of the replay, to the bit; ``restored``: whether what its changelog
            restores is the worker's.
        batches: transactions of the worker; ``split``: steps of which it made several.
        moved: pushes that are in only one of the stream and the replay with every step in one batch.
        seconds: on the wall, from the first step to the last.
    """

    pushes: int
    expected: int
    same: int
    first: str | None
    state: bool
    restored: bool
    batches: int
    split: int
    moved: int
    seconds: float

    @property
    def alike(self) -> bool:
        """Whether the stream decided and remembers what the replay does."""
        return self.pushes == self.expected == self.same and self.state and self.restored


def compare(
    script: Script,
    history: History,
    config: TargetingConfig,
    trace: Decisions,
    audience: AudienceSettings,
    kafka: KafkaSettings,
    log: Path,
    tell: Tell,
) -> Streamed:
    """Play a script on a broker, and in this process in the batches that the worker made of it.

    Args:
        config: of the arm.
        trace: of the arm, every step in one batch.
        log: what the worker says goes there.

    Raises:
        Refused, Unavailable: the broker or the worker cannot start or go on, or a step does not fit into records.
    """
    started = time.monotonic()
    with logged(log), installation(kafka) as naming, TemporaryDirectory(prefix="coldstart-backtest-") as folder:
        player = Player(script, history, config, audience, kafka, naming, Path(folder))
        try:
            player.play(tell)
            mine = player.digest()
        except KafkaException as error:
            raise explained(error) from error
        finally:
            player.close()
        seconds = time.monotonic() - started
        said = digest(kafka, naming, 0, SystemClock(), lambda number: Partition(number, 1, player.songs, config))
        found = list(pushes(kafka, naming))
    end = script.steps[-1].now
    wanted = replay(script, history, config, looks=[end], cuts=player.cuts)
    expected = [replay_records.as_told(push) for push in wanted.pushes]
    pairs = list(zip_longest(found, expected))
    first = next(
        (f"{_said(one)} on the stream, {_said(other)} in process" for one, other in pairs if one != other), None
    )
    return Streamed(
        pushes=len(found),
        expected=len(expected),
        same=sum(one == other for one, other in pairs),
        first=first,
        state=mine == wanted.digests[end],
        restored=said is not None and said.digest == mine,
        batches=player.batches,
        split=len(player.cuts),
        moved=len({*found} ^ {replay_records.as_told(push) for push in trace.pushes}),
        seconds=round(seconds, 1),
    )


def _said(push: Pushed | None) -> str:
    if push is None:
        return "no push"
    return f"song {push.song_id} to user {push.user_id} at {push.now} with score {push.score}"
