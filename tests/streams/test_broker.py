"""The embedded broker is a real Kafka, belongs to who started it, and says what is wrong."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka.admin import AdminClient, NewTopic
from typer.testing import CliRunner

from streams.cli.kafka import app
from streams.contract.errors import BrokerFailed
from streams.runtime.settings import KafkaSettings, PathSettings
from streams.testbed.broker import EmbeddedKafka, daemon, jars
from streams.testbed.broker.process_identity import Identity

PATIENCE_S = 60
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's death signal is Linux's")


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        yield taken.getsockname()[1]


def topics(bootstrap_servers: str) -> set[str]:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    return {name for name in admin.list_topics(timeout=PATIENCE_S).topics if not name.startswith("__")}


def create(bootstrap_servers: str, name: str) -> None:
    admin = AdminClient({"bootstrap.servers": bootstrap_servers})
    for future in admin.create_topics([NewTopic(name, 1, 1)]).values():
        future.result(PATIENCE_S)


def java_process(folder: Path) -> psutil.Process:
    identity = Identity.load(folder)
    assert identity is not None
    process = identity.process(folder)
    assert process is not None
    return process


@pytest.mark.kafka
def test_data_and_address_survive_kill_and_two_do_not_share_a_folder(tmp_path: Path) -> None:
    with EmbeddedKafka(tmp_path) as kafka:
        address = kafka.bootstrap_servers
        create(address, "kept")
        with pytest.raises(BrokerFailed, match=f"runs in {tmp_path} already .*{address}"):
            EmbeddedKafka(tmp_path).start()
        process = java_process(tmp_path)
        kafka.kill()
        assert not process.is_running()
        kafka.restart()
        assert kafka.bootstrap_servers == address
        assert topics(address) == {"kept"}
        process = java_process(tmp_path)
    assert not process.is_running()
    assert Identity.load(tmp_path) is None


@pytest.mark.kafka
def test_two_brokers_run_side_by_side_and_a_misspelt_topic_is_not_made(kafka: KafkaSettings) -> None:
    with EmbeddedKafka() as other:
        assert other.bootstrap_servers != kafka.bootstrap_servers
        create(other.bootstrap_servers, "only-here")
        admin = AdminClient({"bootstrap.servers": other.bootstrap_servers})
        assert admin.list_topics("absent", timeout=PATIENCE_S).topics["absent"].error is not None
        assert "only-here" not in topics(kafka.bootstrap_servers)
    assert not other.folder.exists()


@pytest.mark.kafka
@pytest.mark.parametrize("victim", ["owner", pytest.param("keeper", marks=LINUX)])
def test_no_orphan_after_the_owner_or_the_keeper_is_killed(tmp_path: Path, victim: str) -> None:
    script = (
        "import sys, pathlib\n"
        "from streams.testbed.broker import EmbeddedKafka\n"
        "kafka = EmbeddedKafka(pathlib.Path(sys.argv[1])).start()\n"
        "print('up', flush=True)\n"
        "sys.stdin.read()\n"
    )
    owner = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    assert owner.stdout.readline() == "up\n"
    process = java_process(tmp_path)
    keeper = process.parent()
    assert keeper is not None
    assert keeper.ppid() == owner.pid
    (owner if victim == "owner" else keeper).kill()
    process.wait(PATIENCE_S)  # raises when it lives on
    owner.communicate()


@pytest.mark.kafka
def test_verbs_start_show_and_stop_one_broker_that_outlives_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = tmp_path / "kafka"
    (cache / "jars").mkdir(parents=True)
    (cache / "jars" / jars.KAFKA_VERSION).symlink_to(_jars())
    monkeypatch.setenv("COLDSTART_PATHS__CACHE", str(tmp_path))
    run = CliRunner().invoke

    before = run(app, ["status"])
    assert (before.exit_code, before.output) == (1, "not running\n")
    try:
        up = run(app, ["up"])
        assert up.exit_code == 0, up.output
        running = daemon.status(cache)
        assert running is not None
        assert running.bootstrap_servers in up.output
        assert str(running.logs[0]) in up.output
        create(running.bootstrap_servers, "shown")

        again = run(app, ["up"])
        assert running.bootstrap_servers in again.output
        status = run(app, ["status"])
        assert status.exit_code == 0
        assert f"pid {running.pids[0]}" in status.output
        assert "shown" in status.output
        elsewhere = run(app, ["up", "--port", "1"])
        assert elsewhere.exit_code == 2
        assert "kafka down" in elsewhere.output
        three = run(app, ["up", "--brokers", "3"])
        assert three.exit_code == 2
        assert "1 broker(s) run at" in three.output

        assert run(app, ["down"]).output == "stopped\n"
        assert run(app, ["up"]).exit_code == 0
        back = daemon.status(cache)
        assert back is not None
        partitions = back.admin().list_topics(timeout=PATIENCE_S).topics["shown"].partitions
        assert partitions
        assert all(each.leader >= 0 for each in partitions.values())
    finally:
        down = run(app, ["down"])
    assert down.output == "stopped\n"
    assert run(app, ["down"]).output == "was not running\n"
    assert run(app, ["status"]).exit_code == 1


def _jars() -> Path:
    """Those of this user, so that no test downloads them."""
    return jars.fetch(PathSettings().broker)[0].parent


def test_a_cached_jar_that_is_changed_missing_or_foreign_is_found_at_the_next_start(tmp_path: Path) -> None:
    home = tmp_path / "jars" / jars.KAFKA_VERSION
    home.mkdir(parents=True)
    for jar in _jars().glob("*.jar"):
        (home / jar.name).symlink_to(jar)
    changed, missing, *_ = found = jars.fetch(tmp_path)
    assert len(found) > 10
    changed.unlink()
    changed.write_bytes(b"another")
    missing.unlink()
    (home / "foreign.jar").touch()
    with pytest.raises(BrokerFailed, match="Delete that folder") as caught:
        jars.fetch(tmp_path)
    assert all(name in str(caught.value) for name in (changed.name, missing.name, "foreign.jar", str(home)))


def test_a_foreign_process_with_the_remembered_pid_is_never_stopped(tmp_path: Path) -> None:
    cache = tmp_path
    home = daemon.folder(cache)
    home.mkdir()
    own = psutil.Process(os.getpid())
    for started_at in (own.create_time(), 0.0):
        Identity(own.pid, started_at, port=1, controller_port=2).save(home)
        assert daemon.status(cache) is None
        assert daemon.down(cache) is False
    (home / "broker.json").write_text("{torn")
    assert daemon.down(cache) is False


def test_damaged_data_is_refused_with_the_end_of_the_log(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "meta.properties").write_text("version=1\ncluster.id=x\nnode.id=77\n")
    kafka = EmbeddedKafka(tmp_path)
    with pytest.raises(BrokerFailed, match=r"(?s)ended at its start; the end of .*kafka\.log:.*node"):
        kafka.start()
    assert Identity.load(tmp_path) is None


def test_port_in_use_is_named(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(BrokerFailed, match=f"port {taken_port} of 127.0.0.1 is in use"):
        EmbeddedKafka(tmp_path, port=taken_port).start()


def test_failing_java_is_shown_with_its_own_words(tmp_path: Path) -> None:
    with pytest.raises(BrokerFailed, match=r"(?s)formatting .* failed .*heap"):
        EmbeddedKafka(tmp_path, heap_mb=-1).start()


def test_unusable_folder_is_named(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("")
    with pytest.raises(BrokerFailed, match=str(file)):
        EmbeddedKafka(file / "broker").start()


def test_other_jars_than_the_tested_ones_are_refused(tmp_path: Path) -> None:
    tested = sorted(_jars().glob("*.jar"))
    jars._verify(tested)
    other = tmp_path / tested[0].name
    other.write_bytes(tested[0].read_bytes() + b"!")
    for changed in ([other, *tested[1:]], tested[1:]):
        with pytest.raises(BrokerFailed, match=other.name) as caught:
            jars._verify(changed)
        assert tested[1].name not in str(caught.value)


def test_without_network_or_jars_the_message_says_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("https_proxy", "HTTPS_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")  # the discard port: refuses
    with pytest.raises(BrokerFailed, match=r"(?s)not downloaded yet.*internet.*--bootstrap-servers"):
        EmbeddedKafka(tmp_path, cache=tmp_path / "empty").start()
    assert not (tmp_path / "empty" / "jars" / jars.KAFKA_VERSION).exists()
