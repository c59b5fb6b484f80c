"""The steps of the demo, in order.

Broker, data, training, publish, workers, history, uploads, answers, judgement.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn, TimeElapsedColumn
from rich.text import Text

from encoder import artifact
from encoder.data.dataset import Dataset
from encoder.data.generate import World, affinity, generate
from encoder.data.layout import read_dataset
from encoder.data.split import split
from encoder.data.world import rows
from streams.contract.errors import Refused, Unavailable
from streams.contract.events import SongUpload
from streams.contract.topics import TOPICS, Naming
from streams.kafka.clients import admin
from streams.kafka.topic_admin import create_topics
from streams.models import learned_chances
from streams.models.publish import publish
from streams.runtime.clock import SystemClock
from streams.runtime.settings import KafkaSettings, Settings
from streams.runtime.supervisor import RoleProcess
from streams.runtime.terminal import Bars, Terminal
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.demo.dataset_events import upload_event
from streams.testbed.demo.feed import PATIENCE_S, Tick, replay, upload
from streams.testbed.demo.follow import Follower
from streams.testbed.demo.outcome import DemoOutcome
from streams.testbed.demo.peak_memory import PeakMemory
from streams.testbed.demo.precision import Liking, judge
from streams.testbed.demo.swap_measurement import Target, swap_under_load


@dataclass(frozen=True, slots=True)
class DemoPlan:
    """What the demo is asked to do.

    Attributes:
        data: a data set in the neutral layout; None generates one of ``users`` and ``songs``.
        rate: uploads a second.
        warm_up: uploads at the start that count for everything but latency; at most half of all.
        poison: malformed uploads mixed in.
        obey: whether preferences are obeyed (--policy).
        strict: refuse what is dirty in ``data``.
        swap_s: with a swap of models and its rollback afterwards, seconds before, between and after; None: without.
        folder: where data, model and logs go.
        config: the settings file, for the workers to read too.
        bootstrap: an existing cluster; None starts the embedded broker.
    """

    data: Path | None
    users: int
    songs: int
    seed: int
    rate: float
    warm_up: int
    poison: int
    budget: int
    audience_workers: int
    partitions: int
    obey: bool
    folder: Path
    config: Path | None
    bootstrap: str | None
    swap_s: float | None = None
    strict: bool = False


def run(plan: DemoPlan, settings: Settings, console: Terminal) -> DemoOutcome:
    """Do it all; progress goes to the console.

    Raises:
        Refused, Unavailable: something the demo needs is not there, or a worker cannot run.
    """
    # Torch is needed for training alone; the workers never load it.
    from encoder import train as training

    seconds: dict[str, float] = {}
    plan.folder.mkdir(parents=True, exist_ok=True)
    naming = Naming(f"demo-{uuid.uuid4().hex[:8]}.", plan.partitions, settings.topics.songs_partitions)
    with ExitStack() as stack:
        bars = stack.enter_context(_bars(console))
        memory = stack.enter_context(PeakMemory())
        with _phase("data", seconds, bars, "data set") as tick:
            dataset = _dataset(plan, tick)
        for finding in dataset.findings:
            console.print(str(finding), style="yellow", soft_wrap=True)
        try:
            parts = split(dataset, plan.seed)
        except ValueError as few:
            raise Refused(str(few)) from None
        if dataset.citation:
            console.print(dataset.citation, style="dim")

        with _phase("broker", seconds, bars, "Apache Kafka"):
            kafka = settings.kafka if plan.bootstrap else stack.enter_context(_broker(settings, console))
            admin_client = admin(kafka)
            create_topics(admin_client, naming, settings.topics.replication_factor)
            if plan.bootstrap:
                stack.callback(_delete_topics, kafka, naming)

        with _phase("training", seconds, bars, "training the encoder") as tick:
            models = []
            for number in range(1 if plan.swap_s is None else 2):
                trained = training.train(
                    dataset,
                    parts.warm,
                    training.TrainingConfig(seed=plan.seed + number),
                    lambda step: tick(step.done, step.total),
                    rare_rows=parts.rare,
                )
                models.append(plan.folder / f"model-{uuid.uuid4().hex[:8]}")
                artifact.save(trained, models[-1])
                del trained
        with _phase("chances", seconds, bars, "calibrating scores") as tick:
            for number, model in enumerate(models):
                config = training.TrainingConfig(seed=plan.seed + number)
                known = np.union1d(parts.warm, parts.rare)
                if fitted := learned_chances.fit(dataset, known, config, lambda step: tick(step.done, step.total)):
                    learned_chances.save(fitted, model)
        with _phase("publish", seconds, bars, "publishing model and warm songs") as tick:
            publish(models[0], kafka, naming, SystemClock(), tick)

        with _phase("workers", seconds, bars, "workers: 1 songs, several audience"):
            workers = _start_workers(plan, kafka, naming, stack)
            memory.watch(workers)
        with _phase("history", seconds, bars, "replaying listens") as tick:
            listens = replay(dataset, parts, kafka, naming, tick, workers)

        follower = Follower(kafka, naming)
        stack.callback(follower.close)
        uploads = [upload_event(dataset, int(row), plan.budget) for row in parts.cold]
        # Such a song cannot be uploaded: there is nothing to match it by.
        uploads = [event for event in uploads if event.features or event.tags or event.genres or event.artist_ids]
        with _phase("uploads", seconds, bars, f"uploading {len(uploads):,} cold songs") as tick:
            sent, poison = upload(uploads, plan.rate, plan.poison, kafka, naming, tick, workers)
        with _phase("answers", seconds, bars, "waiting for every partition's answer") as tick:
            _await_answers(plan, list(sent), follower, len(poison), tick, workers)
        with _phase("judging", seconds, bars, "comparing with the hidden listeners"):
            judgement = judge(dataset, parts, follower.answers, None if plan.data else _liking(plan, dataset))
        # The follower goes on: what it counts for the table is counted before copies of songs are uploaded.
        push_targets, dead = len(follower.push_ids), list(follower.dead)
        swapped = None
        if plan.swap_s is not None:
            target = Target(
                kafka, naming, (models[0], models[1]), _environment(plan, kafka, naming), follower, workers, plan.config
            )
            with _phase("swap", seconds, bars, "uploading on: a swap of models, a rollback") as tick:
                swapped = swap_under_load(target, uploads, plan.rate, plan.swap_s, tick)

    timed = list(sent)[min(plan.warm_up, len(sent) // 2) :]
    pushed = [follower.answers[song] for song in timed if song in follower.answers and follower.answers[song].pushes]
    began = [sent[song] for song in timed if song in follower.answers and follower.answers[song].pushes]
    everyone = set(range(plan.partitions))
    reasons: dict[str, int] = {}
    for _, error, message in dead:
        field_name = message.partition(":")[0]
        reasons[f"{error}: {field_name}"] = reasons.get(f"{error}: {field_name}", 0) + 1
    return DemoOutcome(
        dataset=dataset.name,
        citation=dataset.citation,
        users=len(dataset.user_ids),
        warm_songs=len(parts.warm),
        uploads=len(sent),
        songs_without_content=len(parts.cold) - len(sent),
        partitions=plan.partitions,
        answered=sum(follower.answered(song) == everyone for song in sent),
        dead_letters=len(dead),
        dead_letters_identical=sorted(value or b"" for value, _, _ in dead) == sorted(poison),
        dead_letter_reasons=dict(sorted(reasons.items())),
        push_targets=push_targets,
        pushes_doubled=len(follower.doubled),
        latencies={
            "first": [1000 * (answer.first - at) for answer, at in zip(pushed, began, strict=True)],
            "last": [1000 * (answer.last - at) for answer, at in zip(pushed, began, strict=True)],
        },
        judgement=judgement,
        seconds=seconds,
        memory_mb=memory.peaks,
        listens=listens,
        example=_example(dataset, {event.song_id: event for event in uploads}, follower),
        swapped=swapped,
    )


def _dataset(plan: DemoPlan, tick: Tick) -> Dataset:
    if plan.data is not None:
        return read_dataset(plan.data, plan.strict)
    world = World(users=plan.users, songs=plan.songs, seed=plan.seed)
    folder = plan.folder / f"generated-{plan.users}-{plan.songs}-{plan.seed}"
    try:
        generate(world, folder, tick)
    except ValueError as error:
        raise Refused(f"--users {plan.users} --songs {plan.songs}: {error}") from None
    return read_dataset(folder)


def _liking(plan: DemoPlan, dataset: Dataset) -> Liking:
    """What the generated world knows: who would listen to a song if shown it, at the world's end."""
    world = World(users=plan.users, songs=plan.songs, seed=plan.seed)
    users, songs = rows(dataset.user_ids), rows(dataset.song_ids)
    return lambda song: affinity(world, users, np.full(len(users), songs[song]), world.end)


