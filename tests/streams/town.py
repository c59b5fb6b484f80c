"""A small audience behind a lying network: what it is sent, who serves it, and whether each of it counted once."""

from __future__ import annotations

import os
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import numpy as np
from confluent_kafka import Consumer, KafkaException, TopicPartition
from installation import PATIENCE_S, Installation
from lying_network import LyingNetwork
from prometheus_client import CollectorRegistry

from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.changelog_reader import read_changelog
from streams.audience.local_store import LocalStores
from streams.audience.worker import Worker
from streams.audience.worker_context import WorkerContext
from streams.contract import vector_codec
from streams.contract.cloudevents import pack
from streams.contract.errors import ColdstartError, Unavailable
from streams.contract.events import Listen, PushTarget, UserPreferences
from streams.contract.internal_events import LiveModel, MatchRequest, Neighbour, WarmSong
from streams.contract.topics import LISTENS, MATCH_REQUESTS, MODELS, PREFERENCES, PUSH_TARGETS, WARM_SONGS
from streams.kafka.clients import consumer, watermarks
from streams.models.registry import LiveView
from streams.operations.state_digest import digest
from streams.runtime.clock import SystemClock
from streams.runtime.health import Heartbeat, Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, KafkaSettings
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.rules.policy import Policy
from targeting.users.history_record import decode

CLOCK = SystemClock()
USERS, WARM = 40, 8
# Every listener of the neighbours is a candidate, and may be pushed any number of songs: so the more there is to lose.
CONFIG = TargetingConfig(policy=Policy(), at_once=1.0)
NO_DISK = Path(os.devnull)


