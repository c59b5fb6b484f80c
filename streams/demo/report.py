"""What does the run look like? A self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

from streams.demo.run import Outcome


def write_report(outcome: Outcome, path: Path) -> None:
    path.write_text(str(outcome.as_json()))
