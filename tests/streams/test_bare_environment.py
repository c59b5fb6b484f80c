"""What a verb does where the environment lacks what is usual: no home, no locale, no terminal."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from streams.runtime.exit_codes import REFUSED

ROOT = Path(__file__).parents[2]
# No entry in passwd has it.
NOBODY = 54_321
AS_ROOT = pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become a user that has no entry")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    # The user may have no right to the folder of the tests, but python -m wants to be somewhere.
    code = "import sys; sys.path.insert(0, sys.argv.pop(1)); from streams.cli import main; main()"
    return subprocess.run(
        [sys.executable, "-c", code, str(ROOT), *words],
        env=environment, cwd="/", capture_output=True, text=True, timeout=60, check=False,
        stdin=subprocess.DEVNULL,
    )  # fmt: skip


@pytest.mark.parametrize("words", [("topics", "list"), ("kafka", "status")], ids=" ".join)
@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"HOME": ""},
        {"HOME": "/nowhere", "TMPDIR": "/nowhere", "XDG_CACHE_HOME": "relative"},
        {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"},
        {"TERM": "dumb", "COLUMNS": "1", "TZ": "No/Where"},
    ],
    ids=str,
)
def test_a_bare_environment_is_enough(words: tuple[str, ...], environment: dict[str, str]) -> None:
    done = run(*words, **environment)
    assert "Traceback" not in done.stderr, done.stderr
    assert done.returncode == (1 if words[-1] == "status" else 0), done.stderr


@AS_ROOT
def test_a_user_without_home_and_passwd_entry_keeps_the_cache_in_a_place_of_its_own() -> None:
    # Imported before, the last of it by asking for help: this user may not be allowed to read the code.
    code = (
        "import contextlib, io, os, sys, rich._unicode_data, streams.testbed.broker.daemon\n"
        "from streams.cli import main; from streams.runtime.settings_sources import load_settings\n"
        "sys.argv = ['coldstart', 'kafka', 'status', '--help']\n"
        "with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()): main()\n"
        f"os.setgid({NOBODY}); os.setuid({NOBODY}); print(load_settings().paths.cache)\n"
        "del sys.argv[-1]; main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": str(ROOT)}, cwd="/", capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (done.stdout, done.returncode) == (f"/var/tmp/coldstart-{NOBODY}\nnot running\n", 1), done.stderr


def test_a_home_of_another_user_is_not_used(monkeypatch: pytest.MonkeyPatch) -> None:
    from streams.contract.errors import SettingsError
    from streams.runtime import settings

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(settings, "_home", lambda: None)
    monkeypatch.setattr("sys.platform", "linux")
    # Somebody could have made it beforehand: / is never this user's own under such a name.
    monkeypatch.setattr(os, "getuid", lambda: NOBODY)
    place = Path(f"/var/tmp/coldstart-{NOBODY}")
    assert settings.user_cache_dir() == place
    place.mkdir()
    try:
        with pytest.raises(SettingsError, match="COLDSTART_PATHS__CACHE"):
            settings.user_cache_dir()
    finally:
        place.rmdir()


def test_an_encoding_without_the_letters_spells_them_out() -> None:
    done = run("topics", "list", "--config", "/nö/夜.toml", PYTHONIOENCODING="ascii", LC_ALL="C.UTF-8")
    assert done.returncode == REFUSED
    assert "\\u591c" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_reader_that_goes_away_ends_a_verb_quietly() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m streams topics contract | head -1; exit ${{PIPESTATUS[0]}}"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout.startswith("asyncapi")


def test_closed_standard_streams_end_no_verb_with_a_traceback() -> None:
    done = subprocess.run(
        ["bash", "-c", f"{sys.executable} -m streams topics list >&- <&-"],
        cwd=ROOT, capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert "Traceback" not in done.stderr, done.stderr
