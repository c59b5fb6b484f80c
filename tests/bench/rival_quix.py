"""How many records a second Quix Streams commits, one by one and exactly once.

Runs in an environment of its own, as its pins differ from ours; prints one line of JSON.

    python rival_quix.py BOOTSTRAP TOPIC KIND COUNT GROUP FOLDER

``outside``: the vector becomes the user's state, and a small record goes out. ``listens``: the song goes into the
user's history and its vector into the user's, both in the state; nothing goes out. ``history``: without the vectors.
Commits every 5 s, which is its default: oftener would cost it more.
"""

from __future__ import annotations

import json
import sys
import time

import numpy as np
from quixstreams import Application


def main() -> None:
    bootstrap, name, kind, count, group, folder = sys.argv[1:]
    app = Application(
        broker_address=bootstrap, consumer_group=group, auto_offset_reset="earliest", state_dir=folder,
        processing_guarantee="exactly-once", loglevel="ERROR", consumer_extra_config={"fetch.queue.backoff.ms": 10},
    )  # fmt: skip
    catalogue = np.random.default_rng(0).standard_normal((2000, 128), dtype=np.float32)
    seen: list[float] = []

    def outside(value, state):  # type: ignore[no-untyped-def]
        state.set_bytes("vector", value)
        seen.append(time.monotonic())
        return b"1"

    def listen(value, state):  # type: ignore[no-untyped-def]
        history = state.get("history", {})
        plays = history.get(value["song_id"], (0, ""))[0] + value.get("plays", 1)
        history[value["song_id"]] = (plays, value["played_at"])
        state.set("history", history)
        if kind == "listens":
            song = catalogue[int(value["song_id"][5:])]
            before = state.get_bytes("vector", None)
            state.set_bytes("vector", (song if before is None else np.frombuffer(before, np.float32) + song).tobytes())
        seen.append(time.monotonic())

    if kind == "outside":
        frame = app.dataframe(app.topic(name, value_deserializer="bytes"))
        frame = frame.apply(outside, stateful=True)
        frame = frame.to_topic(app.topic(f"{name}-{group}", value_serializer="bytes"))
    else:
        frame = app.dataframe(app.topic(name, value_deserializer="json"))
        frame = frame.update(listen, stateful=True)
    app.run(count=int(count), collect=False)
    # From the first record to the last; the final commit is not counted.
    print(json.dumps({"records": len(seen), "per_s": (len(seen) - 1) / (seen[-1] - seen[0])}))


if __name__ == "__main__":
    main()
