"""Faults in a running installation: a real Prometheus scrapes it, the alert fires, the fault is lifted, it resolves.

Two alerts only promtool shows (deploy/prometheus/test_rules.yaml): a low recall of the index, and a songs worker that
is assigned nothing. Nothing from outside makes them: they need a defect of the program.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Producer, TopicPartition
from dashboard_queries import DASHBOARDS, draw, empty
from prometheus_server import ROOT, PrometheusServer, prometheus, wait_until

from streams.contract.cloudevents import Record
from streams.contract.topics import AUDIENCE_STATE, AUDIENCE_VECTORS, LISTENS, MODELS, SONG_UPLOADS
from streams.kafka.clients import admin, producer
from streams.models.registry import ENCODER
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.broker.process_identity import Identity
from streams.testbed.chaos.environment import Environment, set_up
from streams.testbed.chaos.traffic import listen
from streams.testbed.demo.dataset_events import upload_record

RUNBOOK = (ROOT / "docs" / "how-to" / "runbook.md").read_text(encoding="utf-8")
_DISK_BYTES = 1300 * 1024 * 1024


@dataclass
class Town:
    """An installation, its broker, and the Prometheus that looks at it."""

    stage: Environment
    broker: EmbeddedKafka
    prometheus: PrometheusServer
    skew: Path
    probe: str = ""
    fired: dict[str, str] = field(default_factory=dict)

    def scrape(self) -> None:
        roles: dict[str, list[str]] = {"songs": [], "audience": []}
        for worker in self.stage.workers:
            roles[worker.name.partition("-")[0]].append(worker.url)
        self.prometheus.scrape({**roles, "probe": [self.probe]})

    @property
    def songs(self) -> RoleProcess:
        return next(worker for worker in self.stage.workers if worker.name == "songs")

    def fires(self, *alerts: str) -> None:
        """Wait until they fire."""

        def look() -> bool:
            self.fired |= self.prometheus.firing()
            return set(alerts) <= self.fired.keys()

        for alert in alerts:
            self.fired.pop(alert, None)
        wait_until(look, lambda: f"{set(alerts) - self.fired.keys()} did not fire; others: {self.prometheus.firing()}")

    def resolves(self, *alerts: str) -> None:
        """Wait until they do not fire any more."""
        wait_until(
            lambda: not self.prometheus.firing().keys() & {*alerts},
            lambda: f"still firing: {self.prometheus.firing()}",
        )

    def shows(self, alert: str, command: str, words: str) -> None:
        """A command of the alert's section of the runbook says what is wrong."""
        section = RUNBOOK.partition(f"\n## {alert}\n")[2].partition("\n## ")[0]
        assert f"`{command}`" in section, f"{alert}: the runbook does not say {command}"
        if command.startswith("curl"):
            # The alert names the worker; here one of them is it.
            workers = [self.songs] if ":9101" in command else self.stage.audience
            runs = [["curl", "-s", f"{worker.url}/readyz"] for worker in workers]
        else:
            runs = [[sys.executable, "-m", "streams", *command.split()[1:]]]
        shown = ""
        for run in runs:
            done = subprocess.run(
                run, env={**os.environ, **self.stage.environment, "COLUMNS": "200"},
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            shown += done.stdout + done.stderr
        assert words in shown, f"{command}: {shown}"


@pytest.fixture(scope="module")
def town(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Town]:
    program = prometheus()
    if program is None:
        pytest.skip("prometheus is not installed (Debian: apt install prometheus)")
    folder = tmp_path_factory.mktemp("alerts")
    # A broker of its own: one of these tests freezes it.
    with EmbeddedKafka() as broker, _small_disk(folder / "cache"):
        stage = set_up(
            KafkaSettings(bootstrap_servers=broker.bootstrap_servers), "alerts.", folder, 2,
            # Who is killed here is missed for as long as the test takes.
            settings={"audience": {"cap_pushes": 100, "artist_cap_pushes": 100, "session_timeout_s": 300,
                                   "stop_at_bad_of": 40}},
        )  # fmt: skip
        skew = _skewable(stage)
        server = PrometheusServer(program, folder / "prometheus")
        town = Town(stage, broker, server, skew)
        try:
            stage.start("songs", "songs")
            for slot in "01":
                stage.start(f"audience-{slot}", "audience", "--slot", slot)
            with _probing(stage) as town.probe:
                town.scrape()
                stage.wait_until_ready()
                yield town
        finally:
            server.close()
            stage.stop()


@contextmanager
def _probing(stage: Environment) -> Iterator[str]:
    """A probe a second, which is a minute on the clock of these rules; where it is scraped."""
    command = [sys.executable, "-m", "streams", "probe", "--every", "1", "--patience", "2", "--http-port", "0"]
    with (stage.folder / "probe.log").open("wb") as log:
        probe = subprocess.Popen(
            [*command, "--name", "alerts"], env={**os.environ, **stage.environment},
            stdout=log, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert probe.stderr
            yield probe.stderr.readline().strip().removesuffix("/metrics")
        finally:
            probe.terminate()
            probe.communicate(timeout=30)


@contextmanager
def _small_disk(folder: Path) -> Iterator[None]:
    """A disk of its own for what the workers keep, where that may be mounted."""
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={_DISK_BYTES}", "tmpfs", folder], capture_output=True, check=False
    )
    try:
        yield
    finally:
        if mounted.returncode == 0:
            subprocess.run(["umount", "--lazy", folder], check=True)


def _skewable(stage: Environment) -> Path:
    """Makes the workers' wall clocks lag by what a file says: Python runs this before anything else."""
    skew, shim = stage.folder / "skew", stage.folder / "shim"
    skew.write_text("0")
    shim.mkdir()
    (shim / "sitecustomize.py").write_text(
        f"import time\nright = time.time\ntime.time = lambda: right() - float(open({str(skew)!r}).read() or 0)\n"
    )
    stage.environment["PYTHONPATH"] = os.pathsep.join([str(shim), *sys.path])
    return skew


@pytest.fixture(autouse=True)
def _calm(town: Town) -> None:
    """Each fault meets a healthy installation."""
    town.stage.wait_until_ready()
    # A disk that is written to at all fills up within a day, if half a minute is a day.
    wait_until(lambda: not town.prometheus.firing().keys() - {"ColdstartDiskFilling"}, town.prometheus.firing)


def _signal(workers: Sequence[RoleProcess], number: signal.Signals) -> None:
    for worker in workers:
        os.kill(worker.pid, number)


def _listens(town: Town, count: int = 40) -> None:
    now = time.time()
    town.stage.send(LISTENS, [listen(user, f"{now}", now) for user in town.stage.users[:count]])


def test_nothing_fires_in_a_healthy_installation(town: Town) -> None:
    town.stage.upload(town.stage.songs[:5])
    up = lambda: town.prometheus.ask("query", query="count(up == 1)")["result"]  # noqa: E731
    wait_until(lambda: bool(found := up()) and found[0]["value"][1] == "4", up)
    # Longer than every alert waits here.
    time.sleep(5)
    assert town.prometheus.firing().keys() <= {"ColdstartDiskFilling"}


def test_pushes_are_late(town: Town) -> None:
    _signal(town.stage.audience, signal.SIGSTOP)
    town.stage.upload(town.stage.songs[5:85])
    time.sleep(3)
    _signal(town.stage.audience, signal.SIGCONT)
    town.fires("ColdstartSlowPushesFastBurn", "ColdstartSlowPushesSlowBurn")
    town.resolves("ColdstartSlowPushesFastBurn", "ColdstartSlowPushesSlowBurn")


def test_a_worker_is_gone_and_then_takes_long_to_restore(town: Town) -> None:
    stage = town.stage
    worker = stage.audience[1]
    worker.kill()
    _listens(town, len(stage.users))
    killed = time.monotonic()
    town.fires("ColdstartRoleDown", "ColdstartPartitionsUnserved")
    town.shows("ColdstartPartitionsUnserved", "coldstart lag", "listens")

    # A transaction that nobody ends holds back whoever reads the changelog.
    sender = Producer(
        stage.kafka.confluent() | {"transactional.id": f"{stage.naming.prefix}open", "transaction.timeout.ms": 300_000}
    )
    sender.init_transactions(30)
    sender.begin_transaction()
    for partition in stage.partitions:
        sender.produce(stage.naming.name(AUDIENCE_STATE), key=b"open", value=b"{}", partition=partition)
    sender.flush(30)
    # So long that what waits is too old by the alert's own threshold, which is not scaled.
    wait_until(lambda: time.monotonic() > killed + 55, lambda: "time stands still")
    stage.watch()
    town.fires("ColdstartRestoreLong", "ColdstartLagHigh", "ColdstartPartitionStalled")
    town.shows("ColdstartRestoreLong", "curl -s localhost:9102/readyz", "restoring partition")
    town.shows("ColdstartLagHigh", "coldstart lag --by-partition", "listens")
    sender.abort_transaction(30)
    town.resolves(
        "ColdstartRestoreLong", "ColdstartLagHigh", "ColdstartPartitionStalled", "ColdstartRoleDown",
        "ColdstartPartitionsUnserved",
    )  # fmt: skip


def test_a_role_is_gone_and_no_probe_comes_through(town: Town) -> None:
    town.songs.kill()
    town.shows("ColdstartProbeMissing", "coldstart probe", "have not answered")
    town.fires("ColdstartRoleAbsent", "ColdstartProbeMissing")
    town.stage.watch()
    town.resolves("ColdstartRoleAbsent", "ColdstartProbeMissing")


def test_the_broker_is_frozen(town: Town) -> None:
    identity = Identity.load(town.broker.folder)
    broker = identity and identity.process(town.broker.folder)
    assert broker
    broker.suspend()
    try:
        town.fires("ColdstartKafkaUnreachable")
        town.shows("ColdstartKafkaUnreachable", "curl -s localhost:9102/readyz", "no broker answers since")
    finally:
        broker.resume()
    town.resolves("ColdstartKafkaUnreachable")


def test_a_clock_is_behind(town: Town) -> None:
    _skew(town, 1000)
    _listens(town)
    town.fires("ColdstartClockBehind")
    town.shows("ColdstartClockBehind", "curl -s localhost:9102/readyz", "s behind the broker's")
    _skew(town, 0)
    town.resolves("ColdstartClockBehind")


def _skew(town: Town, seconds: int) -> None:
    new = town.skew.with_suffix(".new")
    new.write_text(str(seconds))
    new.replace(town.skew)


def test_no_model_is_live(town: Town) -> None:
    stage = town.stage
    sender = Producer(stage.kafka.confluent())
    sender.produce(stage.naming.name(MODELS), key=ENCODER.encode(), value=None)
    sender.flush(30)
    town.songs.kill()
    stage.watch()
    town.fires("ColdstartNoModel")
    town.shows("ColdstartNoModel", "curl -s localhost:9101/readyz", "no model is live")
    stage.publish(0)
    town.resolves("ColdstartNoModel")
    stage.wait_until_ready()


def test_records_cannot_be_read(town: Town) -> None:
    now = time.time()
    good = [listen(user, f"good-{now}", now) for user in town.stage.users[:100]]
    bad = [Record(each.key, b"{", _source(each.headers, b"broken")) for each in good] * 4
    town.stage.send(LISTENS, [*good, *bad])
    town.fires("ColdstartDeadLetters", "ColdstartInputRefused", "ColdstartBadBurst")
    town.shows("ColdstartBadBurst", "curl -s localhost:9102/readyz", "bad records of ")
    town.resolves("ColdstartDeadLetters", "ColdstartInputRefused", "ColdstartBadBurst")


def _source(headers: Sequence[tuple[str, bytes | None]], source: bytes) -> list[tuple[str, bytes | None]]:
    return [(name, source if name == "ce_source" else value) for name, value in headers]


def test_retention_passed_while_workers_were_away(town: Town) -> None:
    stage = town.stage
    for worker in stage.audience:
        worker.kill()
    _listens(town)
    name = stage.naming.name(LISTENS)
    client = admin(stage.kafka)
    deleted = client.delete_records([TopicPartition(name, partition, -1) for partition in stage.partitions])
    for future in deleted.values():
        future.result(30)
    stage.watch()
    town.fires("ColdstartRecordsLost")
    town.resolves("ColdstartRecordsLost")


def test_a_disk_fills_up(town: Town) -> None:
    cache = town.stage.folder / "cache"
    if not os.path.ismount(cache):
        pytest.skip("no disk of its own may be mounted here")
    filler = cache / "filler"
    with filler.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, 400 * 1024 * 1024)
    town.fires("ColdstartDiskLow", "ColdstartDiskFilling")
    filler.unlink()
    town.resolves("ColdstartDiskLow", "ColdstartDiskFilling")


