"""The settings that every confluent-kafka client must have, and the failure that each prevents."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from confluent_kafka import Consumer, IsolationLevel, KafkaError, KafkaException, Message, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec, TopicMetadata

from streams.contract.cloudevents import Record
from streams.contract.errors import Unavailable
from streams.contract.record_size import MAX_UNPACKED_BYTES
from streams.contract.topics import MAX_RECORD_BYTES, PARTITIONER, WRITTEN_COMPRESSION
from streams.kafka.access import refusal
from streams.runtime.settings import KafkaSettings

# librdkafka writes to stderr by itself unless it is given a logger.
_log = logging.getLogger("librdkafka")
# A verb that sets up no logging stays quiet: what matters is raised as an error.
_log.addHandler(logging.NullHandler())

T = TypeVar("T")

_ASK_AGAIN = frozenset(
    {
        # A connection that is lost is made again within a tenth of a second, on a busy machine within some; until
        # then the client knows of no leader.
        KafkaError._TRANSPORT,
        # The same, of a connection to an address that settings name.
        KafkaError._DESTROY_BROKER,
        KafkaError._NOENT,
        # A partition is new or changed its leader, or its leader came back, and the client asked by what it knew
        # before.
        KafkaError._UNKNOWN_PARTITION,
        KafkaError.FENCED_LEADER_EPOCH,
        KafkaError.UNKNOWN_LEADER_EPOCH,
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.REPLICA_NOT_AVAILABLE,
        KafkaError.OFFSET_NOT_AVAILABLE,
    }
)
_PAUSE_S = 0.1


Statistics = Callable[[str], None]
"""Takes librdkafka's statistics, JSON."""

# Some 20 kB of JSON each time.
_STATISTICS_MS = 5_000


def _told(statistics: Statistics | None) -> dict[str, Any]:
    return {} if statistics is None else {"statistics.interval.ms": _STATISTICS_MS, "stats_cb": statistics}


def _nothing() -> None:
    """The default for ``while_full``: do nothing."""


def producer(
    kafka: KafkaSettings,
    transactional_id: str | None = None,
    transaction_timeout_s: float = 10.0,
    logger: Any = _log,
    statistics: Statistics | None = None,
) -> Producer:
    """An idempotent producer, transactional if it has an id.

    Args:
        transactional_id: stable for a worker's slot, so that a restarted worker fences its former self.
        logger: has ``log`` as a :class:`logging.Logger` has it.
        statistics: told what the client measures of itself, while it is polled.
    """
    conf = kafka.confluent() | {
        "enable.idempotence": True,
        # The default partitioner agrees with the Java client and Faust on a tenth of the keys only.
        "partitioner": PARTITIONER,
        # What every client reads by itself: kafkajs knows gzip alone, which costs five times the client's time. A topic
        # may be compressed by its broker instead (`compression.type`).
        "compression.type": WRITTEN_COMPRESSION,
        "linger.ms": 5,
        "message.max.bytes": MAX_RECORD_BYTES,
    }
    if transactional_id is not None:
        conf |= {
            "transactional.id": transactional_id,
            "transaction.timeout.ms": int(transaction_timeout_s * 1000),
            # The next transaction often meets the former one still completing; at the default of 100 ms
            # that retry is the whole p99.
            "retry.backoff.ms": 2,
            "retry.backoff.max.ms": 10,
        }
    return Producer(conf | _told(statistics), logger=logger)


