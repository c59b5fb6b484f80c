"""How fast the audience plane is, how large, and how soon back. Writes results.json and prints a table.

    python tests/bench/bench_plane.py                     # everything, a quarter of an hour
    python tests/bench/bench_plane.py --quick             # the same at a hundredth of the size; writes nothing
    python tests/bench/bench_plane.py --only outside,listens

Every section starts from nothing on an embedded broker of its own and replaces its own figures in results.json.
Rivals run in turn with us on the same broker and the same records; ratios are taken inside one repeat, and what is
written is the median over the repeats, with all of them beside it. Records a second count from the first commit to
the last, so that joining a group and opening connections is nobody's.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from plane import (
    Alone,
    D,
    Installation,
    busy,
    histories,
    listens,
    outside,
    points_of,
    preload,
    publish,
    rate,
    rate_together,
    requests,
    series,
    together,
    units,
    worker_process,
)
from rich.console import Console
from rich.table import Table

from streams.audience.gc_tuning import tune_gc
from streams.audience.main import targeting_config
from streams.contract.topics import AUDIENCE_VECTORS, LISTENS
from streams.runtime.settings import AudienceSettings
from streams.runtime.supervisor import RoleProcess
from streams.testbed.broker import EmbeddedKafka
from targeting.catalogue.catalogue import Catalogue
from targeting.live.reverse_scoring import hits
from targeting.partition.partition import Partition
from targeting.types import Match, PartitionInputs

HERE = Path(__file__).parent
RESULTS = HERE / "results.json"
RIVALS = HERE.parents[1] / ".venv-bench" / "bin" / "python"


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    repeats: int = 3
    vectors: int = 400_000
    listens: int = 300_000
    rival: int = 100_000
    faust: int = 15_000
    users: int = 1_000_000
    songs: int = 50_000
    campaigns: int = 1000
    met: int = 200_000
    asked: int = 60
    uploads: int = 600
    warm_up: int = 100


QUICK = Size(1, 20_000, 20_000, 5_000, 1_000, 20_000, 2_000, 50, 20_000, 10, 60, 10)


@contextmanager
def broker() -> Iterator[str]:
    with EmbeddedKafka(heap_mb=512) as kafka:
        yield kafka.bootstrap_servers


def of_repeats(values: list[float]) -> dict[str, Any]:
    return {"median": round(statistics.median(values), 3), "repeats": [round(each, 3) for each in values]}


def rival(script: str, *args: str, python: str = str(RIVALS)) -> float:
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            [python, "-W", "ignore", str(HERE / script), *args, folder],
            capture_output=True, text=True, check=False, timeout=600,
        )  # fmt: skip
    if done.returncode or not done.stdout.strip():
        raise SystemExit(f"{script}: {done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["per_s"])


def against_quix(kind: str, size: Size, *more: str) -> dict[str, list[float]]:
    """Ours and theirs, repeat by repeat, on the same records; ``more``: further kinds of rival."""
    rates: dict[str, list[float]] = {each: [] for each in ("ours", kind, *more)}
    topic, metric, count = (
        (AUDIENCE_VECTORS, "vectors_applied", size.vectors)
        if kind == "outside"
        else (LISTENS, "listens_applied", size.listens)
    )
    with broker() as bootstrap:
        for repeat in range(size.repeats):
            with Installation.made(bootstrap, f"{kind}{repeat}.") as here:
                publish(here, 2000)
                here.send(topic, outside(count, 100_000) if kind == "outside" else listens(count, 20_000, 2000))

                def run(who: str, here: Installation = here) -> float:
                    if who == "ours":
                        return rate(points_of(worker_process(here, 0, count, metric)))
                    args = (bootstrap, here.naming.name(topic), who, str(min(count, size.rival)), who)
                    return rival("rival_quix.py", *args)

                # Whoever goes second finds the records in the page cache.
                for who in list(rates)[:: 1 if repeat % 2 == 0 else -1]:
                    rates[who].append(run(who))
    return rates


def ratios(above: list[float], below: list[float]) -> dict[str, Any]:
    return of_repeats([a / b for a, b in zip(above, below, strict=True)])


def bench_outside(size: Size) -> dict[str, Any]:
    rates = against_quix("outside", size)
    return {
        "vectors_per_s.outside": of_repeats(rates["ours"]),
        "per_event_per_s.quix": of_repeats(rates["outside"]),
        "ratio_outside_quix": ratios(rates["ours"], rates["outside"]),
    }


def bench_listens(size: Size) -> dict[str, Any]:
    """Beside a rival that does the same job, histories and vectors, and one that keeps histories alone."""
    rates = against_quix("listens", size, "history")
    return {
        "vectors_per_s.listens": of_repeats(rates["ours"]),
        "per_event_per_s.quix_listens": of_repeats(rates["listens"]),
        "per_event_per_s.quix_history_only": of_repeats(rates["history"]),
        "ratio_listens_quix": ratios(rates["ours"], rates["listens"]),
        "ratio_listens_quix_history_only": ratios(rates["ours"], rates["history"]),
    }


def bench_faust(size: Size) -> dict[str, Any]:
    found = []
    with broker() as bootstrap:
        for repeat in range(size.repeats):
            with Installation.made(bootstrap, f"faust{repeat}.") as here:
                here.send(LISTENS, listens(size.faust + 1000, 20_000, 2000))
                args = (bootstrap, here.naming.name(LISTENS), "4", str(size.faust))
                found.append(rival("rival_faust.py", *args, python=sys.executable))
    return {"per_event_per_s.faust_table": of_repeats(found)}


def scoring_alone(campaigns: int, vectors: int, prototypes: int = 8) -> float:
    """Vectors a second through the kernel alone, on this thread, in batches like the worker's."""
    rng = np.random.default_rng(0)
    stacked = units(rng, prototypes * campaigns).reshape(prototypes, campaigns, D)
    thresholds = np.full(campaigns, 0.5, np.float32)
    batch = units(rng, 2500)
    hits(batch, stacked, thresholds)
    rounds = max(1, vectors // len(batch))
    started = time.monotonic()
    for _ in range(rounds):
        hits(batch, stacked, thresholds)
    return rounds * len(batch) / (time.monotonic() - started)


def bench_campaigns(size: Size) -> dict[str, Any]:
    """The outside path with living campaigns in every partition, eight prototypes each."""
    from dataclasses import replace

    plane, alone, users = [], [], size.users // 4
    config = targeting_config(AudienceSettings(), obey=True)
    config = replace(config, cat=replace(config.cat, centroids=8), scored=size.campaigns)
    with broker() as bootstrap:
        for repeat in range(size.repeats):
            with (
                Installation.made(bootstrap, f"campaigns{repeat}.", 1) as here,
                tempfile.TemporaryDirectory() as folder,
            ):
                rows = publish(here, size.songs)
                preload(here, users, size.songs, 20)
                requests(here, size.campaigns, rows, 250)
                worker = Alone(here, 0, Path(folder), config)
                try:
                    series(worker, "requests_served", size.campaigns, 60.0)
                    # Those that are not scored yet are opened a few a batch.
                    for _ in range(2000):
                        if worker.states[0].scored >= size.campaigns:
                            break
                        worker.worker.round()
                    scored = worker.states[0].scored
                    # Campaigns that have just opened push more than they will for the rest of their lives.
                    here.send(AUDIENCE_VECTORS, at_users(outside(size.met // 2, users, 3)), 0)
                    series(worker, "vectors_applied", size.met // 2)
                    here.send(AUDIENCE_VECTORS, at_users(outside(size.met, users)), 0)
                    alone.append(scoring_alone(scored, size.met // 2))
                    plane.append(rate(series(worker, "vectors_applied", size.met // 2 + size.met)))
                    alone[-1] = (alone[-1] + scoring_alone(scored, size.met // 2)) / 2
                finally:
                    worker.close()
    return {
        "vectors_per_s.campaigns_1000": of_repeats(plane),
        "vectors_per_s.scoring_alone_1000": of_repeats(alone),
        "ratio_campaigns_scoring": ratios(plane, alone),
        "campaigns_scored": scored,
    }


def at_users(records: Iterator[tuple[bytes, bytes, Any]]) -> Iterator[tuple[bytes, bytes, Any]]:
    """The same vectors, of users that :func:`plane.preload` made in partition 0."""
    for key, value, headers in records:
        yield b"user-000-%07d" % int(key[-9:]), value, headers


def bench_request(size: Size) -> dict[str, Any]:
    """A request with 20,000 candidates in a partition of 250,000 users, in process: staged as the worker stages it."""
    users, ids = size.users // 4, [f"song-{number}" for number in range(size.songs)]
    songs = Catalogue()
    rows = units(np.random.default_rng(0), size.songs)
    songs.set_vectors("bench", ids, rows)
    state = Partition(0, 4, songs, targeting_config(AudienceSettings(), obey=True))
    tune_gc()
    state.restore(histories(users, size.songs, 50, 0))
    slots = songs.slots(ids)
    lengths, _ = state._state.histories.listeners(slots)
    took, candidates = [], []
    rng = np.random.default_rng(1)
    # Of the songs with most listeners, as many as have 20,000 different ones together: some sixty.
    near = np.argsort(-lengths)[: size.songs // 20]
    retrieved = round(1.12 * min(20_000, users) / lengths[near].mean())
    now = time.time()
    for number in range(size.asked):
        chosen = rng.choice(near, retrieved, replace=False)
        match = Match(
            f"new-{number}", 1, f"new-{number}", "", (f"artist-{number}",), "bench", rows[chosen[0]],
            tuple(ids[at] for at in chosen), np.linspace(0.9, 0.4, retrieved).astype(np.float32), 1000, now, now + 1e6,
        )  # fmt: skip
        started = time.monotonic()
        staged = state.stage(PartitionInputs(now + number, commands=[match]))
        took.append(1000 * (time.monotonic() - started))
        candidates.append(staged.outputs.accounts[0].counts.candidates)
        state.apply(staged)
    return {
        "request_ms.p50": round(float(np.percentile(took, 50)), 2),
        "request_ms.p99": round(float(np.percentile(took, 99)), 2),
        "request_candidates": int(np.median(candidates)),
    }


def bench_million(size: Size) -> dict[str, Any]:
    """A million users over two worker processes: memory, restarts, and uploads that go through both."""
    from bench_latency import upload_at

    from streams.runtime.settings import KafkaSettings
    from streams.testbed.chaos.environment import set_up
    from streams.testbed.demo.follow import Follower

    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, broker() as bootstrap:
        folder = Path(name)
        stage = set_up(KafkaSettings(bootstrap_servers=bootstrap), "million.", folder, users=2000, songs=3000)
        here = Installation(stage.kafka, stage.naming)
        # Most of what people hear lies outside of the catalogue that can be retrieved.
        from streams.models.registry import LiveView
        from streams.runtime.clock import SystemClock

        view = LiveView(stage.kafka, stage.naming, SystemClock())
        warm = view.warm()
        known = list(warm.ids) if warm else []
        view.close()
        preload(here, size.users, size.songs, 50, known + [f"other-{n}" for n in range(size.songs - len(known))])
        workers: list[RoleProcess] = []

        def start() -> float:
            started = time.monotonic()
            workers[:] = [stage.start(f"audience-{slot}", "audience", "--slot", str(slot)) for slot in range(2)]
            while any(worker.readiness() for worker in workers):
                time.sleep(0.02)
                if time.monotonic() - started > 300:
                    raise SystemExit(f"not ready: {[worker.readiness() for worker in workers]}")
            return time.monotonic() - started

        def stop() -> None:
            for worker in workers:
                worker.stop()
                stage.workers.remove(worker)

        follower = Follower(stage.kafka, stage.naming)
        try:
            figures["restore_s.changelog"] = round(start(), 2)
            stop()
            disk = []
            for _ in range(size.repeats):
                disk.append(start())
                if len(disk) < size.repeats:
                    stop()
            figures["restore_s.disk"] = round(statistics.median(disk), 2)
            stage.start("songs", "songs")
            stage.wait_until_ready()
            latency = upload_at(stage, follower, size.uploads, size.warm_up, 10.0, 500)
            first = latency["first"]
            figures["upload_to_push_ms.p50"], figures["upload_to_push_ms.p99"] = first["p50"], first["p99"]
            figures["uploads_pushed"] = first["pushed"]
            figures["resident_mb"] = round(sum(psutil.Process(w.pid).memory_info().rss for w in workers) / 1e6)
        finally:
            stage.stop()
            follower.close()
    return figures


def bench_scaling(size: Size) -> dict[str, Any]:
    """Two workers against one: computing alone, and with Kafka on the same cores; how many of these were busy."""
    script = f"import sys; sys.path.insert(0, {str(HERE)!r}); import bench_plane as b; print(b.computing({size.met}))"

    def side_by_side(count: int) -> float:
        running = [
            subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) for _ in range(count)
        ]
        return sum(float(each.communicate()[0]) for each in running)

    alone, with_kafka = [], []
    cores: dict[int, list[float]] = {1: [], 2: []}
    with broker() as bootstrap:
        for repeat in range(size.repeats):
            alone.append(side_by_side(2) / side_by_side(1))
            rates = []
            for count in (1, 2):
                with Installation.made(bootstrap, f"scaling{repeat}{count}.") as here:
                    publish(here, 2000)
                    share = here.naming.audience_partitions // count
                    # Which worker has how many users is chance: nearly all of its share is enough to end.
                    enough = size.vectors * 9 // 10
                    running = [worker_process(here, slot, enough, "vectors_applied", share) for slot in range(count)]
                    # Sent while they wait: who takes what comes in is as fast as the sender.
                    together(running, partial(here.send, AUDIENCE_VECTORS, outside(size.vectors * count, 100_000)))
                    found = [points_of(each) for each in running]
                    rates.append(rate_together(found))
                    cores[count].append(busy(found[0]))
            with_kafka.append(rates[1] / rates[0])
    return {
        "scaling_2_workers.alone": of_repeats(alone),
        "scaling_2_workers.with_kafka": of_repeats(with_kafka),
        "scaling_2_workers.cores_busy_1": of_repeats(cores[1]),
        "scaling_2_workers.cores_busy_2": of_repeats(cores[2]),
    }


def computing(vectors: int) -> float:
    """Vectors a second of one partition without Kafka: from outside into the table, and against 200 campaigns."""
    from targeting.types import OutsideVectors

    rng = np.random.default_rng(0)
    songs = Catalogue()
    songs.set_vectors("bench", [f"song-{n}" for n in range(2000)], units(rng, 2000))
    state = Partition(0, 1, songs, targeting_config(AudienceSettings(), obey=True))
    stacked, thresholds = units(rng, 8 * 200).reshape(8, 200, D), np.full(200, 0.5, np.float32)
    batches = [
        (sorted({f"user-{u}" for u in rng.integers(0, 50_000, 2500).tolist()}), units(rng, 2500)) for _ in range(8)
    ]
    done, started = 0, time.monotonic()
    while done < vectors:
        for users, rows in batches:
            n = len(users)
            now = np.full(n, 1.7e9)
            state.apply(state.stage(PartitionInputs(1.7e9, vectors=OutsideVectors("bench", users, rows[:n], now))))
            hits(rows[:n], stacked, thresholds)
            done += n
    return done / (time.monotonic() - started)


SECTIONS: dict[str, Callable[[Size], dict[str, Any]]] = {
    "outside": bench_outside,
    "listens": bench_listens,
    "faust": bench_faust,
    "campaigns": bench_campaigns,
    "request": bench_request,
    "million": bench_million,
    "scaling": bench_scaling,
}


def nested(flat: dict[str, Any], into: dict[str, Any]) -> dict[str, Any]:
    """``a.b`` as ``{"a": {"b": ...}}``. Of repeats, the median stands under the key and the rest under ``repeats``."""
    for name, value in flat.items():
        if isinstance(value, dict) and "median" in value:
            into.setdefault("repeats", {})[name] = value["repeats"]
            value = value["median"]
        where = into
        *path, last = name.split(".")
        for part in path:
            where = where.setdefault(part, {})
        where[last] = value
    return into


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small, to try it out; writes nothing")
    parser.add_argument("--only", default=",".join(SECTIONS), help="sections, separated by commas")
    parser.add_argument("--repeats", type=int, help="instead of 3")
    asked = parser.parse_args()
    # One thread for matrix products: two workers share two cores.
    if os.environ.get("OMP_NUM_THREADS") != "1":
        os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
        os.execv(sys.executable, [sys.executable, *sys.argv])
    unknown = set(asked.only.split(",")) - SECTIONS.keys()
    if unknown:
        parser.error(f"no such section: {', '.join(sorted(unknown))}; there are {', '.join(SECTIONS)}")
    size = QUICK if asked.quick else Size()
    if asked.repeats:
        size = Size(**{**size.__dict__, "repeats": asked.repeats})
    table = Table("figure", "value", "repeats")
    for name in asked.only.split(","):
        if name in {"outside", "listens"} and not RIVALS.exists():
            parser.error("the rivals' environment is missing: make .venv-bench/.ready")
        started, load = time.monotonic(), os.getloadavg()[0]
        flat = SECTIONS[name](size)
        print(f"{name}: {time.monotonic() - started:.0f} s, load before {load:.1f}", file=sys.stderr, flush=True)
        for key, value in flat.items():
            many = isinstance(value, dict)
            shown = value["median"] if many else value
            table.add_row(key, f"{shown:,}", " ".join(f"{each:,}" for each in value["repeats"]) if many else "")
        if not asked.quick:
            results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
            RESULTS.write_text(json.dumps(nested(flat, results), indent=1, sort_keys=True) + "\n")
    Console().print(table)


if __name__ == "__main__":
    main()
