"""JavaScript's own tools for the contract, at the versions of ``node/package-lock.json``."""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

_FILES = Path(__file__).parent / "node"


class NodeTools:
    """The folder with the packages and scripts."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, script: str, *arguments: str | Path, timeout: float = 300) -> str:
        done = subprocess.run(
            ["node", script, *map(str, arguments)], cwd=self.folder, capture_output=True, text=True, timeout=timeout,
            check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr or done.stdout
        return done.stdout

    def asked(self, script: str, *arguments: str | Path) -> Any:
        return json.loads(self.run(script, *arguments))


def node_tools() -> NodeTools:
    """Installed once into a temporary folder, through whichever registry npm is configured with."""
    if shutil.which("npm") is None:
        pytest.skip("no npm: the tools that judge the contract from outside are JavaScript")
    lock = (_FILES / "package-lock.json").read_bytes()
    folder = Path(tempfile.gettempdir()) / f"coldstart-node-{os.getuid()}-{sha256(lock).hexdigest()[:12]}"
    folder.mkdir(mode=0o700, exist_ok=True)
    with (folder / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        for file in _FILES.iterdir():
            shutil.copy(file, folder)
        if not (folder / "ready").exists():
            _install(folder)
    return NodeTools(folder)


def _install(folder: Path) -> None:
    done = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=folder, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    if done.returncode and not os.environ.get("CI"):
        pytest.skip(f"npm cannot install the tools: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr
    (folder / "ready").touch()
