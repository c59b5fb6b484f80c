"""Events that other teams send and receive, field by field.

Every event is one struct; msgspec checks the types and bounds written here, ``check`` the rules that span
fields. Unknown fields are ignored. Times are RFC 3339 with an offset. The examples are part of the
contract: a test decodes each of them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from zoneinfo import ZoneInfo

import msgspec
from msgspec import Meta, Struct

from streams.contract.errors import InvalidField
from streams.contract.event_base import (
    LARGEST,
    MAX_DIMENSION,
    Event,
    Id,
    Language,
    Territory,
    Time,
    VectorBytes,
    Weight,
)
from streams.contract.event_time import (
    CAMPAIGN_DAYS,
    LONGEST_CAMPAIGN_DAYS,
    MAX_AHEAD_SECONDS,
    check_not_ahead,
    check_times,
)
from streams.contract.reasons import quoted
from streams.contract.topics import CAMPAIGNS, LISTENS, PREFERENCES, PUSH_OUTCOMES, PUSH_TARGETS, SONG_UPLOADS
from targeting.types import Count, OutcomeCounts

Revision = Annotated[
    int,
    Meta(
        ge=0,
        le=2**53,
        description="grows with every change. The same content under the same one is a no-op; other content, or a "
        "lower one, is refused; a takedown needs the current one or a higher one",
    ),
]


class DenseFeature(Struct, frozen=True):
    """A dense embedding of the song, from a model of the uploader."""

    space: Annotated[str, Meta(min_length=1, max_length=128, description="which model made it")]
    vector: Annotated[
        list[Annotated[float, Meta(extra_json_schema={"minimum": -LARGEST, "maximum": LARGEST})]],
        Meta(min_length=1, max_length=MAX_DIMENSION),
    ]


class SongTakedown(Event, frozen=True, kw_only=True):
    """A song must no longer be pushed or retrieved. Only these fields are read, so that nothing else can fail."""

    TYPES = ("coldstart.song.taken-down.v1",)
    TOPIC = SONG_UPLOADS
    KEY = "song_id"
    EXAMPLE = """{"song_id":"s-81","revision":2}"""

    song_id: Id
    revision: Revision

    def complete(self) -> SongUpload:
        return SongUpload(song_id=self.song_id, revision=self.revision, title="")


class SongUpload(Event, frozen=True, kw_only=True):
    """A song was uploaded or updated: its full state. At least one of features, tags, genres and artist_ids is needed.

    A takedown is read as a :class:`SongTakedown`.
    """

    UPLOADED: ClassVar = "coldstart.song.uploaded.v1"
    UPDATED: ClassVar = "coldstart.song.updated.v1"
    (TAKEN_DOWN,) = SongTakedown.TYPES
    PROBES: ClassVar = "coldstart-probe-"  # begins song_ids that reach nobody: their budget is 0
    TYPES = (UPLOADED, UPDATED, TAKEN_DOWN)
    FORMS: ClassVar = {TAKEN_DOWN: SongTakedown}
    TOPIC = SONG_UPLOADS
    KEY = "song_id"
    EXAMPLE = """{"song_id":"s-81","revision":1,"recording_id":"QM6P41900381","artist_ids":["a-7"],
        "title":"Small Hours","language":"en","genres":["dream pop"],"duration_ms":214000,
        "tags":{"dream pop":3,"female vocalists":1},
        "features":{"audio":{"space":"acme-audio-2","vector":[0.12,-0.4,0.88]}},"budget":500}"""

    song_id: Id
    revision: Revision
    title: Annotated[str, Meta(max_length=1024)]
    recording_id: Annotated[
        Id | None,
        Meta(description="ISRC or own; pushed again to a user only after an erasure or a time without profiling"),
    ] = None
    artist_ids: Annotated[list[Id], Meta(max_length=64, description="the first is the primary artist")] = []
    album_id: Id | None = None
    language: Language | None = None
    genres: Annotated[list[Id], Meta(max_length=64)] = []
    explicit: bool = False
    territories: Annotated[list[Territory], Meta(max_length=300, description="empty = everywhere")] = []
    duration_ms: Annotated[int, Meta(gt=0, le=2**31 - 1)] | None = None
    available_from: Annotated[
        Time | None, Meta(description=f"nobody is pushed before; at most {LONGEST_CAMPAIGN_DAYS} days after the upload")
    ] = None
    expires_at: Annotated[
        Time | None,
        Meta(
            description="end of the campaign: after the upload and after available_from, at most "
            f"{LONGEST_CAMPAIGN_DAYS} days after the upload; default: songs.campaign_days ({CAMPAIGN_DAYS}) after the "
            "later of the two"
        ),
    ] = None
    features: Annotated[dict[Id, DenseFeature], Meta(max_length=32, description="name -> embedding")] = {}
    tags: Annotated[dict[Id, Weight], Meta(max_length=1024, description="tag -> weight")] = {}
    budget: Annotated[int, Meta(gt=0, le=2**31 - 1, description="pushes, all partitions together")] | None = None

    def check(self, ce_type: str, _appended: float) -> None:
        if self.taken_down(ce_type):
            return
        check_times(self)
        if self.language is not None and self.language.endswith("\n"):
            # To Python's regular expressions, and to no others, a line that ends there ends before it, too.
            raise InvalidField(f"language: {self.language!r} ends with a line break")
        if not (self.features or self.tags or self.genres or self.artist_ids):
            raise InvalidField("features, tags, genres, artist_ids: at least one of them is needed, all are empty")
        for name, feature in self.features.items():
            if not all(abs(value) <= LARGEST for value in feature.vector):
                raise InvalidField(f"features[{quoted(name)}].vector: holds a value beyond {LARGEST:g}")
        for tag, weight in self.tags.items():
            if not weight <= LARGEST:
                raise InvalidField(f"tags[{quoted(tag)}]: {weight:g}, at most {LARGEST:g} is allowed")

    @classmethod
    def taken_down(cls, ce_type: str) -> bool:
        return ce_type == cls.TAKEN_DOWN


class Listen(Event, frozen=True, kw_only=True):
    """A user played a song."""

    TYPES = ("coldstart.listen.v1",)
    TOPIC = LISTENS
    KEY = "user_id"
    EXAMPLE = """{"listen_id":"l-1","user_id":"u-5","song_id":"s-2","played_at":"2026-03-01T10:00:00Z",
        "ms_played":181000,"completed":true,"source":"playlist"}"""

    listen_id: Id
    user_id: Id
    song_id: Id
    played_at: Time
    source: Literal["organic", "push", "playlist", "search", "other"]
    ms_played: Count | None = None
    completed: bool | None = None
    collected: bool = False
    push_id: Id | None = None
    plays: Annotated[
        int, Meta(ge=1, le=2**31 - 1, description="aggregated history: how many plays this stands for")
    ] = 1


class PushOutcome(Event, frozen=True, kw_only=True):
    """What became of a push."""

    TYPES = ("coldstart.push-outcome.v1",)
    TOPIC = PUSH_OUTCOMES
    KEY = "user_id"
    EXAMPLE = """{"push_id":"p-1","user_id":"u-5","song_id":"s-81","outcome":"opened","at":"2026-03-01T10:00:09Z"}"""

    push_id: Id
    user_id: Id
    song_id: Id
    outcome: Annotated[
        Literal["delivered", "failed", "opened", "dismissed", "expired"],
        Meta(description="the same again is a no-op; delivered may come late; of the others the first one stands"),
    ]
    at: Annotated[
        Time, Meta(description="when it happened; not before the not_before of its push, unless it failed or expired")
    ]

    def check(self, _ce_type: str, appended: float) -> None:
        check_times(self)
        check_not_ahead("at", self.at.timestamp(), appended)


class QuietHours(Struct, frozen=True):
    """A span of local time without pushes; it may cross midnight."""

    start: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)] = msgspec.field(name="from")
    end: Annotated[str, Meta(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$", max_length=5)] = msgspec.field(name="to")


class Cap(Struct, frozen=True):
    """At most so many pushes in so many hours. In any case nobody gets more than 40,000 pushes in 400 days."""

    pushes: Count
    hours: Annotated[float, Meta(ge=0.001, le=8760)]


class UserPreferences(Event, frozen=True, kw_only=True):
    """What a user allows: the full state, never a patch.

    A record that is refused stops the pushes to its key's user, until a record that can be read, or a deletion, comes;
    an erasure or objection in it is obeyed. Refused as WrongPartition nothing of it reaches the user: send it again.
    """

    TYPES = ("coldstart.preferences.v1",)
    TOPIC = PREFERENCES
    KEY = "user_id"
    EXAMPLE = """{"user_id":"u-5","opted_in":true,"timezone":"Europe/Lisbon",
        "quiet_hours":[{"from":"22:00","to":"08:00"}],"country":"PT","muted_artists":["a-9"],
        "allow_explicit":false,"cap":{"pushes":2,"hours":24},"profiling":true,"updated_at":"2026-03-01T09:00:00Z"}"""

    user_id: Id
    opted_in: bool
    updated_at: Time
    timezone: Annotated[str, Meta(min_length=1, max_length=64, description="IANA name")] = "UTC"
    quiet_hours: Annotated[list[QuietHours], Meta(max_length=8)] = []
    country: Territory | None = None
    muted_artists: Annotated[list[Id], Meta(max_length=10_000)] = []
    allow_explicit: bool = True
    cap: Cap | None = None
    profiling: Annotated[
        bool,
        Meta(
            description="false: all that is held of the user is forgotten, and nothing kept or pushed until a record "
            "of later updated_at says true, or lacks the field; what was heard before that stays forgotten. A deletion "
            'does not end it. In a refused record false, 0 and "false" count, and nothing else'
        ),
    ] = True
    erase_requested_at: Annotated[
        Time | None,
        Meta(
            description=f"forget everything from before this; at most {MAX_AHEAD_SECONDS / 60:g} minutes ahead of the "
            "broker's clock. In a record that is refused anything but null, false, 0 or empty asks for it, and what is "
            "no time, or one too far ahead, means the record's own time"
        ),
    ] = None

    def check(self, _ce_type: str, appended: float) -> None:
        check_times(self)
        if self.erase_requested_at is not None:
            check_not_ahead("erase_requested_at", self.erase_requested_at.timestamp(), appended)
        try:
            ZoneInfo(self.timezone)
        except (ValueError, OSError, KeyError):
            raise InvalidField(f"timezone: {self.timezone!r} is no IANA time zone") from None
        for span in self.quiet_hours:
            if span.start == span.end:
                raise InvalidField(f"quiet_hours: from {span.start} to {span.end} is no span; to opt out say opted_in")


class Terms(Struct, frozen=True, kw_only=True):
    """What each term gave: (evidence + taste) * activity; where calibrated, the score is the chance it stands for."""

    evidence: Annotated[float, Meta(ge=0, le=1, description="of the retrieved songs that the user heard")]
    taste: Annotated[float, Meta(ge=0, le=1, description="of the nearness of the song to all that the user heard")]
    activity: Annotated[
        float,
        Meta(gt=0, le=1, description="of how many songs the user heard; 1 for everybody where that does not count"),
    ]


class Learned(Struct, frozen=True, kw_only=True):
    """What answers to earlier pushes made of the chance: logit(score) = offset + slope * logit(chance)."""

    offset: float
    slope: Annotated[float, Meta(gt=0)]


class Reason(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """Why this user gets this song."""

    why: Literal["direct", "evidence", "prototype", "exploration"]
    songs: Annotated[list[str], Meta(description="retrieved songs that the user heard, by falling weight")] = []
    prototype: Count | None = None
    boundary: Annotated[
        float,
        Meta(
            gt=0, description="the user's scores were divided by this: above 1 after ignored pushes, below after opened"
        ),
    ] = 1.0
    terms: Annotated[Terms | None, Meta(description="null in pushes from versions that did not tell them")] = None
    learned: Annotated[
        Learned | None,
        Meta(
            description="null while answers agree with the model's chance. A live push has no chance of a model: there "
            "chance is what the terms give"
        ),
    ] = None


class Experiment(Struct, frozen=True):
    """Which comparison the push is part of. Held-out users are never here."""

    name: str
    arm: Literal["treated"] = "treated"


class PushTarget(Event, frozen=True, kw_only=True):
    """Push this song to this user, once."""

    TYPES = ("coldstart.push-target.v1",)
    TOPIC = PUSH_TARGETS
    KEY = "user_id"
    EXAMPLE = """{"push_id":"9f0c","campaign_id":"s-81","user_id":"u-5","song_id":"s-81","revision":1,
        "title":"Small Hours","artist_ids":["a-7"],"decided_at":"2026-03-01T10:00:00.120Z",
        "not_before":"2026-03-01T10:00:00.120Z","expires_at":"2026-03-29T10:00:00Z","score":0.41,
        "calibrated":false,"tier":"initial",
        "reason":{"why":"evidence","songs":["s-2"],"terms":{"evidence":0.31,"taste":0.28,"activity":0.695}},
        "space":"bcl-0a1b2c3d4e5f","policy_version":1,"preferences_offset":17}"""

    push_id: Annotated[
        Id,
        Meta(
            description="hash of user_id and recording_id (or song_id), and of the user's last erasure or return to "
            "profiling, if any: equal ids are one push, and a recording is pushed again only after one of these"
        ),
    ]
    campaign_id: Id
    user_id: Id
    song_id: Id
    revision: int
    title: str
    artist_ids: list[str]
    explicit: Annotated[bool, Meta(description="not for users whose preferences allow no explicit songs")] = False
    decided_at: Time
    not_before: Time
    expires_at: Time
    score: Annotated[
        float,
        Meta(ge=0, le=1, description="comparable across users and partitions; where calibrated the chance of a listen"),
    ]
    calibrated: bool
    tier: Annotated[
        Literal["initial", "live"], Meta(description="initial: at the request; live: later, as tastes move")
    ]
    reason: Reason
    experiment: Annotated[Experiment | None, Meta(description="null where nobody is held out")] = None
    space: str
    policy_version: int
    preferences_offset: Annotated[
        int, Meta(description="preferences of this partition were obeyed up to here (exclusive)")
    ]


class PartitionPrototype(Struct, frozen=True):
    """A vector that stands for at least ten listeners."""

    weight: Annotated[float, Meta(ge=0, le=1, description="share of the sampled audience")]
    members: Annotated[int, Meta(ge=10, le=2**53)]
    vector: VectorBytes


class Counts(OutcomeCounts, frozen=True, kw_only=True, omit_defaults=True):
    """What became of a song, in users; a user counts once in each. A count that is missing is 0."""


class CampaignCounts(Counts, frozen=True, kw_only=True, omit_defaults=True):
    """The counts over all partitions that answered."""

    answered: Annotated[list[int], Meta(description="partitions that answered, ascending")] = []


EndReason = Literal["promoted", "budget", "expired", "taken-down", "superseded"]


class Campaign(Event, frozen=True, kw_only=True):
    """The merged view of a song's campaign: the newest counts of every partition, added up."""

    TYPES = ("coldstart.campaign.v1",)
    TOPIC = CAMPAIGNS
    KEY = "song_id"
    EXAMPLE = """{"song_id":"s-81","revision":1,"status":"active","started_at":"2026-03-01T10:00:00Z",
        "counts":{"candidates":812,"pushed":350,"listened":4,"distinct_listeners":6,
        "answered":[0,1,2,3]},"space":"bcl-0a1b2c3d4e5f"}"""

    song_id: Id
    revision: int
    status: Literal["active", "ended"]
    started_at: Time
    counts: CampaignCounts
    space: str
    end_reason: Annotated[
        EndReason | None,
        Meta(
            description="taken-down retracts every push of the song: do not send it. The others retract nothing: "
            "budget, promoted, superseded and expired mean that no further push is decided"
        ),
    ] = None
    ended_at: Time | None = None
    prototypes: list[PartitionPrototype] = []


PUBLIC_EVENTS: tuple[type[Event], ...] = (SongUpload, Listen, PushOutcome, UserPreferences, PushTarget, Campaign)
