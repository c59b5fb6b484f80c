"""A real Prometheus for one test, with the configuration and rules of deploy/prometheus on a faster clock."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.parse import urlencode
from urllib.request import urlopen

import yaml
from scaled_rules import scaled

ROOT: Final = Path(__file__).parents[2]
SOURCE: Final = ROOT / "deploy" / "prometheus"
PATIENCE_S: Final = 90.0


class PrometheusServer:
    """Started at once; ends with :meth:`close`."""

    def __init__(self, program: Path, folder: Path) -> None:
        self._folder = folder
        (folder / "targets").mkdir(parents=True)
        rules = scaled(yaml.safe_load((SOURCE / "rules.yaml").read_text()), factor=720, window_s=15, hold_s=2)
        (folder / "rules.yaml").write_text(yaml.safe_dump(rules))
        config = yaml.safe_load((SOURCE / "prometheus.yaml").read_text())
        config["global"] = {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"}
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [
                    program,
                    f"--config.file={folder / 'prometheus.yaml'}",
                    f"--storage.tsdb.path={folder / 'data'}",
                    f"--web.listen-address=127.0.0.1:{port}",
                ],
                stdout=log,
                stderr=log,
            )

    def close(self) -> None:
        self._process.terminate()
        self._process.wait(30)

    def scrape(self, urls: Mapping[str, Iterable[str]]) -> None:
        """Role -> where its workers are, from now on."""
        for role, places in urls.items():
            targets = [place.removeprefix("http://") for place in places]
            made = self._folder / "targets" / f"{role}.new"
            made.write_text(yaml.safe_dump([{"targets": targets, "labels": {"installation": "test"}}]))
            made.replace(made.with_suffix(".yaml"))

    def ask(self, path: str, **query: object) -> Any:
        with urlopen(f"{self.url}/api/v1/{path}?{urlencode(query)}", timeout=30) as answer:
            return json.load(answer)["data"]

    def firing(self) -> dict[str, str]:
        """Alert -> one of its descriptions."""
        try:
            alerts = self.ask("alerts")["alerts"]
        except (URLError, ConnectionError):
            return {}
        return {
            each["labels"]["alertname"]: each["annotations"]["description"]
            for each in alerts
            if each["state"] == "firing"
        }


def wait_until(done: Callable[[], bool], what: Callable[[], object], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not done():
        assert time.monotonic() < deadline, what()
        time.sleep(0.2)


def prometheus() -> Path | None:
    found = shutil.which("prometheus")
    return Path(found) if found else None
