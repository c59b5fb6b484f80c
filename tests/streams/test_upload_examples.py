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
from installation import Installation

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


@pytest.mark.parametrize("language", LANGUAGES)
def test_an_example_uploads_a_song_that_is_accepted_and_lies_where_its_key_belongs(
    language: str, wide: Installation, tmp_path: Path
) -> None:
    command, environment = made(language, tmp_path / language)
    environment |= {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": wide.kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": wide.naming.prefix,
    }
    done = subprocess.run(
        command, cwd=tmp_path / language, env=environment, capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (message,) = wide.read(SONG_UPLOADS)
    received = unpack(SongUpload, message.key(), message.value(), headers(message), time.time())
    assert (received.event.song_id, received.event.tags, received.id) == ("s-81", {"dream pop": 3.0}, "s-81/1")
    assert received.source == f"upload-service/{language}"
    partitions = list(range(16))
    assert message.partition() == DefaultPartitioner()(b"s-81", partitions, partitions)
    assert f"sent to {wide.naming.name(SONG_UPLOADS)}[{message.partition()}]" in done.stdout
