"""A network that lies in the middle of a commit: what was sent counts once, and a push is there once."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import IsolationLevel, TopicPartition
from confluent_kafka.admin import OffsetSpec
from installation import Installation
from lying_network import KINDS, Api, Fault, Kind, LyingNetwork, seeded
from test_faults import all_answered
from town import CLOCK, USERS, Crew, Service, Town

from streams.contract.errors import Unavailable
from streams.contract.topics import LISTENS, Naming
from streams.kafka.clients import admin, list_offsets
from streams.kafka.topic_admin import create_topics
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos.environment import set_up


@pytest.fixture(scope="module")
def lies(
    kafka: KafkaSettings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LyingNetwork, Town, Service]]:
    """One town and its worker for all these tests: each goes on where the former ended."""
    reach = kafka
    here = Installation(reach, Naming(f"test-{uuid.uuid4().hex[:12]}.", 2, 2))
    client = admin(reach)
    create_topics(client, here.naming, 1)
    with LyingNetwork(kafka.bootstrap_servers) as net:
        town = Town(here)
        town.listen(10 * USERS)
        folder = tmp_path_factory.mktemp("town")
        service = Service(here, net, folder=folder)
        # The first commit ever comes to nothing: there is no offset to go back to.
        first = net.lie("no request", Api.END_TXN)
        service.until(town.everything_read)
        assert first.struck.is_set()
        yield net, town, service
        digests = service.digests
        service.stop()
        town.judge_disk(digests, folder)
        town.close()


@pytest.mark.parametrize(
    ("kind", "api", "uncertain"),
    [
        pytest.param("slow answer", Api.END_TXN, 1, id="the answer to EndTxn comes after the timeout"),
        pytest.param("no answer", Api.END_TXN, 1, id="the broker commits and its answer is lost"),
        pytest.param("no request", Api.END_TXN, 1, id="EndTxn is lost"),
        pytest.param("cut answer", Api.END_TXN, 0, id="cut in the middle of the answer to EndTxn"),
        pytest.param("late request", Api.END_TXN, 0, id="EndTxn comes twice"),
        pytest.param("half-open", Api.TXN_OFFSET_COMMIT, 1, id="half-open from the middle of a commit on"),
        pytest.param("no answer", Api.ADD_OFFSETS, 1, id="the answer to AddOffsetsToTxn is lost"),
        pytest.param("no answer", Api.PRODUCE, 1, id="acknowledgements are lost"),
    ],
)
def test_in_the_middle_of_a_commit(
    lies: tuple[LyingNetwork, Town, Service], kind: Kind, api: Api, uncertain: int
) -> None:
    net, town, service = lies
    before = service.transactions("uncertain")
    fault = net.lie(kind, api, seconds=1.5)
    town.listen(5 * USERS)
    town.ask()
    # What the broker committed unknown to the worker is read before that is back.
    service.until(lambda: town.everything_read() and service.restored == [0, 1])
    assert fault.struck.is_set()
    assert service.transactions("uncertain") - before == uncertain
    assert town.judge(service.digests) > 0
    assert service.ends == []


def test_an_end_of_a_topic_whose_answer_is_cut_is_asked_for_again(kafka: KafkaSettings) -> None:
    # A network and a topic of its own: a worker beside it would ask for ends too, and take the faults.
    naming = Naming(f"test-{uuid.uuid4().hex[:12]}.", 2, 2)
    create_topics(admin(kafka), naming, 1)
    latest: Any = OffsetSpec.latest()  # type: ignore[no-untyped-call]
    with LyingNetwork(kafka.bootstrap_servers) as net:
        client = admin(KafkaSettings(bootstrap_servers=net.bootstrap_servers))

        def ask() -> dict[tuple[str, int], int]:
            places = [TopicPartition(naming.name(LISTENS), 0)]
            return list_offsets(client, places, latest, IsolationLevel.READ_COMMITTED, 5.0)

        right = ask()
        fault = net.lie("cut answer", Api.LIST_OFFSETS)
        assert ask() == right
        assert fault.struck.is_set()
        # Every answer from now on: however often a client asks within its time, one more could be whole.
        net.take_chances(lambda api, _: Fault("cut answer", api) if api == Api.LIST_OFFSETS else None)
        with pytest.raises(Unavailable, match="offsets of"):
            ask()
        net.be_honest()
        assert ask() == right


FAULTS = 1_000
ODDS = {
    Api.END_TXN: 0.1, Api.TXN_OFFSET_COMMIT: 0.1, Api.ADD_OFFSETS: 0.07, Api.ADD_PARTITIONS: 0.07, Api.PRODUCE: 0.04,
    Api.INIT_PRODUCER_ID: 0.1, Api.OFFSET_FETCH: 0.1, Api.LIST_OFFSETS: 0.03, Api.FIND_COORDINATOR: 0.03,
    Api.METADATA: 0.03, Api.FETCH: 0.002, Api.JOIN_GROUP: 0.03, Api.SYNC_GROUP: 0.03, Api.HEARTBEAT: 0.005,
}  # fmt: skip
"""How often a request of a kind meets a fault: mostly those of commits, the others as often as a worker outlives it."""


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_thousand_faults_at_random_points_make_no_wrong_commit(
    kafka: KafkaSettings, prefix: str, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    here = Installation(kafka, Naming(prefix, 4, 2))
    create_topics(admin(here.kafka), here.naming, 1)
    with LyingNetwork(kafka.bootstrap_servers) as one, LyingNetwork(kafka.bootstrap_servers) as other:
        nets, town, pause = (one, other), Town(here), threading.Event()
        town.listen(10 * USERS)
        town.prefer(0)
        crew = Crew(here, nets, tmp_path)
        monkeypatch.setattr("streams.runtime.watchdog.leave", crew.leave)
        crew.wait_for(town.everything_read, pause)
        for number, net in enumerate(nets):
            net.take_chances(seeded(2 * seed + number, ODDS, 1.4))
        began, draw = CLOCK.monotonic(), random.Random(seed)
        while sum(net.struck.total() for net in nets) < FAULTS and not crew.failed:
            town.listen(draw.randrange(1, 3 * USERS))
            town.prefer(draw.randrange(USERS))
            if draw.random() < 0.1:
                town.ask()
                print(f"{CLOCK.monotonic() - began:.0f} s: {[net.struck.total() for net in nets]} faults", flush=True)
            pause.wait(0.1)
        took = CLOCK.monotonic() - began
        for net in nets:
            net.be_honest()
        crew.wait_for(lambda: town.everything_read() and crew.restored(), pause)
        digests = crew.rest()
        assert crew.failed == []
        pushes = town.judge(digests)
        for service in crew.services:
            service.stop()
        if not crew.hung:
            # One that hangs holds the disk's copy, as its process would not.
            town.judge_disk(digests, tmp_path)
        town.close()
    struck, services = one.struck + other.struck, [*crew.services, *crew.hung]
    print(
        f"\n{struck.total()} faults in {took:.0f} s, seed {seed}: {pushes} pushes, {sum(town.plays.values())} listens"
    )
    for kind in KINDS:
        print(f"  {kind}: {sum(n for (each, _), n in struck.items() if each == kind)}")
    for outcome in ("committed", "aborted", "uncertain"):
        print(f"  transactions {outcome}: {sum(service.transactions(outcome) for service in services)}")
    ends = Counter(end.split(":")[0] for service in services for end in service.ends)
    print(f"  workers ended and started again: {dict(ends)}")


@pytest.mark.long
def test_a_songs_worker_whose_sends_and_commits_meet_faults_answers_every_upload_once(
    kafka: KafkaSettings, prefix: str, tmp_path: Path
) -> None:
    with LyingNetwork(kafka.bootstrap_servers) as net:
        running = set_up(KafkaSettings(bootstrap_servers=net.bootstrap_servers), prefix, tmp_path)
        running.start("songs", "songs")
        running.start("audience-0", "audience", "--slot", "0")
        pause = threading.Event()

        def lie(number: int) -> None:
            if number == 20:
                net.take_chances(seeded(1, {Api.PRODUCE: 0.2, Api.OFFSET_COMMIT: 0.8}, 1.0))
            if 20 <= number < 140:
                # The worker commits twice a second.
                pause.wait(0.25)
            if number == 140:
                net.be_honest()

        follower, ids = all_answered(running, 150, lie)
        assert any(follower.answers[song].pushes for song in ids[20:140])
        print(f"\n{net.struck.total()} faults: {dict(net.struck)}")
        struck = Counter(api for _, api in net.struck.elements())
        # A lost answer is waited for ten seconds, so there are few.
        assert net.struck.total() >= 10
        assert min(struck[Api.PRODUCE], struck[Api.OFFSET_COMMIT]) > 0
        assert "leaving" not in running.log("songs").read_text()