class Town:
    """What was sent to an installation, by an honest network."""

    def __init__(self, here: Installation) -> None:
        self.here = here
        self.plays: Counter[str] = Counter()
        self.requests = 0
        self._listens = 0
        self._reader: Consumer = consumer(here.kafka, f"{here.naming.prefix}audience")
        self._places = [
            TopicPartition(here.naming.name(topic), partition)
            for topic in (LISTENS, MATCH_REQUESTS, PREFERENCES)
            for partition in range(here.naming.audience_partitions)
        ]
        now = datetime.fromtimestamp(CLOCK.now(), UTC)
        for number in range(WARM):
            song = WarmSong(song_id=f"s-{number}", space="a", vector=vector_codec.pack("a", _place(number)))
            here.send(WARM_SONGS, pack(song, ce_type=song.TYPES[0], id=song.song_id, source="t", time=CLOCK.now()), 0)
        model = LiveModel(
            name="encoder", uri="file:///no", manifest_sha256="0", space="a", dim=2, warm_songs=WARM, published_at=now
        )
        here.send(MODELS, pack(model, ce_type=model.TYPES[0], id="a", source="t", time=CLOCK.now()), 0)

    def listen(self, count: int) -> None:
        now, records = CLOCK.now(), []
        for number in range(self._listens, self._listens + count):
            user = f"u-{number % USERS}"
            event = Listen(
                listen_id=f"l-{number}", user_id=user, song_id=f"s-{number * 7 % WARM}", source="organic",
                played_at=datetime.fromtimestamp(now, UTC),
            )  # fmt: skip
            records.append(pack(event, ce_type=event.TYPES[0], id=event.listen_id, source="t", time=now))
            self.plays[user] += 1
        self._listens += count
        self.here.send_all(LISTENS, records)

    def ask(self) -> None:
        """A new song for every partition."""
        now = CLOCK.now()
        event = MatchRequest(
            song_id=f"new-{self.requests}", revision=1, recording=f"new-{self.requests}", title="t", artist_ids=["a"],
            vector=vector_codec.pack("a", _place(self.requests)), budget=10 * USERS,
            neighbours=[Neighbour(f"s-{n}", 0.9) for n in range(WARM)],
            uploaded_at=datetime.fromtimestamp(now, UTC), expires_at=datetime.fromtimestamp(now + 86_400, UTC),
        )  # fmt: skip
        record = pack(event, ce_type=event.TYPES[0], id=event.song_id, source="t", time=now)
        for partition in range(self.here.naming.audience_partitions):
            self.here.send(MATCH_REQUESTS, record, partition)
        self.requests += 1

    def close(self) -> None:
        self._reader.close()

    def prefer(self, *users: int, opted_in: bool = True) -> None:
        now, records = CLOCK.now(), []
        for user in users:
            event = UserPreferences(
                user_id=f"u-{user}", opted_in=opted_in, country="PT", updated_at=datetime.fromtimestamp(now, UTC)
            )
            records.append(pack(event, ce_type=event.TYPES[0], id=f"p-{user}-{now}", source="t", time=now))
        self.here.send_all(PREFERENCES, records)

    def everything_read(self) -> bool:
        """Whether the group has committed all that was sent."""
        try:
            found = self._reader.committed(self._places, timeout=PATIENCE_S)
            ends = [watermarks(self._reader, place, PATIENCE_S)[1] for place in self._places]
        except (KafkaException, Unavailable):
            # A fresh broker's coordinator does not know yet that it is one; on a busy machine a broker can lose its
            # leaders for a moment.
            return False
        return [max(0, place.offset) for place in found] == ends

    def judge(self, digests: dict[int, str]) -> int:
        """Every promise of a commit, on what a read_committed reader sees; returns how many pushes there are.

        Args:
            digests: of the workers' states, by partition.
        """
        pushes = Counter(
            (event.push_id, event.user_id, event.song_id)
            for event in (msgspec.json.decode(m.value() or b"", type=PushTarget) for m in self.here.read(PUSH_TARGETS))
        )
        assert [push for push, times in pushes.items() if times > 1] == []
        # Everybody had heard a neighbour by the first request, so everybody is pushed every song, once.
        assert len(pushes) == USERS * self.requests
        plays: dict[str, float] = {}
        for partition in range(self.here.naming.audience_partitions):
            told = digest(self.here.kafka, self.here.naming, partition, CLOCK, new_partition(self.here))
            assert told is not None
            assert told.digest == digests[partition]
            group = {
                name: self.here.committed("audience", topic, partition)
                for name, topic in (("listens", LISTENS), ("commands", MATCH_REQUESTS), ("preferences", PREFERENCES))
            }
            assert {name: at for name, at in group.items() if at >= 0} == told.at
            for _, key, value in read_changelog(self.here.kafka, self.here.naming, partition, CLOCK, _nothing):
                if key.startswith(b"u"):
                    plays[key[1:].decode()] = float(decode([value or b""])[1]["weight"].sum())
        assert plays == dict(self.plays)
        return len(pushes)

    def judge_disk(self, digests: dict[int, str], folder: Path) -> None:
        """What the disk and the changelog's tail say, once no worker holds the disk."""
        for partition, digest_of_state in digests.items():
            made = new_partition(self.here)
            told = digest(self.here.kafka, self.here.naming, partition, CLOCK, made, LocalStores(folder, "town", CLOCK))
            assert told is not None
            assert told.digest == digest_of_state