@contextmanager
def _broker(settings: Settings, console: Terminal) -> Iterator[KafkaSettings]:
    broker = EmbeddedKafka(cache=settings.paths.broker, heap_mb=settings.broker.heap_mb, console=console)
    with broker as running:
        yield KafkaSettings(bootstrap_servers=running.bootstrap_servers)


def _delete_topics(kafka: KafkaSettings, naming: Naming) -> None:
    """On somebody's cluster nothing is left behind."""
    client = admin(kafka)
    for future in client.delete_topics([naming.name(topic) for topic in TOPICS], operation_timeout=30).values():
        future.result(30)


def _environment(plan: DemoPlan, kafka: KafkaSettings, naming: Naming) -> dict[str, str]:
    """What other processes of the run are told."""
    return {
        "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": kafka.bootstrap_servers,
        "COLDSTART_TOPICS__PREFIX": naming.prefix,
        "COLDSTART_PATHS__CACHE": str(plan.folder / "cache"),
        "COLDSTART_TOPICS__AUDIENCE_PARTITIONS": str(naming.audience_partitions),
        "COLDSTART_TOPICS__SONGS_PARTITIONS": str(naming.songs_partitions),
        # Matrix products here are small: more threads would only wait for each other.
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
    }


def _start_workers(plan: DemoPlan, kafka: KafkaSettings, naming: Naming, stack: ExitStack) -> list[RoleProcess]:
    environment = _environment(plan, kafka, naming)
    logs = plan.folder / "logs"
    logs.mkdir(exist_ok=True)
    config = [] if plan.config is None else ["--config", str(plan.config.resolve())]
    policy = ["--policy", "on" if plan.obey else "off"]
    roles = [("songs", ["songs", *config])] + [
        (f"audience-{slot}", ["audience", "--slot", str(slot), *policy, *config])
        for slot in range(plan.audience_workers)
    ]
    workers = []
    for name, args in roles:
        log = logs / f"{naming.prefix}{name}.log"
        workers.append(RoleProcess(name, args, environment, log))
        stack.callback(workers[-1].stop)
    deadline = time.monotonic() + PATIENCE_S
    while waiting := {w.name: reasons for w in workers if (reasons := w.readiness())}:
        if time.monotonic() > deadline:
            raise Unavailable(f"not ready after {PATIENCE_S:g} s: {waiting}; logs are in {logs}")
        for worker in workers:
            worker.watch()
        time.sleep(0.2)
    return workers


