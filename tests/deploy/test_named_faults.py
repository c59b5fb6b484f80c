"""Fifteen faults on a running installation, and the one command that names each."""

from __future__ import annotations

import json
import os
import shutil
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import pytest

from streams.contract.cloudevents import Record
from streams.contract.topics import LISTENS, MATCH_REQUESTS, Naming
from streams.kafka.clients import admin
from streams.kafka.consumer_lag import LagSurveyor
from streams.kafka.topic_admin import create_topics
from streams.operations.doctor.certificate_checks import end_of
from streams.operations.lag_window import declared_inputs
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.broker import EmbeddedCluster, EmbeddedKafka
from streams.testbed.broker.broker_config import Node
from streams.testbed.broker.broker_security import ADMIN, Security
from streams.testbed.broker.jars import java
from streams.testbed.chaos.environment import Environment, set_up

PATIENCE_S = 180.0
CGROUPS = Path("/sys/fs/cgroup")
# Of the certificate that is to expire: the broker starts with it.
_LIVES_S = 120


class Named:
    """What the command said, its exit code, and how long it took."""

    def __init__(self, fault: str, command: list[str], environment: Mapping[str, str]) -> None:
        began = time.monotonic()
        self.done = subprocess.run(
            [sys.executable, "-m", "streams", *command], env={**os.environ, **environment},
            capture_output=True, text=True, timeout=PATIENCE_S, check=False,
        )  # fmt: skip
        self.seconds = time.monotonic() - began
        self.said = self.done.stdout + self.done.stderr
        print(f"{fault}: coldstart {command[0]}: code {self.done.returncode}, {self.seconds:.1f} s")

    def as_(self, *words: str, code: int = 4) -> None:
        """It names the cause in one of its lines, and ends with a code of at least so much: this machine may have other
        faults."""
        assert any(all(word in line for word in words) for line in self.said.splitlines()), self.said
        assert "Traceback" not in self.said
        assert code <= self.done.returncode <= 4, self.said


def reach(broker: EmbeddedKafka | EmbeddedCluster | KafkaSettings) -> dict[str, str]:
    return {"COLDSTART_KAFKA__BOOTSTRAP_SERVERS": broker.bootstrap_servers}


@pytest.fixture(scope="module")
def stage(kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Environment]:
    """Both roles at work."""
    stage = set_up(
        kafka, f"faults-{uuid.uuid4().hex[:8]}.",
        tmp_path_factory.mktemp("faults"), 2, models=2, settings={"audience": {"session_timeout_s": 300}},
    )  # fmt: skip
    try:
        stage.start("songs", "songs")
        stage.start("audience", "audience", "--slot", "0")
        stage.wait_until_ready()
        # Also of what no group has committed yet: the listens are there before the workers.
        inputs = declared_inputs(stage.naming)
        with closing(LagSurveyor(stage.kafka, stage.naming, SystemClock(), inputs)) as surveyor:
            stage.wait_until(lambda: not any(lag.records for lag in surveyor.survey().lags), lambda: "records wait")
        yield stage
    finally:
        stage.stop()


def doctor(fault: str, stage: Environment, **environment: str) -> Named:
    urls = [word for worker in stage.workers for word in ("--at", worker.url)]
    return Named(fault, ["doctor", *urls], {**stage.environment, **environment})


