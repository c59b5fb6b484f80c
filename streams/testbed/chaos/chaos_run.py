"""Drives the system and breaks it, round after round."""

from __future__ import annotations

import random
import tempfile
import time
import uuid
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec

from streams.contract.cloudevents import Record
from streams.contract.errors import BadBurst, Refused, Unavailable
from streams.contract.events import SongUpload
from streams.contract.topics import SONG_UPLOADS
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings, Settings
from streams.testbed.broker import EmbeddedCluster, EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.chaos.faults import CLUSTER_FAULTS, FAULTS, Fault, Scene
from streams.testbed.chaos.hostile import BURIED, KEPT, Hostile, marked
from streams.testbed.chaos.promise_checker import Verdict, check
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.rules import Rules
from streams.testbed.chaos.state_check import differences
from streams.testbed.chaos.traffic import Traffic
from streams.testbed.chaos.unexpected_stops import judge as unexplained
from streams.testbed.demo.dataset_events import poisoned, upload_record
from streams.testbed.demo.follow import Follower

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
        "erasure_key": "of-this-run",
        "session_timeout_s": 6,
        "transaction_timeout_s": 5,
        "watchdog_s": 8,
        "start_wait_s": 10,
        "digest_at_stop": "true",
    },
}
"""What the workers are told; what is not named is as the settings have it."""


@dataclass(slots=True)
class ChaosRun:
    """What was done, and what the checker found.

    Attributes:
        struck: seconds since the start, and the fault in words.
        poisoned: records that had to be refused, at least.
        hostile: how many records of each hostile kind were sent.
        ended: how each worker ended that was started again.
    """

    seed: int
    struck: list[tuple[float, str]] = field(default_factory=list)
    uploaded: int = 0
    poisoned: int = 0
    hostile: dict[str, int] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)
    verdict: Verdict = field(default_factory=Verdict)


def run_chaos(
    settings: Settings,
    seed: int,
    seconds: float,
    say: Callable[[str], None],
    faults: Sequence[str] = (),
    folder: Path | None = None,
    brokers: int = 1,
) -> ChaosRun:
    """Drive, break, mend, wait until nothing is on its way, and check.

    Every fault strikes once before any strikes twice, in an order that the seed picks.

    Args:
        say: told what happens, a line at a time.
        faults: names in :data:`streams.testbed.chaos.faults.FAULTS`, and with three brokers in ``CLUSTER_FAULTS``; all
        of
            them, if empty.
        folder: keeps logs, state and models; without one they go.
        brokers: 1, or 3 that replicate to each other.

    Raises:
        Unavailable: the broker does not answer, or what was sent did not arrive.
    """
    known = {**FAULTS, **(CLUSTER_FAULTS if brokers > 1 else {})}
    faults = faults or tuple(known)
    with ExitStack() as stack:
        place = folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="coldstart-chaos-")))
        stage, broker, follower = stack.enter_context(_stage(settings, place, brokers))
        scene = Scene(stage, broker, random.Random(seed))
        return drive(scene, follower, seed, seconds, say, {name: known[name] for name in faults})


def drive(
    scene: Scene,
    follower: Follower,
    seed: int,
    seconds: float,
    say: Callable[[str], None],
    faults: Mapping[str, Fault],
    between_s: float = _BETWEEN_S,
    crowd: int = 40,
) -> ChaosRun:
    """The same on a stage whose workers have been started; see :func:`run_chaos`. They are stopped at the end.

    Args:
        follower: reads what comes back.
        between_s: how long a round lasts; a fault strikes in each.
        crowd: how many users speak in a round.

    Raises:
        Unavailable: the broker does not answer, workers do not become ready, or what was sent did not arrive.
    """
    run, stage, choice = ChaosRun(seed), scene.stage, scene.choice
    say(f"{len(stage.users)} users, {len(stage.workers)} workers, {len(stage.partitions)} partitions")
    # What cannot begin breaks no promise: it is an error, and no verdict.
    stage.wait_until_ready()
    traffic = Traffic(stage, choice)
    hostile = Hostile(stage, choice, traffic.send)
    excuses: list[float] = []
    stuck: list[Judged] = []
    ids: list[str] = []
    started = time.monotonic()
    try:
        hat: list[str] = []
        former: list[SongUpload] = []

        def meanwhile(_: int) -> None:
            stage.watch()
            traffic.answer()

        while time.monotonic() - started < seconds:
            hat = hat or choice.sample(sorted(faults), len(faults))
            fault, at = faults[hat.pop()], choice.randrange(_UPLOADS_A_ROUND)
            songs = _songs(stage, choice, len(ids))
            ids += [song.song_id for song in songs]
            traffic.speak(crowd)
            hostile.transactions()
            hostile.round(choice.sample(stage.present, 6))
            _upload(stage, songs[:at], between_s / _UPLOADS_A_ROUND, meanwhile)
            say(f"{time.monotonic() - started:6.1f} s  {fault.words}")
            run.struck.append((time.monotonic() - started, fault.words))
            excuses += [time.monotonic()] if fault.ends_roles else []
            fault.strike(scene)
            bad = marked(poisoned(upload_record(songs[0], time.time()), len(ids)), BURIED)
            again = [*traffic.revise(songs[:at]), *traffic.revise(former)]
            stage.send(SONG_UPLOADS, [bad, *again])
            former = songs[at:]
            _upload(stage, songs[at:], between_s / _UPLOADS_A_ROUND, meanwhile)
            fault.mend(scene)
            excuses += [time.monotonic()] if fault.ends_roles else []
        say(f"{time.monotonic() - started:6.1f} s  waiting for the last answers")
        awaited = ids + hostile.songs
        stage.wait_until_answered(lambda song: follower.answered(song) or _too_late(stage, follower, song), awaited)
        traffic.answer()
        stage.wait_until_ready()
        stage.wait_until_still()
    except (Refused, BadBurst) as refused:
        stuck.append(("stopped", str(refused)))
    except Unavailable as missing:
        # What is missing is judged from the topics, and more besides.
        stuck.append(("unanswered", str(missing)))
    traffic.close()
    if hostile.close():
        raise Unavailable("not everything was acknowledged within 60 s")
    stage.stop()
    say(f"{time.monotonic() - started:6.1f} s  checking")
    run.uploaded, run.poisoned = len(ids) + len(hostile.songs), len(run.struck) + traffic.bad
    run.hostile, run.ended = hostile.sent, [how for _, _, how in stage.ended]
    run.verdict = check(stage.kafka, stage.naming, SystemClock(), Rules.of(stage.settings))
    run.verdict.add([*stuck, *unexplained(stage.ended, excuses, len(stage.workers)), *differences(stage)])
    return run


