"""Each role, and each team around them, works with exactly the rights in the table, and is refused one step beyond."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Consumer, KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from pydantic import SecretStr
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.cloudevents import Record
from streams.contract.errors import BrokerFailed, Refused, Unavailable
from streams.contract.topics import LISTENS, PUSH_TARGETS, SONG_UPLOADS, TOPICS, Naming
from streams.kafka.access import not_authorized
from streams.kafka.clients import admin, consumer, hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.topic_admin import create_topics, deviations, grant
from streams.models.publish import publish
from streams.operations.access_rights import ACTORS, Actor, Right, commands, grants
from streams.operations.doctor.finding import Patient
from streams.operations.doctor.rights_checks import rights
from streams.operations.probe import Probe
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings, PathSettings, Settings, TopicSettings
from streams.testbed.broker import EmbeddedKafka, daemon
from streams.testbed.broker.broker_config import Node
from streams.testbed.broker.broker_security import ADMIN, Security
from streams.testbed.broker.jars import KAFKA_VERSION, fetch, java
from streams.testbed.chaos.environment import set_up
from streams.testbed.demo.dataset_events import poisoned, upload_record
from streams.testbed.demo.follow import Follower

PATIENCE_S = 30
NAMING = Naming("guarded.", 2, 2)
PASSWORD = "long enough, and planted"


def reach(security: Security, address: str, name: str, password: str = PASSWORD) -> KafkaSettings:
    return KafkaSettings(
        bootstrap_servers=address,
        security_protocol="SASL_SSL",
        sasl_mechanism="SCRAM-SHA-512",
        sasl_username=name,
        sasl_password=SecretStr(password),
        ssl_ca=security.certificate,
    )


class Guarded:
    """A broker that knows the actors and grants each its rights."""

    def __init__(self, security: Security, broker: EmbeddedKafka) -> None:
        self.security = security
        self.address = broker.bootstrap_servers
        self.broker = broker
        self.boss = reach(security, self.address, ADMIN, security.password())
        client = admin(self.boss)
        create_topics(client, NAMING, 1)
        mechanism = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        users = [
            UserScramCredentialUpsertion(name, mechanism, PASSWORD.encode())
            for name in [*(actor.name for actor in ACTORS), "nobody"]
        ]
        for future in client.alter_user_scram_credentials(users).values():
            future.result(PATIENCE_S)
        assert grant(client, [each for actor in ACTORS for each in grants(actor, NAMING, actor.name)]) > 0

    def as_(self, name: str) -> KafkaSettings:
        return reach(self.security, self.address, name)


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    security = Security.prepare(folder / "security", java())
    with EmbeddedKafka(folder / "broker", node=Node(security=security)) as broker:
        yield Guarded(security, broker)


def may_write(kafka: KafkaSettings, topic: str) -> bool:
    failed: list[KafkaError] = []
    sender = producer(kafka)
    sender.produce(topic, b"x", b"x", partition=0, on_delivery=lambda error, _: failed.append(error) if error else None)
    assert sender.flush(PATIENCE_S) == 0
    assert {error.code() for error in failed} <= {KafkaError.TOPIC_AUTHORIZATION_FAILED}
    return not failed


def may_read(kafka: KafkaSettings, topic: str, group: str) -> bool:
    """In a group, to the end of what is there."""
    reader: Consumer = consumer(kafka, group, enable_partition_eof=True)
    try:
        reader.subscribe([topic])
        deadline = SystemClock().monotonic() + PATIENCE_S
        while SystemClock().monotonic() < deadline:
            message = reader.poll(0.5)
            error = message.error() if message is not None else None
            if message is not None and (error is None or error.code() == KafkaError._PARTITION_EOF):
                return True
            if error is not None and error.code() in (
                KafkaError.TOPIC_AUTHORIZATION_FAILED,
                KafkaError.GROUP_AUTHORIZATION_FAILED,
            ):
                return False
        raise AssertionError(f"{topic}: neither read nor refused")
    finally:
        reader.close()


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.parametrize("actor", [each for each in ACTORS if not each.everything], ids=lambda each: each.name)
def test_an_actor_does_what_is_granted_and_nothing_beyond(guarded: Guarded, actor: Actor) -> None:
    kafka = guarded.as_(actor.name)
    for topic in TOPICS:
        rights = actor.topics.get(topic, frozenset())
        assert may_write(kafka, NAMING.name(topic)) == (Right.WRITE in rights), topic.name
    if actor.groups:
        group = f"{NAMING.prefix}{actor.groups[0]}"
        granted = next(topic for topic, rights in actor.topics.items() if Right.READ in rights)
        other = next(topic for topic in TOPICS if Right.READ not in actor.topics.get(topic, frozenset()))
        assert may_read(kafka, NAMING.name(granted), group)
        assert not may_read(kafka, NAMING.name(granted), f"{NAMING.prefix}somebody-elses")
        assert not may_read(kafka, NAMING.name(other), group)
    transactional = producer(kafka, f"{NAMING.prefix}audience-0")
    if actor.transactions:
        transactional.init_transactions(PATIENCE_S)
    else:
        with pytest.raises(KafkaException) as caught:
            transactional.init_transactions(PATIENCE_S)
        assert caught.value.args[0].code() == KafkaError.TRANSACTIONAL_ID_AUTHORIZATION_FAILED


@pytest.mark.kafka
def test_an_operator_sees_and_changes_the_installation_and_no_other(guarded: Guarded) -> None:
    client: AdminClient = admin(guarded.as_("operator"))
    assert deviations(client, NAMING) == []
    assert create_topics(client, Naming("guarded.more.", 1, 1), 1)
    with pytest.raises(Exception, match="uthorization"):
        create_topics(client, Naming("foreign.", 1, 1), 1)


@pytest.mark.kafka
def test_who_has_no_rights_sees_no_topic(guarded: Guarded) -> None:
    assert not [name for name in admin(guarded.as_("nobody")).list_topics(timeout=PATIENCE_S).topics]


def test_the_commands_grant_what_the_table_says() -> None:
    verbs = {
        "Read": "READ",
        "Write": "WRITE",
        "DescribeConfigs": "DESCRIBE_CONFIGS",
        "Describe": "DESCRIBE",
        "All": "ALL",
    }
    for actor in ACTORS:
        said = set()
        for command in commands(actor, NAMING, "u", "host:1"):
            name = re.search(r"--(?:topic|group|transactional-id) '([^']+)'", command)
            assert name is not None
            said |= {(name[1], verbs[verb]) for verb in re.findall(r"--operation (\w+)", command)}
            assert "--allow-principal 'User:u'" in command
        assert said == {(each.name, each.operation.name) for each in grants(actor, NAMING, "u")}


def test_the_secrets_of_a_broker_are_for_their_owner_alone(tmp_path: Path) -> None:
    security = Security.prepare(tmp_path / "security", java())
    assert security == Security.prepare(tmp_path / "security", java())
    assert (tmp_path / "security").stat().st_mode & 0o777 == 0o700
    for path in (tmp_path / "security").iterdir():
        assert path.stat().st_mode & 0o077 == 0 or path == security.certificate, path
    assert security.password() not in repr(security)


@pytest.mark.kafka
def test_both_roles_and_all_around_them_serve_an_upload_with_exactly_these_rights(
    guarded: Guarded, tmp_path: Path
) -> None:
    """Everybody under a name of their own; only the stage is set by the administrator."""
    boss = {
        "security_protocol": "SASL_SSL", "sasl_mechanism": "SCRAM-SHA-512", "sasl_username": ADMIN,
        "sasl_password": guarded.security.password(), "ssl_ca": guarded.security.certificate,
    }  # fmt: skip
    stage = set_up(guarded.boss, "guarded.roles.", tmp_path, 2, settings={"kafka": boss})
    grant(admin(guarded.boss), [each for actor in ACTORS for each in grants(actor, stage.naming, actor.name)])
    publish(stage.models[0], guarded.as_("coldstart-publish"), stage.naming, SystemClock())
    environment = stage.environment
    try:
        for name, args in (("songs", ["songs"]), ("audience", ["audience", "--slot", "0"])):
            as_role = {"SASL_USERNAME": f"coldstart-{name}", "SASL_PASSWORD": PASSWORD}
            stage.environment = environment | {f"COLDSTART_KAFKA__{key}": value for key, value in as_role.items()}
            stage.start(name, *args)
        stage.wait_until_ready()
        follower = Follower(guarded.boss, stage.naming)
        for user, topic, record in (
            ("upload-service", SONG_UPLOADS, upload_record(stage.songs[0], time.time())),
            ("upload-service", SONG_UPLOADS, poisoned(upload_record(stage.songs[1], time.time()), 1)),
            ("player", LISTENS, Record(b"x", b"{}", [])),
        ):
            sender = producer(guarded.as_(user))
            hand_over(sender, stage.naming.name(topic), record)
            assert sender.flush(PATIENCE_S) == 0
        stage.wait_until_answered(follower.answered, [stage.songs[0].song_id])
        # The dead letters of both roles.
        stage.wait_until(lambda: len(follower.dead) == 2, lambda: f"{len(follower.dead)} dead letters of 2")
        follower.close()
        probe = Probe(guarded.as_("coldstart-probe"), stage.naming, SystemClock(), "guarded")
        assert probe.send(PATIENCE_S).answered
        probe.close()
        assert follower.answers[stage.songs[0].song_id].pushes
        assert may_read(
            guarded.as_("push-system"), stage.naming.name(PUSH_TARGETS), f"{stage.naming.prefix}push-system"
        )
    finally:
        stage.stop()
    for name in ("songs", "audience"):
        log = stage.log(name).read_text()
        assert "uthorization" not in log
        assert PASSWORD not in log


@pytest.mark.kafka
def test_the_printed_lines_make_the_administrator(tmp_path: Path) -> None:
    cache = tmp_path / "kafka"
    (cache / "jars").mkdir(parents=True)
    (cache / "jars" / KAFKA_VERSION).symlink_to(fetch(PathSettings().broker)[0].parent)
    try:
        shown = CliRunner().invoke(app, ["kafka", "up", "--secure"], env={"COLDSTART_PATHS__CACHE": str(tmp_path)})
        assert shown.exit_code == 0, shown.output
        lines = [line for line in shown.stdout.splitlines() if line.startswith("export ")]
        said = subprocess.run(
            ["bash", "-c", "\n".join([*lines, "env -0"])], capture_output=True, check=True, text=True
        ).stdout
        told = dict(each.split("=", 1) for each in said.split("\0") if each.startswith("COLDSTART_KAFKA__"))
        boss = KafkaSettings(**{name.removeprefix("COLDSTART_KAFKA__").lower(): each for name, each in told.items()})
        assert boss.tls
        create_topics(admin(boss), NAMING, 1)
        with pytest.raises(BrokerFailed, match="with --secure"):
            daemon.up(cache, port=0, heap_mb=256, start_timeout_s=60)
    finally:
        assert daemon.down(cache)


@pytest.mark.kafka
def test_what_a_broker_refuses_is_named_with_the_way_out(guarded: Guarded) -> None:
    """A password, a certificate, a topic, a group: none reads as a broker that is away."""
    role = guarded.as_("coldstart-audience")
    wrong = {
        "authentication failed for user coldstart-audience": {"sasl_password": SecretStr("another")},
        "ssl_ca": {"ssl_ca": None},
    }
    for named, change in wrong.items():
        with pytest.raises(Refused, match=named):
            admin(role.model_copy(update={**change, "request_timeout_s": 3.0}))
    # A broker that hangs up on a protocol says nothing by which it could be told from one that is away.
    plain = KafkaSettings(bootstrap_servers=guarded.address, request_timeout_s=3)
    with pytest.raises(Unavailable, match="Is PLAINTEXT the security_protocol of this port"):
        admin(plain)
    nobody = guarded.as_("nobody")
    with pytest.raises(Refused, match=f"not authorized as user nobody: topic {NAMING.name(LISTENS)}"):
        Snapshot(nobody, [NAMING.name(LISTENS)], SystemClock())
    with pytest.raises(Unavailable, match="never: does not exist"):
        Snapshot(guarded.boss, [f"{NAMING.prefix}never"], SystemClock())
    reader = consumer(nobody, f"{NAMING.prefix}audience")
    reader.subscribe([NAMING.name(LISTENS)])
    heard = reader.poll(PATIENCE_S)
    assert heard is not None
    assert heard.error() is not None
    refused = not_authorized(nobody, KafkaException(heard.error()))
    assert refused is not None
    assert "topics acls" in str(refused)
    reader.close()


@pytest.mark.kafka
def test_the_doctor_tells_who_lacks_a_right_and_for_what(guarded: Guarded) -> None:
    def found(user: str, actor: str | None = None) -> list[str]:
        topics = TopicSettings(prefix=NAMING.prefix, audience_partitions=2, songs_partitions=2)
        settings = Settings(kafka=guarded.as_(user), topics=topics)
        return [each.what for each in rights(Patient(settings, SystemClock(), actor=actor))]

    for user in ("coldstart-songs", "coldstart-audience", "operator"):
        assert found(user) == []
    lacks = " ".join(found("player", "coldstart-songs"))
    assert f"READ group {NAMING.prefix}songs" in lacks
    (said,) = found("coldstart-songs", "coldstart-audience")
    assert said.startswith("rights: user coldstart-songs may not: ")
    assert f"READ {NAMING.name(LISTENS)}" in said
    assert found("player", "player") == []
    (said,) = found("nobody", "player")
    assert f"WRITE {NAMING.name(LISTENS)}" in said
