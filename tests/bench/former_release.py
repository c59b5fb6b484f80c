"""An installation of an earlier release, set up and run by that release's own code."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Sequence
from io import BytesIO
from pathlib import Path
from urllib.request import urlopen

from streams.contract.errors import Refused
from streams.contract.topics import Naming
from streams.runtime.settings import KafkaSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.chaos.environment import PATIENCE_S, Environment, installed

COMMIT = "366a21b0ec327cd5a6f67fd3c9b3cd72084f2938"
"""The main job, the audience plane and living campaigns as first released."""

_SET_UP = """
import json, sys
from pathlib import Path
from streams.settings import Kafka
from streams.torture.stage import set_stage

asked = json.loads(sys.argv[1])
set_stage(Kafka(bootstrap_servers=asked.pop("kafka")), asked.pop("prefix"), Path(asked.pop("folder")), **asked)
"""


class FormerRelease:
    """Its source, and what it set up on a broker.

    Args:
        folder: for its source, data, model, state and logs.
        repository: a clone that has :data:`COMMIT`.

    Attributes:
        stage: topics, data, model and listens, as the former release left them. Workers that it starts by ``start`` are
            of this release and go on from there.

    Raises:
        Refused: the clone does not have the commit.
        CalledProcessError: its code does not run here.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        naming: Naming,
        folder: Path,
        users: int,
        songs: int,
        repository: Path = Path(__file__).parents[2],
    ) -> None:
        self._source = folder / "former"
        git = ["git", "-C", str(repository)]
        if subprocess.run([*git, "cat-file", "-e", COMMIT], check=False, capture_output=True).returncode:
            raise Refused(f"{repository} does not have the former release, {COMMIT}: git fetch --unshallow")
        archive = subprocess.run(
            [*git, "archive", COMMIT, "streams", "encoder", "targeting"], check=True, capture_output=True
        ).stdout
        with tarfile.open(fileobj=BytesIO(archive)) as files:
            files.extractall(self._source, filter="data")
        asked = {
            "kafka": kafka.bootstrap_servers,
            "prefix": naming.prefix,
            "folder": str(folder),
            "partitions": naming.audience_partitions,
            "users": users,
            "songs": songs,
        }
        subprocess.run([sys.executable, "-c", _SET_UP, json.dumps(asked)], env=self._environment({}), check=True)
        self.stage: Environment = installed(kafka, naming, folder)

    def start(self, name: str, args: Sequence[str]) -> RoleProcess:
        """A worker of the former release, ready. It is not watched: see :attr:`stage` for those that are."""
        environment = self._environment(self.stage.environment)
        worker = RoleProcess(name, args, environment, self.stage.log(f"{name}-former"))
        deadline = time.monotonic() + PATIENCE_S
        # It does not say which process answers, so that this release's own look would take it for a stranger.
        while not _ready(worker.url):
            if time.monotonic() > deadline or worker.exit_code() is not None:
                worker.stop()
                raise AssertionError(f"the former {name} is not ready: {worker.end()}")
            time.sleep(0.1)
        return worker

    def _environment(self, settings: dict[str, str]) -> dict[str, str]:
        """Imports find the former source before the working directory's."""
        return {**os.environ, **settings, "PYTHONSAFEPATH": "1", "PYTHONPATH": str(self._source)}


def _ready(url: str) -> bool:
    try:
        with urlopen(f"{url}/readyz", timeout=5):
            return True
    except OSError:
        return False
