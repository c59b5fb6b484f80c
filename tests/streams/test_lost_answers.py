"""What a verb says where Kafka's answer is lost: that it is, and no figure in its place."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import TopicPartition
from installation import Installation
from lying_network import Api, Fault, LyingNetwork
from test_erased import CLOCK, USER, Scene
from test_offsets import move_by_hand
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Campaign, CampaignCounts, Event, PushTarget
from streams.contract.topics import CAMPAIGNS, LISTENS, PUSH_TARGETS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.exit_codes import RESTART
from streams.runtime.settings import KafkaSettings

VERBS = {
    "lag": ["lag", "--json", "--window", "1"],
    "offsets": ["offsets", "show", "--json"],
    "rewind": ["rewind", "pushes", "--to", "2h"],
    "campaigns": ["campaigns", "s", "--json"],
    "explain": ["explain", "s", USER, "--json"],
    "erased": ["erased", USER, "--json"],
    "digest": ["digest", "--json"],
}
READS = [Api.METADATA, Api.LIST_OFFSETS, Api.FETCH]
# Where the connection to a group's coordinator is cut, librdkafka may end the process: of those, what never comes.
ASKS = {
    "lag": [Api.LIST_GROUPS, Api.LIST_OFFSETS, Api.OFFSET_FETCH],
    "offsets": [Api.LIST_GROUPS, Api.LIST_OFFSETS],
    "rewind": [Api.LIST_OFFSETS, Api.FIND_COORDINATOR],
    "campaigns": READS,
    "explain": READS,
    "erased": [Api.DESCRIBE_CONFIGS, *READS],
    "digest": [Api.METADATA, Api.LIST_OFFSETS],
}


@pytest.fixture(scope="module")
def scene(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Scene:
    """A user whom the state knows, a campaign, and another team's group that is one push behind."""
    here = Installation(kafka, Naming(f"test-{uuid.uuid4().hex[:12]}.", 2, 2))
    create_topics(admin(kafka), here.naming, 1)
    scene = Scene(here, tmp_path_factory.mktemp("state"), session_s=6.0)
    scene.listen(CLOCK.now())
    scene.work(scene.consumed(LISTENS, 1))
    event = Campaign(
        song_id="s", revision=1, status="active", started_at=datetime.now(UTC), counts=CampaignCounts(), space="x"
    )
    here.send(CAMPAIGNS, pack(event, id="c", source="test", time=CLOCK.now()))
    for number in range(3):
        here.send(PUSH_TARGETS, Record(b"u", b"%d" % number, []), 0)
    move_by_hand(scene, "pushes", PUSH_TARGETS, 2, 0)
    return scene


@pytest.fixture
def net(kafka: KafkaSettings) -> Iterator[LyingNetwork]:
    with LyingNetwork(kafka.bootstrap_servers) as net:
        yield net


@pytest.fixture(scope="module")
def right(scene: Scene) -> dict[str, tuple[int, Any]]:
    """What each verb says where nothing is lost."""
    said = {verb: told(scene, verb, scene.here.kafka.bootstrap_servers, 30.0) for verb in VERBS}
    assert all(printed for _, printed, _ in said.values()), said
    return {verb: (code, printed) for verb, (code, printed, _) in said.items()}


def told(scene: Scene, verb: str, servers: str, timeout_s: float) -> tuple[int, Any, str]:
    """A verb's exit code, what it prints but for what time changes, and its error."""
    environment = {**os.environ, **scene.environment, "COLDSTART_KAFKA__REQUEST_TIMEOUT_S": str(timeout_s)}
    done = CliRunner().invoke(app, [*VERBS[verb], "--bootstrap-servers", servers], env=environment)
    # Anything else is a traceback.
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exc_info
    printed: Any = done.stdout
    if verb != "rewind" and printed:
        printed = json.loads(printed)
    if verb == "lag" and printed:
        steady = ("group", "topic", "partition", "committed", "end", "records")
        printed = [[row[name] for name in steady] for row in printed]
    return done.exit_code, printed, done.stderr


@pytest.mark.parametrize(
    ("verb", "api"),
    [pytest.param(verb, api, id=f"{verb}, {api.name}") for verb, apis in ASKS.items() for api in apis],
)
def test_a_verb_shows_what_is_so_or_ends_with_the_name_of_what_does_not_answer(
    scene: Scene, net: LyingNetwork, right: dict[str, tuple[int, Any]], verb: str, api: Api
) -> None:
    prefix = scene.here.naming.prefix

    def judge() -> None:
        code, printed, error = told(scene, verb, net.bootstrap_servers, 2.0)
        if code == RESTART:
            assert printed == ""
            assert prefix in error or net.bootstrap_servers in error or "about its groups" in error
            assert not error.rstrip().endswith(":")
        elif verb == "explain" and printed["not_looked_at"]:
            assert code == 0
        else:
            assert (code, printed) == right[verb]

    if api not in (Api.OFFSET_FETCH, Api.FIND_COORDINATOR):
        lost = net.lie("cut answer", api)
        judge()
        assert lost.struck.is_set()
    net.take_chances(lambda asked, _: Fault("no answer", asked) if asked == api else None)
    judge()


EXAMPLE = Path(__file__).parents[2] / "docs" / "examples" / "read_a_running_system.py"


@pytest.fixture
def notebook(scene: Scene, net: LyingNetwork, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The names of the notebook that reads a running system, up to where it reads."""
    monkeypatch.setenv("COLDSTART_TOPICS__PREFIX", scene.here.naming.prefix)
    monkeypatch.setenv("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", net.bootstrap_servers)
    names: dict[str, Any] = {}
    exec(EXAMPLE.read_text(encoding="utf-8").split("# %% [markdown]\n# Pushes by song")[0], names)
    names["PATIENCE_S"] = 2.0
    return names


def test_the_notebook_reads_all_of_a_topic_or_raises(net: LyingNetwork, notebook: dict[str, Any]) -> None:
    def songs(cls: type[Event]) -> list[str]:
        return [each["song_id"] for each in notebook["read"](cls)]

    assert songs(Campaign) == ["s"]
    lost = net.lie("cut answer", Api.FETCH)
    assert songs(Campaign) == ["s"]
    assert lost.struck.is_set()
    net.take_chances(lambda api, _: Fault("no answer", api) if api == Api.FETCH else None)
    with pytest.raises(TimeoutError, match="campaigns: 2 s of silence"):
        songs(Campaign)


def test_the_notebook_reads_a_topic_whose_beginning_is_deleted(scene: Scene, notebook: dict[str, Any]) -> None:
    example = json.loads(PushTarget.EXAMPLE)
    for _ in range(3):
        scene.here.send(PUSH_TARGETS, Record(b"v", json.dumps(example).encode(), []), 1)
    client = admin(scene.here.kafka)
    topic = scene.here.naming.name(PUSH_TARGETS)
    for deleted in client.delete_records([TopicPartition(topic, 0, 3), TopicPartition(topic, 1, 1)]).values():
        deleted.result(60)
    assert [each["push_id"] for each in notebook["read"](PushTarget)] == [example["push_id"]] * 2
