"""What uploads feel of an upgrade from an earlier release, under load, and whether anything is lost or doubled.

    python tests/bench/bench_upgrade.py --rate 4

The earlier release (former_release.py) creates the topics, trains and publishes a model, and serves. Then each of its
workers is stopped by SIGTERM and one of this release takes its place, as docs/how-to/operators.md says; then every
worker is restarted once more. Every push is opened and every second one heard all the while, so that what both releases
counted of a song can be compared with what was sent.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections import Counter
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
from bench_rolling_restart import Uploads, figures, replace, restart
from confluent_kafka import OFFSET_BEGINNING, TopicPartition
from former_release import COMMIT, FormerRelease

from streams.contract.cloudevents import pack
from streams.contract.events import Campaign, PushOutcome, PushTarget
from streams.contract.topics import CAMPAIGNS, LISTENS, PUSH_OUTCOMES, PUSH_TARGETS, Naming
from streams.kafka.clients import admin, consumer, hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.topic_admin import create_topics, update_topics
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.chaos.environment import Environment
from streams.testbed.chaos.traffic import listen
from streams.testbed.demo.follow import Follower

ROLES = {
    "audience-0": ["audience", "--slot", "0", "--policy", "off"],
    "audience-1": ["audience", "--slot", "1", "--policy", "off"],
    "songs": ["songs"],
}
"""In the order of an upgrade: readers of match requests first."""


class Listeners:
    """Open every push, once, and hear every second one, on a thread of their own.

    Attributes:
        opened: song_id -> outcomes sent.
        heard: song_id -> listens sent.
    """

    def __init__(self, stage: Environment) -> None:
        self.opened: Counter[str] = Counter()
        self.heard: Counter[str] = Counter()
        self._stage = stage
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="listeners")
        self._thread.start()

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        naming, sender = self._stage.naming, producer(self._stage.kafka)
        reader = consumer(self._stage.kafka, f"{naming.prefix}listeners")
        name, pushed = naming.name(PUSH_TARGETS), msgspec.json.Decoder(PushTarget)
        reader.assign([TopicPartition(name, each, OFFSET_BEGINNING) for each in range(naming.audience_partitions)])
        while not self._stop.is_set():
            for message in reader.consume(5000, 0.1):
                push, now = pushed.decode(message.value() or b""), time.time()
                event = PushOutcome(
                    push_id=push.push_id, user_id=push.user_id, song_id=push.song_id, outcome="opened",
                    at=datetime.fromtimestamp(now, UTC),
                )  # fmt: skip
                record = pack(event, id=f"{push.push_id}/opened", source="bench", time=now)
                hand_over(sender, naming.name(PUSH_OUTCOMES), record)
                self.opened[push.song_id] += 1
                if self.opened[push.song_id] % 2:
                    heard = listen(push.user_id, push.push_id, now, push.song_id, push.push_id)
                    hand_over(sender, naming.name(LISTENS), heard)
                    self.heard[push.song_id] += 1
        reader.close()
        sender.flush(60)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--users", type=int, default=2000)
    parser.add_argument("--songs", type=int, default=3000)
    parser.add_argument("--partitions", type=int, default=8, help="Of the audience.")
    parser.add_argument("--rate", type=float, default=4.0, help="Uploads a second.")
    parser.add_argument("--budget", type=int, default=400)
    parser.add_argument("--between", type=float, default=5.0, help="Seconds between two workers.")
    parser.add_argument("--surge", action="store_true", help="Songs: the new worker is ready before the old one stops.")
    parser.add_argument("--keep-logs", type=Path, help="Folder to copy the workers' logs to.")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name, EmbeddedKafka() as broker:
        kafka, folder = KafkaSettings(bootstrap_servers=broker.bootstrap_servers), Path(name)
        former = FormerRelease(kafka, Naming("upgrade.", asked.partitions, 2), folder, asked.users, asked.songs)
        try:
            print(json.dumps(upgrade(former, asked), indent=1))
        finally:
            former.stage.stop()
            if asked.keep_logs:
                asked.keep_logs.mkdir(parents=True, exist_ok=True)
                for log in folder.glob("*.log"):
                    (asked.keep_logs / log.name).write_text(log.read_text())


def upgrade(former: FormerRelease, asked: argparse.Namespace) -> dict[str, Any]:
    """Replace every worker while uploads come, then restart every worker; what uploads felt, and what was counted."""
    stage = former.stage
    follower, listeners = Follower(stage.kafka, stage.naming), Listeners(stage)
    running = {worker: former.start(worker, args) for worker, args in ROLES.items()}
    uploads, spans = Uploads(stage, asked.rate, asked.budget), []
    try:
        stage.wait(2 * asked.between)
        calm = time.time()
        # As `coldstart topics create` and `coldstart topics update`: this release has a topic and settings more.
        create_topics(admin(stage.kafka), stage.naming, 1)
        update_topics(admin(stage.kafka), stage.naming)
        for worker, args in ROLES.items():
            spans.append(replace(stage, running.pop(worker), args, asked.surge and worker == "songs"))
            stage.wait(asked.between)
        upgraded = time.time()
        for worker, args in ROLES.items():
            spans.append(restart(stage, worker, args, asked.surge and worker == "songs"))
            stage.wait(asked.between)
        uploads.stop()
        stage.wait_until_answered(follower.answered, list(uploads.sent))
        stage.wait_until_still()
    finally:
        for process in running.values():
            process.stop()
        uploads.stop()
        listeners.stop()
        follower.close()
    answers = [(at, follower.answers[song]) for song, at in uploads.sent.items()]
    return {
        "from": COMMIT,
        "uploads": len(answers),
        "answered by every partition": sum(stage.partitions <= answer.answered for _, answer in answers),
        "pushes": sum(len(answer.pushes) for _, answer in answers),
        "pushed twice": len(follower.doubled),
        "users pushed a song twice": sum(twice(answer.pushes) for _, answer in answers),
        "dead letters": len(follower.dead),
        "counts": counts(stage, follower, listeners),
        "former release": figures([each for each in answers if each[0] < calm]),
        "during the upgrade": figures([each for each in answers if calm <= each[0] < upgraded]),
        "during the restarts after it": figures([each for each in answers if upgraded <= each[0]]),
        "replaced": spans,
    }


def twice(pushes: list[tuple[float, str]]) -> int:
    return len(pushes) - len({user for _, user in pushes})


def counts(stage: Environment, follower: Follower, listeners: Listeners) -> dict[str, dict[str, int]]:
    """{what: sent, and as the merged view of the songs counts it}."""
    view = Snapshot(stage.kafka, [stage.naming.name(CAMPAIGNS)], SystemClock())
    merged = {
        (message.key() or b"").decode(): msgspec.json.decode(message.value() or b"", type=Campaign).counts
        for message in view.read_to_end()
    }
    view.close()
    sent = {
        "pushed": Counter({song: len(answer.pushes) for song, answer in follower.answers.items()}),
        "opened": listeners.opened,
        "listened": listeners.heard,
    }
    return {
        what: {
            "sent": of.total(),
            "counted": sum(getattr(each, what) for each in merged.values()),
            "songs that differ": sum(getattr(each, what) != of[song] for song, each in merged.items()),
        }
        for what, of in sent.items()
    }


if __name__ == "__main__":
    main()
