"""What each answer of Kafka's client to a step of a transaction means: go on, read again, ask the broker, or end."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from streams.contract.errors import MustRestart
from streams.kafka.transaction import Aborted, Transactions, Uncertain
from streams.runtime.settings import AudienceSettings, KafkaSettings

KAFKA, AUDIENCE = KafkaSettings(request_timeout_s=7), AudienceSettings(transaction_timeout_s=5)
FENCED = [KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH]
UNKNOWN = [KafkaError._TIMED_OUT, KafkaError.COORDINATOR_NOT_AVAILABLE, KafkaError._STATE, KafkaError.UNKNOWN_MEMBER_ID]
STEPS = ["send_offsets_to_transaction", "commit_transaction"]
AT = [TopicPartition("listens", 0, 7)]


class Client:
    """A producer that answers as the test says, and notes what it is asked."""

    def __init__(self, *made_with: Any) -> None:
        self.made_with = made_with
        self.asked: list[tuple[Any, ...]] = []
        self.answers: dict[str, list[Exception]] = {}
        self.room = 1000
        self.refuses: dict[bytes, KafkaError] = {}

    def __getattr__(self, step: str) -> Callable[..., Any]:
        def answer(*given: Any, **named: Any) -> None:
            self.asked.append((step, *given, *named.items()))
            if waiting := self.answers.get(step):
                raise waiting.pop(0)

        return answer

    def produce_batch(self, topic: str, messages: list[dict[str, Any]], partition: int) -> int:
        """Takes as many as there is room for; polling makes room."""
        taken = 0
        for message in messages:
            error = self.refuses.get(message["key"])
            if error is None and self.room == 0:
                error = KafkaError(KafkaError._QUEUE_FULL)
            if error is None:
                self.room, taken = self.room - 1, taken + 1
                self.asked.append(("took", topic, partition, message["key"], message["value"]))
            else:
                message["_error"] = error
        return taken

    def poll(self, seconds: float) -> None:
        self.asked.append(("poll", seconds))
        self.room = max(self.room, 2)


@pytest.fixture
def clients(monkeypatch: pytest.MonkeyPatch) -> list[Client]:
    """Those that were made, in order."""
    made: list[Client] = []

    def make(*given: Any) -> Client:
        made.append(Client(*given))
        return made[-1]

    monkeypatch.setattr("streams.kafka.transaction.producer", make)
    return made


@pytest.fixture
def transactions(clients: list[Client]) -> Transactions:
    transactions = Transactions(KAFKA, AUDIENCE, "audience-0")
    clients[0].asked.clear()
    return transactions


def fault(code: int, requires_abort: bool = False) -> KafkaException:
    return KafkaException(KafkaError(code, "so it is", False, False, requires_abort))


def test_a_producer_is_connected_before_it_ends_what_a_former_one_left_open(clients: list[Client]) -> None:
    Transactions(KAFKA, AUDIENCE, "audience-0")
    (client,) = clients
    assert client.made_with[:3] == (KAFKA, "audience-0", 5)
    assert client.asked == [("list_topics", ("timeout", 7)), ("init_transactions", 42)]


@pytest.mark.parametrize("step", ["list_topics", "init_transactions"])
def test_a_producer_that_cannot_begin_asks_for_another_process(monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    client = Client()
    client.answers[step] = [fault(KafkaError._TRANSPORT)]
    monkeypatch.setattr("streams.kafka.transaction.producer", lambda *_: client)
    with pytest.raises(MustRestart, match=r"^transactional id audience-0: so it is$"):
        Transactions(KAFKA, AUDIENCE, "audience-0")


def test_offsets_and_outputs_are_committed_together_and_then_deliveries_are_told(
    transactions: Transactions, clients: list[Client]
) -> None:
    transactions.begin()
    transactions.commit(AT, "generation 3")
    assert clients[0].asked == [
        ("poll", 0), ("begin_transaction",), ("send_offsets_to_transaction", AT, "generation 3", 5),
        ("commit_transaction", 5), ("poll", 0),
    ]  # fmt: skip


@pytest.mark.parametrize("step", STEPS)
def test_a_generation_that_is_over_undoes_the_batch(
    transactions: Transactions, clients: list[Client], step: str
) -> None:
    transactions.begin()
    clients[0].answers[step] = [fault(KafkaError.ILLEGAL_GENERATION, requires_abort=True)]
    with pytest.raises(Aborted):
        transactions.commit(AT, "generation 3")
    assert clients[0].asked[-1] == ("abort_transaction", 5)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("code", [*UNKNOWN, KafkaError.ILLEGAL_GENERATION])
@pytest.mark.parametrize("requires_abort", [False, True])
def test_of_any_other_failure_of_a_commit_the_broker_alone_knows_the_outcome(
    transactions: Transactions, clients: list[Client], step: str, code: int, requires_abort: bool
) -> None:
    if code == KafkaError.ILLEGAL_GENERATION and requires_abort:
        return
    transactions.begin()
    clients[0].answers[step] = [fault(code, requires_abort)]
    with pytest.raises(Uncertain, match=r"^commit: so it is \(.+\)$"):
        transactions.commit(AT, "generation 3")
    # Undoing it here could undo what is committed, or the next one.
    assert "abort_transaction" not in {asked[0] for asked in clients[0].asked}


@pytest.mark.parametrize("code", FENCED)
@pytest.mark.parametrize("requires_abort", [False, True])
def test_whoever_was_replaced_ends_whatever_it_was_doing(
    transactions: Transactions, clients: list[Client], code: int, requires_abort: bool
) -> None:
    steps: dict[str, Callable[[], None]] = {
        "begin_transaction": transactions.begin,
        "produce": lambda: transactions.produce("topic", 0, b"k", b"v"),
        "send_offsets_to_transaction": lambda: transactions.commit(AT, None),
        "commit_transaction": lambda: transactions.commit(AT, None),
        "abort_transaction": transactions.abort,
    }
    for step, act in steps.items():
        clients[0].answers[step] = [fault(code, requires_abort)]
        with pytest.raises(MustRestart, match="so it is"):
            act()


def test_a_failure_before_the_commit_names_the_step(transactions: Transactions, clients: list[Client]) -> None:
    steps: dict[str, Callable[[], None]] = {
        "begin_transaction": transactions.begin,
        "abort_transaction": transactions.abort,
    }
    for step, act in steps.items():
        clients[0].answers[step] = [fault(KafkaError._TIMED_OUT)]
        with pytest.raises(Uncertain, match=f"^{step.split('_')[0]}: so it is .*TIMED_OUT"):
            act()
    clients[0].answers["produce"] = [fault(KafkaError.MSG_SIZE_TOO_LARGE)]
    with pytest.raises(Uncertain, match=r"^push-targets: so it is .*MSG_SIZE_TOO_LARGE"):
        transactions.produce("push-targets", 0, b"k", b"v")


def test_after_an_uncertain_commit_another_producer_goes_on(transactions: Transactions, clients: list[Client]) -> None:
    transactions.recreate()
    transactions.begin()
    assert [client.made_with[:3] for client in clients] == [(KAFKA, "audience-0", 5)] * 2
    assert [asked[0] for asked in clients[1].asked] == ["list_topics", "init_transactions", "poll", "begin_transaction"]
    assert clients[0].asked == []


def test_a_fourth_commit_in_a_row_that_comes_to_nothing_asks_for_another_process(transactions: Transactions) -> None:
    for _ in range(2):
        for _ in range(3):
            transactions.recreate()
        # One that succeeds in between begins the count anew.
        transactions.commit(AT, None)
    for _ in range(3):
        transactions.recreate()
    with pytest.raises(MustRestart, match=r"^transactional id audience-0: 4 commits in a row"):
        transactions.recreate()


def test_a_producer_that_lost_a_connection_is_replaced_before_the_next_transaction(
    transactions: Transactions, clients: list[Client], caplog: pytest.LogCaptureFixture
) -> None:
    connections = clients[0].made_with[3]
    with caplog.at_level(logging.DEBUG, "librdkafka"):
        connections.log(logging.INFO, "%s [%s] %s", "CONNECTED", "rdkafka#producer-1", "so it goes")
    assert connections.lost == ""
    transactions.begin()
    assert len(clients) == 1
    for text in ("the first", "the second"):
        with caplog.at_level(logging.DEBUG, "librdkafka"):
            connections.log(logging.ERROR, "%s [%s] %s", "FAIL", "rdkafka#producer-1", text)
    assert connections.lost == "the first"
    assert [record.getMessage() for record in caplog.records if record.name == "librdkafka"] == [
        f"{facility} [rdkafka#producer-1] {text}"
        for facility, text in (("CONNECTED", "so it goes"), ("FAIL", "the first"), ("FAIL", "the second"))
    ]
    transactions.begin()
    assert len(clients) == 2
    assert clients[1].asked[-1] == ("begin_transaction",)
    # The new one has connections of its own.
    transactions.begin()
    assert len(clients) == 2


class Told:
    """A delivered record."""

    def __init__(self, offset: int | None) -> None:
        self._offset = offset

    def offset(self) -> int | None:
        return self._offset


def test_a_record_is_sent_as_it_is_and_its_offset_told_once_it_is_there(
    transactions: Transactions, clients: list[Client]
) -> None:
    transactions.produce("topic", 3, b"k", b"v")
    transactions.produce("topic", -1, None, None, [("h", b"1")])
    offsets: list[int] = []
    transactions.produce("topic", 0, b"k", b"v", on_offset=offsets.append)
    plain, headed, told = (dict(each for each in asked if isinstance(each, tuple)) for asked in clients[0].asked)
    assert plain == {"value": b"v", "key": b"k", "partition": 3}
    assert headed == {"value": None, "key": None, "partition": -1, "headers": [("h", b"1")]}
    told["on_delivery"](None, Told(0))
    told["on_delivery"](None, Told(8))
    told["on_delivery"](KafkaError(KafkaError._MSG_TIMED_OUT), Told(9))
    assert offsets == [0, 8]


def test_a_full_queue_is_drained_and_the_record_sent_again(transactions: Transactions, clients: list[Client]) -> None:
    clients[0].answers["produce"] = [BufferError(), BufferError()]
    transactions.produce("topic", 0, b"k", b"v")
    assert [asked[:2] for asked in clients[0].asked] == [("produce", "topic"), ("poll", 0.05)] * 2 + [
        ("produce", "topic")
    ]


def test_of_many_records_those_that_found_no_room_are_sent_again_in_order_and_no_other(
    transactions: Transactions, clients: list[Client]
) -> None:
    client = clients[0]
    client.room = 3
    records = [(b"%d" % n, None if n == 4 else b"v") for n in range(8)]
    transactions.produce_all("topic", 5, iter(records))
    assert [asked[1:] for asked in client.asked if asked[0] == "took"] == [("topic", 5, *each) for each in records]
    assert [asked for asked in client.asked if asked[0] == "poll"] == [("poll", 0.01)] * 3
    transactions.produce_all("topic", 5, [])
    client.refuses = {b"2": KafkaError(KafkaError.MSG_SIZE_TOO_LARGE, "so it is")}
    with pytest.raises(Uncertain, match=r"^topic\[5\]: so it is$"):
        transactions.produce_all("topic", 5, records)
