"""Loads aggregated history: every user's plays of a song as one listen, resumable and each once.

Users come one after the other, so that a partition's changelog gets each history about once. Listens and a note of how
far it has come are one transaction, so a load that is killed goes on at the first listen that is not there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any, Final

import msgspec
import numpy as np
from confluent_kafka import KafkaException, Producer
from numpy.typing import NDArray

from encoder.data.dataset import Dataset
from streams.contract.errors import Refused, Unavailable
from streams.contract.event_base import MAX_ID_LENGTH
from streams.contract.events import Listen
from streams.contract.topics import LISTENS, Naming
from streams.kafka.access import check_topics
from streams.kafka.clients import admin, enqueue, producer
from streams.kafka.consumer_lag import measure
from streams.operations.operator_notes import read_notes, write_note
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

SOURCE: Final = "coldstart/backfill"

_NOTE: Final = "backfill"
# A transaction of these takes a second or so.
_AT_ONCE: Final = 100_000
_MOST_PLAYS: Final = 2**31 - 1
_PATIENCE_S: Final = 90.0

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class AggregatedHistory:
    """Who heard what how often, user by user.

    Attributes:
        user_ids, song_ids: by number.
        starts: int64 (users + 1,), where each user's listens begin.
        songs: int (n,), the song of each; ``plays``: float (n,), how often; ``times``: int64 (n,), Unix seconds of the
            last play, or None where nothing is dated.
    """

    user_ids: tuple[str, ...]
    song_ids: tuple[str, ...]
    starts: NDArray[np.int64]
    songs: NDArray[Any]
    plays: NDArray[Any]
    times: NDArray[np.int64] | None

    def __len__(self) -> int:
        return len(self.songs)

    def fingerprint(self) -> str:
        """12 hex digits that tell histories apart."""
        told = blake2b(digest_size=6)
        for ids in (self.user_ids, self.song_ids):
            told.update("\0".join(ids).encode())
        for column in (self.starts, self.songs, self.plays, self.times):
            if column is not None:
                told.update(np.ascontiguousarray(column).data)
        return told.hexdigest()


def history_of(dataset: Dataset) -> AggregatedHistory:
    """The history in a data set. Listens without a date count as of the earliest one.

    Raises:
        Refused: an id is longer than an event takes.
    """
    for what, ids in (("user", dataset.user_ids), ("song", dataset.song_ids)):
        if long := next((id for id in ids if not 1 <= len(id) <= MAX_ID_LENGTH), None):
            raise Refused(f"{what} {long[:60]!r}: {len(long)} characters, 1 to {MAX_ID_LENGTH} allowed")
    by_user, dates = dataset.plays.T.tocsr(), dataset.last_played()
    times = None
    if dates is not None:
        # Positions, not times, are transposed: a time may be zero, which a sparse matrix would drop.
        places = dataset.plays.copy()
        places.data = np.arange(1, len(places.data) + 1, dtype=np.float64)
        times = dates[places.T.tocsr().data.astype(np.int64) - 1].astype(np.int64)
    starts = by_user.indptr.astype(np.int64)
    return AggregatedHistory(dataset.user_ids, dataset.song_ids, starts, by_user.indices, by_user.data, times)


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What a load did.

    Attributes:
        before: listens that an earlier run had sent; ``sent``: by this one; ``seconds``: how long that took.
    """

    before: int
    sent: int
    seconds: float


def load(
    kafka: KafkaSettings, naming: Naming, clock: Clock, history: AggregatedHistory, progress: Progress = lambda *_: None
) -> BackfillResult:
    """Send what is not sent yet of a history.

    Args:
        progress: called with (listens that are there for good, in all).

    Raises:
        Unavailable: the broker does not answer; run again, it goes on.
        PartitionMismatch: the topic has another number of partitions than the settings say.
    """
    name, total = history.fingerprint(), len(history)
    check_topics(admin(kafka), kafka, naming, (LISTENS,))
    note = read_notes(kafka, naming, clock, _NOTE).get(name, {"done": 0, "begun": int(clock.now())})
    before = done = int(note["done"])
    started, timeout = clock.monotonic(), kafka.request_timeout_s
    sender = producer(kafka, f"{naming.prefix}backfill", 6 * timeout)
    try:
        # From here on no former run can add anything.
        sender.init_transactions(6 * timeout)
        note = read_notes(kafka, naming, clock, _NOTE).get(name, note)
        before = done = int(note["done"])
        progress(done, total)
        while done < total:
            sender.begin_transaction()
            end = min(done + _AT_ONCE, total)
            _send(sender, naming.name(LISTENS), history, name, int(note["begun"]), done, end)
            write_note(sender, naming, _NOTE, name, {"done": end, "of": total, "begun": note["begun"]})
            sender.commit_transaction(6 * timeout)
            done = end
            progress(done, total)
    except KafkaException as error:
        raise Unavailable(
            f"{naming.name(LISTENS)}: {error.args[0].str()}; run again, it goes on at {done:,}"
        ) from error
    return BackfillResult(before, done - before, clock.monotonic() - started)