@contextmanager
def signalled(worker: RoleProcess) -> Iterator[None]:
    os.kill(worker.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(worker.pid, signal.SIGCONT)


@contextmanager
def group(controller: str, settings: Mapping[str, str]) -> Iterator[Callable[[], None]]:
    """A control group; what calls its value is in it from then on."""
    folder = CGROUPS / controller / f"coldstart-{uuid.uuid4().hex[:8]}"
    try:
        folder.mkdir()
        for name, value in settings.items():
            (folder / name).write_text(value)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        yield lambda: (folder / "cgroup.procs").write_text(str(os.getpid())) and None
    finally:
        deadline = time.monotonic() + 30
        while (folder / "cgroup.procs").read_text() and time.monotonic() < deadline:
            time.sleep(0.1)
        folder.rmdir()


def test_nothing_is_found_where_nothing_is_wrong(stage: Environment) -> None:
    urls = [word for worker in stage.workers for word in ("--at", worker.url)]
    asked = Named("nothing", ["doctor", "--json", *urls], stage.environment)
    outcomes: list[dict[str, Any]] = json.loads(asked.done.stdout)
    # How fast this machine's disk is, and how full, is nobody's promise.
    machine = ("disk room", "disk speed", "memory")
    assert {o["check"]: o["findings"] for o in outcomes if o["findings"] and o["check"] not in machine} == {}
    assert all(outcome["asked"] for outcome in outcomes)


def test_broker_gone() -> None:
    with EmbeddedKafka(start_timeout_s=PATIENCE_S) as broker:
        environment = reach(broker)
    Named("broker gone", ["doctor"], environment).as_("no broker answers", environment.popitem()[1])


def test_leader_gone() -> None:
    with EmbeddedCluster(start_timeout_s=PATIENCE_S) as cluster:
        naming = Naming("leader.", 3, 3)
        client = admin(KafkaSettings(bootstrap_servers=cluster.bootstrap_servers))
        create_topics(client, naming, 1)
        cluster.node(2).kill()
        # The others miss it after its session, two seconds.
        while 2 in client.list_topics(timeout=PATIENCE_S).brokers:
            time.sleep(0.1)
        environment = reach(cluster) | {"COLDSTART_TOPICS__PREFIX": "leader."}
        environment |= {f"COLDSTART_TOPICS__{plane}_PARTITIONS": "3" for plane in ("AUDIENCE", "SONGS")}
        named = Named("leader gone", ["doctor"], environment)
        named.as_("no leader", "leader.", "broker 2 is not in the cluster")


@contextmanager
def secured(folder: Path, expired: bool = False) -> Iterator[tuple[dict[str, str], Security]]:
    security = Security.prepare(folder / "security", java())
    if expired:
        _shorten(security)
    with EmbeddedKafka(folder / "broker", node=Node(security=security), start_timeout_s=PATIENCE_S) as broker:
        while expired and _left_s(security) > 0:
            time.sleep(1)
        environment = reach(broker) | security.environment()
        yield environment | {"COLDSTART_KAFKA__SASL_PASSWORD": security.password(ADMIN)}, security


def _left_s(security: Security) -> float:
    return end_of(ssl.PEM_cert_to_DER_cert(security.certificate.read_text())) - time.time()


def _shorten(security: Security) -> None:
    """Another certificate of the same name, which ends a day after it began: soon."""
    key, trust, new = (security.folder / name for name in ("key.p12", "trust.p12", "ca.pem"))
    for path in (key, trust, new):
        path.unlink()
    store = ["-storetype", "PKCS12", "-storepass:file", str(security.folder / "store.password"), "-noprompt"]
    for command in (
        ["-genkeypair", "-alias", "broker", "-keyalg", "EC", "-dname", "CN=coldstart-broker",
         "-startdate", f"-{86_400 - _LIVES_S}S",
         "-validity", "1", "-ext", "SAN=ip:127.0.0.1,dns:localhost", "-keystore", str(key)],
        ["-exportcert", "-rfc", "-alias", "broker", "-keystore", str(key), "-file", str(new)],
        ["-importcert", "-alias", "broker", "-file", str(new), "-keystore", str(trust)],
    ):  # fmt: skip
        subprocess.run([str(java().with_name("keytool")), *command, *store], check=True, capture_output=True)


def test_wrong_password(tmp_path: Path) -> None:
    with secured(tmp_path) as (environment, _):
        environment["COLDSTART_KAFKA__SASL_PASSWORD"] = "another"
        named = Named("wrong password", ["doctor"], environment)
        named.as_("authentication failed for user admin")


def test_expired_certificate(tmp_path: Path) -> None:
    with secured(tmp_path, expired=True) as (environment, security):
        named = Named("expired certificate", ["doctor"], environment)
        named.as_("expired certificate", str(security.certificate))
        named.as_("broker 127.0.0.1", "certificate has expired")


def test_missing_topic(kafka: KafkaSettings, prefix: str) -> None:
    client = admin(kafka)
    create_topics(client, Naming(prefix, 16, 4), 1)
    name = f"{prefix}{MATCH_REQUESTS.name}"
    client.delete_topics([name])[name].result(PATIENCE_S)
    while name in client.list_topics(timeout=PATIENCE_S).topics:
        time.sleep(0.1)
    named = Named("missing topic", ["doctor"], reach(kafka) | {"COLDSTART_TOPICS__PREFIX": prefix})
    named.as_(f"{name}: missing")


def test_wrong_partition_count(stage: Environment) -> None:
    named = doctor("wrong partition count", stage, COLDSTART_TOPICS__AUDIENCE_PARTITIONS="3")
    named.as_(f"{stage.naming.name(LISTENS)}: partitions 2, declared 3")


def test_full_disk(stage: Environment, tmp_path: Path) -> None:
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", tmp_path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"no disk of its own can be mounted here: {mounted.stderr.decode()}")
    try:
        filled = subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path / 'all'}"], capture_output=True, check=False)
        assert b"No space left" in filled.stderr
        doctor("full disk", stage, COLDSTART_PATHS__CACHE=str(tmp_path)).as_("full disk", "0 MiB left")
    finally:
        subprocess.run(["umount", "--lazy", tmp_path], check=True)


