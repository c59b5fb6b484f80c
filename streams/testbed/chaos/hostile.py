"""What a sceptic sends: whatever may be sent, each record with what must become of it."""

from __future__ import annotations

import logging
import random
import time
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Final

import msgspec
from confluent_kafka import KafkaException, Producer

from streams.contract.cloudevents import Record, pack
from streams.contract.event_base import Event
from streams.contract.events import Listen, PushOutcome, QuietHours, SongUpload, UserPreferences
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    LISTENS,
    MATCH_REQUESTS,
    MODELS,
    PREFERENCES,
    PUSH_OUTCOMES,
    SONG_UPLOADS,
    WARM_SONGS,
    Topic,
)
from streams.kafka.clients import hand_over, producer
from streams.testbed.chaos.environment import Environment
from streams.testbed.chaos.evidence import EXPECTS

SOURCE: Final = "coldstart/torture/hostile"
KEPT: Final = "kept"
BURIED: Final = "buried"

IDS: Final = (
    "[/x]", "[bold red]x[/]", "\x1b[2J\x1b[31m", "a\u202egnp.exe", "<script>alert(1)</script>", "'; DROP TABLE x;--",
    "line\nbreak\ttab", "\x00", " ", "../../etc/passwd", "%s%n{0}", "\u00e9" * 64, "\U0001f3b5",
)  # fmt: skip
"""Legal ids that a table, a page, a log or a path may take for something else."""

# Before 1970, before every calendar, and in seconds where milliseconds are meant.
_FORMER: Final = (
    "0001-01-01T00:00:00+14:00",
    "0001-01-01T00:00:00Z",
    "yesterday",
    "1e400",
    "9999-12-31T23:59:59-14:00",
)
_LARGE: Final = 5_000_000
_BURST: Final = 150
_FLOOD: Final = 200


def marked(record: Record, expects: str) -> Record:
    """The record, saying what must become of it."""
    return Record(record.key, record.value, [*record.headers, (EXPECTS, expects.encode())])