def test_every_query_of_every_dashboard_returns_data(town: Town, tmp_path: Path) -> None:
    _busy(town.stage)
    missing: Callable[[], list[str]] = lambda: [each for board in DASHBOARDS for each in empty(town.prometheus, board)]  # noqa: E731
    wait_until(lambda: not missing(), missing)
    where = Path(os.environ.get("DASHBOARD_PICTURES", tmp_path))
    for board in DASHBOARDS:
        draw(town.prometheus, board, where / f"dashboard-{board.stem}.png")
        assert (where / f"dashboard-{board.stem}.png").stat().st_size > 10_000


def _busy(stage: Environment) -> None:
    """Half a minute of uploads and listens, some repeated, some broken; and a withdrawn vector."""
    sender, naming = producer(stage.kafka), stage.naming
    sender.produce(naming.name(AUDIENCE_VECTORS), key=stage.users[0].encode(), value=None)
    for number in range(120):
        now = time.time()
        # Every third upload of four comes once more.
        new = number - number % 4 // 3
        song = msgspec.structs.replace(stage.songs[new % len(stage.songs)], song_id=f"busy-{new}", recording_id=None)
        good = [listen(user, f"busy-{number}", now) for user in stage.users[number % 40 :: 40]]
        bad = [Record(good[0].key, b"{", good[0].headers)] * (number % 8 == 0)
        sender.poll(0)
        for topic, records in ((SONG_UPLOADS, [upload_record(song, now)]), (LISTENS, [*good, *bad])):
            for each in records:
                sender.produce(naming.name(topic), each.value, each.key, headers=list(each.headers))
        sender.flush(30)
        time.sleep(0.25)
