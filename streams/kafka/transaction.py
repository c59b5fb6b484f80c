"""Commits a batch as one transaction, and says when the outcome is unknown.

librdkafka uses the transaction protocol in which an epoch lasts as long as its producer (no KIP-890). A request that
timed out or whose connection was cut may therefore still reach the broker later, and would be taken for one of the
transaction that is open then: a late EndTxn would commit half of it. A producer that lost sight of a request is
replaced before the next transaction begins; the new one has a higher epoch, and the broker refuses the former.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

import structlog
from confluent_kafka import KafkaError, KafkaException, Message, Producer, TopicPartition

from streams.contract.errors import MustRestart
from streams.kafka.clients import Statistics, enqueue, producer
from streams.runtime.settings import AudienceSettings, KafkaSettings

Headers = Sequence[tuple[str, bytes | None]]

# Errors that mean a producer with the same id, here or in another process, has replaced this one.
_FENCED: Final = (KafkaError._FENCED, KafkaError.PRODUCER_FENCED, KafkaError.INVALID_PRODUCER_EPOCH)

# A network fault is over after so many; anything else needs a new process, which the supervisor counts.
_IN_A_ROW: Final = 3

_log = structlog.get_logger(__name__)


class Aborted(Exception):
    """The transaction was aborted because the group moved on: nothing happened, read again."""


class Uncertain(Exception):
    """Only the broker knows whether the transaction is committed: :meth:`Transactions.recreate`, then go on."""


class Transactions:
    """One transaction at a time over outputs and input offsets.

    Creating it ends what a former process with this id left open.

    Args:
        transactional_id: stable for a worker's slot.
        statistics: told what the producer measures of itself.

    Raises:
        MustRestart: the broker does not let the producer begin.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        settings: AudienceSettings,
        transactional_id: str,
        statistics: Statistics | None = None,
    ) -> None:
        self._kafka = kafka
        self._id = transactional_id
        # A commit that takes longer than the transaction lives cannot succeed any more.
        self._timeout = settings.transaction_timeout_s
        self._statistics = statistics
        self._failed = 0
        self._connect()

    def _connect(self) -> None:
        self._connections = _Connections()
        self._producer: Producer = producer(self._kafka, self._id, self._timeout, self._connections, self._statistics)
        try:
            # Connect first: a coordinator that is not reachable yet is retried only half a second later.
            self._producer.list_topics(timeout=self._kafka.request_timeout_s)
            # A fresh broker loads its transaction log first.
            self._producer.init_transactions(6 * self._kafka.request_timeout_s)
        except KafkaException as error:
            raise MustRestart(f"transactional id {self._id}: {error.args[0].str()}") from error

    def recreate(self) -> None:
        """Replace the producer. What the former one left open is committed or aborted when this returns, for good:
        whatever of its requests is still on its way comes to nothing.

        Raises:
            MustRestart: the broker does not let the new one begin, or one commit after the other fails.
        """
        self._failed += 1
        if self._failed > _IN_A_ROW:
            raise MustRestart(f"transactional id {self._id}: {self._failed} commits in a row came to nothing")
        self._replace()

    def _replace(self) -> None:
        # Drop the former producer first: it would keep retrying in the background.
        del self._producer
        self._connect()

    def begin(self) -> None:
        """Begin, by another producer if the former one lost a connection: see above.

        Raises:
            MustRestart, Uncertain: see :meth:`commit`.
        """
        # Connection events arrive by polling; a request that the client resent by itself is no error to it.
        self._producer.poll(0)
        if self._connections.lost:
            _log.warning("producer replaced", why=self._connections.lost)
            self._replace()
        try:
            self._producer.begin_transaction()
        except KafkaException as error:
            raise _outcome("begin", error) from error

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

        Raises:
            MustRestart, Uncertain: see :meth:`commit`.
        """
        more: dict[str, Any] = {"headers": list(headers)} if headers else {}
        if on_offset is not None:
            more["on_delivery"] = _telling(on_offset)
        try:
            enqueue(self._producer, topic, value=value, key=key, partition=partition, **more)
        except KafkaException as error:
            raise _outcome(topic, error) from error

    def produce_all(self, topic: str, partition: int, records: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Add many records of (key, value) to the transaction, a fifth cheaper than one by one.

        Raises:
            Uncertain: the client refuses one.
        """
        waiting: list[dict[str, Any]] = [{"key": key, "value": value} for key, value in records]
        while waiting:
            if self._producer.produce_batch(topic, waiting, partition) == len(waiting):
                return
            waiting = [message for message in waiting if "_error" in message]
            for message in waiting:
                error = message.pop("_error")
                if error.code() != KafkaError._QUEUE_FULL:
                    raise Uncertain(f"{topic}[{partition}]: {error.str()}")
            # The local queue is full: let deliveries drain it.
            self._producer.poll(0.01)

    def commit(self, offsets: Sequence[TopicPartition], group_metadata: Any) -> None:
        """Commit outputs and offsets together.

        Raises:
            Aborted: the group has a new generation; the transaction is undone and the next one may begin.
            MustRestart: another process has this id, or the transaction lived longer than it may.
            Uncertain: anything else. This producer must not be used again: after a broker restart its next call may
                hang or lose its fencing (measured).
        """
        try:
            self._producer.send_offsets_to_transaction(list(offsets), group_metadata, self._timeout)
            self._producer.commit_transaction(self._timeout)
        except KafkaException as error:
            cause = error.args[0]
            if cause.code() != KafkaError.ILLEGAL_GENERATION or not cause.txn_requires_abort():
                raise _outcome("commit", error) from error
            self.abort()
            raise Aborted from error
        self._failed = 0
        # Delivery reports of the last records may still be queued.
        self._producer.poll(0)

    def abort(self) -> None:
        try:
            self._producer.abort_transaction(self._timeout)
        except KafkaException as error:
            raise _outcome("abort", error) from error


class _Connections:
    """Watches a producer's connections in place of its logger: lost ones are reported nowhere else.

    Attributes:
        lost: what the client said of the first one; empty while there is none. A connection that was idle for long
            and is closed by the broker does not count: nothing was on its way.
    """

    def __init__(self) -> None:
        self.lost = ""

    def log(self, level: int, message: str, facility: str, *rest: object) -> None:
        """What the client calls: ``message`` is a format of the facility, the client's name and the text."""
        if facility == "FAIL":
            self.lost = self.lost or str(rest[-1])
        _librdkafka.log(level, message, facility, *rest)


_librdkafka = logging.getLogger("librdkafka")


def _outcome(what: str, error: KafkaException) -> MustRestart | Uncertain:
    cause = error.args[0]
    kind = MustRestart if cause.code() in _FENCED else Uncertain
    return kind(f"{what}: {cause.str()} ({cause.name()})")


def _telling(on_offset: Callable[[int], None]) -> Callable[[KafkaError | None, Message], None]:
    def told(error: KafkaError | None, message: Message) -> None:
        if error is None:
            on_offset(message.offset() or 0)

    return told