def wait_until_consumed(kafka: KafkaSettings, naming: Naming, clock: Clock, progress: Progress) -> float:
    """Wait until the audience has committed all listens; returns the seconds that took.

    Args:
        progress: called with (offsets read since this began, offsets that waited then).

    Raises:
        Unavailable: nothing moved for a while; the audience's workers are down.
    """
    group, topic, started = f"{naming.prefix}audience", naming.name(LISTENS), clock.monotonic()
    first = last = -1
    patience = started + _PATIENCE_S
    while True:
        lags = [lag for lag in measure(kafka, naming, clock) if (lag.group, lag.topic) == (group, topic)]
        waiting = sum(lag.records for lag in lags) if lags else -1
        if waiting != last:
            last, patience = waiting, clock.monotonic() + _PATIENCE_S
        first = max(first, waiting)
        if waiting == 0:
            return clock.monotonic() - started
        progress(first - waiting, first)
        if clock.monotonic() > patience:
            raise Unavailable(f"{topic}: {waiting:,} offsets wait, and nothing was read for {_PATIENCE_S:g} s")
        time.sleep(0.5)


def _send(
    sender: Producer, topic: str, history: AggregatedHistory, name: str, begun: int, start: int, end: int
) -> None:
    """Hand over some listens, in order."""
    fixed = [("ce_source", SOURCE), ("ce_type", Listen.TYPES[0]), ("ce_specversion", "1.0")]
    fixed.append(("content-type", Listen.MEDIA))
    for number, (key, id, at, value) in enumerate(_records(history, name, begun, start, end)):
        headers: list[tuple[str, str | bytes | None]] = [("ce_id", id), ("ce_time", at), *fixed]
        enqueue(sender, topic, value=value, key=key, headers=headers)
        if number % 1000 == 0:
            sender.poll(0)


def _records(
    history: AggregatedHistory, name: str, begun: int, start: int, end: int
) -> Iterator[tuple[bytes, bytes, bytes, bytes]]:
    """Key, id, time and value of each listen: JSON put together from parts that are encoded once."""
    quoted = msgspec.json.Encoder().encode
    songs = history.songs[start:end]
    distinct, which = np.unique(songs, return_inverse=True)
    parts = [b',"song_id":' + quoted(history.song_ids[song]) for song in distinct.tolist()]
    seconds = np.full(end - start, begun) if history.times is None else history.times[start:end]
    stamps = np.char.add(np.datetime_as_string(seconds.astype("datetime64[s]")), "Z").astype(bytes)
    plays = np.clip(history.plays[start:end].astype(np.int64), 1, _MOST_PLAYS)
    user = int(np.searchsorted(history.starts, start, side="right")) - 1
    user_ends = int(history.starts[user + 1])
    key, said = history.user_ids[user].encode(), quoted(history.user_ids[user])
    columns = zip(which.tolist(), stamps.tolist(), plays.tolist(), strict=True)
    for at, (song, stamp, count) in enumerate(columns, start):
        while at >= user_ends:
            user += 1
            user_ends = int(history.starts[user + 1])
            key, said = history.user_ids[user].encode(), quoted(history.user_ids[user])
        id = b"%b/%d" % (name.encode(), at)
        value = b'{"listen_id":"%b","user_id":%b%b,"played_at":"%b","source":"other","plays":%d}'
        yield key, id, stamp, value % (id, said, parts[song], stamp, count)
