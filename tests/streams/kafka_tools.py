"""Kafka's own commands, of the embedded broker's version: its jars, and the one with the commands."""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

import pytest
import requests
from jgo.constants import MAVEN_CENTRAL_URL
from jgo.maven import MavenContext, PythonResolver

from streams.runtime.settings import PathSettings
from streams.testbed.broker.jars import KAFKA_VERSION, fetch, java

_SHA256 = "62f3c5dd7aa3442d4c5bc6a95f86e2502178ea09de8e27f74d9563bf955e253c"
_PATIENCE_S = 300


@cache
def tools() -> Path:
    """The jar of the commands, fetched once from Maven Central (1 MB). Skips where it is out of reach, in CI never."""
    home = PathSettings().broker / "tools"
    resolver = PythonResolver()
    context = MavenContext(resolver=resolver, repo_cache=home, remote_repos={"central": MAVEN_CENTRAL_URL})
    try:
        jar = Path(context.project("org.apache.kafka", "kafka-tools").at_version(KAFKA_VERSION).artifact().resolve())
    except (requests.RequestException, RuntimeError, OSError) as error:
        if os.environ.get("CI"):
            raise
        pytest.skip(f"Kafka's own commands cannot be fetched: {error}")
    assert hashlib.sha256(jar.read_bytes()).hexdigest() == _SHA256
    return jar


def run(main: str, *args: str) -> str:
    """What a command of Kafka prints."""
    jars = ":".join(map(str, [*fetch(PathSettings().broker), tools()]))
    command = [str(java()), "-Xmx96m", "-XX:TieredStopAtLevel=1", "-cp", jars, main, *args]
    return subprocess.run(command, capture_output=True, text=True, timeout=_PATIENCE_S, check=True).stdout
