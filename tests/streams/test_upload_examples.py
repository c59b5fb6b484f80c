"""The upload examples of four languages, run as a publisher would run them, on the real broker."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from aiokafka.partitioner import DefaultPartitioner  # type: ignore[import-untyped]
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType
from installation import PATIENCE_S, Installation
from lying_network import Api, Fault, Kind, LyingNetwork

from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.events import SongUpload
from streams.contract.topics import SONG_UPLOADS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import KafkaSettings

EXAMPLES = Path(__file__).parents[2] / "docs" / "examples" / "upload_service"

# Beside PATH: where a Go that was unpacked by hand lies.
SEARCHED = f"{os.environ['PATH']}:/usr/local/go/bin"

# Language -> the programs that it needs, what fetches its client, and what uploads.
LANGUAGES = {
    "python": ([], [], [sys.executable, "upload.py"]),
    "javascript": (
        ["node", "npm"],
        ["npm", "ci", "--no-audit", "--prefer-offline"],
        ["node", "upload.js"],
    ),
    "java": (["javac", "mvn"], ["mvn", "-B", "-q", "compile", "exec:help"], ["mvn", "-B", "-q", "exec:java"]),
    "go": (["go"], ["go", "build", "-o", "upload", "."], ["./upload"]),
}


@pytest.fixture
def wide(kafka: KafkaSettings, prefix: str) -> Installation:
    """Sixteen partitions of songs: one placed by chance would be seen."""
    reach = kafka
    naming = Naming(prefix, 1, 16)
    create_topics(admin(reach), naming, 1)
    return Installation(reach, naming)


def made(language: str, folder: Path) -> tuple[list[str], dict[str, str]]:
    """What uploads, and its environment, once its client is fetched; skips where it cannot be."""
    programs, fetch, upload = LANGUAGES[language]
    environment = os.environ | {"PATH": SEARCHED}
    missing = [each for each in programs if shutil.which(each, path=SEARCHED) is None]
    if missing:
        pytest.skip(f"{', '.join(missing)}: not on this machine")
    shutil.copytree(EXAMPLES / language, folder)
    if fetch:
        done = subprocess.run(fetch, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            said = (done.stdout + done.stderr)[-2000:]
            if os.environ.get("CI"):
                pytest.fail(f"{' '.join(fetch)}: {said}")
            pytest.skip(f"{' '.join(fetch)} does not work here: {said}")
    return upload, environment


def uploaded(
    command: list[str], folder: Path, environment: dict[str, str], prefix: str, servers: str
) -> tuple[int, str]:
    """The exit code of an upload, and what it printed."""
    environment |= {"COLDSTART_KAFKA__BOOTSTRAP_SERVERS": servers, "COLDSTART_TOPICS__PREFIX": prefix}
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_uploads_a_song_to_where_its_key_belongs_and_calls_no_other_sent(
    language: str, wide: Installation, tmp_path: Path
) -> None:
    command, environment = made(language, tmp_path / language)
    code, said = uploaded(command, tmp_path / language, environment, wide.naming.prefix, wide.kafka.bootstrap_servers)
    assert code == 0, said
    (message,) = wide.read(SONG_UPLOADS)
    received = unpack(SongUpload, message.key(), message.value(), headers(message), time.time())
    assert (received.event.song_id, received.event.tags, received.id) == ("s-81", {"dream pop": 3.0}, "s-81/1")
    assert received.source == f"upload-service/{language}"
    partitions = list(range(16))
    assert message.partition() == DefaultPartitioner()(b"s-81", partitions, partitions)
    assert f"sent to {wide.naming.name(SONG_UPLOADS)}[{message.partition()}]" in said
    small = ConfigEntry("max.message.bytes", "100", incremental_operation=AlterConfigOpType.SET)
    topic = ConfigResource(ResourceType.TOPIC, wide.naming.name(SONG_UPLOADS), incremental_configs=[small])
    client = admin(wide.kafka)
    client.incremental_alter_configs([topic])[topic].result(PATIENCE_S)
    code, said = uploaded(command, tmp_path / language, environment, wide.naming.prefix, wide.kafka.bootstrap_servers)
    assert (code != 0, "sent to" in said) == (True, False), said


@pytest.mark.parametrize("always", [False, True], ids=["once", "always"])
@pytest.mark.parametrize("kind", ["cut request", "lost answer", "late request", "no answer"])
def test_the_python_example_says_sent_only_of_what_is_acknowledged(
    kind: Kind, always: bool, here: Installation, tmp_path: Path
) -> None:
    text = (EXAMPLES / "python" / "upload.py").read_text(encoding="utf-8")
    changed = text.replace('"partitioner"', '"socket.timeout.ms": 1_000, "partitioner"')
    if always:
        changed = changed.replace("flush(30)", "flush(3)")
    assert changed.count("flush(3)") == always
    (tmp_path / "upload.py").write_text(changed, encoding="utf-8")
    with LyingNetwork(here.kafka.bootstrap_servers) as net:
        if always:
            net.take_chances(lambda api, _: Fault(kind, api, seconds=0.2) if api == Api.PRODUCE else None)
        else:
            net.lie(kind, Api.PRODUCE, seconds=0.2)
        command = [sys.executable, "upload.py"]
        code, said = uploaded(command, tmp_path, {**os.environ}, here.naming.prefix, net.bootstrap_servers)
        assert net.struck[kind, Api.PRODUCE] > 0
    assert (code, "sent to" in said) == ((1, False) if always else (0, True)), said
    assert ("not acknowledged" in said) is always
    # Sent again within a process, it is one record all the same.
    stored = len(here.read(SONG_UPLOADS))
    assert stored <= 1 if always else stored == 1
