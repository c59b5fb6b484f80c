"""The files that a record enters on its way through a role, as the role's own process counts them.

A process started with :func:`environment` profiles its main thread: within the function where a walk begins
(:data:`WALKS`), every call that goes from one file of this project into another is an entry. What goes on beside it
(timers, other threads) is not counted, nor are types that are made in C.
"""

from __future__ import annotations

import atexit
import json
import os
import sys
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from inspect import CO_COROUTINE
from pathlib import Path
from types import FrameType
from typing import Any

ROOT = Path(__file__).parents[2]
PACKAGES = tuple(str(ROOT / package) + os.sep for package in ("encoder", "streams", "targeting"))

SHARED = ("streams/contract/", "streams/runtime/", "streams/kafka/", "targeting/arrays/")

_TOLD = "WALKS_FOLDER"


@dataclass(frozen=True)
class Walk:
    """What a role does about one record.

    Attributes:
        begins: file and function in which the record is taken, and in which all that follows happens.
        shown_by: file and function that only a walk to the end enters.
    """

    begins: tuple[str, str]
    shown_by: tuple[str, str]


WALKS = {
    "upload -> match requests": Walk(
        ("streams/songs/agents.py", "serve_uploads"), ("streams/songs/messages.py", "request")
    ),
    "match request -> push target": Walk(
        ("streams/audience/worker.py", "_serve"), ("streams/audience/encode.py", "push_record")
    ),
}


@dataclass
class _Way:
    """A walk under way: ``entries`` from other files, in the order of the first."""

    walk: Walk
    start: FrameType
    entries: Counter[str] = field(default_factory=Counter)
    shown: bool = False


class Profile:
    """The profile of a thread (:func:`sys.setprofile`)."""

    def __init__(self) -> None:
        self.found: dict[str, dict[str, int]] = {}
        self._begins = {(walk.begins): (name, walk) for name, walk in WALKS.items()}
        self._ways: dict[str, _Way] = {}
        # A coroutine that goes on is called again; frames are kept, so that none is taken for another.
        self._seen: set[FrameType] = set()

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        if event not in ("call", "return"):
            return
        file = frame.f_code.co_filename
        if not file.startswith(PACKAGES):
            return
        here = str(Path(file).relative_to(ROOT)), frame.f_code.co_name
        if event == "return":
            self._keep(frame)
            return
        if frame in self._seen:
            return
        if here in self._begins:
            name, walk = self._begins[here]
            self._ways[name] = _Way(walk, frame)
        for way in self._ways.values():
            caller = self._caller(frame, way.start)
            if caller is None:
                continue
            self._seen.add(frame)
            if caller != here[0]:
                way.entries[here[0]] += 1
            way.shown |= here == way.walk.shown_by

    def _caller(self, frame: FrameType, start: FrameType) -> str | None:
        """The file of ours from which a frame was called; "": where the walk begins; None: it does not belong to it."""
        if frame is start:
            return ""
        caller, above = None, frame.f_back
        while above is not None:
            file = above.f_code.co_filename
            if caller is None and file.startswith(PACKAGES):
                caller = str(Path(file).relative_to(ROOT))
            if above is start:
                return caller
            above = above.f_back
        return None

    def _keep(self, frame: FrameType) -> None:
        """Keep a walk that came to its end; a coroutine pauses on the way, and returns no other way than at the end."""
        for name, way in self._ways.items():
            if frame is way.start:
                if way.shown:
                    self.found[name] = dict(way.entries)
                elif not frame.f_code.co_flags & CO_COROUTINE:
                    self._seen.clear()

    def write(self, folder: Path) -> None:
        for name, entries in self.found.items():
            (folder / f"{name}.json").write_text(json.dumps(entries))


def environment(folder: Path) -> dict[str, str]:
    """Of a process that writes its walks into ``folder`` when it ends."""
    shim = folder / "shim"
    shim.mkdir()
    # Python runs this before anything else.
    (shim / "sitecustomize.py").write_text("import walks\nwalks.profile()\n")
    return {_TOLD: str(folder), "PYTHONPATH": os.pathsep.join([str(shim), str(Path(__file__).parent), *sys.path])}


def profile() -> None:
    """Profile this thread; called in the role's process."""
    profile = Profile()
    atexit.register(profile.write, Path(os.environ[_TOLD]))
    sys.setprofile(profile)


def read(folder: Path) -> dict[str, dict[str, int]]:
    """By walk: how often each file was entered, in the order of the first time."""
    return {name: json.loads((folder / f"{name}.json").read_text()) for name in WALKS}


def own(entries: Iterable[str]) -> list[str]:
    """The files that decide something about the record; the others are what any code uses."""
    return [file for file in entries if not file.startswith(SHARED)]


def table(walks: dict[str, dict[str, int]]) -> str:
    """How often each file is entered, as text; shared files are marked with a dot."""
    lines = []
    for name, entries in walks.items():
        lines.append(f"{name}: {len(own(entries))} files, and {len(entries) - len(own(entries))} shared ones")
        lines += [f"  {times:5d} {' ' if own([file]) else '.'} {file}" for file, times in entries.items()]
    return "\n".join(lines)
