"""The parts of the doctor: what it says without a broker, and of certificates, workers and topics."""

from __future__ import annotations

import json
import ssl
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest
from confluent_kafka.admin import NewTopic
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry
from typer.testing import CliRunner

from streams.cli import app
from streams.contract.topics import TOPICS, Naming
from streams.kafka.broker_version import LEVEL_OF_4_0, level_in, metadata_level
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.operations.doctor.certificate_checks import end_of, files
from streams.operations.doctor.checkup import CHECKS, Outcome
from streams.operations.doctor.finding import Diagnosis, Patient, Severity
from streams.operations.doctor.worker_checks import processes
from streams.runtime.clock import ManualClock, SystemClock
from streams.runtime.health import ObserveServer, Readiness
from streams.runtime.settings import AudienceSettings, KafkaSettings, Settings, SongsSettings, TopicSettings
from streams.testbed.broker import EmbeddedCluster, EmbeddedKafka
from streams.testbed.broker.broker_config import Node
from streams.testbed.broker.jars import java

DAY_S = 86_400.0


@pytest.fixture(scope="module", params=["20490101", "20510101"])
def certificate(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Valid for ten days from then on: the two forms that a date has in a certificate."""
    folder, year = tmp_path_factory.mktemp("certificate"), request.param[:4]
    store = ["-storetype", "PKCS12", "-keystore", str(folder / "key.p12"), "-storepass", "not a secret", "-noprompt"]
    tool, found = str(java().with_name("keytool")), folder / "own.pem"
    begin = ["-startdate", f"{year}/01/01 00:00:00", "-validity", "10"]
    for command in (
        ["-genkeypair", "-alias", "a", "-keyalg", "EC", "-dname", "CN=x", *begin],
        ["-exportcert", "-rfc", "-alias", "a", "-file", str(found)],
    ):
        subprocess.run([tool, *command, *store], check=True, capture_output=True)
    return found


def test_a_certificates_end_is_read_as_the_standard_library_reads_it(certificate: Path) -> None:
    # Private there, and right.
    known = ssl._ssl._test_decode_cert(str(certificate))["notAfter"]  # type: ignore[attr-defined]
    assert end_of(ssl.PEM_cert_to_DER_cert(certificate.read_text())) == ssl.cert_time_to_seconds(known)


@pytest.mark.parametrize(
    ("left_s", "said"), [(31 * DAY_S, None), (29 * DAY_S, Severity.WARNING), (-1.0, Severity.ERROR)]
)
def test_a_certificate_is_warned_of_a_month_before_its_end(
    certificate: Path, left_s: float, said: Severity | None
) -> None:
    end = end_of(ssl.PEM_cert_to_DER_cert(certificate.read_text()))
    settings = Settings(kafka=KafkaSettings(security_protocol="SSL", ssl_ca=certificate))
    found = list(files(Patient(settings, ManualClock(end - left_s))))
    assert [each.severity for each in found] == ([said] if said else [])
    assert all(str(certificate) in each.what for each in found)


def test_without_a_broker_it_says_so_and_still_looks_at_this_machine() -> None:
    asked = CliRunner().invoke(app, ["doctor", "--json", "--bootstrap-servers", "127.0.0.1:9"])
    outcomes = {each["check"]: each for each in json.loads(asked.stdout)}
    assert asked.exit_code == 4
    assert list(outcomes) == [check.name for check in CHECKS]
    assert {name for name, each in outcomes.items() if not each["asked"]} == {c.name for c in CHECKS if c.needs_kafka}
    (finding,) = outcomes["brokers"]["findings"]
    assert finding["what"].startswith("no broker answers: 127.0.0.1:9 (")
    said = CliRunner().invoke(app, ["doctor", "--bootstrap-servers", "127.0.0.1:9"]).output
    assert finding["do"] in said
    assert "skipped  lag" in said


def test_an_actor_that_is_none_is_answered_by_those_there_are() -> None:
    asked = CliRunner().invoke(app, ["doctor", "--actor", "nobody"])
    assert asked.exit_code == 2
    assert "coldstart-audience" in asked.stderr


def test_a_worker_that_is_not_ready_is_quoted_and_two_of_one_slot_are_named() -> None:
    readiness = Readiness()
    readiness.condition("model", "no model is live yet")
    readiness.note("bad", "half of listens")
    status = {"slot": 3, "prefix": "x.", "version": "1"}
    other = status | {"version": "2"}
    with (
        ObserveServer("127.0.0.1", 0, CollectorRegistry(), readiness, status=lambda: status) as one,
        ObserveServer("127.0.0.1", 0, CollectorRegistry(), Readiness(), status=lambda: other) as two,
    ):
        found = list(processes(Patient(Settings(), SystemClock(), [one.url, two.url])))
        said = [each.what for each in found]
    assert f"worker at {one.url} is not ready: model: no model is live yet" in said
    assert f"worker at {one.url}: bad: half of listens" in said
    assert f"duplicate slot 3: {one.url}, {two.url}" in said
    assert f"workers of different versions: 1: {one.url}; 2: {two.url}" in said
    assert all(each.do for each in found)
    (gone,) = processes(Patient(Settings(), SystemClock(), [one.url]))
    assert gone.what.startswith(f"worker at {one.url}: stopped")


@given(st.lists(st.sampled_from(Severity)))
def test_the_worst_finding_speaks_for_its_check(severities: list[Severity]) -> None:
    outcome = Outcome("x", [Diagnosis(each, "what", "do") for each in severities], 0.0)
    order = [None, Severity.UNKNOWN, Severity.WARNING, Severity.ERROR]
    assert outcome.worst is max([None, *severities], key=order.index)


@pytest.mark.kafka
def test_each_deviation_of_a_topic_has_a_way_out(kafka: KafkaSettings, prefix: str) -> None:
    reach = kafka
    settings = Settings(kafka=reach, topics=TopicSettings(prefix=prefix, audience_partitions=2, songs_partitions=1))
    (check,) = (each for each in CHECKS if each.name == "topics")
    assert len(list(check.examine(Patient(settings, SystemClock())))) == len(TOPICS)
    create_topics(admin(reach), Naming(prefix, 1, 1), 1)
    found = list(check.examine(Patient(settings, SystemClock())))
    assert {each.what.partition(": ")[2] for each in found} == {"partitions 1, declared 2"}
    assert all("topics.audience_partitions" in each.do for each in found)


def examined(name: str, settings: Settings) -> list[Diagnosis]:
    """What one check finds now: what a patient was once told is not asked again."""
    (check,) = (each for each in CHECKS if each.name == name)
    return list(check.examine(Patient(settings, SystemClock())))


@pytest.mark.long
@pytest.mark.kafka
def test_copies_on_a_broker_that_is_away_are_named_until_it_is_back() -> None:
    with EmbeddedCluster() as cluster:
        reach = KafkaSettings(bootstrap_servers=cluster.bootstrap_servers)
        settings = Settings(kafka=reach, topics=TopicSettings(prefix="ours."))
        client = admin(reach)
        placed = [("ours.listens", [[1, 2], [2, 3]]), ("ours.alone", [[3]]), ("theirs.listens", [[2, 3]])]
        topics = [NewTopic(name, len(where), replica_assignment=where) for name, where in placed]
        for made in client.create_topics(topics).values():
            made.result(30)
        wait_until(lambda: not examined("leaders", settings))
        cluster.node(3).stop()
        wait_until(lambda: len(examined("leaders", settings)) == 2)
        gone, lacking = examined("leaders", settings)
        assert gone == Diagnosis(
            Severity.ERROR,
            "no leader: ours.alone[0]; their copies are on broker 3, and broker 3 is not in the cluster",
            "start broker 3; its log tells why it stopped",
        )
        assert lacking == Diagnosis(
            Severity.WARNING,
            "under-replicated: ours.listens[1] without the copy on broker 3",
            "start broker 3, or wait until it has caught up; another loss may stop these partitions",
        )
        cluster.restart()
        wait_until(lambda: not examined("leaders", settings))


def wait_until(done: Callable[[], bool]) -> None:
    deadline = SystemClock().monotonic() + 60
    while not done():
        assert SystemClock().monotonic() < deadline


@pytest.mark.kafka
def test_a_brokers_settings_that_do_not_let_the_roles_work_are_named(kafka: KafkaSettings) -> None:
    assert examined("broker settings", Settings(kafka=kafka)) == []
    wrong = {
        "auto.create.topics.enable": "true",
        "transaction.max.timeout.ms": "5000",
        "group.min.session.timeout.ms": "20000",
        "group.max.session.timeout.ms": "40000",
    }
    with EmbeddedKafka(node=Node(settings=wrong)) as broker:
        settings = Settings(
            kafka=KafkaSettings(bootstrap_servers=broker.bootstrap_servers),
            songs=SongsSettings(session_timeout_s=30),
            audience=AudienceSettings(session_timeout_s=6, transaction_timeout_s=10),
        )
        found = examined("broker settings", settings)
    assert [each.severity for each in found] == [Severity.WARNING, Severity.ERROR, Severity.ERROR]
    created, transactions, sessions = found
    assert created.what.startswith("broker 1: auto.create.topics.enable is true")
    assert created.do == "set it to false"
    assert transactions.what == (
        "broker 1: transaction.max.timeout.ms allows 5 s, audience.transaction_timeout_s is 10"
    )
    assert "raise the broker's, or lower ours" in transactions.do
    # What the songs role asks for is allowed, and not named.
    assert sessions.what == "broker 1: sessions of 20 to 40 s are allowed, audience.session_timeout_s is 6"
    assert "group.min.session.timeout.ms" in sessions.do


@pytest.mark.kafka
def test_a_brokers_release_is_read_from_its_own_answer(kafka: KafkaSettings) -> None:
    host, _, port = kafka.bootstrap_servers.rpartition(":")
    level = metadata_level(host, int(port), None)
    assert level is not None
    # The broker is a 4.3.
    assert level > LEVEL_OF_4_0


@given(st.binary(max_size=60))
def test_what_is_no_answer_is_refused_and_never_a_crash(answer: bytes) -> None:
    with suppress(ValueError):
        assert level_in(answer) is None or 2 in answer
