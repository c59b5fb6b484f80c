"""Sends the pushes of coldstart, each ``push_id`` at most once, whatever crashes. One file: copy it.

Needs Python 3.11 and confluent-kafka; keeps what it knows in a SQLite file. ``send_pushes.py`` shows how it is used.

How a push is sent once:

- It is stored in one SQLite transaction with the offset behind it, and read from there on after a crash: no consumer
  group decides where to go on. A push that comes again is known by its id.
- It is marked as claimed, durably, before the provider hears of it, and as sent afterwards. What a crash leaves claimed
  may have been sent. A provider that takes an idempotency key gets it again under the same key, the ``push_id``: sent
  once, and none lost. Of any other provider it is not sent again, but shown by :meth:`PushSystem.doubtful`.
- Ids are kept until a day after ``expires_at``. What is read again later has expired, and is not sent for that reason.

What is asked right before sending, from all that ``preferences`` and ``campaigns`` hold at that moment: ``not_before``,
``expires_at``, opt-out, erasure, profiling, muted artists, explicit songs, quiet hours that the user has set since, and
whether the song was taken down. A campaign that ended for another reason (``budget``, ``promoted``, ``expired``,
``superseded``) says that nobody new is chosen: what was chosen before is wanted, and sent.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import time
from base64 import b64decode
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

from confluent_kafka import (
    OFFSET_BEGINNING,
    Consumer,
    IsolationLevel,
    KafkaError,
    KafkaException,
    Message,
    Producer,
    TopicPartition,
)
from confluent_kafka.admin import AdminClient, OffsetSpec

KEPT_S = 86_400.0
"""How long an id is kept beyond its push's ``expires_at``: more than clocks differ."""

RETRY_S = 30.0
"""After which a push is tried again that could not be sent, or about whose user nothing readable is known."""

PATIENCE_S = 30.0
"""How long Kafka may take for an answer. Without one nothing is sent."""

Body = dict[str, Any]
"""A push as ``push-targets`` has it."""

_log = logging.getLogger("push_system")

_TABLES = """
CREATE TABLE IF NOT EXISTS pushes (
    push_id TEXT PRIMARY KEY, state TEXT NOT NULL, tries INTEGER NOT NULL DEFAULT 0,
    due REAL NOT NULL, expires REAL NOT NULL, decided REAL NOT NULL,
    partition INTEGER NOT NULL, user_id TEXT, song_id TEXT, revision INTEGER, body TEXT
);
CREATE INDEX IF NOT EXISTS pushes_due ON pushes (state, due);
CREATE INDEX IF NOT EXISTS pushes_user ON pushes (user_id);
CREATE INDEX IF NOT EXISTS pushes_song ON pushes (song_id);
CREATE TABLE IF NOT EXISTS outcomes (
    push_id TEXT, outcome TEXT, user_id TEXT, song_id TEXT, at REAL, PRIMARY KEY (push_id, outcome)
);
CREATE TABLE IF NOT EXISTS users (
    user_id TEXT, partition INTEGER, wishes TEXT, erased REAL, PRIMARY KEY (user_id, partition)
);
CREATE TABLE IF NOT EXISTS taken_down (song_id TEXT PRIMARY KEY, revision INTEGER);
CREATE TABLE IF NOT EXISTS positions (topic TEXT, partition INTEGER, next INTEGER, PRIMARY KEY (topic, partition));
"""


class Rejected(Exception):
    """Raised by ``send``: the provider will never take this push. It is reported as failed."""


class NotSent(Exception):
    """Raised by ``send``: the provider surely did not get this push. It is tried again, until it expires."""


