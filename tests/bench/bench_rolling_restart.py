"""What uploads feel of a rolling restart: every worker stopped by SIGTERM and started again, under load.

    python tests/bench/bench_rolling_restart.py --rolls 2 --rate 4

A generated world, one songs worker and two audience workers. Each worker in turn is stopped, started again and
waited for until it is ready. Latency is from handing an upload over to what a read_committed consumer sees: its first
push, and the last of the pushes that partitions decided by the request.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from streams.contract.topics import SONG_UPLOADS
from streams.kafka.clients import hand_over, producer
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.demo.dataset_events import upload_record
from streams.testbed.demo.follow import Answer, Follower


class Uploads:
    """Uploads at a steady rate, on a thread of its own, until told to stop.

    Attributes:
        sent: song_id -> Unix seconds of its sending.
    """

    def __init__(self, stage: Environment, rate: float, budget: int) -> None:
        self.sent: dict[str, float] = {}
        self._stage, self._rate, self._budget = stage, rate, budget
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="uploads")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        sender, songs = producer(self._stage.kafka), self._stage.songs
        start, number = time.monotonic(), 0
        while not self._stop.wait(max(0.0, start + number / self._rate - time.monotonic())):
            song = msgspec.structs.replace(
                songs[number % len(songs)], song_id=f"new-{number}", recording_id=None, budget=self._budget
            )
            self.sent[song.song_id] = time.time()
            hand_over(sender, self._stage.naming.name(SONG_UPLOADS), upload_record(song, self.sent[song.song_id]))
            number += 1
        sender.flush(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--songs", type=int, default=3000)
    parser.add_argument("--partitions", type=int, default=8, help="Of the audience.")
    parser.add_argument("--rate", type=float, default=4.0)
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--rolls", type=int, default=2)
    parser.add_argument("--between", type=float, default=5.0, help="Seconds between two workers.")
    parser.add_argument("--surge", action="store_true", help="Songs: the new worker is ready before the old one stops.")
    parser.add_argument("--keep-logs", type=Path, help="Folder to copy the workers' logs to.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka() as broker:
        kafka = KafkaSettings(bootstrap_servers=broker.bootstrap_servers)
        stage = set_up(kafka, "rolling.", Path(name), asked.partitions, asked.users, asked.songs)
        follower = Follower(kafka, stage.naming)
        try:
            print(json.dumps(roll(stage, follower, asked), indent=1))
        finally:
            stage.stop()
            follower.close()
            if asked.keep_logs:
                asked.keep_logs.mkdir(parents=True, exist_ok=True)
                for log in Path(name).glob("*.log"):
                    (asked.keep_logs / log.name).write_text(log.read_text())


def roll(stage: Environment, follower: Follower, asked: argparse.Namespace) -> dict[str, Any]:
    """Restart every worker, ``asked.rolls`` times, while uploads come; what they felt of it."""
    roles = {"songs": ["songs"]} | {
        f"audience-{slot}": ["audience", "--slot", str(slot), "--policy", "off"] for slot in range(2)
    }
    for worker, args in roles.items():
        stage.start(worker, *args)
    stage.wait_until_ready()
    stage.upload(stage.songs[:20])
    stage.wait_until_answered(follower.answered, [song.song_id for song in stage.songs[:20]])
    uploads, spans = Uploads(stage, asked.rate, asked.budget), []
    try:
        stage.wait(2 * asked.between)
        calm = time.time()
        for _ in range(asked.rolls):
            for worker, args in roles.items():
                spans.append(restart(stage, worker, args, asked.surge and worker == "songs"))
                stage.wait(asked.between)
    finally:
        uploads.stop()
    stage.wait_until_answered(follower.answered, list(uploads.sent))
    stage.wait_until_still()
    answers = [(at, follower.answers[song]) for song, at in uploads.sent.items()]
    return {
        "uploads": len(answers),
        "answered by every partition": sum(stage.partitions <= answer.answered for _, answer in answers),
        "pushes": sum(len(answer.pushes) for _, answer in answers),
        "pushed twice": len(follower.doubled),
        "dead letters": len(follower.dead),
        "before": figures([each for each in answers if each[0] < calm]),
        "during": figures([each for each in answers if each[0] >= calm]),
        "restarts": spans,
    } | {
        f"while {role} restarts": figures([each for each in answers if in_any(each[0], spans, role)])
        for role in ("songs", "audience")
    }


def restart(stage: Environment, name: str, args: Sequence[str], surge: bool) -> dict[str, Any]:
    """Stop one of the installation's workers, and have another take its place."""
    (worker,) = [each for each in stage.workers if each.name == name]
    stage.workers.remove(worker)
    return replace(stage, worker, args, surge)


def replace(stage: Environment, old: RoleProcess, args: Sequence[str], surge: bool) -> dict[str, Any]:
    """Stop a worker, start one in its place, and wait until it is ready; with ``surge``, start and wait first."""
    began = time.time()
    if surge:
        stage.start(old.name, *args)
        stage.wait_until_ready()
    started = time.time()
    old.stop()
    stopped = time.time()
    if not surge:
        stage.start(old.name, *args)
        stage.wait_until_ready()
    ready = time.time()
    start_s = started - began if surge else ready - stopped
    return {
        "worker": old.name,
        "stop_s": round(stopped - started, 2),
        "start_s": round(start_s, 2),
        "at": [began, ready],
    }


def in_any(at: float, spans: list[dict[str, Any]], role: str) -> bool:
    """Whether an upload was waiting or sent while a worker of this role was restarted."""
    return any(span["at"][0] - 1 <= at <= span["at"][1] for span in spans if span["worker"].startswith(role))


def figures(answers: list[tuple[float, Answer]]) -> dict[str, Any]:
    """Seconds from upload to the first push, and to the last of those that the request decided."""
    found: dict[str, Any] = {"uploads": len(answers)}
    for which, name in (("first", "first push"), ("decided", "last partition's push")):
        values = [getattr(answer, which) - at for at, answer in answers if answer.decided]
        if values:
            quantiles = {f"p{q}": round(float(np.percentile(values, q)), 3) for q in (50, 90, 99)}
            found[name] = quantiles | {"longest": round(max(values), 3)}
    return found


if __name__ == "__main__":
    main()
