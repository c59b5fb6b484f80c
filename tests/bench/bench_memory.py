"""What memory costs: bytes a user, song, campaign, preference, listen, push and erasure, in one partition.

    python tests/bench/bench_memory.py

Counted by tracemalloc, which sees numpy's arrays too: what is held, with the room that tables keep to grow. The last
figures stream ten times as many songs and users through as stay, and say what the tables have room for then.
"""

from __future__ import annotations

import argparse
import gc
import json
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import chain

import numpy as np

from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.types import FrequencyCap, Listens, Match, PartitionInputs, Preferences, QuietSpan

D, WARM, NOW, BATCH = 128, 2_000, 1_700_000_000.0, 5_000
NIGHT = (QuietSpan(22 * 60, 7 * 60),)


class Meter:
    """A partition, and by how much what is done to it makes memory grow."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.vectors = rng.standard_normal((WARM, D)).astype(np.float32)
        self.vectors /= np.linalg.norm(self.vectors, axis=1, keepdims=True)
        self.songs = Catalogue()
        self.songs.set_vectors("bench", [f"warm-{i}" for i in range(WARM)], self.vectors)
        self.partition = Partition(0, 1, self.songs, TargetingConfig())
        self.state = self.partition._state
        self.now = NOW

    def does(self, **inputs: object) -> None:
        self.partition.apply(self.partition.stage(PartitionInputs(self.now, **inputs)))  # type: ignore[arg-type]

    def hears(self, users: Sequence[str], songs: Sequence[str]) -> None:
        for start in range(0, len(users), BATCH):
            some = slice(start, start + BATCH)
            n = len(users[some])
            self.does(listens=Listens(users[some], songs[some], np.ones(n, np.float32), np.full(n, self.now)))

    def says(self, wishes: Sequence[Preferences | None], users: Sequence[str]) -> None:
        for start in range(0, len(users), BATCH):
            some = slice(start, start + BATCH)
            allowed = [(user, self.now, True) for user in users[some]]
            self.does(preferences=list(zip(users[some], wishes[some], strict=True)), profiling=allowed)

    def objects(self, users: Sequence[str]) -> None:
        """None of them allows profiling."""
        for start in range(0, len(users), BATCH):
            self.does(profiling=[(user, self.now + 1, False) for user in users[start : start + BATCH]])

    def erases(self, users: Sequence[str], time: float) -> None:
        """As an account service does: who leaves says so, and then the record is deleted."""
        for start in range(0, len(users), BATCH):
            some = users[start : start + BATCH]
            self.does(preferences=[(user, Preferences()) for user in some], erasures=[(user, time) for user in some])
        self.says([None] * len(users), users)

    def asks(self, number: int, budget: int, life: float = 1e6) -> None:
        near = np.argsort(-self.vectors @ self.vectors[number])[:50]
        similar = np.maximum(self.vectors[near] @ self.vectors[number], 0.1).astype(np.float32)
        self.does(
            commands=[
                Match(
                    f"new-{number}", 1, f"new-{number}", "A title", ("artist",), "bench", self.vectors[number],
                    tuple(f"warm-{i}" for i in near), similar, budget, self.now, self.now + life,
                )
            ]
        )  # fmt: skip


def held() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]


def names(kind: str, count: int) -> list[str]:
    return [f"{kind}-{number:012d}" for number in range(count)]


def figures(n: int) -> Iterator[tuple[str, float]]:
    """What is done, and bytes for each of ``n``."""
    meter = Meter()
    before = held()
    meter.says(
        [Preferences(opted_in=i % 2 > 0, timezone="Europe/Lisbon", quiet=NIGHT) for i in range(n)], names("p", n)
    )
    yield "preferences of a user without listens, as others have them", (held() - before) / n
    meter.says([None] * n, names("p", n))
    before = held()
    mine = [Preferences(muted_artists=frozenset({f"a-{i}", f"b-{i}", "c"}), cap=FrequencyCap(3, 24)) for i in range(n)]
    meter.says(mine, names("q", n))
    del mine
    yield "preferences like nobody else's, three artists muted", (held() - before) / n

    meter = Meter()
    before = held()
    meter.hears(names("user", n), [f"warm-{i % WARM}" for i in range(n)])
    yield f"a user with one listen, vectors of {D} dimensions", (held() - before) / n
    before = held()
    few = names("user", n // 10)
    for more in range(1, 21):
        meter.hears(few, [f"warm-{(i * 7 + more) % WARM}" for i in range(len(few))])
    yield "a further listen, of a song new to the user", (held() - before) / (20 * len(few))
    before = held()
    for number in range(200):
        meter.asks(number, 100)
    yield "a campaign that is alive, 70 pushes", (held() - before) / 200
    before = held()
    pushed = meter.state.push_log._pushed.entries
    for number in range(200, 220):
        meter.asks(number, n // 2, 1e-3)
        meter.now += 1
        meter.does()
    pushes = meter.state.push_log._pushed.entries - pushed
    yield f"a push that is remembered ({pushes / 20:.0f} a campaign, which has ended)", (held() - before) / pushes
    del meter
    meter = Meter()
    before = held()
    meter.erases(names("gone", n), NOW + 1e5)
    yield "an erased user", (held() - before) / n
    meter = Meter()
    before = held()
    meter.objects(names("none", n))
    yield "a user who allows no profiling", (held() - before) / n


def of_songs(n: int) -> Iterator[tuple[str, float]]:
    for name, add in (("with a vector", True), ("without one", False)):
        meter, users, songs = Meter(), names("user", n // 50), names("song", n)
        meter.hears(users, [f"warm-{number % WARM}" for number in range(len(users))])
        before = held()
        meter.hears(users * 50, songs)
        if add:
            meter.songs.add("bench", songs, np.tile(meter.vectors, (-(-n // WARM), 1))[:n])
        yield f"a song that somebody heard, {name}, and a listen to it", (held() - before) / n
    meter = Meter()
    before = held()
    meter.hears(["one"] * 10 * n, names("song", 10 * n))
    meter.songs.sweep()
    yield "a song that nobody needs any more", (held() - before) / (10 * n)


def rooms(n: int) -> dict[str, int]:
    """What tables have room for after ten times ``n`` users and songs came and went."""
    meter = Meter()
    for turn in range(10):
        users = [f"{turn}-{number}" for number in range(n)]
        meter.hears(users, [f"song-{user}" for user in users])
        meter.erases(users, meter.now + 1)
        meter.now += 2
    state = meter.state
    return {
        "users that came and went": 10 * n,
        "user rows": len(state.users),
        "songs that came and went": 10 * n,
        "song slots": len(meter.songs),
        "entries of histories": state.histories._heard.entries,
        "different preferences": len(state.preferences),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=20_000)
    count = parser.parse_args().count
    tracemalloc.start()
    for name, value in chain(figures(count), of_songs(count)):
        print(f"{value:10,.0f} bytes: {name}", flush=True)
    tracemalloc.stop()
    print(json.dumps(rooms(count), indent=1))


if __name__ == "__main__":
    main()
