"""The push system that others copy: each push once, whatever crashes, and none that is no longer wanted."""

from __future__ import annotations

import ast
import contextlib
import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from confluent_kafka import Producer
from hypothesis import given
from hypothesis import strategies as st
from installation import PATIENCE_S, Installation
from lying_network import Api, Fault, Kind, LyingNetwork

from streams.contract.cloudevents import Record, pack, unpack
from streams.contract.dead_letters import headers
from streams.contract.events import Campaign, CampaignCounts, EndReason, PushOutcome, PushTarget, UserPreferences
from streams.contract.topics import CAMPAIGNS, PREFERENCES, PUSH_OUTCOMES, PUSH_TARGETS
from streams.kafka.clients import hand_over, producer
from streams.kafka.partitioner import partition_of
from targeting.rules.quiet_hours import open_at
from targeting.types import QuietSpan

FOLDER = Path(__file__).parents[2] / "docs" / "examples" / "push_system"
sys.path.insert(0, str(FOLDER))

from push_system import (  # type: ignore[import-not-found]  # noqa: E402
    KEPT_S,
    RETRY_S,
    NotSent,
    PushSystem,
    Rejected,
    _quiet_until,
)

HOUR = 3600.0


def at(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


class World:
    """An installation, a clock that stands still, and a provider that remembers what it was given."""

    def __init__(self, here: Installation, store: Path) -> None:
        self.here, self.store = here, store
        self.now = self.start = float(round(time.time()))
        self.sent: list[str] = []
        self.raises: Exception | None = None
        self.systems: list[Any] = []

    def system(self, **more: Any) -> Any:
        """A push system; the former one is closed, as a process that ended."""
        self.close()
        system = PushSystem(
            **{"servers": self.here.kafka.bootstrap_servers, "idempotent": True} | more,
            store=str(self.store), send=self.send, prefix=self.here.naming.prefix, clock=lambda: self.now,
        )  # fmt: skip
        self.systems.append(system)
        return system

    def close(self) -> None:
        while self.systems:
            self.systems.pop().close()

    def send(self, push: dict[str, Any]) -> None:
        if self.raises is not None:
            raise self.raises
        self.sent.append(push["push_id"])

    def push(self, push_id: str, **more: Any) -> None:
        """A push that can be read; see :meth:`record`."""
        self.here.send(PUSH_TARGETS, self.record(push_id, **more))

    def record(self, push_id: str, *, user: str = "u", song: str = "s", due: float = 0.0, **more: Any) -> Record:
        """A push that is due so many seconds after the start."""
        said = {"decided_at": at(self.start - 1), "not_before": at(self.start + due), "revision": 1} | more
        event = msgspec.structs.replace(
            msgspec.json.decode(PushTarget.EXAMPLE, type=PushTarget), push_id=push_id, user_id=user, song_id=song,
            expires_at=at(self.start + 9 * HOUR), **said,
        )  # fmt: skip
        return pack(event, id=push_id, source="test", time=self.start)

    def wishes(self, user: str = "u", partition: int = -1, **said: Any) -> None:
        event = UserPreferences(user_id=user, updated_at=at(self.now), **({"opted_in": True} | said))
        self.here.send(PREFERENCES, pack(event, id=f"{user}/{self.now}", source="test", time=self.now), partition)

    def campaign(self, song: str, reason: EndReason | None, revision: int = 1) -> None:
        over = {} if reason is None else {"end_reason": reason, "ended_at": at(self.now)}
        event = Campaign(
            song_id=song, revision=revision, status="active" if reason is None else "ended", started_at=at(self.start),
            counts=CampaignCounts(), space="x", **over,  # type: ignore[arg-type]
        )  # fmt: skip
        self.here.send(CAMPAIGNS, pack(event, id=f"{song}/{reason}", source="test", time=self.now))

    def outcomes(self) -> dict[str, list[str]]:
        """What was reported of each push, each outcome once by its id."""
        found: dict[str, dict[str, str]] = {}
        for message in self.here.read(PUSH_OUTCOMES):
            received = unpack(PushOutcome, message.key(), message.value(), headers(message), time.time() + 9 * HOUR)
            found.setdefault(received.event.push_id, {})[received.id] = received.event.outcome
        return {push_id: list(said.values()) for push_id, said in found.items()}


@pytest.fixture
def world(here: Installation, tmp_path: Path) -> Iterator[World]:
    world = World(here, tmp_path / "pushes.db")
    yield world
    world.close()


def settled(system: Any, until: Callable[[], bool]) -> None:
    """Let it work until something holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not until():
        system.step(wait_s=0.05)
        assert time.monotonic() < deadline


def read_all(world: World, system: Any) -> None:
    """Let it work until it has read what its topics hold now."""
    topics = {world.here.naming.name(topic): topic for topic in (PUSH_TARGETS, PREFERENCES, CAMPAIGNS)}
    ends = {place: world.here.end(topics[place[0]], place[1]) for place in system._next}
    settled(system, lambda: all(system._next[place] >= end for place, end in ends.items() if end))
    system.step()


def test_a_push_is_sent_when_it_is_due_once_and_reported(world: World) -> None:
    world.push("now")
    world.push("later", due=HOUR)
    system = world.system()
    read_all(world, system)
    assert world.sent == ["now"]
    world.now += HOUR - 1
    system.step()
    assert world.sent == ["now"]
    world.now += 1
    system.step()
    system.step()
    assert world.sent == ["now", "later"]
    assert world.outcomes() == {"now": ["delivered"], "later": ["delivered"]}


def test_what_has_expired_is_not_sent_but_reported(world: World) -> None:
    world.push("late")
    system = world.system()
    world.now += 9 * HOUR
    read_all(world, system)
    assert world.sent == []
    assert world.outcomes() == {"late": ["expired"]}


@pytest.mark.parametrize("reason", [None, *get_args(EndReason)])
def test_only_a_takedown_among_the_ends_of_a_campaign_keeps_a_push_back(world: World, reason: EndReason | None) -> None:
    world.push("p", due=HOUR)
    system = world.system()
    read_all(world, system)
    world.campaign("s", reason)
    world.now += HOUR
    system.step()
    assert world.sent == ([] if reason == "taken-down" else ["p"])


def test_a_takedown_stands_for_what_was_pushed_before_it_and_not_for_a_song_that_came_back(world: World) -> None:
    world.campaign("s", "taken-down", revision=2)
    world.push("old", revision=1)
    world.push("of it", revision=2)
    world.push("new", revision=3)
    system = world.system()
    read_all(world, system)
    assert world.sent == ["new"]
    # What waited when the takedown was read stays away, although the song is back.
    world.push("waiting", song="t", due=HOUR)
    read_all(world, system)
    world.campaign("t", "taken-down", revision=1)
    read_all(world, system)
    world.campaign("t", None, revision=2)
    world.now += HOUR
    read_all(world, system)
    assert world.sent == ["new"]


DURING_A_DEFERRAL: dict[str, Callable[[World], None]] = {
    "opt-out": lambda world: world.wishes(opted_in=False),
    "mute": lambda world: world.wishes(muted_artists=["a-7"]),
    "no explicit songs": lambda world: world.wishes(allow_explicit=False),
    "erasure": lambda world: world.wishes(erase_requested_at=at(world.now)),
    "no profiling": lambda world: world.wishes(profiling=False),
    "unreadable objection to profiling": lambda world: world.here.send(
        PREFERENCES, Record(b"u", b'{"profiling":"false","opted_in":true,"timezone":"Nowhere/Land"}', [])
    ),
    "objection to profiling that is taken back": lambda world: [
        world.wishes(profiling=allowed) for allowed in (False, True)
    ][-1],
    "unreadable erasure": lambda world: world.here.send(
        PREFERENCES, Record(b"u", b'{"erase_requested_at":"now","opted_in":true}', [])
    ),
    "structured opt-out": lambda world: structured(world, {"data": {"opted_in": False}}),
    "structured erasure": lambda world: structured(
        world, {"data": {"opted_in": True, "erase_requested_at": at(world.now).isoformat()}}
    ),
    "structured opt-out in base64": lambda world: structured(
        world, {"data_base64": b64encode(b'{"opted_in":false}').decode()}
    ),
}


def structured(world: World, said: dict[str, Any]) -> None:
    """Preferences as a CloudEvent in structured mode."""
    media = [("content-type", b"application/cloudevents+json; charset=utf-8")]
    world.here.send(PREFERENCES, Record(b"u", json.dumps({"specversion": "1.0", **said}).encode(), media))


@pytest.mark.parametrize("said", DURING_A_DEFERRAL)
def test_what_a_user_says_during_a_deferral_is_obeyed(world: World, said: str) -> None:
    world.push("p", due=HOUR, explicit=True)
    world.push("another's", user="v", due=HOUR, explicit=True)
    system = world.system()
    read_all(world, system)
    # Written at the last moment: it is read before anything is sent.
    world.now += HOUR
    DURING_A_DEFERRAL[said](world)
    system.step()
    assert world.sent == ["another's"]
    assert world.outcomes() == {"another's": ["delivered"]}


def test_preferences_in_another_partition_than_the_users_say_nothing(world: World) -> None:
    for user, opted_in in (("u", False), ("v", True)):
        right = partition_of(user.encode(), world.here.naming.audience_partitions)
        world.wishes(user, opted_in=opted_in)
        world.wishes(user, partition=1 - right, opted_in=not opted_in)
        world.push(f"to {user}", user=user)
    system = world.system()
    read_all(world, system)
    assert world.sent == ["to v"]


def test_who_may_hear_no_explicit_songs_hears_others(world: World) -> None:
    world.wishes(allow_explicit=False)
    world.push("plain")
    read_all(world, world.system())
    assert world.sent == ["plain"]


def test_an_erased_user_is_forgotten_here_and_pushed_again_only_by_a_later_decision(world: World) -> None:
    world.push("before")
    system = world.system()
    read_all(world, system)
    world.wishes(erase_requested_at=at(world.now))
    world.push("late", due=1)
    world.push("after", due=1)
    system.close()
    rows = sqlite_rows(world.store, "SELECT user_id, song_id, body FROM pushes WHERE push_id = 'before'")
    assert rows[0][0] == "u"
    world.systems.clear()
    system = world.system()
    world.now += 1
    read_all(world, system)
    assert world.sent == ["before"]
    # Decided before the erasure, and read after it.
    world.push("straggler")
    world.push("new", due=1, decided_at=at(world.now + 1))
    read_all(world, system)
    assert world.sent == ["before", "new"]
    system.close()
    world.systems.clear()
    left = sqlite_rows(world.store, "SELECT user_id, song_id, body FROM pushes WHERE push_id != 'new'")
    assert left == [(None, None, None)] * 4


def sqlite_rows(path: Path, query: str) -> list[tuple[Any, ...]]:
    store = sqlite3.connect(path)
    try:
        return store.execute(query).fetchall()
    finally:
        store.close()


def test_preferences_that_cannot_be_read_hold_pushes_back_until_some_can(world: World) -> None:
    world.push("p")
    world.here.send(PREFERENCES, Record(b"u", b'{"opted_in":true,"timezone":"Nowhere/Land"}', []))
    system = world.system()
    read_all(world, system)
    assert world.sent == []
    world.wishes(timezone="Europe/Lisbon")
    world.now += RETRY_S
    system.step()
    assert world.sent == ["p"]


def test_quiet_hours_set_after_the_decision_defer_a_push_to_their_end(world: World) -> None:
    world.start = world.now = datetime(2026, 3, 1, 21, 30, tzinfo=UTC).timestamp()
    world.push("p")
    world.wishes(timezone="Europe/Lisbon", quiet_hours=msgspec.convert([{"from": "21:00", "to": "23:00"}], list[Any]))
    system = world.system()
    read_all(world, system)
    assert world.sent == []
    world.now += 1.5 * HOUR - 1
    system.step()
    assert world.sent == []
    world.now += 1
    system.step()
    assert world.sent == ["p"]


minutes = st.integers(0, 1439)


@given(
    st.floats(1_700_000_000, 1_800_000_000),
    st.sampled_from(["UTC", "Europe/Lisbon", "America/St_Johns", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    st.lists(st.tuples(minutes, minutes).filter(lambda span: span[0] != span[1]), max_size=3),
)
def test_quiet_hours_end_where_the_service_ends_them(now: float, zone: str, spans: list[tuple[int, int]]) -> None:
    def clock(minute: int) -> str:
        return f"{minute // 60:02}:{minute % 60:02}"

    wishes = {"timezone": zone, "quiet_hours": [{"from": clock(start), "to": clock(end)} for start, end in spans]}
    until = _quiet_until(now, wishes)
    service = open_at(now, zone, tuple(QuietSpan(start, end) for start, end in spans))
    assert until is None if service > now + 3 * 24 * HOUR else until == pytest.approx(service, abs=1)


@pytest.mark.parametrize("kind", ["cut request", "cut answer", "lost answer", "no answer"])
def test_while_kafka_does_not_tell_how_far_preferences_go_nothing_is_sent(
    world: World, kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("push_system.PATIENCE_S", 2.0)
    world.push("later", due=HOUR)
    with LyingNetwork(world.here.kafka.bootstrap_servers) as net:
        system = world.system(servers=net.bootstrap_servers, kafka={"socket.timeout.ms": 3_000})
        read_all(world, system)
        world.now += HOUR
        net.take_chances(lambda api, _: Fault(kind, api) if api == Api.LIST_OFFSETS else None)
        for _ in range(3):
            assert system.step() == 0
        assert net.struck[kind, Api.LIST_OFFSETS] > 0
        net.be_honest()
        settled(system, lambda: bool(world.sent))
        world.close()
    assert world.sent == ["later"]


def test_an_aborted_transaction_is_not_sent_and_holds_nothing_up(world: World) -> None:
    world.push("p")
    sender = Producer(world.here.kafka.confluent() | {"transactional.id": f"{world.here.naming.prefix}aborts"})
    sender.init_transactions(PATIENCE_S)
    for topic, key, value in (
        (PUSH_TARGETS, b"u", world.record("aborted").value),
        (PREFERENCES, b"u", b'{"opted_in":false}'),
    ):
        sender.begin_transaction()
        for partition in (0, 1):
            sender.produce(world.here.naming.name(topic), value, key, partition=partition)
        # Else what is still in the client is dropped, and nothing is aborted on the broker.
        assert sender.flush(PATIENCE_S) == 0
        sender.abort_transaction(PATIENCE_S)
    system = world.system()
    read_all(world, system)
    assert world.sent == ["p"]


@pytest.mark.parametrize(
    ("idempotent", "raised", "again", "reported"),
    [
        (True, OSError("timed out"), True, ["delivered"]),
        (True, NotSent(), True, ["delivered"]),
        (True, Rejected(), False, ["failed"]),
        (False, OSError("timed out"), False, []),
        (False, NotSent(), True, ["delivered"]),
    ],
)
def test_a_push_that_could_not_be_sent_is_tried_again_where_that_sends_it_once(
    world: World, idempotent: bool, raised: Exception, again: bool, reported: list[str]
) -> None:
    world.push("p")
    world.raises = raised
    system = world.system(idempotent=idempotent)
    read_all(world, system)
    world.raises = None
    system.step()
    assert world.sent == []
    world.now += RETRY_S
    system.step()
    assert world.sent == (["p"] if again else [])
    assert system.doubtful() == ([] if reported else ["p"])
    assert world.outcomes().get("p", []) == reported


def test_a_push_that_may_have_been_sent_is_not_reported_as_expired(world: World) -> None:
    world.push("p")
    world.raises = OSError("timed out")
    system = world.system()
    read_all(world, system)
    world.now += 9 * HOUR
    system.step()
    assert (world.outcomes(), system.doubtful()) == ({}, ["p"])


def test_ids_are_kept_for_as_long_as_a_push_could_be_sent_again(world: World) -> None:
    world.push("p")
    read_all(world, world.system())
    assert world.sent == ["p"]
    # Read from the beginning again, as after `coldstart rewind` or with the topic created anew.
    for wait in (0.0, 9 * HOUR, KEPT_S + 1, 0.0):
        world.close()
        sqlite_delete(world.store)
        world.now += wait
        read_all(world, world.system())
        assert world.sent == ["p"]
    assert world.outcomes() == {"p": ["delivered"]}
    world.close()
    assert sqlite_rows(world.store, "SELECT * FROM pushes") == []


def sqlite_delete(path: Path) -> None:
    store = sqlite3.connect(path)
    with store:
        store.execute("DELETE FROM positions")
    store.close()


def test_a_second_process_on_the_same_store_is_refused(world: World) -> None:
    world.system()
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        PushSystem(world.here.kafka.bootstrap_servers, str(world.store), world.send, idempotent=True)


def test_two_processes_share_the_partitions(world: World, tmp_path: Path) -> None:
    for number in range(20):
        world.push(f"p-{number}", user=f"u-{number}")
    world.wishes("u-3", opted_in=False)
    read_all(world, world.system(partitions=[0]))
    half = list(world.sent)
    world.close()
    world.store = tmp_path / "other.db"
    read_all(world, world.system(partitions=[1]))
    assert 0 < len(half) < 19
    assert Counter(world.sent) == Counter(f"p-{n}" for n in range(20) if n != 3)


def test_it_needs_nothing_but_confluent_kafka() -> None:
    for path in FOLDER.glob("*.py"):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
        names |= {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
        roots = {name.split(".")[0] for name in names} - sys.stdlib_module_names
        assert roots <= {"confluent_kafka", "push_system"}, path


class Provider(ThreadingHTTPServer):
    """A provider of notifications that sends once per idempotency key, and ends its caller where it is told to."""

    def __init__(self, kills: set[int]) -> None:
        super().__init__(("127.0.0.1", 0), _Notify)
        self.requests: list[str] = []
        self.notified: Counter[str] = Counter()
        self.kills, self.caller = kills, 0
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/"


class _Notify(BaseHTTPRequestHandler):
    server: Provider

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        key = self.headers["idempotency-key"]
        number = len(self.server.requests)
        self.server.requests.append(key)
        # Even ones die before anybody is notified, odd ones after it and before they hear of it.
        if number in self.server.kills and number % 2 == 0:
            os.kill(self.server.caller, signal.SIGKILL)
            return
        if key not in self.server.notified:
            self.server.notified[key] += 1
        if number in self.server.kills:
            os.kill(self.server.caller, signal.SIGKILL)
            return
        self.send_response(204)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


def environment(world: World, provider: Provider) -> dict[str, str]:
    return os.environ | {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": world.here.kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": world.here.naming.prefix,
        "PROVIDER": provider.url,
        "STORE": str(world.store),
    }


def lives(world: World, provider: Provider, script: Path, enough: Callable[[int], bool], random_kills: int = 0) -> int:
    """Run the push system, again after each kill, until ``enough`` (told the kills so far); gives how often it died."""
    draw, killed, deadline = random.Random(0), 0, time.monotonic() + 3 * PATIENCE_S
    while not enough(killed):
        process = subprocess.Popen([sys.executable, str(script)], env=environment(world, provider))
        provider.caller = process.pid
        dies_after = len(provider.requests) + draw.randrange(1, 8) if killed < random_kills else 1_000_000
        while process.poll() is None and not enough(killed):
            assert time.monotonic() < deadline
            if len(provider.requests) >= dies_after:
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(0.002)
        if process.poll() is None:
            process.kill()
            process.wait()
        else:
            assert process.returncode == -signal.SIGKILL
            killed += 1
    return killed


def test_killed_again_and_again_between_send_and_commit_no_push_is_sent_twice_and_none_is_lost(world: World) -> None:
    pushes = {f"p-{n}" for n in range(60)}
    for push_id in sorted(pushes):
        world.push(push_id, user=f"u-{push_id}")
    with Provider(kills={4, 5, 12, 19, 26, 27, 28, 41, 50, 55}) as provider:

        def enough(_: int) -> bool:
            return len(provider.notified) == len(pushes) == len(world.outcomes())

        killed = lives(world, provider, FOLDER / "send_pushes.py", enough)
        provider.shutdown()
    assert killed == len(provider.kills)
    assert provider.notified == Counter(dict.fromkeys(pushes, 1))
    # It did come again, under its key: the provider had a chance to notify twice.
    assert len(provider.requests) == len(pushes) + killed
    assert world.outcomes() == {push_id: ["delivered"] for push_id in pushes}


def test_a_provider_without_idempotency_keys_hears_of_each_push_once_and_what_is_in_doubt_is_named(
    world: World, tmp_path: Path
) -> None:
    pushes, threads, kills = {f"p-{n}" for n in range(60)}, 2, 6
    for push_id in sorted(pushes):
        world.push(push_id, user=f"u-{push_id}")
    text = (FOLDER / "send_pushes.py").read_text(encoding="utf-8")
    changed = text.replace("idempotent=True", f"idempotent=False, threads={threads}")
    assert changed != text
    script = tmp_path / "plain.py"
    script.write_text(f"import sys\nsys.path.insert(0, {str(FOLDER)!r})\n{changed}", encoding="utf-8")
    with Provider(kills={3, 10}) as provider:
        lives(world, provider, script, lambda killed: killed == kills, random_kills=kills)
        provider.shutdown()
    system = world.system(idempotent=False)
    read_all(world, system)
    heard, doubtful = Counter(provider.requests + world.sent), set(system.doubtful())
    assert world.sent, "all were sent before the kills: nothing is shown"
    assert max(heard.values()) == 1
    assert heard.keys() | doubtful == pushes
    assert 0 < len(doubtful) <= kills * threads
    assert world.outcomes() == {push_id: ["delivered"] for push_id in pushes - doubtful}


def test_the_javascript_example_reads_pushes(world: World, tmp_path: Path) -> None:
    """With kafkajs as it is installed; the sender is that of the audience role."""
    missing = [each for each in ("node", "npm") if shutil.which(each) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on this machine")
    for path in FOLDER.iterdir():
        if path.is_file():
            shutil.copy(path, tmp_path)
    fetch = ["npm", "ci", "--no-audit", "--prefer-offline"]
    fetched = subprocess.run(fetch, cwd=tmp_path, capture_output=True, text=True, check=False)
    if fetched.returncode:
        assert not os.environ.get("CI"), fetched.stderr
        pytest.skip(f"{' '.join(fetch)} does not work here: {fetched.stderr[-500:]}")
    sender = producer(world.here.kafka, f"{world.here.naming.prefix}audience-0")
    sender.init_transactions(PATIENCE_S)
    for push_id, kept in (("aborted", False), ("p-1", True), ("p-2", True)):
        sender.begin_transaction()
        event = msgspec.structs.replace(msgspec.json.decode(PushTarget.EXAMPLE, type=PushTarget), push_id=push_id)
        record = pack(event, id=push_id, source="test", time=world.now)
        hand_over(sender, world.here.naming.name(PUSH_TARGETS), record)
        assert sender.flush(PATIENCE_S) == 0
        (sender.commit_transaction if kept else sender.abort_transaction)(PATIENCE_S)
    process = subprocess.Popen(
        ["node", "read_pushes.js"], cwd=tmp_path, env=os.environ | {
            "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": world.here.kafka.bootstrap_servers,
            "COLDSTART_TOPICS__PREFIX": world.here.naming.prefix,
        }, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    watch = threading.Timer(2 * PATIENCE_S, process.kill)
    watch.start()
    printed, pushes = [], []
    assert process.stdout is not None
    for line in process.stdout:
        printed.append(line)
        if not line.startswith("{"):
            pushes.append(line.split()[0])
        if len(pushes) == 2 or "not implemented" in line:
            break
    watch.cancel()
    process.kill()
    process.communicate()
    assert pushes == ["p-1", "p-2"], "".join(printed)
