"""What users, push systems and the teams around them do meanwhile."""

from __future__ import annotations

import random
import time
import uuid
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, Literal
from zoneinfo import ZoneInfo

import msgspec
import numpy as np

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.errors import Unavailable
from streams.contract.events import Cap, Listen, PushOutcome, PushTarget, QuietHours, SongUpload, UserPreferences
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGNS,
    LISTENS,
    MODELS,
    PREFERENCES,
    PUSH_OUTCOMES,
    PUSH_TARGETS,
    Topic,
)
from streams.kafka.clients import enqueue, hand_over, producer
from streams.kafka.compacted_topic import Snapshot
from streams.models.registry import ENCODER
from streams.runtime.clock import SystemClock
from streams.testbed.chaos.environment import PATIENCE_S, Environment
from streams.testbed.chaos.hostile import BURIED, KEPT, marked

SOURCE = "coldstart/torture"

_ZONES: Final = ("UTC", "Europe/Lisbon", "America/St_Johns", "Asia/Kathmandu", "Pacific/Auckland", "America/Sao_Paulo")

_Outcome = Literal["delivered", "failed", "opened", "dismissed"]


def listen(user: str, number: str, time: float, song: str = "warm", push_id: str | None = None) -> Record:
    """A listen, with an id that is the same for the same user and number."""
    event = Listen(
        listen_id=f"{user}/{number}", user_id=user, song_id=song, played_at=datetime.fromtimestamp(time, UTC),
        source="push" if push_id else "organic", push_id=push_id, completed=True,
    )  # fmt: skip
    return pack(event, id=event.listen_id, source=SOURCE, time=time)