def test_frozen_process(stage: Environment) -> None:
    (worker,) = stage.audience
    with signalled(worker):
        doctor("frozen process", stage).as_(f"worker at {worker.url}: frozen")


def test_skewed_clock(stage: Environment, tmp_path: Path) -> None:
    # As of a machine whose clock is wrong: the clock of all machines here is one.
    (tmp_path / "sitecustomize.py").write_text("import time\nright = time.time\ntime.time = lambda: right() - 400\n")
    named = doctor("skewed clock", stage, PYTHONPATH=os.pathsep.join([str(tmp_path), *sys.path]))
    named.as_("clock skew", "s behind the broker's")


def test_duplicate_slot(stage: Environment) -> None:
    named = Named("duplicate slot", ["worker", "audience", "--slot", "0", "--http-port", "0"], stage.environment)
    assert named.done.returncode == 2
    assert f"another process of this machine (pid {stage.audience[0].pid}) has this slot" in named.said


def test_slow_disk(stage: Environment) -> None:
    disk = os.stat(stage.folder).st_dev
    limit = f"{os.major(disk)}:{os.minor(disk)} 5"
    with group("blkio", {"blkio.throttle.write_iops_device": limit}) as enter, ExitStack() as stack:
        # The command's process inherits the group from this one, which leaves it again.
        enter()
        stack.callback(lambda: (CGROUPS / "blkio" / "cgroup.procs").write_text(str(os.getpid())))
        named = doctor("slow disk", stage)
        stack.close()
    named.as_("slow disk", str(stage.folder), code=3)


def test_wrong_model(stage: Environment) -> None:
    live, other = stage.models
    aside = live.with_name("aside")
    live.rename(aside)
    try:
        shutil.copytree(other, live)
        doctor("wrong model", stage).as_("wrong model", live.as_uri(), "changed after it was published")
    finally:
        shutil.rmtree(live)
        aside.rename(live)


def test_bad_record_burst(stage: Environment) -> None:
    stage.send(LISTENS, [Record(b"u", b"{", [("ce_source", b"a-new-player")])] * 400)
    stage.wait_until_still()
    named = doctor("bad-record burst", stage)
    named.as_("bad records", stage.naming.name(LISTENS), "a-new-player", code=3)


def test_stopped_process(stage: Environment) -> None:
    (worker,) = stage.audience
    worker.stop()
    stage.workers.remove(worker)
    stage.workers.append(worker)
    named = doctor("stopped process", stage)
    named.as_(f"worker at {worker.url}: stopped")
    stage.workers.remove(worker)
    stage.start("audience", "audience", "--slot", "0")
    stage.wait_until_ready()


def test_no_memory_for_a_restore(stage: Environment) -> None:
    (worker,) = stage.audience
    worker.stop()
    stage.workers.remove(worker)
    with group("memory", {"memory.limit_in_bytes": "60M"}) as enter:
        killed = subprocess.Popen(
            [sys.executable, "-m", "streams", "worker", "audience", "--slot", "0", "--http-port", "0"],
            env={**os.environ, **stage.environment}, preexec_fn=enter, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert killed.wait(PATIENCE_S) == -signal.SIGKILL
    doctor("no memory for a restore", stage).as_("no memory", f"process {killed.pid}")
