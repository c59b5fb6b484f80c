"""How much is fetched and taken at once, and which of it are records."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from streams.contract.errors import ColdstartError, MustRestart, Refused
from streams.kafka import clients
from streams.kafka.second_reader import RecoveredBatch

# What a consumer that is behind may hold in its queue: some twenty batches, so that the next one is always there. The
# broker keeps the rest: a full queue stops fetching.
_QUEUE_KB: Final = {"listens": 16_384, "vectors": 16_384}
_SMALL_QUEUE_KB: Final = 4_096

# What one fetch brings, compressed: the client unpacks all of it before it looks at the queue's bound, and zstd makes
# nine thousand bytes of one. At the client's 1 MiB a partition, 400 listens of 5 MB stood in memory at once, at this a
# third of them. A whole batch comes all the same, so that reading is hardly slower (64 KiB against 1 MiB: no difference
# at 600,000 listens a second).
_FETCH_BYTES: Final = 32_768
_VECTORS_FETCH_BYTES: Final = 131_072

# Bytes of values that make a batch full, whatever their number.
BATCH_BYTES: Final = 64 * 1_048_576
# Taken between two looks at the bytes: at first so few that 5 MB of each are no more than a batch, then as many as
# those before say that there is room for, at most so many. 128 of 5 MB at once were 640 MB.
_FIRST_PIECE: Final = 8
_PIECE: Final = 128

# Errors that the client repeats for a batch that it cannot unpack or parse.
_UNREADABLE: Final = {
    KafkaError._BAD_COMPRESSION,
    KafkaError._BAD_MSG,
    KafkaError._UNDERFLOW,
    KafkaError.MSG_SIZE_TOO_LARGE,
}


def fetching(input_name: str) -> dict[str, int]:
    """The client's settings that bound what an input holds of its memory."""
    size = _VECTORS_FETCH_BYTES if input_name == "vectors" else _FETCH_BYTES
    return clients.fetch_bounds(size, size) | {"queued_max_messages_kbytes": _QUEUE_KB.get(input_name, _SMALL_QUEUE_KB)}


def here(reader: Consumer, limit: int, wait_s: float = 0) -> list[Message]:
    """What is here, at most ``limit`` records and about as many bytes as a batch may have; waits for the first ones."""
    found: list[Message] = []
    size, asked = 0, _FIRST_PIECE
    while size < BATCH_BYTES and (left := limit - len(found)) > 0:
        asked = min(left, asked, _PIECE)
        piece = reader.consume(asked, 0 if found else wait_s)
        found += piece
        size += sum(map(len, piece))
        if len(piece) < asked:
            break
        asked = max(1, (BATCH_BYTES - size) * len(found) // max(1, size))
    return found


def readable(
    reader: Consumer,
    messages: list[Message],
    starts: Mapping[tuple[str, int], int],
    read_batch: Callable[[str, int, int], RecoveredBatch],
) -> list[Message]:
    """The messages, with the records of a batch that the client cannot read in place of its saying so.

    The client goes on after the batch.

    Args:
        starts: topic and partition -> where the client began to read; it says where the batch begins, which may be
            before that.
        read_batch: topic, partition, offset -> what is there.
    """
    if not any(map(Message.error, messages)):
        return messages
    out: list[Message] = []
    read_to: dict[tuple[str, int], int] = {}
    for message in messages:
        error, topic, partition = message.error(), message.topic() or "", message.partition()
        if error is None or error.code() not in _UNREADABLE or partition is None or partition < 0:
            out.append(message)
            continue
        at = message.offset() or 0
        if at < read_to.get((topic, partition), 0):
            continue  # said several times
        batch = read_batch(topic, partition, max(at, starts.get((topic, partition), 0)))
        out += batch.records
        read_to[topic, partition] = batch.next_offset
    for (topic, partition), offset in read_to.items():
        reader.seek(TopicPartition(topic, partition, offset))
    return out


def explained(error: KafkaException) -> ColdstartError:
    """The exception that an error of a consumer leads to."""
    cause = error.args[0]
    # Fatal errors share one code; only the text tells the cause.
    if cause.fatal() and "group.instance.id" in cause.str():
        return Refused("another process has taken this slot: give every audience worker a --slot of its own")
    return MustRestart(f"Kafka: {cause.str()}")


def told_apart(messages: list[Message]) -> tuple[list[Message], list[Message]]:
    """Records, and ends of partitions. Raises the client's own errors."""
    if not any(map(Message.error, messages)):
        return messages, []
    records, ends = [], []
    for message in messages:
        error = message.error()
        if error is None:
            records.append(message)
        elif error.code() == KafkaError._PARTITION_EOF:
            ends.append(message)
        elif error.fatal():
            raise MustRestart(f"consumer: {error.str()}")
        elif not error.retriable() and error.code() != KafkaError._ALL_BROKERS_DOWN:
            raise KafkaException(error)
    return records, ends