class Traffic:
    """Everything but uploads. Nothing here waits for the broker: it may be down.

    Attributes:
        bad: how many malformed records were sent.
    """

    def __init__(self, stage: Environment, choice: random.Random) -> None:
        self.bad = 0
        self._stage = stage
        self._choice = choice
        self._sender = producer(stage.kafka)
        followed = [stage.naming.name(topic) for topic in (PUSH_TARGETS, MODELS, CAMPAIGNS)]
        self._outputs = Snapshot(stage.kafka, followed, SystemClock())
        self._promoted: set[str] = set()
        self._spaces: list[tuple[str, int]] = []
        self._asked: dict[str, datetime] = {}
        # So few that of most users it stays certain what must be counted.
        self._wary = set(stage.users[::5])
        self._said: dict[str, UserPreferences] = {}
        """The last word of everybody who objected to profiling."""

    def answer(self) -> None:
        """What users do with the pushes that came since."""
        now = time.time()
        for message in self._outputs.poll(0.0):
            if message.topic() == self._stage.naming.name(MODELS):
                self._note_model(message.key(), message.value())
                continue
            if message.topic() == self._stage.naming.name(CAMPAIGNS):
                if b'"end_reason":"promoted"' in (message.value() or b""):
                    self._promoted.add((message.key() or b"").decode())
                continue
            value = message.value()
            if value is None:
                # A deletion is the checker's to find.
                continue
            push = msgspec.json.decode(value, type=PushTarget)
            if push.user_id in self._stage.gone:
                continue
            chance = self._choice.random()
            self._outcome(push, "failed" if chance < 0.05 else "delivered", now)
            if chance > 0.3:
                self._outcome(push, "opened" if chance > 0.5 else "dismissed", now)
            if chance > 0.6:
                self._send(LISTENS, listen(push.user_id, push.push_id, now, push.song_id, push.push_id))
        self._sender.poll(0)

    def speak(self, crowd: int = 40) -> None:
        """What users and the teams around them say of their own accord, once a round.

        Args:
            crowd: how many of them, 40 at least: half of them say what they prefer.
        """
        now = time.time()
        users = self._choice.sample(self._stage.users, crowd)
        for user in users[40:]:
            self._send(PREFERENCES, marked(self._preference(user), KEPT))
            if user not in self._stage.gone:
                self._send(LISTENS, listen(user, f"crowd-{now}", now, self._choice.choice(self._stage.warm)))
        for user in users[40::4]:
            self._forget(user, now)
        users = users[:40]
        for user in users[:20]:
            self._send(PREFERENCES, self._preference(user))
        for user in users[18:20]:
            self._send_refused(self._preference(user))
        for number, user in enumerate(users[20:24]):
            self._forget(user, now, refused=number > 1)
            if number % 2 and len(self._stage.gone) < len(self._stage.users) // 4:
                self._stage.gone.add(user)
        for user in self._choice.sample(sorted(self._said), min(4, len(self._said))):
            self._contradict(self._said[user])
        for user, asked in self._asked.items():
            # From before the request: late, or read again. It must bring nobody back.
            self._send(LISTENS, listen(user, f"late-{now}", asked.timestamp() - 60))
            if user not in self._stage.gone:
                # After the request by less than clocks are wrong: the user is back at once. A worker may read any of
                # them before the request.
                for number, song in enumerate(self._choice.choices(self._stage.warm, k=3)):
                    self._send(LISTENS, listen(user, f"again-{now}-{number}", now + 0.01 + number, song))
        for user in users[24:]:
            if user not in self._stage.gone:
                self._send(LISTENS, listen(user, f"organic-{now}", now, self._choice.choice(self._stage.warm)))
        for user in users[30:]:
            if user not in self._stage.gone:
                self._vector(user)
        for topic in (LISTENS, PREFERENCES, PUSH_OUTCOMES):
            self.bad += 1
            bad = Record(f"bad-{self.bad}".encode(), b'{"user_id":1}', listen("x", "bad", now).headers)
            self._send(topic, marked(bad, BURIED))

    def revise(self, songs: Sequence[SongUpload]) -> Iterator[Record]:
        """Takes two of the songs down, a promoted one if there is any, and updates two. Of each the former revision
        comes again, too late, and is answered."""
        chosen = self._choice.sample(songs, min(len(songs), 4))
        promoted = [song for song in songs if song.song_id in self._promoted and song not in chosen]
        chosen[:1] = promoted[:1] or chosen[:1]
        for number, song in enumerate(chosen):
            event = msgspec.structs.replace(song, revision=song.revision + 1, title=f"{song.title} again")
            down = number < 2
            id = f"{event.song_id}/{event.revision}"
            kind = SongUpload.TAKEN_DOWN if down else SongUpload.UPDATED
            record = pack(event, ce_type=kind, id=id, source=SOURCE, time=time.time())
            # A takedown is accepted whatever end the song had.
            yield marked(record, KEPT) if down or song.expires_at is None else record
            again = pack(song, ce_type=SongUpload.UPLOADED, id=f"{id}/late", source=SOURCE, time=time.time())
            yield again if song.expires_at else marked(again, BURIED)

    def close(self) -> None:
        """Wait until all of it arrived.

        Raises:
            Unavailable: it did not.
        """
        self._outputs.close()
        if self._sender.flush(PATIENCE_S):
            raise Unavailable(f"not everything was acknowledged within {PATIENCE_S:g} s")

    def send(self, topic: Topic, record: Record) -> None:
        """Hand over a record of anybody else's."""
        self._send(topic, record)

    def _send(self, topic: Topic, record: Record) -> None:
        hand_over(self._sender, self._stage.naming.name(topic), record)

    def _outcome(self, push: PushTarget, outcome: _Outcome, now: float) -> None:
        event = PushOutcome(
            push_id=push.push_id, user_id=push.user_id, song_id=push.song_id, outcome=outcome,
            at=datetime.fromtimestamp(now, UTC),
        )  # fmt: skip
        id = f"{push.push_id}/{outcome}"
        self._send(PUSH_OUTCOMES, pack(event, id=id, source=SOURCE, time=now))

    def _preference(self, user: str, erase: datetime | None = None) -> Record:
        """Anything that a user may wish; of quiet hours some end in a minute, so that pushes are deferred."""
        choice, zone = self._choice, self._choice.choice(_ZONES)
        local = datetime.now(ZoneInfo(zone))
        start = local - timedelta(minutes=choice.randint(0, 120))
        end = local + timedelta(minutes=choice.choice([1, 1, 2, 60, 600]))
        quiet = [QuietHours(f"{start:%H:%M}", f"{end:%H:%M}")] if choice.random() < 0.5 else []
        event = UserPreferences(
            user_id=user,
            opted_in=choice.random() < 0.8,
            allow_explicit=choice.random() < 0.7,
            country=choice.choice(["PT", "BR", None]),
            muted_artists=choice.choice(self._stage.songs).artist_ids if choice.random() < 0.3 else [],
            timezone=zone,
            quiet_hours=quiet,
            cap=Cap(choice.randint(0, 5), choice.choice([0.005, 0.01, 0.05])) if choice.random() < 0.4 else None,
            updated_at=datetime.now(UTC),
            profiling=user not in self._wary or choice.random() < 0.5,
            # Preferences are the full state: an old request is said again.
            erase_requested_at=erase or self._asked.get(user),
        )
        if not event.profiling or user in self._said:
            self._said[user] = event
        return pack(event, id=uuid.uuid4().hex, source=SOURCE, time=time.time())

    def _contradict(self, last: UserPreferences) -> None:
        """The contrary of a user's last word on profiling, from before it: too late, it changes nothing of that."""
        before = last.updated_at - timedelta(minutes=10)
        event = msgspec.structs.replace(last, profiling=not last.profiling, updated_at=before)
        self._send(PREFERENCES, marked(pack(event, id=uuid.uuid4().hex, source=SOURCE, time=time.time()), KEPT))

    def _forget(self, user: str, now: float, refused: bool = False) -> None:
        self._asked[user] = datetime.fromtimestamp(now, UTC)
        record = self._preference(user)
        if refused:
            self._send_refused(record)
        else:
            self._send(PREFERENCES, record)

    def _send_refused(self, record: Record) -> None:
        """The same preferences with a time zone that is none: whatever they say, their user must not be pushed."""
        self.bad += 1
        value = record.value[:-1] + b',"timezone":"Etc/Unknown"}'
        self._send(PREFERENCES, marked(Record(record.key, value, record.headers), BURIED))

    def _vector(self, user: str) -> None:
        """A vector from outside, now and then of a space that is not in use, or none any more."""
        if not self._spaces:
            return
        space, dimension = self._choice.choice(self._spaces)
        random_ = np.random.default_rng(self._choice.randrange(2**32))
        value = vector_codec.pack(space, random_.standard_normal(dimension).astype(np.float32))
        topic, key = self._stage.naming.name(AUDIENCE_VECTORS), user.encode()
        enqueue(self._sender, topic, key=key, value=None if self._choice.random() < 0.2 else value)

    def _note_model(self, key: bytes | None, value: bytes | None) -> None:
        if key == ENCODER.encode() and value is not None:
            model = msgspec.json.decode(value)
            self._spaces = [each for each in self._spaces if each[0] != model["space"]]
            self._spaces.append((model["space"], model["dim"]))
