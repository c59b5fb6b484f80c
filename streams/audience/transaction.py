"""How is a batch committed as one, and when must the process end instead?"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.clients import producer
from streams.errors import MustRestart
from streams.settings import Audience, Kafka

Headers = Sequence[tuple[str, bytes | None]]


class Aborted(Exception):
    """The transaction was aborted because the group moved on: nothing happened, read again."""


class Transactions:
    """One transaction at a time over outputs and input offsets.

    Creating it ends what a former process with this id left open.

    Args:
        transactional_id: stable for a worker's slot.

    Raises:
        MustRestart: the broker does not let the producer begin.
    """

    def __init__(self, kafka: Kafka, settings: Audience, transactional_id: str) -> None:
        # A commit that takes longer than the transaction lives cannot succeed any more.
        self._timeout = settings.transaction_timeout_s
        self._producer: Producer = producer(kafka, transactional_id, settings.transaction_timeout_s)
        try:
            # Connected first: a coordinator that cannot be asked yet is asked again half a second later.
            self._producer.list_topics(timeout=kafka.request_timeout_s)
            # A fresh broker loads its transaction log first.
            self._producer.init_transactions(6 * kafka.request_timeout_s)
        except KafkaException as error:
            raise MustRestart(f"transactional id {transactional_id}: {error.args[0].str()}") from error

    def begin(self) -> None:
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise MustRestart(f"begin: {error.args[0].str()}") from error

    def produce(
        self,
        topic: str,
        partition: int,
        key: bytes | None,
        value: bytes | None,
        headers: Headers = (),
        on_offset: Callable[[int], None] | None = None,
    ) -> None:
        """Add a record to the transaction.

        Args:
            partition: explicit, or -1 to go by the key.
            on_offset: told the record's offset, at the latest when :meth:`commit` returns.
        """
        more: dict[str, Any] = {"headers": list(headers)} if headers else {}
        if on_offset is not None:
            more["on_delivery"] = _telling(on_offset)
        while True:
            try:
                self._producer.produce(topic, value=value, key=key, partition=partition, **more)
            except BufferError:
                # The local queue is full: let deliveries drain it.
                self._producer.poll(0.01)
            else:
                return

    def produce_all(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add many records of (key, value) to the transaction, a fifth cheaper than one by one.

        Raises:
            MustRestart: the client refuses one.
        """
        waiting: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in records]
        while waiting:
            if self._producer.produce_batch(topic, waiting, partition) == len(waiting):
                return
            waiting = [message for message in waiting if "_error" in message]
            for message in waiting:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise MustRestart(f"{topic}[{partition}]: {error.str()}")
            # The local queue is full: let deliveries drain it.
            self._producer.poll(0.01)

    def commit(self, offsets: Sequence[TopicPartition], group_metadata: Any) -> None:
        """Commit outputs and offsets together.

        Raises:
            Aborted: the group has a new generation; the transaction is undone and the next one may begin.
            MustRestart: anything else. The producer's state is unknown, and after a broker restart the next call
                may hang or lose its fencing (measured); a new process is safe.
        """
        try:
            self._producer.send_offsets_to_transaction(list(offsets), group_metadata, self._timeout)
            self._producer.commit_transaction(self._timeout)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() != KafkaError.ILLEGAL_GENERATION or not cause.txn_requires_abort():
                raise MustRestart(f"commit: {cause.str()} ({cause.name()})") from error
            self.abort()
            raise Aborted from error
        # Deliveries of the last records may still wait to be told.
        self._producer.poll(0)

    def abort(self) -> None:
        try:
            self._producer.abort_transaction(self._timeout)
        except KafkaException as error:
            raise MustRestart(f"abort: {error.args[0].str()}") from error


def _telling(on_offset: Callable[[int], None]) -> Callable[[KafkaError | None, Message], None]:
    def told(error: KafkaError | None, message: Message) -> None:
        if error is None:
            on_offset(message.offset() or 0)

    return told