class Hostile:
    """Hostile traffic of one run.

    Args:
        send: hands a record over; must not wait for the broker.

    Attributes:
        sent: how many records of each kind.
        songs: ids of uploads that every partition must answer.
    """

    def __init__(self, stage: Environment, choice: random.Random, send: Callable[[Topic, Record], None]) -> None:
        self.sent: dict[str, int] = {}
        self.songs: list[str] = []
        self._stage = stage
        self._choice = choice
        self._hand_over = send
        self._number = 0
        self._large: Producer | None = None

    def round(self, users: list[str]) -> None:
        """One of everything. ``users``: at least six, of whom anything may be said."""
        self._number += 1
        self._preferences(users)
        self._listens(users)
        self._uploads()
        self._outcomes(users[5])
        self._internal()

    def close(self) -> int:
        """Wait for what was sent by a producer of its own; returns how many records did not arrive."""
        return self._large.flush(60) if self._large else 0

    def transactions(self) -> None:
        """An upload in a transaction that is aborted, and one in a transaction that is committed. Waits for the broker;
        where that does not answer, nothing is said of them."""
        sender = producer(self._stage.kafka, f"{self._stage.naming.prefix}torture-uploads")
        name = self._stage.naming.name(SONG_UPLOADS)
        try:
            sender.init_transactions(20)
            for kind in ("aborted", "committed"):
                song = self._song(f"{kind}-{self._number}")
                record = _upload(song, f"{kind}-{self._number}")
                sender.begin_transaction()
                hand_over(sender, name, record)
                sender.flush(20)
                if kind == "aborted":
                    sender.abort_transaction(20)
                else:
                    sender.commit_transaction(20)
                    self.songs.append(song.song_id)
                self._note(f"uploads in {kind} transactions")
        except KafkaException:
            self._note("transactions that the broker did not answer")

    # -- by topic ----------------------------------------------------------------------------------------

    def _preferences(self, users: list[str]) -> None:
        day = UserPreferences(
            user_id=users[0], opted_in=True, updated_at=datetime.now(UTC),
            quiet_hours=[QuietHours("00:00", "12:00"), QuietHours("12:00", "00:00")],
        )  # fmt: skip
        self._send(PREFERENCES, "quiet hours of a whole day", _packed(day), KEPT)
        out = UserPreferences(user_id=users[1], opted_in=False, updated_at=datetime.now(UTC))
        whole = _packed(out)
        self._send(PREFERENCES, "refused withdrawals", _with(whole, whole.value[:-2]), BURIED)
        self._send(
            PREFERENCES, "refused withdrawals", _replaced(_packed(_of(out, users[2])), "ce_time", b"soon"), BURIED
        )
        far = _of(out, users[3], erase_requested_at=datetime.now(UTC) + timedelta(days=95 * 365))
        self._send(PREFERENCES, "refused withdrawals", _packed(far), BURIED)
        bad = _with(whole, whole.value.replace(b'"updated_at":"2', b'"updated_at":"0', 1).replace(b"Z", b"+99:00"))
        self._send(PREFERENCES, "impossible times", bad, BURIED)

    def _listens(self, users: list[str]) -> None:
        now = datetime.now(UTC)
        one = Listen(listen_id=self._id(), user_id=users[4], song_id="warm", played_at=now, source="organic")
        good = _packed(one)
        for _ in range(3):
            self._send(LISTENS, "duplicates", good, KEPT)
        for stamp in (b"2999-01-01T00:00:00Z", b"1750000000", b"0001-01-01T00:00:00+14:00"):
            self._send(LISTENS, "impossible times", _replaced(good, "ce_time", stamp), BURIED)
        past = _packed(_of(one, users[4], listen_id=self._id()))
        self._send(LISTENS, "impossible times", _replaced(past, "ce_time", b"1970-01-01T00:29:10Z"), KEPT)
        for former in _FORMER:
            record = _packed(_of(one, users[4], listen_id=self._id()))
            at = record.value.index(b'"played_at":"') + len(b'"played_at":"')
            end = record.value.index(b'"', at)
            expects = KEPT if former == "0001-01-01T00:00:00Z" else BURIED
            value = record.value[:at] + former.encode() + record.value[end:]
            self._send(LISTENS, "impossible times", _with(record, value), expects)
        for id in IDS:
            hostile = Listen(listen_id=self._id(), user_id=id, song_id=f"h{id}"[:63], played_at=now, source="other")
            self._send(LISTENS, "hostile ids", _packed(hostile), KEPT)
        for _ in range(_FLOOD):
            self._send(
                LISTENS, "new song ids", _packed(_of(one, users[4], listen_id=self._id(), song_id=self._id())), KEPT
            )
        for _ in range(_BURST):
            self._send(LISTENS, "a source's burst", _with(good, b'{"user_id":'), BURIED)
        self._send_large(LISTENS, _with(good, good.value[:-1] + b',"more":"' + bytes([120]) * _LARGE + b'"}'))

    def _uploads(self) -> None:
        now, n = datetime.now(UTC), self._number
        for name, fields in (
            ("past", {"expires_at": now - timedelta(hours=1)}),
            ("never", {"available_from": now + timedelta(hours=2), "expires_at": now + timedelta(hours=1)}),
        ):
            song = self._song(f"{name}-{n}")
            self._send(
                SONG_UPLOADS, "uploads without a moment", _upload(_song_of(song, **fields), f"{name}-{n}"), BURIED
            )
            if name == "past":
                self._send(SONG_UPLOADS, "corrected resends", _upload(song, f"{name}-{n}/again"), KEPT)
                self.songs.append(song.song_id)
        record = _upload(self._song(f"former-{n}"), f"former-{n}")
        for former in ("0001-01-01T00:00:00+14:00", "2999-01-01T00:00:00Z"):
            value = record.value[:-1] + b',"expires_at":"' + former.encode() + b'"}'
            self._send(SONG_UPLOADS, "impossible times", _with(record, value), BURIED)
        twin = self._song(f"twin-{n}")
        for number in (1, 2):
            source = f"{SOURCE}/{number}".encode()
            record = _replaced(_upload(_song_of(twin, revision=number), f"twin-{n}"), "ce_source", source)
            self._send(SONG_UPLOADS, "ids of two sources", record, KEPT)
        hostile = self._song(IDS[n % len(IDS)], revision=n)
        self._send(SONG_UPLOADS, "hostile ids", _upload(hostile, f"hostile-{n}"), KEPT)
        self.songs += [twin.song_id, hostile.song_id]
        good = _upload(self._song(f"large-{n}"), f"large-{n}")
        self._send_large(SONG_UPLOADS, _with(good, good.value[:-1] + b',"more":"' + bytes([120]) * _LARGE + b'"}'))

    def _outcomes(self, user: str) -> None:
        id = IDS[self._number % len(IDS)]
        one = PushOutcome(push_id=id, user_id=user, song_id=id, outcome="opened", at=datetime.now(UTC))
        good = _packed(one)
        self._send(PUSH_OUTCOMES, "hostile ids", good, BURIED)
        self._send(PUSH_OUTCOMES, "impossible times", _replaced(good, "ce_time", b"2999-01-01T00:00:00Z"), BURIED)

    def _internal(self) -> None:
        for topic in (WARM_SONGS, MODELS, CAMPAIGN_REPORTS, MATCH_REQUESTS):
            record = Record(f"torture-{self._number}".encode(), b"\xff{", [])
            self._send(topic, "unreadable internal records", record, BURIED)

    # -- sending -----------------------------------------------------------------------------------------

    def _send(self, topic: Topic, kind: str, record: Record, expects: str) -> None:
        self._note(kind)
        self._hand_over(topic, marked(record, expects))

    def _send_large(self, topic: Topic, record: Record) -> None:
        """Larger than any topic takes, until it is compressed."""
        if self._large is None:
            more = {"compression.type": "zstd", "message.max.bytes": 2 * _LARGE, "linger.ms": 0}
            self._large = Producer(self._stage.kafka.confluent() | more, logger=logging.getLogger("librdkafka"))
        self._note("records of 5 MB")
        hand_over(self._large, self._stage.naming.name(topic), marked(record, BURIED))

    def _note(self, kind: str) -> None:
        self.sent[kind] = self.sent.get(kind, 0) + 1

    def _id(self) -> str:
        return uuid.UUID(int=self._choice.getrandbits(128)).hex

    def _song(self, song_id: str, revision: int = 1) -> SongUpload:
        song = self._choice.choice(self._stage.songs)
        return _song_of(song, song_id=song_id, recording_id=None, budget=40, revision=revision)


def _song_of(song: SongUpload, **fields: object) -> SongUpload:
    return msgspec.structs.replace(song, **fields)


def _of(event: Event, user: str, **fields: object) -> Event:
    return msgspec.structs.replace(event, user_id=user, **fields)


def _upload(song: SongUpload, id: str) -> Record:
    return pack(song, ce_type=SongUpload.UPLOADED, id=id, source=SOURCE, time=time.time())


def _packed(event: Event) -> Record:
    return pack(event, ce_type=event.TYPES[0], id=uuid.uuid4().hex, source=SOURCE, time=time.time())


def _with(record: Record, value: bytes) -> Record:
    return Record(record.key, value, record.headers)


def _replaced(record: Record, name: str, value: bytes) -> Record:
    return Record(record.key, record.value, list(_headers(record, name, value)))


def _headers(record: Record, name: str, value: bytes) -> Iterator[tuple[str, bytes]]:
    for each, old in record.headers:
        yield each, value if each == name else old
