"""What is still known of a user: by a real worker's state, in real topics, and on the disk."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from aiokafka.partitioner import DefaultPartitioner
from installation import Installation
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from streams.audience.catalogue_sync import CatalogueSync
from streams.audience.main import stores
from streams.audience.worker import Worker
from streams.audience.worker_context import WorkerContext
from streams.cli import app
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.errors import ErasureKeyMismatch
from streams.contract.events import Listen, UserPreferences
from streams.contract.topics import AUDIENCE_STATE, AUDIENCE_VECTORS, DEAD_LETTERS, LISTENS, PREFERENCES, PUSH_TARGETS
from streams.kafka.partitioner import partition_of
from streams.models.registry import LiveView
from streams.operations.erasure_audit import UserTraces, trace
from streams.runtime.clock import SystemClock
from streams.runtime.health import Heartbeat, Readiness
from streams.runtime.metrics import AudienceMetrics
from streams.runtime.settings import AudienceSettings, Settings
from streams.runtime.settings_sources import load_settings
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition, TargetingConfig
from targeting.users.erasures import fingerprint

CLOCK = SystemClock()
PATIENCE_S = 60.0
USER = "user-of-the-test"
DAY_S = 86_400.0


@dataclass
class Scene:
    """An installation, and a worker's whole life at a time."""

    here: Installation
    folder: Path
    session_s: float = 30.0
    """How long a worker that ended stays in its group."""

    @property
    def settings(self) -> Settings:
        return load_settings(
            None,
            {
                "kafka": {"bootstrap_servers": self.here.kafka.bootstrap_servers},
                "topics": {"prefix": self.here.naming.prefix, "audience_partitions": 2, "songs_partitions": 2},
                "paths": {"cache": str(self.folder)},
            },
        )

    def traces(self, keys: Sequence[bytes] = (b"coldstart",)) -> UserTraces:
        state = self.settings.paths.state / self.here.naming.prefix
        return trace(self.here.kafka, self.here.naming, CLOCK, USER, keys, stores(self.settings, CLOCK), state)

    def work(self, done: Callable[[], bool], config: TargetingConfig | None = None) -> None:
        """A worker serves until something is so, and stops."""
        songs, naming = Catalogue(), self.here.naming
        view = LiveView(self.here.kafka, naming, CLOCK)
        chosen = AudienceSettings(session_timeout_s=self.session_s)
        metrics = AudienceMetrics(CollectorRegistry())
        worker = Worker(
            WorkerContext(self.here.kafka, naming, chosen, CLOCK, metrics, Heartbeat(CLOCK, 60)),
            0,
            CatalogueSync(view, songs, chosen.objective),
            lambda number: Partition(number, 2, songs, config or TargetingConfig()),
            stores(self.settings, CLOCK),
            Readiness().condition("restored", "not yet"),
        )
        deadline = CLOCK.monotonic() + PATIENCE_S
        try:
            while not done():
                assert CLOCK.monotonic() < deadline
                worker.round()
        finally:
            worker.close()
            view.close()

    def consumed(self, topic: object, count: int) -> Callable[[], bool]:
        partition = partition_of(USER.encode(), 2)
        return lambda: self.here.committed("audience", topic, partition) >= count  # type: ignore[arg-type]

    def listen(self, time: float) -> None:
        event = Listen(
            listen_id=f"l-{time}",
            user_id=USER,
            song_id="s",
            played_at=datetime.fromtimestamp(time, UTC),
            source="organic",
        )
        self.here.send(LISTENS, pack(event, id=event.listen_id, source="test", time=time))

    def ask(self, timezone: str = "UTC") -> None:
        now = datetime.now(UTC)
        event = UserPreferences(user_id=USER, opted_in=True, updated_at=now, erase_requested_at=now, timezone=timezone)
        self.here.send(PREFERENCES, pack(event, id="p", source="test", time=now.timestamp()))

    def says(self, profiling: bool, updated_at: float) -> None:
        at = datetime.fromtimestamp(updated_at, UTC)
        event = UserPreferences(user_id=USER, opted_in=True, updated_at=at, profiling=profiling)
        self.here.send(PREFERENCES, pack(event, id="p", source="test", time=updated_at))

    @property
    def options(self) -> tuple[str, str]:
        return "--bootstrap-servers", self.here.kafka.bootstrap_servers

    @property
    def environment(self) -> dict[str, str]:
        return {
            "COLDSTART_TOPICS__PREFIX": self.here.naming.prefix,
            "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": "2",
            "COLDSTART_TOPICS__SONGS_PARTITIONS": "2",
            "COLDSTART_PATHS__CACHE": str(self.folder),
            "COLUMNS": "250",
        }

    def run(self, *options: str) -> tuple[int, str]:
        result = CliRunner().invoke(app, ["erased", USER, *options, *self.options], env=self.environment)
        return result.exit_code, result.stdout


