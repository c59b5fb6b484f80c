"""A network that lies in the middle of a commit: what was sent counts once, and a push is there once."""

from __future__ import annotations

import random
import threading
import uuid
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from installation import PATIENCE_S, Installation
from lying_network import KINDS, Api, Kind, LyingNetwork, seeded
from test_faults import all_answered
from town import CLOCK, USERS, Service, Town

from streams.broker import EmbeddedKafka
from streams.clients import admin
from streams.provision import create_topics
from streams.settings import Kafka
from streams.topics import Naming
from streams.torture.stage import set_stage


@pytest.fixture(scope="module")
def lies(
    kafka: EmbeddedKafka, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[LyingNetwork, Town, Service]]:
    """One town and its worker for all these tests: each goes on where the former ended."""
    reach = Kafka(bootstrap_servers=kafka.bootstrap_servers)
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


FAULTS = 1_000
ODDS = {
    Api.END_TXN: 0.05, Api.TXN_OFFSET_COMMIT: 0.05, Api.ADD_OFFSETS: 0.04, Api.ADD_PARTITIONS: 0.04, Api.PRODUCE: 0.02,
    Api.INIT_PRODUCER_ID: 0.1, Api.OFFSET_FETCH: 0.05, Api.LIST_OFFSETS: 0.02, Api.FIND_COORDINATOR: 0.02,
    Api.METADATA: 0.02, Api.FETCH: 0.001, Api.JOIN_GROUP: 0.1, Api.SYNC_GROUP: 0.1, Api.HEARTBEAT: 0.01,
}  # fmt: skip
"""How often a request of a kind meets a fault: mostly those of commits, the others as often as a worker outlives it."""


@pytest.mark.long
@pytest.mark.parametrize("seed", [1])
def test_a_thousand_faults_at_random_points_make_no_wrong_commit(
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path, seed: int
) -> None:
    here = Installation(Kafka(bootstrap_servers=kafka.bootstrap_servers), Naming(prefix, 4, 2))
    create_topics(admin(here.kafka), here.naming, 1)
    with LyingNetwork(kafka.bootstrap_servers) as one, LyingNetwork(kafka.bootstrap_servers) as other:
        nets, town = (one, other), Town(here)
        services = [Service(here, net, slot, tmp_path) for slot, net in enumerate(nets)]
        town.listen(10 * USERS)
        town.prefer(0)
        running, over = threading.Event(), threading.Event()
        failed: list[Exception] = []

        def serve(service: Service) -> None:
            try:
                while not over.is_set():
                    service.round()
            except Exception as error:  # noqa: BLE001 - whatever it is, the test fails of it
                failed.append(error)

        threads = [threading.Thread(target=serve, args=(service,)) for service in services]
        for thread in threads:
            thread.start()
        wait_for(town.everything_read, failed)
        for number, net in enumerate(nets):
            net.take_chances(seeded(2 * seed + number, ODDS, 2.0))
        began, draw = CLOCK.monotonic(), random.Random(seed)
        while sum(net.struck.total() for net in nets) < FAULTS and not failed:
            town.listen(draw.randrange(1, 3 * USERS))
            town.prefer(draw.randrange(USERS))
            if draw.random() < 0.1:
                town.ask()
            running.wait(0.1)
        took = CLOCK.monotonic() - began
        for net in nets:
            net.be_honest()
        wait_for(lambda: town.everything_read() and sum(len(each.restored) for each in services) == 4, failed)
        over.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert failed == []
        digests = services[0].digests | services[1].digests
        pushes = town.judge(digests)
        for service in services:
            service.stop()
        town.judge_disk(digests, tmp_path)
        town.close()
    struck = one.struck + other.struck
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
    kafka: EmbeddedKafka, prefix: str, tmp_path: Path
) -> None:
    with LyingNetwork(kafka.bootstrap_servers) as net:
        running = set_stage(Kafka(bootstrap_servers=net.bootstrap_servers), prefix, tmp_path)
        running.start("songs", "songs")
        running.start("audience-0", "audience", "--slot", "0")

        def lie(number: int) -> None:
            if number == 20:
                net.take_chances(seeded(1, {Api.PRODUCE: 0.05, Api.OFFSET_COMMIT: 0.2}, 1.0))
            if number == 140:
                net.be_honest()

        follower, ids = all_answered(running, 150, lie)
        assert any(follower.answers[song].pushes for song in ids[20:140])
        print(f"\n{net.struck.total()} faults: {dict(net.struck)}")
        assert net.struck.total() > 20


def wait_for(done: Callable[[], bool], failed: list[Exception]) -> None:
    deadline = CLOCK.monotonic() + 2 * PATIENCE_S
    while not done():
        assert failed == []
        assert CLOCK.monotonic() < deadline
        threading.Event().wait(0.1)
