"""A hung section ends the process; a fast one does not."""

from __future__ import annotations

import subprocess
import sys

from streams.runtime.exit_codes import RESTART

PROCESS = """
import contextlib, threading
from streams.runtime.watchdog import Watchdog
from streams.runtime.clock import SystemClock
watchdog = Watchdog(SystemClock(), 0.3)
with contextlib.suppress(ValueError), watchdog.guard():
    {inside}
{after}
print("went on")
watchdog.close()
"""


def run(inside: str, after: str = "") -> subprocess.CompletedProcess[str]:
    code = PROCESS.format(inside=inside, after=after)
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)


def test_a_hung_section_ends_the_process_with_the_code_for_a_restart() -> None:
    done = run("threading.Event().wait(50)")
    assert done.returncode == RESTART == 75
    assert "went on" not in done.stdout
    assert "more than 0.3 s" in done.stdout + done.stderr


def test_time_outside_of_sections_does_not_count_however_they_ended() -> None:
    done = run("raise ValueError", "threading.Event().wait(0.6)")
    assert (done.returncode, done.stdout) == (0, "went on\n")
