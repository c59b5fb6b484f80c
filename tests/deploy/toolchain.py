"""The operators' tools that a test asks for: found where they are, or installed by ``go`` in CI."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import pytest

ROOT: Final = Path(__file__).parents[2]
TOOLS: Final = ROOT / ".venv-deploy" / "bin"

GO_PROGRAMS: Final = {
    "helm": "helm.sh/helm/v3/cmd/helm@v3.22.0",
    # Loads and checks a compose file as `docker compose` does. Its program is called `cmd`.
    "compose-spec": "github.com/compose-spec/compose-go/v2/cmd@v2.16.2",
}


def tool(name: str) -> Path:
    """Where a command is. Without it: skip; where ``CI`` is set, fail."""
    found = shutil.which(name, path=os.pathsep.join([str(TOOLS), os.environ["PATH"]]))
    if found is None and name in GO_PROGRAMS and os.environ.get("CI") and shutil.which("go"):
        TOOLS.mkdir(parents=True, exist_ok=True)
        run("go", "install", GO_PROGRAMS[name], env={"GOBIN": str(TOOLS)})
        built = TOOLS / GO_PROGRAMS[name].partition("@")[0].rpartition("/")[2]
        found = str(built.rename(TOOLS / name))
    if found is not None:
        return Path(found)
    how = f"go install {GO_PROGRAMS[name]}" if name in GO_PROGRAMS else "make test-deploy"
    if os.environ.get("CI"):
        pytest.fail(f"{name} is not installed, and CI is set: {how}")
    pytest.skip(f"{name} is not installed: {how}")


def run(*words: object, cwd: Path = ROOT, env: Mapping[str, str] | None = None, code: int = 0) -> str:
    """What a command prints, errors included. It must end with ``code``."""
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env={**os.environ, **(env or {})},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=900,
        check=False,
    )
    assert done.returncode == code, f"{' '.join(map(str, words))} ended with {done.returncode}:\n{done.stdout}"
    return done.stdout
