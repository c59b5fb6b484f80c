"""How many events a second ``coldstart validate`` judges, beside the jsonschema library on the same file.

    python tests/bench/bench_validate.py [--events 1000000] [--rival 20000]

Uploads of a realistic shape, one in a hundred of them wrong. Ours is the whole verb as a process, its start included;
theirs is only the loop over the file's first lines, because the whole of it takes them minutes (``--rival 0``: all).
A fifth of the events is judged once more as structured CloudEvents, which are told apart from bare data line by line.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from streams.contract.events import SongUpload

HERE = Path(__file__).parent
RIVALS = HERE.parents[1] / ".venv-bench" / "bin" / "python"
TAGS = [f"tag {n}" for n in range(2000)]


def uploads(path: Path, count: int) -> None:
    """Bare uploads, one a line."""
    draw = random.Random(0)
    with path.open("w", encoding="utf-8") as file:
        for number in range(count):
            song: dict[str, Any] = {
                "song_id": f"s-{number}",
                "revision": 1 + number % 3,
                "recording_id": f"QM{number:010}",
                "title": f"Song {number}",
                "artist_ids": [f"a-{draw.randrange(50_000)}"],
                "album_id": f"al-{draw.randrange(100_000)}",
                "language": "en",
                "genres": draw.sample(TAGS, 2),
                "duration_ms": draw.randrange(60_000, 400_000),
                "tags": {tag: draw.randrange(1, 100) for tag in draw.sample(TAGS, 8)},
                "budget": 500,
            }
            if number % 100 == 0:
                song |= draw.choice([{"revision": "one"}, {"tags": {"x": -1}}, {"language": "?"}, {"budget": 0}])
            file.write(json.dumps(song) + "\n")


def wrapped(path: Path, bare: Path, count: int) -> None:
    """The first events of a file as structured CloudEvents."""
    with bare.open(encoding="utf-8") as lines, path.open("w", encoding="utf-8") as file:
        for number, line in enumerate(islice(lines, count)):
            told = {"specversion": "1.0", "id": str(number), "source": "bench", "time": "2026-01-01T00:00:00Z"}
            head = json.dumps(told | {"type": SongUpload.UPLOADED}).removesuffix("}")
            file.write(f'{head}, "data": {line.strip()}}}\n')


def ours(path: Path, *options: str) -> dict[str, float]:
    began = time.perf_counter()
    command = [sys.executable, "-m", "streams", "validate", str(path), *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=HERE.parents[1])
    seconds = time.perf_counter() - began
    found = json.loads(done.stdout)
    return {
        "events": found["events"], "bad": found["bad"], "seconds": seconds, "a_second": found["events"] / seconds,
    }  # fmt: skip


def theirs(path: Path, count: int) -> dict[str, float]:
    schema = path.with_name("schema.json")
    schema.write_bytes(msgspec.json.encode(msgspec.json.schema(SongUpload)))
    command = [str(RIVALS), str(HERE / "rival_jsonschema.py"), str(schema), str(path), str(count)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--rival", type=int, default=20_000, help="events of the file that jsonschema gets; 0: all")
    options = parser.parse_args()
    if not RIVALS.exists():
        parser.error("the rivals' environment is missing: make .venv-bench/.ready")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "uploads.ndjson"
        uploads(path, options.events)
        envelopes = path.with_name("structured.ndjson")
        wrapped(envelopes, path, options.events // 5)
        found: dict[str, Any] = {
            "coldstart validate": ours(path, "--type", "song.uploaded"),
            "coldstart validate, structured CloudEvents": ours(envelopes),
            "jsonschema": theirs(path, options.rival or options.events),
            "megabytes": path.stat().st_size / 1e6,
        }
    found["times"] = found["coldstart validate"]["a_second"] / found["jsonschema"]["a_second"]
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
