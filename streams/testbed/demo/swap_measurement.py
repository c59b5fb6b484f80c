"""What uploads notice when another model is published under load, and then the first again.

Songs are uploaded at a steady rate while ``coldstart publish`` runs as a process of its own. A swap lasts from the
start of that process until every audience partition has decided in the new space.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from confluent_kafka import Producer

from encoder.artifact import read_manifest
from streams.contract.errors import Unavailable
from streams.contract.events import SongUpload
from streams.contract.topics import SONG_UPLOADS, Naming
from streams.kafka.clients import hand_over, producer
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.feed import PATIENCE_S, Tick
from streams.testbed.demo.follow import Answer, Follower

PHASES = ("before", "swap", "after", "rollback", "after rollback")
_PUBLISHING = {"swap": 1, "rollback": 0}
# What an upload may wait, at most, because a model is replaced.
LIMIT_MS = 1000.0


@dataclass(frozen=True, slots=True)
class Sent:
    """One upload: when, in which phase, and of which song of those given.

    Attributes:
        at: Unix seconds.
        phase: one of ``PHASES``, the one in which it was sent.
        source: song_id of the song whose content it has.
    """

    at: float
    phase: str
    source: str


@dataclass(frozen=True, slots=True)
class SwapFigures:
    """What uploads noticed of a swap and its rollback.

    Attributes:
        sent: song_id -> its upload, in order.
        waits: song_id -> ms from the upload until a reader saw the last partition's first pushes; without the songs
            that were answered by nobody's push.
        failed: song_ids that not every partition answered.
        spaces: song_id -> spaces in which partitions decided on it.
        mixed: song_ids on which one partition decided in two spaces.
        models: the spaces of the first model and of the second.
        starts: phase -> Unix seconds of its begin.
        ended: Unix seconds after the last upload.
    """

    sent: dict[str, Sent]
    waits: dict[str, float]
    failed: tuple[str, ...]
    spaces: dict[str, frozenset[str]]
    mixed: tuple[str, ...]
    models: tuple[str, str]
    starts: dict[str, float]
    ended: float

    def of(self, phase: str) -> list[str]:
        """The song_ids uploaded in a phase."""
        return [song for song, sent in self.sent.items() if sent.phase == phase]

    def longest(self, *phases: str) -> float:
        """The longest wait in phases, ms; 0 where nothing was timed."""
        return max((wait for song, wait in self.waits.items() if self.sent[song].phase in phases), default=0.0)

    @property
    def verdict(self) -> str:
        """What is wrong, in words; empty when a swap and a rollback cost no upload more than they may."""
        if self.failed:
            return f"{len(self.failed)} uploads were not answered by every partition"
        if self.mixed:
            return f"on {len(self.mixed)} uploads one partition decided in two spaces"
        longest, apart = self.longest(*PHASES[1:]), self.longest("before")
        if longest <= LIMIT_MS:
            return ""
        if apart > LIMIT_MS:
            return (
                f"the machine is too busy to tell: an upload waited {apart:,.0f} ms before any swap, "
                f"{longest:,.0f} ms since the first"
            )
        return f"an upload waited {longest:,.0f} ms, and before the swap none more than {apart:,.0f} ms"

    def as_json(self) -> dict[str, Any]:
        """The figures by phase; ``spaces`` counts uploads by the model that decided on them."""
        ends = [*list(self.starts.values())[1:], self.ended]
        return {
            "verdict": self.verdict or "ok",
            "uploads": len(self.sent),
            "failed": len(self.failed),
            "mixed_in_a_partition": len(self.mixed),
            "limit_ms": LIMIT_MS,
            "models": list(self.models),
            "phases": {
                phase: {"seconds": round(end - begin, 2)} | self._figures(phase)
                for (phase, begin), end in zip(self.starts.items(), ends, strict=True)
            },
        }

    def _figures(self, phase: str) -> dict[str, Any]:
        songs = self.of(phase)
        waits = [self.waits[song] for song in songs if song in self.waits]
        p50, p99, longest = np.percentile(waits, (50, 99, 100)).round(1).tolist() if waits else (None,) * 3
        spaces = Counter(self._answered_by(song) for song in songs)
        return {
            "uploads": len(songs),
            "failed": len(set(songs) & set(self.failed)),
            "p50_ms": p50,
            "p99_ms": p99,
            "longest_ms": longest,
            "spaces": {name: spaces[name] for name in ("first", "second", "both", "no push")},
        }

    def _answered_by(self, song: str) -> str:
        names = {space: name for space, name in zip(self.models, ("first", "second"), strict=True)}
        found = {names.get(space, space) for space in self.spaces[song]}
        return "both" if len(found) > 1 else next(iter(found), "no push")


@dataclass(frozen=True, slots=True)
class Target:
    """A running installation to try it on.

    Attributes:
        models: artifacts of two spaces; the first is live.
        environment: tells ``coldstart publish`` where Kafka is and how the topics are called.
        config: a settings file for it.
    """

    kafka: KafkaSettings
    naming: Naming
    models: tuple[Path, Path]
    environment: Mapping[str, str]
    follower: Follower
    workers: Sequence[RoleProcess]
    config: Path | None = None


def swap_under_load(
    target: Target, songs: Sequence[SongUpload], rate: float, steady_s: float, tick: Tick
) -> SwapFigures:
    """Upload copies of songs while the second model is published, and then the first again.

    Args:
        songs: contents, uploaded in turn under ids of their own; every phase begins with the first.
        rate: uploads a second.
        steady_s: length of the phases in which nothing is published, seconds.

    Raises:
        Unavailable: a publish failed, or some partition did not follow it.
    """
    spaces = tuple(read_manifest(model).space for model in target.models)
    everyone = range(target.naming.audience_partitions)
    sender, topic = producer(target.kafka), target.naming.name(SONG_UPLOADS)
    sent: dict[str, Sent] = {}
    starts: dict[str, float] = {}
    publishing: subprocess.Popen[bytes] | None = None
    # A new producer's first record waits half a second for the producer's number: no upload counted here may.
    hand_over(
        sender, topic, upload_record(msgspec.structs.replace(songs[0], song_id=f"{songs[0].song_id}+"), time.time())
    )
    _flush(sender)
    begin = time.monotonic()
    try:
        for number_of_phase, phase in enumerate(PHASES):
            starts[phase], since = time.time(), time.monotonic()
            if phase in _PUBLISHING:
                publishing = _publish(target, _PUBLISHING[phase])
            number = 0
            while True:
                if publishing is None:
                    if time.monotonic() - since >= steady_s:
                        break
                elif publishing.poll() is not None:
                    if publishing.returncode:
                        raise Unavailable(f"coldstart publish ended with {publishing.returncode}")
                    space = spaces[_PUBLISHING[phase]]
                    if all(target.follower.spaces.get(partition) == space for partition in everyone):
                        publishing = None
                        break
                if time.monotonic() - since > steady_s + PATIENCE_S:
                    raise Unavailable(f"{phase}: partitions decide in {target.follower.spaces} still")
                due = begin + len(sent) / rate
                while (wait := due - time.monotonic()) > 0:
                    sender.poll(min(wait, 0.05))
                song = songs[number % len(songs)]
                copy = msgspec.structs.replace(song, song_id=f"{song.song_id}+{number_of_phase}.{number}")
                now = time.time()
                sent[copy.song_id] = Sent(now, phase, song.song_id)
                hand_over(sender, topic, upload_record(copy, now))
                number += 1
                for worker in target.workers:
                    worker.watch()
            tick(number_of_phase + 1, len(PHASES))
        ended = time.time()
        _flush(sender)
        _await(target, list(sent))
    finally:
        if publishing is not None and publishing.poll() is None:
            publishing.terminate()
            publishing.wait()
    return _seen(target, sent, (spaces[0], spaces[1]), starts, ended)


def _flush(sender: Producer) -> None:
    if left := sender.flush(60):
        raise Unavailable(f"{left} uploads were not acknowledged within 60 s")


def _publish(target: Target, number: int) -> subprocess.Popen[bytes]:
    config = [] if target.config is None else ["--config", str(target.config.resolve())]
    command = [sys.executable, "-m", "streams", "publish", str(target.models[number]), *config]
    # What it says on its way is not said into the bars; why it fails is in its own log.
    with (target.models[number] / "publish.log").open("ab") as log:
        return subprocess.Popen(command, env={**os.environ, **target.environment}, stdout=log, stderr=log)


def _await(target: Target, songs: list[str]) -> None:
    """Wait until every partition has answered every upload, or nothing has come for long: then the figures say so."""
    everyone = set(range(target.naming.audience_partitions))
    waiting, patience = set(songs), time.monotonic() + PATIENCE_S
    while waiting and time.monotonic() < patience:
        done = {song for song in waiting if target.follower.answered(song) >= everyone}
        if done:
            waiting, patience = waiting - done, time.monotonic() + PATIENCE_S
        for worker in target.workers:
            worker.watch()
        time.sleep(0.1)


def _seen(
    target: Target, sent: dict[str, Sent], models: tuple[str, str], starts: dict[str, float], ended: float
) -> SwapFigures:
    everyone = set(range(target.naming.audience_partitions))
    answers = {song: target.follower.answers.get(song) or Answer() for song in sent}
    return SwapFigures(
        sent=sent,
        waits={song: 1000 * (each.decided - sent[song].at) for song, each in answers.items() if each.decided},
        failed=tuple(song for song, each in answers.items() if not each.answered >= everyone),
        spaces={song: frozenset(space for _, space in each.spaces) for song, each in answers.items()},
        mixed=tuple(
            song for song, each in answers.items() if len({number for number, _ in each.spaces}) < len(each.spaces)
        ),
        models=models,
        starts=starts,
        ended=ended,
    )
