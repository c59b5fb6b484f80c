"""In which order is the system driven and broken?"""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.broker import EmbeddedCluster, EmbeddedKafka
from streams.clock import SystemClock
from streams.demo.events import poisoned, upload_record
from streams.demo.follow import Follower
from streams.events import SongUpload
from streams.settings import Kafka, Settings
from streams.topics import SONG_UPLOADS
from streams.torture.checker import Verdict, check
from streams.torture.faults import CLUSTER_FAULTS, FAULTS, Scene
from streams.torture.rules import Rules
from streams.torture.stage import Stage, set_stage
from streams.torture.states import differences
from streams.torture.traffic import Traffic

# Between two faults work goes on for this long; shorter, and every fault meets the last one's repair, and workers end
# more often within a minute than their supervisor allows.
_BETWEEN_S = 15.0
_UPLOADS_A_ROUND = 40

SETTINGS: Final[dict[str, dict[str, Any]]] = {
    "songs": {"warm_listeners": 5, "swap_both_s": 10},
    "audience": {
        # Spans so short that caps fill and empty while it runs.
        "cap_pushes": 4,
        "cap_hours": 0.01,
        "artist_cap_pushes": 2,
        "artist_cap_hours": 0.005,
        "holdout": 0.1,
        "exploration": 0.1,
        "at_once": 0.7,
        "erasure_key": "of-this-ordeal",
        "session_timeout_s": 6,
        "transaction_timeout_s": 5,
        "watchdog_s": 8,
        "start_wait_s": 10,
        "digest_at_stop": "true",
    },
}
"""What the workers are told; what is not named is as the settings have it."""


@dataclass(slots=True)
class Ordeal:
    """What was done, and what the checker found. ``struck``: seconds since the start, and the fault in words."""

    seed: int
    struck: list[tuple[float, str]] = field(default_factory=list)
    uploaded: int = 0
    poisoned: int = 0
    verdict: Verdict = field(default_factory=Verdict)


def torture(
    settings: Settings,
    seed: int,
    seconds: float,
    say: Callable[[str], None],
    faults: Sequence[str] = (),
    folder: Path | None = None,
    brokers: int = 1,
) -> Ordeal:
    """Drive, break, mend, wait until nothing is on its way, and check.

    Every fault strikes once before any strikes twice, in an order that the seed picks.

    Args:
        say: told what happens, a line at a time.
        faults: names in :data:`streams.torture.faults.FAULTS`, and with three brokers in ``CLUSTER_FAULTS``; all of
            them, if empty.
        folder: keeps logs, state and models; without one they go.
        brokers: 1, or 3 that replicate to each other.

    Raises:
        Unavailable: an upload was not answered after everything was mended: the first promise is broken.
        Refused: a worker cannot be started again.
    """
    choice, ordeal = random.Random(seed), Ordeal(seed)
    known = {**FAULTS, **(CLUSTER_FAULTS if brokers > 1 else {})}
    faults = faults or tuple(known)
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coldstart-torture-")))
        parts = stack.enter_context(_stage(settings, place, brokers))
        scene, follower = Scene(parts[0], parts[1], choice), parts[2]
        stage, traffic = scene.stage, Traffic(scene.stage, choice)
        say(f"{len(stage.users)} users, {len(stage.workers)} workers, {len(stage.partitions)} partitions")
        stage.wait_until_ready()
        started = time.monotonic()
        hat: list[str] = []
        ids: list[str] = []

        def meanwhile(_: int) -> None:
            stage.watch()
            traffic.answer()

        while time.monotonic() - started < seconds:
            hat = hat or choice.sample(sorted(faults), len(faults))
            fault, at = known[hat.pop()], choice.randrange(_UPLOADS_A_ROUND)
            songs = _songs(stage, choice, len(ids))
            ids += [song.song_id for song in songs]
            traffic.speak()
            stage.upload(songs[:at], _BETWEEN_S / _UPLOADS_A_ROUND, meanwhile)
            say(f"{time.monotonic() - started:6.1f} s  {fault.words}")
            ordeal.struck.append((time.monotonic() - started, fault.words))
            fault.strike(scene)
            bad = poisoned(upload_record(songs[0], time.time()), len(ids))
            stage.send(SONG_UPLOADS, [bad, *traffic.revise(songs[:at] or songs)] if at > 2 else [bad])
            stage.upload(songs[at:], _BETWEEN_S / _UPLOADS_A_ROUND, meanwhile)
            fault.mend(scene)
        say(f"{time.monotonic() - started:6.1f} s  waiting for the last answers")
        stage.wait_until_answered(lambda song: follower.answered(song) or _too_late(stage, follower, song), ids)
        traffic.answer()
        traffic.close()
        stage.wait_until_ready()
        stage.wait_until_still()
        stage.stop()
        say(f"{time.monotonic() - started:6.1f} s  checking")
        ordeal.uploaded, ordeal.poisoned = len(ids), len(ordeal.struck) + traffic.bad
        ordeal.verdict = check(stage.kafka, stage.naming, SystemClock(), Rules.of(stage.settings))
        ordeal.verdict.violations += differences(stage)
    return ordeal


def _too_late(stage: Stage, follower: Follower, song_id: str) -> Collection[int]:
    """All partitions, if the song's end had passed, or came before its beginning, when its upload arrived: it is in
    dead-letters, and nobody will answer."""
    named = f'"song_id":"{song_id}"'.encode()
    buried = any(reason.startswith("expires_at") and named in (value or b"") for value, _, reason in follower.dead)
    return stage.partitions if buried else ()


@contextmanager
def _stage(
    settings: Settings, folder: Path, brokers: int
) -> Iterator[tuple[Stage, EmbeddedKafka | EmbeddedCluster, Follower]]:
    cache, heap_mb = settings.paths.broker, settings.broker.heap_mb
    broker: EmbeddedKafka | EmbeddedCluster = (
        EmbeddedKafka(folder / "kafka", cache=cache, heap_mb=heap_mb)
        if brokers == 1
        else EmbeddedCluster(folder / "kafka", brokers, cache=cache, heap_mb=heap_mb)
    )
    with broker:
        kafka = Kafka(bootstrap_servers=broker.bootstrap_servers)
        told = {**SETTINGS, "topics": {"replication_factor": min(brokers, 3)}}
        stage = set_stage(kafka, f"torture-{uuid.uuid4().hex[:8]}.", folder, models=2, settings=told)
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
    """Uploads of a round: some explicit, for one country, of a recording that another song has, soon over, or not out
    yet."""
    now = datetime.now(UTC)
    return [
        msgspec.structs.replace(
            choice.choice(stage.songs),
            song_id=f"new-{first + n}",
            recording_id=f"rec-{(first + n) // 2}" if choice.random() < 0.2 else None,
            explicit=choice.random() < 0.2,
            territories=["PT"] if choice.random() < 0.1 else [],
            budget=choice.choice([40, 100, 200]),
            expires_at=now + timedelta(seconds=choice.uniform(20, 60)) if choice.random() < 0.1 else None,
            available_from=now + timedelta(seconds=choice.uniform(0, 60)) if choice.random() < 0.1 else None,
        )
        for n in range(_UPLOADS_A_ROUND)
    ]