@pytest.fixture
def scene(here: Installation, tmp_path: Path) -> Scene:
    return Scene(here, tmp_path)


def test_the_partition_is_the_one_that_clients_choose() -> None:
    for count in (1, 4, 16):
        everyone = list(range(count))
        for number in range(200):
            user = f"user-{number}-ü"
            assert partition_of(user.encode(), count) == DefaultPartitioner()(user.encode(), everyone, everyone)


def test_of_a_user_nobody_knows_nothing_is_found(scene: Scene) -> None:
    traces = scene.traces()
    assert traces.forgotten
    assert traces.erased_at is None
    assert {each.records for each in traces.found} == {0}
    assert scene.run()[0] == 0


def test_what_waits_for_whom_is_told_by_topic(scene: Scene) -> None:
    now, here = CLOCK.now(), scene.here
    scene.listen(now)
    here.send(PUSH_TARGETS, Record(USER.encode(), b"{}", []))
    here.send(AUDIENCE_VECTORS, Record(USER.encode(), vector_codec.pack("x", np.ones(2, np.float32)), []))
    here.send(DEAD_LETTERS, Record(b"another", b'{ "user_id" : "%s" }' % USER.encode(), []))
    here.send(DEAD_LETTERS, Record(b"another", b'{"user_id":"%s-2"}' % USER.encode(), []))
    scene.ask()
    found = {each.place.removeprefix(here.naming.prefix): each for each in scene.traces().found if each.records}
    assert found.keys() == {"listens", "push-targets", "audience-vectors", "dead-letters", "preferences"}
    assert {name: each.records for name, each in found.items()} == dict.fromkeys(found, 1)
    for name, days in (("listens", 7), ("push-targets", 7), ("dead-letters", 14)):
        gone_from, gone_by = found[name].gone_from, found[name].gone_by
        assert gone_from is not None
        assert gone_by is not None
        assert abs(gone_from - now - days * DAY_S) < PATIENCE_S
        # The broker's own default, which the topics do not change.
        assert gone_by - gone_from == 7 * DAY_S
    assert "user-model team" in found["audience-vectors"].words
    assert "account service" in found["preferences"].words


def test_an_erasure_is_proved_once_it_was_consumed(scene: Scene) -> None:
    scene.listen(CLOCK.now() - 60)
    scene.work(scene.consumed(LISTENS, 1))
    held = {each.place: each.words for each in scene.traces().found if each.state}
    assert held == {
        scene.here.naming.name(AUDIENCE_STATE): "history",
        str(scene.settings.paths.state / scene.here.naming.prefix / str(partition_of(USER.encode(), 2))): "history",
    }
    code, said = scene.run()
    assert code == 1
    assert "the state still holds: " in said

    scene.ask()
    asked = CLOCK.now()
    scene.work(scene.consumed(PREFERENCES, 1))
    traces = scene.traces()
    assert traces.forgotten
    assert traces.erased_at is not None
    assert abs(traces.erased_at - asked) < PATIENCE_S
    (state,) = (each for each in traces.found if each.place == scene.here.naming.name(AUDIENCE_STATE))
    assert "compaction" in state.words
    code, said = scene.run("--json")
    assert code == 0
    told = json.loads(said)
    assert told["forgotten"] is True
    assert told["partition"] == partition_of(USER.encode(), 2)
    assert {"place", "records", "gone_from", "gone_by", "state", "words"} == told["found"][0].keys()