def _upload(stage: Environment, songs: Sequence[SongUpload], pause_s: float, each: Callable[[int], None]) -> None:
    stage.send(SONG_UPLOADS, [_expecting(song, upload_record(song, time.time())) for song in songs], pause_s, each)


def _expecting(song: SongUpload, record: Record) -> Record:
    """What must become of an upload is known unless its end is near: then it depends on when it arrives."""
    if song.expires_at is None:
        return marked(record, KEPT)
    never = song.available_from is not None and song.expires_at <= song.available_from
    return marked(record, BURIED) if never else record


def _too_late(stage: Environment, follower: Follower, song_id: str) -> Collection[int]:
    """All partitions, if the song's end had passed, or came before its beginning, when its upload arrived: it is in
    dead-letters, and nobody will answer."""
    named = f'"song_id":"{song_id}"'.encode()
    buried = any(reason.startswith("expires_at") and named in (value or b"") for value, _, reason in follower.dead)
    return stage.partitions if buried else ()


@contextmanager
def _stage(
    settings: Settings, folder: Path, brokers: int
) -> Iterator[tuple[Environment, EmbeddedKafka | EmbeddedCluster, Follower]]:
    cache, heap_mb = settings.paths.broker, settings.broker.heap_mb
    broker: EmbeddedKafka | EmbeddedCluster = (
        EmbeddedKafka(folder / "kafka", cache=cache, heap_mb=heap_mb)
        if brokers == 1
        else EmbeddedCluster(folder / "kafka", brokers, cache=cache, heap_mb=heap_mb)
    )
    with broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        told = {**SETTINGS, "topics": {"replication_factor": min(brokers, 3)}}
        stage = set_up(kafka, f"chaos-{uuid.uuid4().hex[:8]}.", folder, models=2, settings=told)
        follower = Follower(stage.kafka, stage.naming)
        try:
            stage.start("songs", "songs")
            stage.start("audience-0", "audience", "--slot", "0")
            stage.start("audience-1", "audience", "--slot", "1")
            yield stage, broker, follower
        finally:
            stage.stop()
            follower.close()


def _songs(stage: Environment, choice: random.Random, first: int) -> list[SongUpload]:
    """Uploads of a round: some explicit, for one country, of a recording that another song has, soon over, not out yet,
    or with a budget that is spent at once."""
    now = datetime.now(UTC)

    def recording(number: int) -> str | None:
        """The neighbour's, that of a song from long ago, or one of its own."""
        lot = choice.random()
        again = first and 0.2 <= lot < 0.4
        return f"rec-{number // 2}" if lot < 0.2 else f"new-{choice.randrange(first)}" if again else None

    return [
        msgspec.structs.replace(
            choice.choice(stage.songs),
            song_id=f"new-{first + n}",
            recording_id=recording(first + n),
            explicit=choice.random() < 0.2,
            territories=["PT"] if choice.random() < 0.1 else [],
            budget=choice.choice([4, 40, 100, 200]),
            expires_at=now + timedelta(seconds=choice.uniform(20, 60)) if choice.random() < 0.1 else None,
            available_from=now + timedelta(seconds=choice.uniform(0, 60)) if choice.random() < 0.1 else None,
        )
        for n in range(_UPLOADS_A_ROUND)
    ]
