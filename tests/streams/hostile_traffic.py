"""A seeded stream of records for every topic: good ones, and good ones with something wrong in them.

Good records speak of few users and songs, so that they meet. What is wrong is one thing or several: bytes, fields,
headers, key; and values that are legal one by one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import numpy as np
from hostile import codec_of

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.event_base import Event
from streams.contract.events import (
    Cap,
    Counts,
    DenseFeature,
    Listen,
    PushOutcome,
    QuietHours,
    SongUpload,
    UserPreferences,
)
from streams.contract.internal_events import CampaignReport, MatchRequest, Neighbour, WarmSong
from streams.contract.topics import (
    AUDIENCE_VECTORS,
    CAMPAIGN_REPORTS,
    LISTENS,
    MATCH_REQUESTS,
    PREFERENCES,
    PUSH_OUTCOMES,
    SONG_UPLOADS,
    WARM_SONGS,
    Topic,
)

Sent = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

ODD: Final[tuple[Any, ...]] = (
    None, True, False, 0, -1, 1, 2**31 - 1, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, 10**30, 0.5, -0.0, 1e-320, 1e18,
    1e19, 1e308, "", " ", "x", "\x00", "\u202e", "\ud83d\ude00", "a" * 128, "ä" * 128, "a" * 129, "1", "NaN", [],
    {}, [[]], {"": ""}, ["x"] * 65, {"x": None},
    "0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "1970-01-01T00:00:00Z", "2026-02-30T00:00:00Z",
    "2026-03-01T10:00:00", "2026-03-01t10:00:00z", "00:00", "24:00", "23:59", "Etc/Unknown", "../../etc/passwd",
)  # fmt: skip
"""Values for any field: most are of the wrong kind for most."""

_ZONES: Final = ("UTC", "Europe/Lisbon", "Asia/Kathmandu", "America/St_Johns", "Pacific/Apia", "Etc/GMT+12")
_CLOCKS: Final = ("00:00", "06:30", "12:00", "23:59")


class Traffic:
    """What comes, record after record; the same seed sends the same, but for times, which are near ``now``.

    Args:
        now: tells Unix seconds.
        space: of vectors, and their dimension.
        wrong: how much of it has something wrong.
        song: how the ids of songs begin.
        uploads: how many songs are uploaded; ``partitions``: of the audience, as most reports say.
    """

    def __init__(
        self, seed: int, now: Callable[[], float], space: tuple[str, int] = ("bcl", 4), users: int = 60,
        songs: int = 30, wrong: float = 0.7,
        song: str = "s", uploads: int = 200, partitions: int = 2,
    ) -> None:  # fmt: skip
        self._random = random.Random(seed)
        self._now = now
        self._space, self._dimension = space
        self._users = [f"u{n}" for n in range(users)]
        self._songs = [f"{song}{n}" for n in range(songs)]
        self._uploads = [f"new-{n}" for n in range(uploads)]
        self._partitions = partitions
        self._wrong = wrong
        self._made: dict[Topic, Callable[[], Record]] = {
            LISTENS: self._listen,
            PREFERENCES: self._preferences,
            PUSH_OUTCOMES: self._outcome,
            AUDIENCE_VECTORS: self._vector,
            MATCH_REQUESTS: self._request,
            SONG_UPLOADS: self._upload,
            CAMPAIGN_REPORTS: self._report,
            WARM_SONGS: self._warm,
        }

    @property
    def topics(self) -> Collection[Topic]:
        """Those that it has records of."""
        return self._made.keys()

    def reseed(self, seed: int) -> None:
        """Go on as another one would."""
        self._random.seed(seed)

    def of(self, topic: Topic) -> Sent:
        """The next record of a topic."""
        record = self._made[topic]()
        good: Sent = record.key, record.value, list(record.headers)
        return self.bent(good, binary=topic is AUDIENCE_VECTORS) if self._random.random() < self._wrong else good

    # -- good ones

    def _at(self, spread: float = 3600.0) -> datetime:
        return datetime.fromtimestamp(self._now() - self._random.uniform(0, spread), UTC)

    def _pack(self, event: Event, kind: int = 0) -> Record:
        id = str(self._random.getrandbits(40))
        return pack(
            event, ce_type=event.TYPES[kind], id=id, source=f"team-{self._random.randrange(5)}", time=self._now()
        )

    def _listen(self) -> Record:
        pick = self._random
        return self._pack(
            Listen(
                listen_id=str(pick.getrandbits(40 if pick.random() < 0.9 else 4)),
                user_id=pick.choice(self._users),
                song_id=pick.choice(self._songs),
                played_at=self._at(),
                source="organic",
                plays=pick.choice([1, 1, 2, 2**31 - 1]),
                completed=pick.choice([None, True, False]),
                collected=pick.random() < 0.1,
            )
        )

    def _preferences(self) -> Record:
        pick = self._random
        cap = Cap(pick.choice([0, 1, 3, 2**53]), pick.choice([0.001, 1.0, 24.0, 8192.1]))
        spans = [QuietHours(*pick.sample(_CLOCKS, 2)) for _ in range(pick.choice([0, 0, 1, 2, 3]))]
        return self._pack(
            UserPreferences(
                user_id=pick.choice(self._users),
                opted_in=pick.random() < 0.8,
                updated_at=self._at(),
                timezone=pick.choice(_ZONES),
                quiet_hours=spans,
                country=pick.choice([None, "PT", "BR"]),
                muted_artists=[f"a{pick.randrange(5)}"] if pick.random() < 0.2 else [],
                allow_explicit=pick.random() < 0.7,
                cap=cap if pick.random() < 0.3 else None,
                profiling=pick.random() < 0.8,
                erase_requested_at=self._at(60) if pick.random() < 0.1 else None,
            )
        )

    def _outcome(self) -> Record:
        pick = self._random
        return self._pack(
            PushOutcome(
                push_id=f"p{pick.randrange(100)}",
                user_id=pick.choice(self._users),
                song_id=pick.choice(self._songs),
                outcome=pick.choice(["delivered", "failed", "opened", "dismissed", "expired"]),  # type: ignore[arg-type]
                at=self._at(),
            )
        )

    def _direction(self, space: str | None = None) -> bytes:
        pick = np.random.default_rng(self._random.getrandbits(32))
        vector = pick.standard_normal(self._dimension).astype(np.float32)
        return vector_codec.pack(space or self._space, vector)

    def _vector(self) -> Record:
        space = self._space if self._random.random() < 0.9 else "another"
        return Record(self._random.choice(self._users).encode(), self._direction(space), [])

    def _request(self) -> Record:
        pick, now = self._random, self._now()
        near = [Neighbour(song, pick.uniform(-0.2, 1)) for song in pick.sample(self._songs, 5)]
        starts = datetime.fromtimestamp(now + pick.uniform(-60, 3600), UTC) if pick.random() < 0.2 else None
        song = pick.choice(self._songs)
        return self._pack(
            MatchRequest(
                song_id=song,
                revision=pick.choice([0, 1, 2, 3, 2**53]),
                recording=pick.choice([song, "r"]),
                title="t",
                artist_ids=[f"a{pick.randrange(5)}"] * pick.choice([0, 1]),
                vector=self._direction(),
                other_vectors=[self._direction("another")] if pick.random() < 0.1 else [],
                neighbours=near,
                budget=pick.choice([0, 1, 10, 2**53]),
                uploaded_at=self._at(60),
                expires_at=datetime.fromtimestamp(now + pick.choice([-1, 1, 60, 86_400, 364 * 86_400]), UTC),
                available_from=starts,
                explicit=pick.random() < 0.3,
                territories=["PT"] if pick.random() < 0.2 else [],
            ),
            pick.choice([0, 0, 0, 0, 1, 2, 3]),
        )

    def _upload(self) -> Record:
        pick = self._random
        ends = datetime.fromtimestamp(self._now() + pick.choice([-60, 90, 86_400, 400 * 86_400]), UTC)
        starts = datetime.fromtimestamp(self._now() + 60, UTC)
        return self._pack(
            SongUpload(
                song_id=pick.choice(self._uploads),
                revision=pick.choice([1, 1, 1, 2, 3, 2**53]),
                title="t" * pick.choice([0, 1, 40, 1024]),
                artist_ids=[f"a{n}" for n in range(pick.choice([0, 1, 64]))],
                tags={f"t{n}": pick.choice([1.0, 1e-300, 1e18]) for n in range(pick.choice([1, 3, 40]))},
                genres=["g"] * pick.choice([0, 1]),
                features=self._features() if pick.random() < 0.3 else {},
                language=pick.choice([None, "pt-BR", "x-own"]),
                explicit=pick.random() < 0.2,
                territories=["PT"] * pick.choice([0, 0, 1]),
                duration_ms=pick.choice([None, 1, 2**31 - 1]),
                available_from=starts if pick.random() < 0.1 else None,
                expires_at=ends if pick.random() < 0.2 else None,
                budget=pick.choice([None, 1, 10, 2**31 - 1]),
            ),
            pick.choice([0, 0, 0, 1, 2]),
        )

    def _features(self) -> dict[str, DenseFeature]:
        pick = self._random
        values = [pick.choice([0.5, -1e18, 1e-300]) for _ in range(pick.choice([1, 3, 3, 40]))]
        return {"audio": DenseFeature(pick.choice(["default", "default", "own"]), values)}

    def _report(self) -> Record:
        pick = self._random
        return self._pack(
            CampaignReport(
                song_id=pick.choice(self._uploads),
                revision=pick.choice([1, 2, 2**53]),
                partition=pick.choice([0, 1, self._partitions - 1, 7, 2**53]),
                partitions=pick.choice([self._partitions, self._partitions, self._partitions, 1, 4]),
                version=pick.choice([0, 1, 10**6, -1]),
                space=self._space,
                started_at=self._at(),
                counts=Counts(pushed=pick.choice([0, 5, 2**53]), distinct_listeners=pick.choice([0, 5])),
                ended=pick.choice([None, "expired", "budget"]),
                ended_at=self._at(),
            )
        )

    def _warm(self) -> Record:
        return self._pack(
            WarmSong(song_id=self._random.choice(self._songs), space="another", vector=self._direction("another"))
        )

    # -- something wrong

    def bent(self, good: Sent, binary: bool = False) -> Sent:
        """A good record with something wrong in it; ``binary``: its value is no JSON."""
        pick = self._random
        key, value, headers = good
        what = pick.random()
        if what < 0.45 and not binary and value is not None:
            value = self._odd_fields(value, codec_of(headers))
        elif what < 0.6:
            value = self._odd_bytes(value)
        elif what < 0.8 and headers:
            headers = self._odd_headers(headers)
        elif what < 0.9:
            key = pick.choice([None, b"", b"\xff\xfe", b"k" * 200, pick.choice(self._users).encode()])
        else:
            value = pick.choice([None, b"", b"null", b"[]", b"{", b'"', b"\x00" * 50, b"[" * 2000, b'{"a":' * 1500])
        return key, value, headers

    def _odd_fields(self, value: bytes, codec: Any) -> bytes:
        pick = self._random
        event = codec.decode(value)
        for name in pick.sample(sorted(event), min(len(event), pick.choice([1, 1, 2, 3]))):
            if pick.random() < 0.2:
                del event[name]
            else:
                event[name] = pick.choice(ODD)
        if pick.random() < 0.1:
            event[pick.choice(["x", "erase_requested_at", "cap", "expires_at"])] = pick.choice(ODD)
        try:
            return bytes(codec.encode(event))
        except (OverflowError, ValueError):
            return repr(event).encode("utf-8", "surrogatepass")

    def _odd_bytes(self, value: bytes | None) -> bytes:
        pick = self._random
        damaged = bytearray(value or b"x")
        for _ in range(pick.choice([1, 1, 2, 8])):
            at = pick.randrange(len(damaged) or 1)
            match pick.randrange(4):
                case 0:
                    damaged[at : at + 1] = bytes([pick.randrange(256)])
                case 1:
                    del damaged[at:]
                case 2:
                    del damaged[at : at + pick.randrange(1, 9)]
                case _:
                    damaged[at:at] = pick.randbytes(pick.randrange(1, 9))
        return bytes(damaged)

    def _odd_headers(self, headers: list[tuple[str, bytes | None]]) -> list[tuple[str, bytes | None]]:
        pick = self._random
        headers = list(headers)
        at = pick.randrange(len(headers))
        name = headers[at][0]
        ahead = (datetime.now(UTC) + timedelta(days=pick.choice([1, 40_000]))).isoformat().encode()
        odd = pick.choice([None, b"", b"\xff", b"x", b"1.0", b"coldstart.listen.v1", b"yesterday", ahead, b"n" * 3000])
        match pick.randrange(4):
            case 0:
                headers[at] = (name, odd)
            case 1:
                del headers[at]
            case 2:
                headers.append((name, odd))
            case _:
                headers += [("more", b"x" * 100)] * 30
        return headers