class PushSystem:
    """Reads pushes, waits until each is due, asks whether it is still wanted, has it sent, reports what became of it.

    Args:
        servers: host:port[,host:port].
        store: path of the SQLite file; one process at a time uses it.
        send: called with a push as ``push-targets`` has it. Give its ``push_id`` to the provider as idempotency key.
            Any exception but :class:`Rejected` and :class:`NotSent` leaves open whether it was sent.
        idempotent: whether the provider sends once whatever comes again under one key.
        prefix: of the installation's topics.
        partitions: of ``push-targets`` that this process serves, where several share the work; None: all of them.
            Each process has a store of its own, and keeps its partitions.
        threads: pushes that are sent at the same time. A crash leaves at most so many in doubt.
        kafka: further settings of every client, such as ``security.protocol``.
        clock: gives Unix seconds.

    Raises:
        KafkaException: no broker answers, or a topic is missing.
        sqlite3.OperationalError: another process uses the store.
    """

    def __init__(
        self,
        servers: str,
        store: str,
        send: Callable[[Body], None],
        *,
        idempotent: bool,
        prefix: str = "coldstart.",
        partitions: Sequence[int] | None = None,
        threads: int = 1,
        kafka: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._send, self._idempotent, self._prefix, self._clock = send, idempotent, prefix, clock
        self._threads, self._pool = threads, ThreadPoolExecutor(threads)
        self._store = _opened(store)
        with self._store:  # What a crash left claimed.
            state = "waiting" if idempotent else "doubtful"
            self._store.execute("UPDATE pushes SET state = ?, due = 0 WHERE state = 'claimed'", (state,))
        common = {"bootstrap.servers": servers, **(kafka or {})}
        self._admin = AdminClient(common, logger=_log)
        # The service writes with this partitioner, as the Java client does; librdkafka's own default is another.
        self._producer = Producer({**common, "partitioner": "murmur2_random", "enable.idempotence": True}, logger=_log)
        self._consumer = Consumer(
            {
                **common,
                "group.id": f"{prefix}push-system",  # For rights, and to show how far it is; the store decides.
                "enable.auto.commit": False,
                "auto.offset.reset": "earliest",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
            },
            logger=_log,
        )
        self._readers = {"push-targets": self._push, "preferences": self._wishes, "campaigns": self._campaign}
        self._next = self._assigned(partitions)
        self._caught_up = 0.0

    def run(self, stop: Callable[[], bool] = lambda: False) -> None:
        """Work until told to stop."""
        while not stop():
            self.step(wait_s=0.5)

    def step(self, wait_s: float = 0.0) -> int:
        """Read what is there, send what is due, report; gives how many were sent.

        Args:
            wait_s: to wait for the first record.
        """
        self._read(wait_s)
        sent = 0
        if self._due(1) and self._catch_up():
            while chosen := self._claimed():
                sent += self._sent(chosen)
                if self._clock() > self._caught_up + 1.0:
                    break  # What is known of users is a second old: look again.
        self._report()
        self._forget()
        return sent

    def doubtful(self) -> list[str]:
        """The ids of pushes of which only the provider can say whether they were sent."""
        return [push_id for (push_id,) in self._store.execute("SELECT push_id FROM pushes WHERE state = 'doubtful'")]

    def close(self) -> None:
        self._pool.shutdown()
        self._consumer.close()
        self._store.close()
        self._readers.clear()  # A circle, which would keep the clients.

    # Reading

    def _assigned(self, partitions: Sequence[int] | None) -> dict[tuple[str, int], int]:
        """The next offset of every partition that is read."""
        rows = self._store.execute("SELECT topic, partition, next FROM positions")
        known = {(topic, partition): following for topic, partition, following in rows}
        found: dict[tuple[str, int], int] = {}
        for name in self._readers:
            topic = self._prefix + name
            there = self._consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
            if there.error is not None:
                raise KafkaException(there.error)
            # Users lie in the same partition of both topics; songs lie elsewhere.
            wanted = sorted(there.partitions) if partitions is None or name == "campaigns" else partitions
            found |= {(topic, each): known.get((topic, each), OFFSET_BEGINNING) for each in wanted}
        self._consumer.assign([TopicPartition(topic, at, following) for (topic, at), following in found.items()])
        return found

    def _read(self, wait_s: float) -> None:
        """Store what has come, with the offsets behind it."""
        first = self._consumer.poll(wait_s)
        messages = [] if first is None else [first, *self._consumer.consume(999, 0)]
        moved = {}
        with self._store:
            for message in messages:
                error = message.error()
                if error is not None and error.code() != KafkaError._PARTITION_EOF:
                    if error.fatal():
                        raise KafkaException(error)
                    _log.warning("%s", error)
                    continue
                at = message.topic() or "", message.partition() or 0
                if error is None:
                    self._readers[at[0].removeprefix(self._prefix)](message)
                # Behind aborted records, and markers of transactions, only the end of a partition tells.
                moved[at] = (message.offset() or 0) + (error is None)
            self._store.executemany(
                "INSERT OR REPLACE INTO positions VALUES (?, ?, ?)", [(*at, to) for at, to in moved.items()]
            )
        self._next |= moved
        if moved:
            self._consumer.commit(offsets=[TopicPartition(topic, at, to) for (topic, at), to in moved.items()])

    def _catch_up(self) -> bool:
        """Read to the present end of what users wish and how campaigns stand; False: Kafka does not answer."""
        asked, patience = self._clock(), time.monotonic() + PATIENCE_S
        places = [TopicPartition(*at) for at in self._next if not at[0].endswith("push-targets")]
        futures = self._admin.list_offsets(
            {place: OffsetSpec.latest() for place in places},
            isolation_level=IsolationLevel.READ_COMMITTED,
            request_timeout=PATIENCE_S,
        )
        try:
            ends = {(place.topic, place.partition): each.result(PATIENCE_S).offset for place, each in futures.items()}
        except (TimeoutError, KafkaException) as error:
            _log.warning("nothing is sent, the ends of topics are not known: %r", error)
            return False
        if lost := [at for at, end in ends.items() if end < 0]:
            _log.warning("nothing is sent, the connection was lost before the ends of %s were told", lost)
            return False
        while behind := [at for at, end in ends.items() if self._next[at] < end and end > 0]:
            if time.monotonic() > patience:
                _log.warning("nothing is sent, not read to the ends of %s", behind)
                return False
            self._read(0.1)
        self._caught_up = asked
        return True

    def _push(self, message: Message) -> None:
        body = _object(message)
        try:
            push_id, user_id, song_id = str(body["push_id"]), str(body["user_id"]), str(body["song_id"])
            due, expires, decided = (_seconds(body[name]) for name in ("not_before", "expires_at", "decided_at"))
        except (KeyError, TypeError, ValueError) as error:
            _log.warning("%s[%s] at %s is no push: %s", message.topic(), message.partition(), message.offset(), error)
            return
        if expires + KEPT_S <= self._clock():
            return
        facts: tuple[Any, ...] = (user_id, song_id, body.get("revision", 0), json.dumps(body))
        state, partition = "waiting", message.partition()
        erased = "SELECT 1 FROM users WHERE user_id = ? AND partition = ? AND erased >= ?"
        if self._store.execute(erased, (user_id, partition, decided)).fetchone():
            state, facts = "withdrawn", (None, None, None, None)
        self._store.execute(
            "INSERT OR IGNORE INTO pushes VALUES (?, ?, 0, ?, ?, ?, ?, ?, ?, ?, ?)",
            (push_id, state, due, expires, decided, partition, *facts),
        )

    def _wishes(self, message: Message) -> None:
        """A user's newest preferences. What cannot be read stops the pushes to its user, until something can be.

        Of the partition alone in which the user's pushes lie: in any other the service refuses them.
        """
        user_id, partition = (message.key() or b"").decode("utf-8", "replace"), message.partition()
        wishes = _object(message) if message.value() is not None else {}
        erased, stamp = None, message.timestamp()[1] / 1000
        if wishes.get("erase_requested_at"):
            try:
                erased = _seconds(wishes["erase_requested_at"])
            except (TypeError, ValueError):
                erased = float("inf")
            # No time, or one ahead of the broker's clock: the record's own.
            erased = stamp if erased > stamp + 300 else erased
        if wishes.get("profiling") in (False, "false"):
            # Whatever was decided was chosen by a history that is to be forgotten.
            erased = stamp if erased is None else max(erased, stamp)
        readable = message.value() is None or _quiet_until(self._clock(), wishes) is not None
        if message.value() is not None and not isinstance(wishes.get("opted_in"), bool):
            readable = False
        names = ("opted_in", "profiling", "timezone", "quiet_hours", "muted_artists", "allow_explicit")
        kept = json.dumps({name: wishes[name] for name in names if name in wishes}) if readable else None
        self._store.execute(
            "INSERT INTO users VALUES (?, ?, ?, ?) ON CONFLICT DO UPDATE SET wishes = excluded.wishes, "
            "erased = coalesce(max(erased, excluded.erased), erased, excluded.erased)",
            (user_id, partition, kept, erased),
        )
        if readable and False in (wishes.get("opted_in"), wishes.get("profiling")):
            self._withdraw("user_id = ? AND partition = ?", user_id, partition)
        if erased is not None:
            self._withdraw("user_id = ? AND partition = ? AND decided <= ?", user_id, partition, erased)
            self._store.execute("DELETE FROM outcomes WHERE user_id = ?", (user_id,))
            self._store.execute(
                "UPDATE pushes SET user_id = NULL, song_id = NULL, body = NULL "
                "WHERE user_id = ? AND partition = ? AND decided <= ?",
                (user_id, partition, erased),
            )

    def _campaign(self, message: Message) -> None:
        song_id, campaign = (message.key() or b"").decode("utf-8", "replace"), _object(message)
        if campaign.get("end_reason") == "taken-down":
            revision = campaign.get("revision", 0)
            self._store.execute("INSERT OR REPLACE INTO taken_down VALUES (?, ?)", (song_id, revision))
            self._withdraw("song_id = ? AND revision <= ?", song_id, revision)
        elif campaign or message.value() is None:
            self._store.execute("DELETE FROM taken_down WHERE song_id = ?", (song_id,))

    def _withdraw(self, which: str, *values: object) -> None:
        self._store.execute(
            "UPDATE pushes SET state = CASE tries WHEN 0 THEN 'withdrawn' ELSE 'doubtful' END "
            f"WHERE state = 'waiting' AND {which}",
            values,
        )

    # Sending

    def _due(self, limit: int) -> list[tuple[Any, ...]]:
        return self._store.execute(
            "SELECT push_id, tries, expires, partition, user_id, song_id, revision, body FROM pushes "
            "WHERE state = 'waiting' AND due <= ? ORDER BY due LIMIT ?",
            (self._clock(), limit),
        ).fetchall()

    def _claimed(self) -> list[Body]:
        """The next pushes that are still wanted, marked as claimed."""
        chosen: list[Body] = []
        while len(chosen) < self._threads and (due := self._due(self._threads - len(chosen))):
            with self._store:
                for push_id, tries, *facts, body in due:
                    now, push = self._clock(), json.loads(body)
                    state, until = self._judged(now, push, *facts)
                    if state == "claimed":
                        chosen.append(push)
                        until = now + RETRY_S  # If it cannot be sent.
                    elif state != "waiting" and tries:
                        state = "doubtful"
                    elif state == "expired":
                        self._note(push, "expired", now)
                    self._store.execute(
                        "UPDATE pushes SET state = ?, due = ?, tries = tries + ? WHERE push_id = ?",
                        (state, until, state == "claimed", push_id),
                    )
        return chosen

    def _judged(
        self, now: float, push: Body, expires: float, partition: int, user_id: str, song_id: str, revision: int
    ) -> tuple[str, float]:
        """What becomes of a push now, and until when it waits."""
        if now >= expires:
            return "expired", now
        taken = self._store.execute("SELECT revision FROM taken_down WHERE song_id = ?", (song_id,)).fetchone()
        if taken is not None and revision <= taken[0]:
            return "withdrawn", now
        known = (user_id, partition)
        user = self._store.execute("SELECT wishes FROM users WHERE user_id = ? AND partition = ?", known).fetchone()
        if user is None:
            return "claimed", now
        if user[0] is None:
            return "waiting", now + RETRY_S
        wishes = json.loads(user[0])
        if False in (wishes.get("opted_in"), wishes.get("profiling")):
            return "withdrawn", now
        if set(push.get("artist_ids", ())) & set(wishes.get("muted_artists", ())):
            return "withdrawn", now
        if push.get("explicit") and wishes.get("allow_explicit") is False:
            return "withdrawn", now
        until = _quiet_until(now, wishes)
        if until is None or until > now:
            return "waiting", now + RETRY_S if until is None else until
        return "claimed", now

    def _sent(self, pushes: Sequence[Body]) -> int:
        """Have claimed pushes sent, and store what became of each."""
        now, results = self._clock(), list(self._pool.map(self._try, pushes))
        with self._store:
            for push, error in zip(pushes, results, strict=True):
                if error is None:
                    state = "sent"
                    self._note(push, "delivered", now)
                elif isinstance(error, Rejected):
                    state = "failed"
                    self._note(push, "failed", now)
                elif isinstance(error, NotSent) or self._idempotent:
                    state = "waiting"
                else:
                    state = "doubtful"
                if error is not None:
                    _log.warning("push %s: %r, now %s", push["push_id"], error, state)
                sure = isinstance(error, NotSent)
                self._store.execute(
                    "UPDATE pushes SET state = ?, tries = tries - ? WHERE push_id = ?", (state, sure, push["push_id"])
                )
        return sum(error is None for error in results)

    def _try(self, push: Body) -> Exception | None:
        try:
            self._send(push)
        except Exception as error:  # noqa: BLE001
            return error
        return None

    # Reporting

    def _note(self, push: Body, outcome: str, at: float) -> None:
        self._store.execute(
            "INSERT OR IGNORE INTO outcomes VALUES (?, ?, ?, ?, ?)",
            (push["push_id"], outcome, push["user_id"], push["song_id"], at),
        )

    def _report(self) -> None:
        """Produce the outcomes that are not acknowledged yet; one that is sent twice has the same id."""
        rows = self._store.execute("SELECT push_id, outcome, user_id, song_id, at FROM outcomes LIMIT 10000").fetchall()
        done: list[tuple[str, str]] = []
        for row in rows:

            def told(error: KafkaError | None, _: Message, key: tuple[str, str] = row[:2]) -> None:
                if error is None:
                    done.append(key)

            produce_outcome(self._producer, self._prefix, *row, on_delivery=told)
        if rows:
            self._producer.flush(PATIENCE_S)
            with self._store:
                self._store.executemany("DELETE FROM outcomes WHERE push_id = ? AND outcome = ?", done)

    def _forget(self) -> None:
        """Drop ids that can come again only expired."""
        gone = self._clock() - KEPT_S
        with self._store:
            self._store.execute("DELETE FROM pushes WHERE expires < ? AND state NOT IN ('waiting', 'claimed')", (gone,))


def produce_outcome(
    producer: Producer, prefix: str, push_id: str, outcome: str, user_id: str, song_id: str, at: float, **more: Any
) -> None:
    """Report what became of a push: delivered, failed, opened, dismissed or expired. Of ``opened`` and ``dismissed``
    only the device knows: whoever hears of it calls this, with a producer whose partitioner is ``murmur2_random``.

    Args:
        at: Unix seconds.
        more: further arguments of ``produce``, such as ``on_delivery``.
    """
    when = datetime.fromtimestamp(at, UTC).isoformat()
    value = {"push_id": push_id, "user_id": user_id, "song_id": song_id, "outcome": outcome, "at": when}
    headers: dict[str, str | bytes | None] = {
        "ce_id": f"{push_id}/{outcome}", "ce_source": "push-system", "ce_specversion": "1.0", "ce_time": when,
        "ce_type": "coldstart.push-outcome.v1", "content-type": "application/json",
    }  # fmt: skip
    while True:
        try:
            producer.produce(f"{prefix}push-outcomes", json.dumps(value), user_id, headers=headers, **more)
        except BufferError:
            producer.poll(0.1)
        else:
            return


def _opened(path: str) -> sqlite3.Connection:
    store = sqlite3.connect(path, timeout=0.0)
    # One process at a time, and what is committed is on the disk.
    for setting in ("locking_mode = EXCLUSIVE", "journal_mode = WAL", "synchronous = FULL"):
        store.execute(f"PRAGMA {setting}").fetchall()
    store.executescript(_TABLES)
    return store


def _object(message: Message) -> Body:
    """The JSON object in a value, or in a structured CloudEvent's data; an empty one where there is none."""
    media = dict(message.headers() or ()).get("content-type")
    try:
        found = json.loads(message.value() or b"")
        if isinstance(media, bytes) and media.strip().lower().startswith(b"application/cloudevents+json"):
            encoded = found.get("data_base64")
            found = found.get("data") if encoded is None else json.loads(b64decode(encoded))
    except (AttributeError, TypeError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _seconds(text: str) -> float:
    time = datetime.fromisoformat(text)
    if time.tzinfo is None:
        raise ValueError(f"{text!r} has no offset")
    return time.timestamp()


def _quiet_until(now: float, wishes: Mapping[str, Any]) -> float | None:
    """The first minute from now on that lies in none of a user's quiet hours; None: they cannot be read, or never end.

    Minute by minute, so that whatever clocks do at a change of time is seen.
    """
    try:
        zone = ZoneInfo(wishes.get("timezone", "UTC"))
        spans = [(_minute(span["from"]), _minute(span["to"])) for span in wishes.get("quiet_hours", ())]
    except (KeyError, TypeError, ValueError, OSError, AttributeError):
        return None
    for moment in _minutes(now):
        local = datetime.fromtimestamp(moment, zone)
        if not _inside(local.hour * 60 + local.minute, spans):
            return moment
    return None


def _minute(text: str) -> int:
    hours, minutes = text.split(":")
    return int(hours) * 60 + int(minutes)


def _minutes(now: float) -> Iterator[float]:
    yield now
    yield from (now - now % 60 + 60 * count for count in range(1, 3 * 1440))


def _inside(minute: int, spans: Iterable[tuple[int, int]]) -> bool:
    return any(start <= minute < end if start < end else minute >= start or minute < end for start, end in spans)
