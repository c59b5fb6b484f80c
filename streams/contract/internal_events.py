"""Events between the roles of this system, field by field."""

from __future__ import annotations

from typing import Annotated, ClassVar

from msgspec import Meta, Struct

from streams.contract import vector_codec
from streams.contract.errors import InvalidField
from streams.contract.event_base import MAX_DIMENSION, MESSAGEPACK, Event, Id, Time, VectorBytes
from streams.contract.event_time import check_times
from streams.contract.events import Counts, EndReason, PartitionPrototype
from streams.contract.topics import (
    CAMPAIGN_REPORTS,
    MATCH_REQUESTS,
    MODELS,
    WARM_SONGS,
)
from targeting.calibration import STRONGEST
from targeting.types import Count


class Neighbour(Struct, frozen=True, array_like=True):
    """A retrieved warm song and its cosine similarity."""

    song_id: str
    similarity: float


class MatchRequest(Event, frozen=True, kw_only=True):
    """A song asks one audience partition for its listeners; or a command on its campaign.

    Types: a request; its end by takedown or by promotion to the warm songs; its song's place in a new space.
    """

    REQUESTED: ClassVar = "coldstart.match.requested.v1"
    TAKEN_DOWN: ClassVar = "coldstart.match.taken-down.v1"
    PROMOTED: ClassVar = "coldstart.match.promoted.v1"
    REANCHORED: ClassVar = "coldstart.match.re-anchored.v1"
    TYPES = (REQUESTED, TAKEN_DOWN, PROMOTED, REANCHORED)
    MEDIA = MESSAGEPACK
    TOPIC = MATCH_REQUESTS
    KEY = "song_id"
    EXAMPLE = """{"song_id":"s-81","revision":1,"recording":"QM6P41900381","title":"Small Hours","artist_ids":["a-7"],
        "vector":"Q1NWRQEBAgBiY2wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgD8AAAAA","neighbours":[["s-2",0.91]],
        "budget":500,"uploaded_at":"2026-03-01T10:00:00Z","expires_at":"2026-03-29T10:00:00Z"}"""

    song_id: Id
    revision: Count
    recording: Id = ""
    title: str = ""
    artist_ids: list[str] = []
    vector: VectorBytes = b""
    other_vectors: Annotated[
        list[VectorBytes], Meta(description="the same song in further spaces, while models are swapped")
    ] = []
    neighbours: list[Neighbour] = []
    budget: Count = 0
    uploaded_at: Annotated[Time, Meta(description="broker time of the upload: latency counts from here")]
    expires_at: Time
    available_from: Time | None = None
    explicit: bool = False
    territories: list[str] = []

    def check(self, _ce_type: str, _appended: float) -> None:
        check_times(self)
        for neighbour in self.neighbours:
            # As a cosine comes out of a sum of rounded products.
            if not abs(neighbour.similarity) <= 1.001:
                raise InvalidField(f"neighbours: {neighbour.song_id!r} has similarity {neighbour.similarity:g}")


class CampaignReport(Event, frozen=True, kw_only=True):
    """One partition's cumulative account of a song."""

    TYPES = ("coldstart.campaign-report.v1",)
    TOPIC = CAMPAIGN_REPORTS
    KEY = "song_id"
    EXAMPLE = """{"song_id":"s-81","revision":1,"partition":3,"partitions":4,"version":9123,"space":"bcl-0a1b2c3d4e5f",
        "started_at":"2026-03-01T10:00:00Z","counts":{"candidates":203,"pushed":88,"listened":1}}"""

    song_id: Id
    revision: Count
    partition: Count
    partitions: Annotated[int, Meta(gt=0, description="how many audience partitions there are")]
    version: Annotated[Count, Meta(description="changelog offset of the account; the highest wins")]
    space: str
    started_at: Time
    counts: Counts
    ended: EndReason | None = None
    ended_at: Time | None = None
    prototypes: list[PartitionPrototype] = []

    def check(self, _ce_type: str, _appended: float) -> None:
        check_times(self)
        if self.partition >= self.partitions:
            raise InvalidField(f"partition: {self.partition}, there are {self.partitions}")
        for prototype in self.prototypes:
            vector_codec.unpack(prototype.vector)


class WarmSong(Event, frozen=True, kw_only=True):
    """A song that people listen to: it can be retrieved, and its vector makes listeners' vectors."""

    TYPES = ("coldstart.warm-song.v1",)
    TOPIC = WARM_SONGS
    KEY = "space, song_id"
    EXAMPLE = """{"song_id":"s-2","space":"bcl","title":"Dawn",
        "vector":"Q1NWRQEBAgBiY2wAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAgD8AAAAA","bags":{"tags":{"dream pop":3}}}"""

    song_id: Id
    space: Annotated[str, Meta(min_length=1, max_length=32, description="as in the vector")]
    vector: VectorBytes
    title: str = ""
    features: Annotated[
        dict[str, bytes], Meta(description="dense features by name: base64 of 32-bit floats, little-endian")
    ] = {}
    bags: dict[str, dict[str, float]] = {}

    def record_key(self) -> str:
        # Spaces hold no blank, so the first one ends the space.
        return f"{self.space} {self.song_id}"


class Answers(Struct, frozen=True):
    """The same for scores in which users' activity counts."""

    activity: Annotated[float, Meta(ge=0, le=STRONGEST, description="by which power it counts")]
    scores: Annotated[list[float], Meta(min_length=1)]
    chances: Annotated[list[float], Meta(min_length=1)]


class Chances(Struct, frozen=True):
    """What chance a score stands for: knots of a monotone, piecewise linear map."""

    scores: Annotated[list[float], Meta(min_length=1)]
    chances: Annotated[list[float], Meta(min_length=1)]
    means: Annotated[str, Meta(description="the chance of what")]
    answers: Annotated[
        Answers | None, Meta(description="without it nobody knows by how much activity counts, and it does not")
    ] = None


class LiveModel(Event, frozen=True, kw_only=True):
    """Which artifact is live under a name."""

    TYPES = ("coldstart.model.v1",)
    TOPIC = MODELS
    KEY = "name"
    EXAMPLE = """{"name":"encoder","uri":"file:///models/bcl-0a1b2c3d4e5f","manifest_sha256":"5e88","space":"bcl-0a1b2c3d4e5f",
        "dim":128,"warm_songs":2400,"published_at":"2026-03-01T09:00:00Z"}"""

    name: Id
    uri: str
    manifest_sha256: str
    space: str
    dim: Annotated[int, Meta(gt=0, le=MAX_DIMENSION)]
    warm_songs: Count
    published_at: Time
    chances: Annotated[Chances | None, Meta(description="without it scores order users and are no chances")] = None


INTERNAL_EVENTS: tuple[type[Event], ...] = (MatchRequest, CampaignReport, WarmSong, LiveModel)
