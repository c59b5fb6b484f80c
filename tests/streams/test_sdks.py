"""Events that the CloudEvents SDKs of other languages publish, in both modes, on the real broker."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from installation import Installation

from streams.contract.cloudevents import unpack
from streams.contract.dead_letters import headers
from streams.contract.event_base import Event
from streams.contract.events import Listen, PushOutcome, PushTarget, SongUpload, UserPreferences
from streams.contract.topics import PUSH_TARGETS
from streams.kafka.clients import producer
from streams.kafka.partitioner import partition_of

HERE = Path(__file__).parent / "sdks"
INPUTS: tuple[type[Event], ...] = (SongUpload, Listen, PushOutcome, UserPreferences)
_LONGEST_S = 300


def _missing(what: str) -> None:
    """Skip, but not where tests are held to be complete."""
    if os.environ.get("CI"):
        pytest.fail(f"{what}, and CI is set: the SDKs must be tested")
    pytest.skip(what)


def _installed(command: list[str], tool: str, folder: Path) -> None:
    if shutil.which(tool) is None:
        _missing(f"{tool} is not installed")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    if done.returncode:
        _missing(f"{tool} cannot install what is needed: {(done.stdout + done.stderr)[-400:]}")


@pytest.fixture(scope="module")
def python_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("python")
    pip = ["python3", "-m", "pip", "install", "-q", "--no-input", "--target", str(folder)]
    _installed([*pip, "-r", str(HERE / "requirements.txt")], "python3", folder)
    return folder


@pytest.fixture(scope="module")
def javascript_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("javascript")
    for name in ("package.json", "package-lock.json", "publish.mjs", "read_pushes.mjs"):
        shutil.copy(HERE / name, folder)
    _installed(["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"], "npm", folder)
    return folder


@pytest.fixture(scope="module")
def java_sdk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("java")
    shutil.copytree(HERE / "java", folder, dirs_exist_ok=True)
    _installed(["mvn", "-q", "-B", "compile"], "mvn", folder)
    return folder


def _published(here: Installation, command: list[str], folder: Path, **more: str) -> None:
    """Publish every event in both modes with one SDK, and read all as their examples, where their keys belong."""
    now = datetime.now(UTC)
    events: list[dict[str, Any]] = []
    for cls in INPUTS:
        data = json.loads(cls.EXAMPLE)
        for mode in ("binary", "structured"):
            attributes = {
                "specversion": "1.0", "id": f"{cls.__name__}-{mode}", "source": "https://example.com/sdk",
                "type": cls.TYPES[0], "subject": data[cls.KEY], "dataschema": "https://example.com/schema.json",
                "datacontenttype": "application/json", "time": now.isoformat().replace("+00:00", "+02:00"),
                "myextension": "mine",
            }  # fmt: skip
            attributes["time"] = datetime.fromisoformat(attributes["time"]).isoformat()
            topic = here.naming.name(cls.TOPIC)
            events.append({"topic": topic, "key": data[cls.KEY], "mode": mode, "attributes": attributes, "data": data})
    text = "".join(json.dumps(event) + "\n" for event in events)
    done = subprocess.run(
        command, input=text, cwd=folder, capture_output=True, text=True, timeout=_LONGEST_S, check=False,
        env=os.environ | more,
    )  # fmt: skip
    assert done.returncode == 0, (done.stdout + done.stderr)[-2000:]
    for cls in INPUTS:
        found = here.read(cls.TOPIC)
        structured = [dict(headers(each)).get("ce_id") is None for each in found]
        assert sorted(structured) == [False, True]
        for each in found:
            received = unpack(cls, each.key(), each.value(), headers(each), time.time())
            assert received.event == msgspec.json.decode(cls.EXAMPLE, type=cls)
            assert received.source == "https://example.com/sdk"
            assert received.time == pytest.approx(now.timestamp() - 7200, abs=0.001)
            assert each.partition() == partition_of(each.key() or b"", here.naming.partitions(cls.TOPIC))


def test_what_the_python_sdk_publishes_is_read(here: Installation, python_sdk: Path) -> None:
    command = [sys.executable, str(HERE / "publish.py"), here.kafka.bootstrap_servers]
    _published(here, command, python_sdk, PYTHONPATH=str(python_sdk))


def test_what_the_javascript_sdk_publishes_is_read(here: Installation, javascript_sdk: Path) -> None:
    _published(here, ["node", "publish.mjs", here.kafka.bootstrap_servers], javascript_sdk)


def test_what_the_java_sdk_publishes_is_read(here: Installation, java_sdk: Path) -> None:
    _published(here, ["mvn", "-q", "-B", "exec:java", f"-Dexec.args={here.kafka.bootstrap_servers}"], java_sdk)


def test_kafkajs_as_it_is_installed_reads_pushes(here: Installation, javascript_sdk: Path) -> None:
    sender = producer(here.kafka, f"{here.naming.prefix}pusher")
    sender.init_transactions(60)
    sender.begin_transaction()
    topic, value = here.naming.name(PUSH_TARGETS), PushTarget.EXAMPLE.encode()
    for number in range(50):
        sender.produce(topic, value=value, key=f"u-{number}")
    sender.commit_transaction(60)
    command = ["node", "read_pushes.mjs", here.kafka.bootstrap_servers, topic, "50"]
    done = subprocess.run(command, cwd=javascript_sdk, capture_output=True, text=True, timeout=_LONGEST_S, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == f"{PushTarget.EXAMPLE}\n" * 50
