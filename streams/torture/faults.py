"""What can be broken, and how is it mended?"""

from __future__ import annotations

import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass

from streams.broker import EmbeddedKafka
from streams.torture.stage import Stage


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break the system. The supervisor starts again what it killed.

    Attributes:
        words: what it does, for people.
        strike: breaks it.
    """

    words: str
    strike: Callable[[Stage, EmbeddedKafka, random.Random], None]


def _kill_songs(stage: Stage, _: EmbeddedKafka, __: random.Random) -> None:
    stage.workers[0].kill()


def _kill_audience(stage: Stage, _: EmbeddedKafka, choice: random.Random) -> None:
    choice.choice(stage.workers[1:]).kill()


def _kill_all(stage: Stage, _: EmbeddedKafka, __: random.Random) -> None:
    for worker in stage.workers:
        worker.kill()


def _kill_broker(_: Stage, broker: EmbeddedKafka, __: random.Random) -> None:
    broker.kill()
    broker.restart()


def _wipe_state(stage: Stage, _: EmbeddedKafka, choice: random.Random) -> None:
    choice.choice(stage.workers[1:]).kill()
    shutil.rmtree(stage.state, ignore_errors=True)


def _tear_state(stage: Stage, _: EmbeddedKafka, choice: random.Random) -> None:
    """Cut a file of the state in half, as a power cut or a broken disk may."""
    for worker in stage.workers[1:]:
        worker.kill()
    files = sorted(path for path in stage.state.rglob("*") if path.is_file() and path.stat().st_size > 1)
    for path in choice.sample(files, min(3, len(files))):
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size // 2)


FAULTS = (
    Fault("SIGKILL of the songs worker", _kill_songs),
    Fault("SIGKILL of an audience worker", _kill_audience),
    Fault("SIGKILL of every worker", _kill_all),
    Fault("SIGKILL of the broker, and its restart", _kill_broker),
    Fault("SIGKILL of an audience worker, its state on disk deleted", _wipe_state),
    Fault("SIGKILL of the audience workers, files of their state cut in half", _tear_state),
)