class Service:
    """One slot's worker behind a network, started again whenever it ends, as a supervisor would."""

    def __init__(
        self,
        here: Installation,
        net: LyingNetwork | KafkaSettings,
        slot: int = 0,
        folder: Path = NO_DISK,
        watchdog_s: int = 15,
    ) -> None:
        self._here = here
        self._reach = KafkaSettings(bootstrap_servers=net.bootstrap_servers, request_timeout_s=3)
        self._slot = slot
        self._folder = folder
        self._watchdog_s = watchdog_s
        self._worker: Worker | None = None
        self._registry = CollectorRegistry()
        self._metrics = AudienceMetrics(self._registry)
        self.states: dict[int, Partition] = {}
        self.ends: list[str] = []
        self.hung = False

    @property
    def restored(self) -> list[int]:
        """The partitions that are worked on."""
        return self._worker.partitions if self._worker else []

    @property
    def digests(self) -> dict[int, str]:
        return {number: self.states[number].digest() for number in self.restored}

    def transactions(self, outcome: str) -> int:
        found = self._registry.get_sample_value("coldstart_transactions_total", {"outcome": outcome})
        return int(found or 0)

    def round(self) -> None:
        try:
            if self._worker is None:
                self._start()
            assert self._worker is not None
            self._worker.round()
        except (ColdstartError, KafkaException) as error:
            if isinstance(error, ColdstartError) and not error.retriable:
                raise
            self.ends.append(f"{type(error).__name__}: {error}")
            self.stop()

    def dismiss(self, thread: threading.Thread) -> bool:
        """End the thread, which calls this, if it is the watchdog of this worker; whether it is.

        By an exception it would be the test's: a process would be gone with all its threads.
        """
        watchdog = None if self._worker is None else self._worker._commit._watchdog
        if watchdog is None or watchdog._thread is not thread:
            return False
        watchdog._closed.set()
        return True

    def until(self, done: Callable[[], bool]) -> None:
        deadline = CLOCK.monotonic() + PATIENCE_S
        while not done():
            assert CLOCK.monotonic() < deadline
            self.round()

    def stop(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._view.close()
            self._worker = None

    def _start(self) -> None:
        songs = Catalogue()

        def made(number: int) -> Partition:
            self.states[number] = Partition(number, self._here.naming.audience_partitions, songs, CONFIG)
            return self.states[number]

        settings = AudienceSettings(
            transaction_timeout_s=1, session_timeout_s=6, start_wait_s=1, watchdog_s=self._watchdog_s
        )
        self._view = LiveView(self._reach, self._here.naming, CLOCK)
        self._worker = Worker(
            WorkerContext(self._reach, self._here.naming, settings, CLOCK, self._metrics, Heartbeat(CLOCK, 60)),
            self._slot,
            CatalogueSync(self._view, songs, settings.objective),
            made,
            LocalStores(self._folder, "town", CLOCK),
            Readiness().condition("restored", "not yet"),
        )


class Crew:
    """A worker a slot, each on a thread of its own behind a network of its own."""

    def __init__(self, here: Installation, nets: Sequence[LyingNetwork], folder: Path) -> None:
        self._here = here
        self._nets = nets
        self._folder = folder
        self._over = threading.Event()
        self._threads: list[tuple[Service, threading.Thread]] = []
        self.failed: list[Exception] = []
        self.hung: list[Service] = []
        self.services = [Service(here, net, slot, folder) for slot, net in enumerate(nets)]
        for service in self.services:
            self._serve(service)

    def leave(self, code: int, why: str) -> None:
        """In the place of :func:`streams.runtime.exit_codes.leave`: a watchdog would end its worker's process; here the
        next one of the slot begins, and the one that hangs does nothing more."""
        for slot, service in enumerate(self.services):
            if service.dismiss(threading.current_thread()):
                service.ends.append(f"Watchdog: {why} ({code})")
                service.hung = True
                self.hung.append(service)
                self.services[slot] = Service(self._here, self._nets[slot], slot, self._folder)
                self._serve(self.services[slot])

    def wait_for(self, done: Callable[[], bool], pause: threading.Event) -> None:
        deadline = CLOCK.monotonic() + 2 * PATIENCE_S
        while not done():
            assert self.failed == []
            assert CLOCK.monotonic() < deadline
            pause.wait(0.1)

    def restored(self) -> bool:
        """Whether every partition is worked on."""
        return sum(len(each.restored) for each in self.services) == self._here.naming.audience_partitions

    def rest(self) -> dict[int, str]:
        """Stop after the round; the digests of all states."""
        self._over.set()
        for service, thread in self._threads:
            if not service.hung:
                thread.join(PATIENCE_S)
        digests: dict[int, str] = {}
        for service in self.services:
            digests |= service.digests
        return digests

    def _serve(self, service: Service) -> None:
        def rounds() -> None:
            try:
                while not self._over.is_set() and not service.hung:
                    service.round()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails of it
                if not service.hung:
                    self.failed.append(error)

        thread = threading.Thread(target=rounds, daemon=True)
        self._threads.append((service, thread))
        thread.start()


def new_partition(here: Installation) -> Callable[[int], Partition]:
    return lambda number: Partition(number, here.naming.audience_partitions, Catalogue(), CONFIG)


def _place(number: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    angle = 0.1 * (number % WARM)
    return np.array([np.cos(angle), np.sin(angle)], np.float32)


def _nothing(*_: object) -> None:
    """A restore that takes a moment need not say so."""
