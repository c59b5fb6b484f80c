"""A release: its list of parts is the lock, its checksums hold, and its files name no registry and no machine."""

from __future__ import annotations

import json
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from test_image import pins
from toolchain import ROOT, TOOLS, run, tool


@pytest.fixture(scope="module")
def dist(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make release` leaves, made in a copy of what is committed."""
    tool("cyclonedx-py")
    folder = tmp_path_factory.mktemp("release") / "tree"
    run("git", "clone", "--quiet", ROOT, folder)
    (folder / ".venv-deploy").symlink_to(TOOLS.parent)
    done = ["-o", "setup", "-o", ".venv/.ready", "-o", ".venv-deploy/.ready"]
    run("make", *done, f"BIN={Path(sys.executable).parent}", "release", cwd=folder)
    return folder / "dist"


def contents(file: Path) -> dict[str, bytes]:
    if file.suffix == ".whl":
        with zipfile.ZipFile(file) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    if file.suffix == ".gz":
        with tarfile.open(file) as archive:
            members = [(member.name, archive.extractfile(member)) for member in archive if member.isfile()]
            return {name: stream.read() for name, stream in members if stream is not None}
    return {file.name: file.read_bytes()}


def test_checksums_are_of_all_files(dist: Path) -> None:
    assert {file.name for file in dist.iterdir()} == {
        "SHA256SUMS", "coldstart.cdx.json", "coldstart-0.1.0-py3-none-any.whl", "coldstart-0.1.0.tar.gz",
    }  # fmt: skip
    checked = run("sha256sum", "--check", "--strict", "SHA256SUMS", cwd=dist)
    assert checked.count(": OK") == 3


def test_parts_are_those_of_the_serving_lock(dist: Path) -> None:
    bom = json.loads((dist / "coldstart.cdx.json").read_text(encoding="utf-8"))
    assert bom["bomFormat"] == "CycloneDX"
    locked = {(name, version) for name, version, _ in pins("requirements-serving.lock")}
    assert {(part["name"], part["version"]) for part in bom["components"]} == locked
    assert all(each["hashes"] for part in bom["components"] for each in part["externalReferences"])


def test_the_list_holds_no_address_but_of_its_own_format(dist: Path) -> None:
    text = (dist / "coldstart.cdx.json").read_text(encoding="utf-8")
    assert {host for host in re.findall(r"https?://([^/\"]+)", text)} == {"cyclonedx.org"}


@pytest.mark.parametrize("pattern", ["*.whl", "*.tar.gz", "*.json", "SHA256SUMS"])
def test_nothing_names_this_machine_or_where_its_packages_came_from(pattern: str, dist: Path) -> None:
    (file,) = dist.glob(pattern)
    places = [re.escape(str(path).encode()) for path in (ROOT, dist.parent)]
    told = re.compile(b"|".join([*places, rb"^--(extra-)?index-url|^--find-links"]), re.MULTILINE)
    assert [name for name, text in contents(file).items() if told.search(text)] == []
