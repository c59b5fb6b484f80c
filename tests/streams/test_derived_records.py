"""Whatever is accepted fits every record that is written because of it."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from streams.audience.encode import push_record
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, decoded, pack, unpack
from streams.contract.errors import InvalidField, TooLarge
from streams.contract.event_base import MAX_DIMENSION
from streams.contract.events import Counts, PartitionPrototype, SongUpload
from streams.contract.internal_events import CampaignReport, MatchRequest, Neighbour
from streams.contract.record_size import MAX_VALUE_BYTES, record_size
from streams.contract.topics import (
    AUDIENCE_STATE,
    CAMPAIGN_REPORTS,
    CAMPAIGNS,
    MATCH_REQUESTS,
    PUSH_TARGETS,
    SONGS_LEDGER,
    SONGS_REPORTS,
    WARM_SONGS,
    Topic,
)
from streams.runtime.settings import SongsSettings
from streams.songs import messages
from streams.songs.campaign_view import MAX_PROTOTYPES_KEPT, campaign
from streams.songs.matcher import Matched
from streams.songs.song_record import content_of, entry, read, write
from targeting.campaigns.campaign import encode_request
from targeting.types import Match, Push, PushReason, Tier

NOW = 1_800_000_000.0
THEN = datetime.fromtimestamp(NOW, UTC)
# One byte in an id's bound of characters, six in JSON.
LONGEST = "\x01"
WIDEST = "😀"
NEIGHBOURS = SongsSettings.model_fields["neighbours"].metadata[1].le
PARTITIONS = 64


def ids(number: int, letter: str) -> list[str]:
    """Different ids, as long as they may be."""
    return [f"{letter * (128 - 6)}{at:06}" for at in range(number)]


@st.composite
def uploads(draw: st.DrawFn) -> bytes:
    """The value of an upload with each part absent, usual or at its bound."""
    letter = draw(st.sampled_from(["a", LONGEST, WIDEST, "é"]))

    def some(bound: int) -> int:
        return draw(st.sampled_from([0, 1, 5, bound]))

    # As they are written: what is read may take more bytes to write again.
    weight = msgspec.Raw(draw(st.sampled_from([b"1", b"1e17", b"1.2345678901234567e-300", b"0.5"])))
    value = draw(st.sampled_from([b"1", b"-1e17", b"0.25", b"1e15", b"1.2345678901234567e-30"]))
    vector = msgspec.Raw(b"[%s]" % b",".join([value] * draw(st.sampled_from([1, 128, MAX_DIMENSION]))))
    return msgspec.json.encode(
        {
            "song_id": draw(st.sampled_from(["s", LONGEST * 128, WIDEST * 32])),
            "recording_id": draw(st.sampled_from(["r", LONGEST * 128])),
            "revision": draw(st.sampled_from([0, 2**53])),
            "title": letter * some(1024),
            "artist_ids": ids(some(64), letter),
            "genres": ids(some(64), letter),
            "territories": ["PT"] * some(300),
            "album_id": letter * 128,
            "language": "en" + "-x1234567" * draw(st.sampled_from([0, 6])),
            "duration_ms": 1,
            "features": {name: {"space": letter * 128, "vector": vector} for name in ids(some(32), letter)},
            "tags": dict.fromkeys(ids(some(1024), letter), weight),
        }
    )


def derived(value: bytes) -> list[tuple[Topic, Record]]:
    """Every record that the roles write because of an upload, each as large as it can grow.

    Raises:
        BadRecord: it is refused.
    """
    blank = SongUpload(song_id="s", revision=0, title="", tags={"a": 1.0})
    headers = pack(blank, ce_type=SongUpload.UPLOADED, id="i" * 9000, source="s" * 9000, time=NOW).headers
    key = msgspec.json.decode(value)["song_id"].encode()
    received = unpack(SongUpload, key, value, headers, NOW)
    upload = received.event
    song = msgspec.structs.replace(entry(received, NOW, 28), space="x" * 32, ended="superseded", ended_at=NOW)
    kept = write(song)
    known = read(kept)
    assert known is not None
    vector = vector_codec.pack("x" * 32, np.ones(MAX_DIMENSION, np.float32))
    near = [Neighbour(id, 0.123456) for id in ids(NEIGHBOURS, LONGEST)]
    request = messages.request(known, known.event(), Matched(vector, near), [vector], 2**31)
    asked = decoded(MatchRequest, request.value, dict(request.headers))
    match = Match(
        song_id=asked.song_id, revision=asked.revision, recording=asked.recording, title=asked.title,
        artist_ids=tuple(asked.artist_ids), space="x" * 32, vector=np.ones(MAX_DIMENSION, np.float32),
        neighbours=tuple(each.song_id for each in near), similarities=np.ones(len(near), np.float32),
        budget=asked.budget, requested_at=NOW, expires_at=NOW, territories=tuple(asked.territories),
        others=(("y" * 32, np.ones(MAX_DIMENSION, np.float32)),),
    )  # fmt: skip
    prototype = PartitionPrototype(0.123456, 10, vector)
    counts = Counts(**dict.fromkeys(Counts.__struct_fields__, 2**40))
    reports = [
        CampaignReport(
            song_id=upload.song_id, revision=upload.revision, partition=number, partitions=PARTITIONS, version=2**53,
            space="x" * 32, started_at=THEN, counts=counts, prototypes=[prototype] * MAX_PROTOTYPES_KEPT,
        )
        for number in range(PARTITIONS)
    ]  # fmt: skip
    view = campaign(upload.song_id, known, reports)
    push = Push(
        user_id=LONGEST * 128, match=match, not_before=NOW, score=0.123456, calibrated=True, tier=Tier.INITIAL,
        why=PushReason.EVIDENCE, songs=match.neighbours[:5], prototype=None, score_threshold=1.234,
        evidence=0.123456, direct=0.123456, activity=0.123456, offset=-1.234567, slope=0.123456,
    )  # fmt: skip
    return [
        (SONGS_LEDGER, Record(key, kept, [])),
        (MATCH_REQUESTS, request),
        (MATCH_REQUESTS, messages.re_anchored(upload.song_id, known, "x" * 32, Matched(vector, near))),
        (WARM_SONGS, messages.warm(upload.song_id, upload.title, content_of(known.event()), "x" * 32, vector, NOW)),
        (CAMPAIGNS, pack(view, id="i" * 900, source=messages.SOURCE, time=NOW)),
        (CAMPAIGN_REPORTS, pack(reports[0], id="i" * 900, source="s", time=NOW)),
        (SONGS_REPORTS, Record(key, msgspec.json.encode(reports[0]), [])),
        (AUDIENCE_STATE, Record(b"c" + key, encode_request(match), [])),
        (PUSH_TARGETS, push_record(push, NOW, 2**53, "holdout-" + "x" * 64)),
    ]


@pytest.mark.parametrize(("number", "tags"), [(b"1", 1000), (b"1e15", 480)])
def test_numbers_that_take_more_bytes_than_they_came_in_fit(number: bytes, tags: int) -> None:
    """The most that a value can grow: short numbers, as many as there may be, and tags in the rest of it."""
    vector = msgspec.Raw(b"[%s]" % b",".join([number] * MAX_DIMENSION))
    value = msgspec.json.encode(
        {
            "song_id": "s", "revision": 1, "title": "",
            "features": {str(number): {"space": "s", "vector": vector} for number in range(32)},
            "tags": dict.fromkeys(ids(tags, LONGEST), 1),
        }
    )  # fmt: skip
    assert MAX_VALUE_BYTES * 0.95 < len(value) <= MAX_VALUE_BYTES
    sizes = {topic.name: record_size(record.key, record.value) for topic, record in derived(value)}
    assert MAX_VALUE_BYTES < sizes["songs-ledger"] <= SONGS_LEDGER.largest
    assert MAX_VALUE_BYTES < sizes["warm-songs"] <= WARM_SONGS.largest


@given(uploads())
def test_an_upload_at_any_bounds_is_refused_or_fits_every_record_it_leads_to(value: bytes) -> None:
    if len(value) > MAX_VALUE_BYTES:
        with pytest.raises(TooLarge, match=f"{len(value)} bytes"):
            derived(value)
        return
    try:
        records = derived(value)
    except InvalidField as error:
        # At the door, by what the contract says of the value alone.
        if "at least one of them is needed" in str(error):
            return
        raise
    for topic, record in records:
        size = record_size(record.key, record.value, record.headers)
        assert size <= topic.largest, f"{topic.name}: {size} bytes"