def consumer(kafka: KafkaSettings, group: str, statistics: Statistics | None = None, /, **more: Any) -> Consumer:
    """A consumer that commits nothing by itself and sees only committed transactions.

    Args:
        statistics: told what the client measures of itself, while it is polled.
        more: further librdkafka settings, ``_`` for ``.`` (``session_timeout_ms=6000``).
    """
    conf = kafka.confluent() | {
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "isolation.level": "read_committed",
        # The default pauses fetching for a second whenever the local queue is full.
        "fetch.queue.backoff.ms": 10,
        "fetch.wait.max.ms": 50,
        # A connection that is open but silent is dropped after this; the default is a minute.
        "socket.timeout.ms": max(1_000, int(kafka.request_timeout_s * 1000)),
        # Bounds the memory of a consumer that is behind: the default allows 64 MiB and 100,000 records.
        "queued.max.messages.kbytes": 32_768,
    }
    return Consumer(
        conf | _told(statistics) | {name.replace("_", "."): value for name, value in more.items()}, logger=_log
    )


def fetch_bounds(partition_bytes: int, fetch_bytes: int) -> dict[str, int]:
    """Settings of :func:`consumer` that bound what one fetch brings: a client unpacks all of it before it looks at the
    bound of its queue. The broker gives the first batch whole, however small these are.

    Args:
        partition_bytes, fetch_bytes: of one partition and of all together, as they are packed.
    """
    return {
        "max_partition_fetch_bytes": partition_bytes,
        "fetch_max_bytes": fetch_bytes,
        # The client raises the former to this.
        "message_max_bytes": partition_bytes,
        # Of an answer, and of what zstd unpacks; the other codecs make at most a thousand bytes of one.
        "receive_message_max_bytes": MAX_UNPACKED_BYTES,
    }


def enqueue(sender: Producer, topic: str, *, while_full: Callable[[], None] = _nothing, **record: Any) -> None:
    """Add a record to a producer's queue; while that is full, let deliveries drain it.

    Args:
        while_full: called some twenty times a second while there is no room.
        record: ``value``, ``key``, ``partition`` and the rest, as ``Producer.produce`` takes them.
    """
    while True:
        try:
            sender.produce(topic, **record)
        except BufferError:
            sender.poll(0.05)
            while_full()
        else:
            return


def hand_over(
    sender: Producer,
    topic: str,
    record: Record,
    on_delivery: Callable[[KafkaError | None, Message], None] | None = None,
    while_full: Callable[[], None] = _nothing,
) -> None:
    """:func:`enqueue` an event, and hear what became of former ones.

    Args:
        on_delivery: told what became of the record, while some producer of the process is polled or flushed.
    """
    more: dict[str, Any] = {} if on_delivery is None else {"on_delivery": on_delivery}
    headers = list(record.headers)
    enqueue(sender, topic, while_full=while_full, key=record.key, value=record.value, headers=headers, **more)
    sender.poll(0)


def reader_group(topic: str) -> str:
    """The group id of a reader that neither joins a group nor commits.

    librdkafka requires a name and looks up its coordinator, so the reader needs rights to it: it has the
    installation's prefix, like the topic.
    """
    return f"{topic}.reader"


def taken(reader: Consumer, limit: int, wait_s: float) -> list[Message]:
    """The messages available, at most ``limit``; waits only for the first one, whereas ``consume`` waits for all."""
    first = reader.poll(wait_s)
    return [] if first is None else [first, *reader.consume(limit - 1, 0)]


def admin(kafka: KafkaSettings) -> AdminClient:
    """An administrative client, known to reach the cluster.

    Keep it in a variable until its futures are done: a collected client fails them.

    Raises:
        Unavailable: no broker answers.
        Refused: the brokers do not let this client in.
    """
    client = AdminClient(kafka.confluent(), logger=_log)
    topics(client, kafka)
    return client