def test_that_profiling_is_off_is_told_and_nothing_is_held(scene: Scene) -> None:
    now = CLOCK.now()
    scene.listen(now)
    scene.work(scene.consumed(LISTENS, 1))
    code, told = scene.run()
    assert code == 1
    assert "profiling is off" not in told
    scene.says(profiling=False, updated_at=now)
    scene.work(scene.consumed(PREFERENCES, 1))
    code, told = scene.run()
    assert code == 0, told
    assert f"profiling is off since {datetime.fromtimestamp(now, UTC):%Y-%m-%d %H:%M} UTC" in told
    assert "no erasure of this user was consumed" in told
    assert "the state holds nothing of this user" in told
    (_, found) = scene.run("--json")
    assert json.loads(found)["no_profiling_since"] == pytest.approx(now)
    assert json.loads(found)["erased_at"] is None
    scene.ask()
    scene.work(scene.consumed(PREFERENCES, 2))
    # The request to forget is the full state, and has no such field: profiling is allowed again.
    traces = scene.traces()
    assert traces.no_profiling_since is None
    assert traces.erased_at is not None
    assert [request.obeyed for request in traces.requests] == [True]


def test_a_request_in_a_record_that_is_refused_is_obeyed_and_named(scene: Scene) -> None:
    scene.listen(CLOCK.now() - 60)
    scene.ask(timezone="US/Pacific-New")
    at = f"{scene.here.naming.name(PREFERENCES)}[{partition_of(USER.encode(), 2)}] at "
    assert f"at {at}0 still waits" in scene.run()[1]
    stray = scene.here.naming.name(PREFERENCES).encode()
    letter = [("dl_topic", stray), ("dl_partition", b"1"), ("dl_offset", b"7"), ("dl_timestamp", b"5000"),
              ("dl_message", b"key: b'x' is not user_id")]  # fmt: skip
    value = b'{"user_id":"%s","erase_requested_at":"2027-01-01T00:00:00Z"}' % USER.encode()
    scene.here.send(DEAD_LETTERS, Record(b"x", value, letter))

    scene.work(scene.consumed(PREFERENCES, 1))
    traces = scene.traces()
    obeyed, other = sorted(traces.requests, key=lambda each: each.key or "")
    assert (obeyed.place, obeyed.asked_at, obeyed.obeyed) == (f"{at}0", traces.erased_at, True)
    assert obeyed.refused == "timezone: 'US/Pacific-New' is no IANA time zone"
    assert (other.key, other.obeyed) == ("x", False)
    code, said = scene.run()
    assert code == 0
    assert f"at {at}0, in dead-letters for \"timezone: 'US/Pacific-New' is no IANA time zone\", was obeyed" in said
    assert "has the key 'x', and is not obeyed: send it again" in said
    (dead,) = (each for each in traces.found if each.place == scene.here.naming.name(DEAD_LETTERS))
    assert dead.records == 2


def test_a_start_with_another_erasure_key_is_refused_with_the_way_out(scene: Scene) -> None:
    scene.ask()
    scene.work(scene.consumed(PREFERENCES, 1))
    own, new = (fingerprint(key).hex() for key in (b"coldstart", b"new"))
    assert scene.traces([b"new"]).unknown_keys == {own: 1}
    said = f"its fingerprint is {new}, and .* 1 with the key of fingerprint {own}"
    with pytest.raises(ErasureKeyMismatch, match=said):
        scene.work(lambda: False, TargetingConfig(erasure_key=b"new"))
    environment = scene.environment | {"COLDSTART_AUDIENCE__ERASURE_KEY": "new"}
    result = CliRunner().invoke(app, ["digest", *scene.options], env=environment)
    assert result.exit_code == 2
    assert "audience.former_erasure_keys" in result.stderr
    environment["COLDSTART_AUDIENCE__FORMER_ERASURE_KEYS"] = '["coldstart"]'
    assert CliRunner().invoke(app, ["digest", *scene.options], env=environment).exit_code == 0


def test_who_comes_back_is_known_again(scene: Scene) -> None:
    scene.ask()
    scene.work(scene.consumed(PREFERENCES, 1))
    scene.listen(CLOCK.now() - 60)
    scene.work(scene.consumed(LISTENS, 1))
    # From before the request: nobody comes back by it.
    assert scene.traces().forgotten
    scene.listen(CLOCK.now())
    scene.work(scene.consumed(LISTENS, 2))
    traces = scene.traces()
    assert not traces.forgotten
    assert traces.erased_at is not None
    assert any("came back" in each.words for each in traces.found)
    code, said = scene.run()
    assert code == 1
    assert "forgotten up to" in said
