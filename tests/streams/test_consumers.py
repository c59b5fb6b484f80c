"""Which partitions a worker reads, in which order, and what a rebalance takes away."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing

import pytest
from confluent_kafka import OFFSET_BEGINNING, Message
from installation import PATIENCE_S, Installation

from streams.audience.consumers import Assignment, Polled
from streams.audience.fetching import here as records_here
from streams.audience.positions import InputOffsets
from streams.contract.cloudevents import Record
from streams.contract.errors import MustRestart
from streams.contract.topics import AUDIENCE_VECTORS, LISTENS, MATCH_REQUESTS, PREFERENCES, PUSH_OUTCOMES, Topic
from streams.kafka.clients import producer
from streams.kafka.transaction import Transactions
from streams.runtime.clock import Clock, ManualClock, SystemClock
from streams.runtime.settings import AudienceSettings

CLOCK = SystemClock()
INPUT_TOPICS = (LISTENS, MATCH_REQUESTS, PREFERENCES, AUDIENCE_VECTORS, PUSH_OUTCOMES)


class Worker:
    """An assignment and what its owner was told."""

    def __init__(self, here: Installation, slot: int = 0, clock: Clock = CLOCK) -> None:
        self.held: set[int] = set()
        self.changes: list[tuple[list[int], list[int]]] = []
        self.assignment = Assignment(
            here.kafka,
            here.naming,
            AudienceSettings(session_timeout_s=6),
            clock,
            f"{here.naming.prefix}{slot}",
            self.change,
        )

    def change(self, new: list[int], gone: list[int]) -> None:
        self.changes.append((new, gone))
        assert set(gone) <= self.held
        self.held = (self.held | set(new)) - set(gone)

    def close(self) -> None:
        self.assignment.close()

    def begin(self) -> None:
        for partition in self.held:
            begin(self.assignment, partition, InputOffsets())
            self.assignment.begin_commands(partition, InputOffsets())


def begin(assignment: Assignment, partition: int, at: InputOffsets) -> None:
    assignment.begin_preferences(partition)
    assignment.begin(partition, at)


def until(done: Callable[[], bool]) -> None:
    deadline = CLOCK.monotonic() + PATIENCE_S
    while not done():
        assert CLOCK.monotonic() < deadline


def assigned(*workers: Worker, by: list[set[int]] | None = None) -> None:
    """Poll until each holds what is said, or all together both partitions."""

    def shared() -> bool:
        for worker in workers:
            worker.assignment.poll_listens(1)
        return [w.held for w in workers] == by if by else set().union(*(w.held for w in workers)) == {0, 1}

    until(shared)


def collect(poll: Callable[[], Polled], count: int) -> dict[int, list[bytes]]:
    """Keys by partition, once as many came; one more would be too many."""
    found: dict[int, list[Message]] = {}

    def enough() -> bool:
        for partition, messages in poll().records.items():
            found.setdefault(partition, []).extend(messages)
        return sum(map(len, found.values())) >= count

    until(enough)
    assert sum(map(len, found.values())) == count
    return {partition: [message.key() or b"" for message in messages] for partition, messages in found.items()}


def send(here: Installation, topic: Topic, partition: int, *keys: str) -> None:
    here.send_all(topic, [Record(key.encode(), b"v", []) for key in keys], partition)


@pytest.fixture
def worker(here: Installation) -> Iterator[Worker]:
    with closing(Worker(here)) as worker:
        yield worker


def test_nothing_is_read_before_it_is_begun_and_then_each_input_by_itself(here: Installation, worker: Worker) -> None:
    for topic, name in zip(INPUT_TOPICS, "lcpvo", strict=True):
        for partition in (0, 1):
            send(here, topic, partition, f"{name}{partition}a", f"{name}{partition}b")
    read = worker.assignment
    assigned(worker)
    assert worker.changes == [([0, 1], [])]
    # Assigned, but neither restored nor begun.
    assert [read.poll_listens(10).records for _ in range(5)] == [{}] * 5
    begin(read, 1, InputOffsets())
    ends = read.ends("preferences", [1])
    assert ends == {1: 2}
    assert [m.key() for m in read.poll_preferences(ends).records[1]] == [b"p1a", b"p1b"]
    assert collect(lambda: read.poll_listens(10), 2) == {1: [b"l1a", b"l1b"]}
    assert collect(lambda: read.poll_vectors(10), 2) == {1: [b"v1a", b"v1b"]}
    assert collect(lambda: read.poll_outcomes(10), 2) == {1: [b"o1a", b"o1b"]}
    assert read.poll_commands(0.1).records == {}
    read.begin_commands(1, InputOffsets(commands=1))
    assert collect(lambda: read.poll_commands(0.1), 1) == {1: [b"c1b"]}
    # Vectors from outside are their own changelog: read from the beginning whatever was committed.
    begin(read, 0, InputOffsets(listens=1, vectors=2, outcomes=1))
    assert collect(lambda: read.poll_listens(10), 1) == {0: [b"l0b"]}
    assert collect(lambda: read.poll_vectors(10), 2) == {0: [b"v0a", b"v0b"]}
    assert collect(lambda: read.poll_outcomes(10), 1) == {0: [b"o0b"]}
    read.again("vectors", [0, 1])
    again = collect(lambda: read.poll_vectors(10), 4)
    assert again == {0: [b"v0a", b"v0b"], 1: [b"v1a", b"v1b"]}


def test_preferences_are_read_to_their_end_past_an_aborted_transaction(here: Installation, worker: Worker) -> None:
    send(here, PREFERENCES, 0, "a")
    sender = producer(here.kafka, f"{here.naming.prefix}accounts")
    sender.init_transactions(PATIENCE_S)
    sender.begin_transaction()
    sender.produce(here.naming.name(PREFERENCES), b"v", b"undone", partition=0)
    assert sender.flush(PATIENCE_S) == 0
    sender.abort_transaction(PATIENCE_S)
    assigned(worker)
    worker.begin()
    # The broker ends an aborted transaction in its partitions a moment after it answered.
    deadline = SystemClock().monotonic() + PATIENCE_S
    while (ends := worker.assignment.ends("preferences", [0, 1])) != {0: 3, 1: 0}:
        assert SystemClock().monotonic() < deadline, ends
    found = worker.assignment.poll_preferences(ends).records
    assert {p: [m.key() for m in messages] for p, messages in found.items()} == {0: [b"a"]}
    send(here, PREFERENCES, 0, "later")
    (later,) = worker.assignment.poll_preferences(worker.assignment.ends("preferences", [0])).records[0]
    assert (later.key(), later.offset()) == (b"later", 3)


def test_after_an_abort_everything_since_the_last_commit_comes_again(here: Installation, worker: Worker) -> None:
    for topic in INPUT_TOPICS:
        send(here, topic, 0, "a", "b", "c")
    assigned(worker)
    worker.begin()
    read = worker.assignment
    polls = (
        lambda: read.poll_listens(10), lambda: read.poll_commands(0.1), read.poll_preferences,
        lambda: read.poll_vectors(10), lambda: read.poll_outcomes(10),
    )  # fmt: skip
    for poll in polls:
        assert collect(poll, 3) == {0: [b"a", b"b", b"c"]}
    read.go_back({0: InputOffsets(listens=1, commands=2, preferences=OFFSET_BEGINNING, vectors=2, outcomes=1)})
    assert collect(polls[3], 1) == {0: [b"c"]}
    assert collect(polls[4], 2) == {0: [b"b", b"c"]}
    assert collect(polls[0], 2) == {0: [b"b", b"c"]}
    assert collect(polls[1], 1) == {0: [b"c"]}
    assert [m.key() for m in read.poll_preferences(read.ends("preferences", [0])).records[0]] == [b"a", b"b", b"c"]


def test_committed_offsets_are_those_of_all_inputs(here: Installation, worker: Worker) -> None:
    assigned(worker)
    read = worker.assignment
    assert read.committed([0, 1])[0] == InputOffsets()
    transactions = Transactions(here.kafka, AudienceSettings(), f"{here.naming.prefix}t")
    transactions.begin()
    at = [
        read.topic_partition(name, 0, offset) for name, offset in (("listens", 4), ("preferences", 6), ("outcomes", 9))
    ]
    transactions.commit(at, read.group_metadata)
    assert read.committed([0, 1])[0] == InputOffsets(listens=4, preferences=6, outcomes=9)
    assert read.committed([0, 1])[1] == InputOffsets()


def test_a_partition_that_goes_to_another_worker_is_no_longer_read_in_any_input(
    here: Installation, worker: Worker
) -> None:
    assigned(worker)
    worker.begin()
    with closing(Worker(here, slot=1)) as other:
        until(lambda: _polled(worker, other) and len(worker.held) == len(other.held) == 1)
        (mine,), (theirs,) = worker.held, other.held
        assert {mine, theirs} == {0, 1}
        assert ([], [theirs]) in worker.changes
        other.begin()
        for topic in INPUT_TOPICS:
            for partition in (0, 1):
                send(here, topic, partition, f"k{partition}")
        for each, partition in ((worker, mine), (other, theirs)):
            read = each.assignment
            key = f"k{partition}".encode()
            assert collect(lambda read=read: read.poll_listens(10), 1) == {partition: [key]}  # type: ignore[misc]
            assert collect(lambda read=read: read.poll_commands(0.1), 1) == {partition: [key]}  # type: ignore[misc]
            assert collect(read.poll_preferences, 1) == {partition: [key]}


def _polled(*workers: Worker) -> bool:
    for worker in workers:
        worker.assignment.poll_listens(1)
    return True


def test_a_partition_has_caught_up_when_its_listens_and_the_vectors_that_were_there_are_read(
    here: Installation, worker: Worker
) -> None:
    send(here, AUDIENCE_VECTORS, 0, "a", "b", "c")
    assigned(worker)
    worker.begin()
    read = worker.assignment
    until(lambda: _polled(worker) and read.caught_up(1))
    assert not read.caught_up(0)
    collect(lambda: read.poll_vectors(2), 3)
    until(lambda: _polled(worker) and read.caught_up(0))


class Ticking:
    """A clock on which every look takes a second."""

    def __init__(self) -> None:
        self._clock = ManualClock()

    def now(self) -> float:
        return self._clock.now()

    def monotonic(self) -> float:
        self._clock.advance(1)
        return self._clock.monotonic()


def test_preferences_that_stand_still_before_their_end_end_the_worker(here: Installation) -> None:
    send(here, PREFERENCES, 0, "a")
    with closing(Worker(here, clock=Ticking())) as worker:
        assigned(worker)
        worker.assignment.begin_preferences(0)
        collect(worker.assignment.poll_preferences, 1)
        with pytest.raises(MustRestart, match=r"nothing came for 10 s; read: \[0\] 1 of 7"):
            worker.assignment.poll_preferences({0: 7})


class Waiting:
    """Records that are there already, given out as a consumer does."""

    def __init__(self, sizes: list[int]) -> None:
        self._left = [Message(value=bytes(size)) for size in sizes]

    def consume(self, limit: int, _: float) -> list[Message]:
        given, self._left = self._left[:limit], self._left[limit:]
        return given


@pytest.mark.parametrize(
    ("sizes", "limit", "taken"),
    [
        ([300] * 1000, 10_000, 1000),
        ([300] * 1000, 100, 100),
        ([300] * 128, 10_000, 128),
        ([5_000_000] * 300, 10_000, 14),
        ([2_000_000] * 300, 10_000, 34),
        # Whatever came first, a piece is bounded.
        ([0] * 8 + [2_000_000] * 300, 10_000, 136),
    ],
)
def test_a_batch_is_full_by_bytes_or_by_records(sizes: list[int], limit: int, taken: int) -> None:
    assert len(records_here(Waiting(sizes), limit)) == taken  # type: ignore[arg-type]