def list_offsets(
    client: AdminClient,
    places: Iterable[TopicPartition],
    which: OffsetSpec,
    isolation: IsolationLevel,
    timeout_s: float,
) -> dict[tuple[str, int], int]:
    """Offsets by topic and partition, all of them.

    Raises:
        Unavailable: no answer for one of them. The client itself says -1001, and no error, where the connection was
            lost (seen): taken for an offset, it would be an end before everything.
    """
    request = dict.fromkeys(places, which)
    if not request:
        return {}

    def ask(left: float) -> dict[tuple[str, int], int]:
        futures = client.list_offsets(request, isolation_level=isolation, request_timeout=left)
        found = {(at.topic, at.partition): future.result(left).offset for at, future in futures.items()}
        if any(offset < 0 for offset in found.values()):
            raise KafkaException(KafkaError(KafkaError._TRANSPORT, "the connection was lost before the answer"))
        return found

    return _asked_again(client, ask, f"offsets of {_named(request)}", timeout_s)


def watermarks(reader: Consumer, place: TopicPartition, timeout_s: float) -> tuple[int, int]:
    """The first offset that a partition keeps, and its end as this reader may see it.

    Raises:
        Unavailable: the broker does not answer in time, or the partition has no leader.
    """

    def ask(left: float) -> tuple[int, int]:
        found: tuple[int, int] = reader.get_watermark_offsets(place, timeout=left)
        return found

    return _asked_again(reader, ask, f"{place.topic}[{place.partition}]", timeout_s)


def offsets_at(reader: Consumer, places: Sequence[TopicPartition], timeout_s: float) -> list[TopicPartition]:
    """The first offset of each partition from a moment on; ``OFFSET_END`` where nothing is as young.

    Args:
        places: with the moment, in milliseconds since 1970, as their offset.

    Raises:
        Unavailable: no answer for one of them.
    """

    def ask(left: float) -> list[TopicPartition]:
        found = reader.offsets_for_times(list(places), timeout=left)
        for each in found:
            if each.error is not None:
                raise KafkaException(each.error)
        return found

    return _asked_again(reader, ask, f"offsets by time of {_named(places)}", timeout_s)


def reason(error: KafkaException | TimeoutError) -> str:
    """Why there is no answer, for a message: a :class:`TimeoutError` has no words of its own."""
    return str(error.args[0].str()) if isinstance(error, KafkaException) else "no answer in time"


def _named(places: Iterable[TopicPartition]) -> str:
    return ", ".join(f"{place.topic}[{place.partition}]" for place in places)


def _asked_again(client: AdminClient | Consumer, ask: Callable[[float], T], named: str, timeout_s: float) -> T:
    """The answer to a question, asked again while the connection or the leader is lost, all within ``timeout_s``.

    Args:
        ask: given the seconds that are left.

    Raises:
        Unavailable: no answer in that time, or one that asking again does not change.
    """
    until = time.monotonic() + timeout_s

    def left() -> float:
        # Below 0, librdkafka would wait for ever.
        return max(_PAUSE_S, until - time.monotonic())

    while True:
        try:
            return ask(left())
        except (KafkaException, TimeoutError) as error:
            why = error.args[0] if isinstance(error, KafkaException) else None
            if why is None or why.code() not in _ASK_AGAIN or time.monotonic() + _PAUSE_S >= until:
                raise Unavailable(f"{named}: {reason(error)}") from error
        time.sleep(_PAUSE_S)
        # What the client knows of leaders is a minute old at worst; asked for all topics, it learns anew.
        with suppress(KafkaException):
            client.list_topics(timeout=left())


def topics(client: AdminClient | Consumer, kafka: KafkaSettings) -> dict[str, TopicMetadata]:
    """The cluster's topics that this client may see, by name.

    Raises:
        Unavailable: no broker answers.
        Refused: the brokers do not let this client in; the message says what is wrong.
    """
    try:
        found: dict[str, TopicMetadata] = client.list_topics(timeout=kafka.request_timeout_s).topics
    except KafkaException as error:
        raise refusal(kafka) or Unavailable(
            f"kafka.bootstrap_servers = {kafka.bootstrap_servers!r}: no broker answers "
            f"({error.args[0].str()}); start one with `coldstart kafka up`, or name another. "
            f"Is {kafka.security_protocol} the security_protocol of this port?"
        ) from None
    return found
