"""The parts of the doctor: what it says without a broker, and of certificates, workers and topics."""

from __future__ import annotations

import json
import ssl
import subprocess
from contextlib import suppress
from pathlib import Path

import pytest
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
from streams.runtime.settings import KafkaSettings, Settings, TopicSettings
from streams.testbed.broker import EmbeddedKafka
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
def test_each_deviation_of_a_topic_has_a_way_out(kafka: EmbeddedKafka, prefix: str) -> None:
    reach = KafkaSettings(bootstrap_servers=kafka.bootstrap_servers)
    settings = Settings(kafka=reach, topics=TopicSettings(prefix=prefix, audience_partitions=2, songs_partitions=1))
    (check,) = (each for each in CHECKS if each.name == "topics")
    assert len(list(check.examine(Patient(settings, SystemClock())))) == len(TOPICS)
    create_topics(admin(reach), Naming(prefix, 1, 1), 1)
    found = list(check.examine(Patient(settings, SystemClock())))
    assert {each.what.partition(": ")[2] for each in found} == {"partitions is 1, declared 2"}
    assert all("topics.audience_partitions" in each.do for each in found)


@pytest.mark.kafka
def test_a_brokers_release_is_read_from_its_own_answer(kafka: EmbeddedKafka) -> None:
    host, _, port = kafka.bootstrap_servers.rpartition(":")
    level = metadata_level(host, int(port), None)
    assert level is not None
    # The broker is a 4.3.
    assert level > LEVEL_OF_4_0


@given(st.binary(max_size=60))
def test_what_is_no_answer_is_refused_and_never_a_crash(answer: bytes) -> None:
    with suppress(ValueError):
        assert level_in(answer) is None or 2 in answer
