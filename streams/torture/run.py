"""In which order is the system driven and broken?"""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from streams.broker import EmbeddedKafka
from streams.clock import SystemClock
from streams.demo.events import poisoned, upload_record
from streams.demo.follow import Follower
from streams.envelope import Record, pack
from streams.events import SongUpload, UserPreferences
from streams.settings import Kafka, Settings
from streams.topics import PREFERENCES, SONG_UPLOADS
from streams.torture.checker import Verdict, check
from streams.torture.faults import FAULTS
from streams.torture.stage import Stage, set_stage

# Between two faults work goes on for this long; shorter, and every fault meets the last one's repair.
_BETWEEN_S = 12.0
_UPLOADS_A_ROUND = 40


@dataclass(slots=True)
class Ordeal:
    """What was done, and what the checker found. ``struck``: seconds since the start, and the fault in words."""

    seed: int
    struck: list[tuple[float, str]] = field(default_factory=list)
    uploaded: int = 0
    verdict: Verdict = field(default_factory=Verdict)


def torture(settings: Settings, seed: int, seconds: float, say: Callable[[str], None]) -> Ordeal:
    """Drive, break, mend, wait for the last answer, and check.

    Every fault strikes once before any strikes twice, in an order that the seed picks.

    Args:
        say: told what happens, a line at a time.

    Raises:
        Unavailable: an upload was not answered after everything was mended: the first promise is broken.
        Refused: a worker cannot be started again.
    """
    choice, ordeal = random.Random(seed), Ordeal(seed)
    with tempfile.TemporaryDirectory(prefix="coldstart-torture-") as name, _stage(settings, Path(name)) as parts:
        stage, broker, follower = parts
        say(f"{len(stage.users)} users, {len(stage.workers)} workers, {len(stage.partitions)} partitions")
        stage.wait_until_ready()
        started = time.monotonic()
        hat: list[int] = []
        ids: list[str] = []
        while time.monotonic() - started < seconds:
            hat = hat or choice.sample(range(len(FAULTS)), len(FAULTS))
            fault, at = FAULTS[hat.pop()], choice.randrange(_UPLOADS_A_ROUND)
            songs = _songs(stage, choice, len(ids))
            ids += [song.song_id for song in songs]
            stage.send(PREFERENCES, [_preference(user, choice) for user in choice.sample(stage.users, 20)])
            stage.upload(songs[:at], _BETWEEN_S / _UPLOADS_A_ROUND, lambda _: stage.watch())
            say(f"{time.monotonic() - started:6.1f} s  {fault.words}")
            ordeal.struck.append((time.monotonic() - started, fault.words))
            fault.strike(stage, broker, choice)
            bad = poisoned(upload_record(songs[0], time.time()), len(ids))
            stage.send(SONG_UPLOADS, [bad])
            stage.upload(songs[at:], _BETWEEN_S / _UPLOADS_A_ROUND, lambda _: stage.watch())
        say(f"{time.monotonic() - started:6.1f} s  waiting for the last answers")
        stage.wait_until_answered(follower.answered, ids)
        stage.stop()
        ordeal.uploaded = len(ids)
        ordeal.verdict = check(stage.kafka, stage.naming, SystemClock())
    return ordeal


@contextmanager
def _stage(settings: Settings, folder: Path) -> Iterator[tuple[Stage, EmbeddedKafka, Follower]]:
    broker = EmbeddedKafka(folder / "kafka", cache=settings.paths.broker, heap_mb=settings.broker.heap_mb)
    with broker:
        stage = set_stage(Kafka(bootstrap_servers=broker.bootstrap_servers), f"torture-{uuid.uuid4().hex[:8]}.", folder)
        follower = Follower(stage.kafka, stage.naming)
        try:
            stage.start("songs", "songs")
            stage.start("audience-0", "audience", "--slot", "0")
            stage.start("audience-1", "audience", "--slot", "1")
            yield stage, broker, follower
        finally:
            stage.stop()
            follower.close()


def _songs(stage: Stage, choice: random.Random, first: int) -> list[SongUpload]:
    """Uploads of a round: some explicit, some for one country, some under a recording that another song has."""
    return [
        msgspec.structs.replace(
            choice.choice(stage.songs),
            song_id=f"new-{first + n}",
            recording_id=f"rec-{(first + n) // 2}" if choice.random() < 0.2 else None,
            explicit=choice.random() < 0.2,
            territories=["PT"] if choice.random() < 0.1 else [],
            budget=choice.choice([40, 100, 200]),
        )
        for n in range(_UPLOADS_A_ROUND)
    ]


def _preference(user_id: str, choice: random.Random) -> Record:
    event = UserPreferences(
        user_id=user_id,
        opted_in=choice.random() < 0.5,
        allow_explicit=choice.random() < 0.5,
        country=choice.choice(["PT", "BR", None]),
        updated_at=datetime.now(UTC),
    )
    id = uuid.uuid4().hex
    return pack(event, ce_type=UserPreferences.TYPES[0], id=id, source="coldstart/torture", time=time.time())