def _await_answers(
    plan: DemoPlan, songs: list[str], follower: Follower, poison: int, tick: Tick, workers: list[RoleProcess]
) -> None:
    """Wait until every partition has answered every upload, or nothing has come for long."""
    everyone = set(range(plan.partitions))
    seen, patience = -1, time.monotonic() + PATIENCE_S
    while True:
        done = sum(follower.answered(song) == everyone for song in songs)
        arrived = done + len(follower.dead)
        tick(done, len(songs))
        if arrived > seen:
            seen, patience = arrived, time.monotonic() + PATIENCE_S
        if done == len(songs) and len(follower.dead) >= poison:
            return
        if time.monotonic() > patience:
            # Said by the outcome, not hidden by an exception: the table shows how many are missing.
            return
        for worker in workers:
            worker.watch()
        time.sleep(0.1)


def _example(dataset: Dataset, uploads: dict[str, SongUpload], follower: Follower) -> dict[str, Any]:
    """The song whose pushes scored best: what was retrieved for it, to look at."""
    titles = dict(zip(dataset.song_ids, dataset.titles or dataset.song_ids, strict=True))
    found = [
        (max(answer.pushes)[0], song) for song, answer in follower.answers.items() if answer.pushes and song in uploads
    ]
    if not found:
        return {}
    _, song_id = max(found)
    event = uploads[song_id]
    answer = follower.answers[song_id]
    return {
        "title": event.title,
        "tags": [tag for tag, _ in sorted(event.tags.items(), key=lambda item: -item[1])[:6]],
        "neighbours": [(titles[each.song_id], each.similarity) for each in answer.neighbours[:8]],
        "pushes": len(answer.pushes),
        "best_score": max(answer.pushes)[0],
    }


def _bars(console: Terminal) -> Bars:
    done = Text("✓", style="green")
    return Bars(console, MofNCompleteColumn(), TimeElapsedColumn(), finished=done)


@contextmanager
def _phase(name: str, seconds: dict[str, float], bars: Bars, words: str) -> Iterator[Tick]:
    task = bars.add_task(words, total=None)
    started = time.monotonic()
    total = 1

    def tick(done: int, of: int) -> None:
        nonlocal total
        total = max(1, of)
        bars.update(task, completed=done, total=total)

    yield tick
    seconds[name] = time.monotonic() - started
    bars.update(task, completed=total, total=total)
