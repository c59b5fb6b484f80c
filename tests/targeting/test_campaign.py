from __future__ import annotations

import msgspec
import numpy as np
import pytest
from msgspec import structs

from targeting.campaigns.campaign import CampaignRecord, decode_account, decode_request, encode_account, encode_request
from targeting.types import EndReason, Match, OutcomeCounts, Prototypes

MATCH = Match(
    "new", 3, "rec", "Nové", ("a1", "a2"), "space", np.asarray([0.6, -0.8], np.float32), ("s1", "s2"),
    np.asarray([0.9, 0.25], np.float32), 500, 1_700_000_000.5, 1_700_086_400.0,
    explicit=True, territories=("DE", "FR"), available_from=1_700_000_100.0,
    others=(("next", np.asarray([1, 0, 0], np.float32)),),
)  # fmt: skip
NONE = np.zeros(0, np.float32)


def plain(match: Match) -> dict[str, object]:
    """A match as values that compare."""
    names = type(match).__struct_fields__
    told = {name: getattr(match, name) for name in names}
    told["vector"], told["similarities"] = match.vector.tolist(), match.similarities.tolist()
    told["others"] = [(space, vector.tolist()) for space, vector in match.others]
    return told


@pytest.mark.parametrize(
    "match",
    [
        MATCH,
        structs.replace(
            MATCH, neighbours=(), similarities=np.zeros(0, np.float32), artist_ids=(), territories=(), others=()
        ),
        structs.replace(MATCH, vector=np.arange(300, dtype=np.float32)[::3]),
    ],
)
def test_a_request_comes_back_as_it_was(match: Match) -> None:
    again = decode_request(encode_request(match))
    assert plain(again) == plain(match)
    assert encode_request(again) == encode_request(match)
    assert again.vector.dtype == again.similarities.dtype == np.float32


def test_whole_seconds_make_the_same_record_as_floats() -> None:
    ints = structs.replace(MATCH, requested_at=5, expires_at=9, available_from=0)
    floats = structs.replace(MATCH, requested_at=5.0, expires_at=9.0, available_from=0.0)
    assert encode_request(ints) == encode_request(floats)


def test_a_request_is_written_as_ever() -> None:
    """By hand, so that no field moves and no vector is written another way unnoticed."""
    floats = np.asarray([0.6, -0.8], "<f4").tobytes(), np.asarray([0.9, 0.25], "<f4").tobytes()
    fields = [
        "new", 3, "rec", "Nové", ["a1", "a2"], "space", floats[0], ["s1", "s2"], floats[1], 500, 1_700_000_000.5,
        1_700_086_400.0, True, ["DE", "FR"], 1_700_000_100.0, [["next", np.asarray([1, 0, 0], "<f4").tobytes()]],
    ]  # fmt: skip
    record = b"\x02" + msgspec.msgpack.encode(fields)
    assert encode_request(MATCH) == record
    assert plain(decode_request(record)) == plain(MATCH)


def test_an_account_is_written_as_ever() -> None:
    counts = OutcomeCounts(*range(16))
    fields = [msgspec.structs.asdict(counts), "expired", 7.0]
    assert encode_account(CampaignRecord(MATCH, counts, EndReason.EXPIRED, 7)) == b"\x02" + msgspec.msgpack.encode(
        fields
    )


@pytest.mark.parametrize("vector", [b"123", "text", 5, None, [0.5]])
def test_a_vector_that_is_none_makes_a_broken_record(vector: object) -> None:
    fields = msgspec.msgpack.decode(encode_request(MATCH)[1:])
    fields[6] = vector
    with pytest.raises(ValueError, match="broken"):
        decode_request(b"\x02" + msgspec.msgpack.encode(fields))


@pytest.mark.parametrize("ended", [None, *EndReason])
def test_an_account_comes_back_as_it_was(ended: EndReason | None) -> None:
    counts = OutcomeCounts(*range(1, 17))
    record = encode_account(CampaignRecord(MATCH, counts, ended, 7))
    assert decode_account(record) == (counts, ended, 7.0)


def test_an_account_does_not_grow_with_the_request() -> None:
    small = structs.replace(MATCH, neighbours=(), similarities=NONE)
    assert encode_account(CampaignRecord(small)) == encode_account(CampaignRecord(MATCH))


def test_outside_only_prototypes_of_ten_or_more_are_told() -> None:
    found = Prototypes(np.eye(3, 2, dtype=np.float32), np.asarray([9, 10, 250]))
    campaign = CampaignRecord(MATCH, OutcomeCounts(pushed=4), EndReason.EXPIRED, 9.0)
    account = campaign.account(found)
    assert account.prototypes.members.tolist() == [10, 250]
    assert (account.song_id, account.revision, account.space) == ("new", 3, "space")
    assert (account.counts, account.ended) == (OutcomeCounts(pushed=4), EndReason.EXPIRED)
    assert (account.started_at, account.ended_at) == (1_700_000_000.5, 9.0)
    assert campaign.account().prototypes.vectors.shape == (0, 2)


@pytest.mark.parametrize(
    ("decode", "record"),
    [
        (decode_request, encode_request(MATCH)),
        (decode_account, encode_account(CampaignRecord(MATCH))),
    ],
)
def test_another_version_and_a_broken_record_are_refused(decode: object, record: bytes) -> None:
    assert callable(decode)
    with pytest.raises(ValueError, match="version"):
        decode(b"\x01" + record[1:])
    with pytest.raises(ValueError, match="version"):
        decode(b"")
    with pytest.raises(ValueError, match="broken"):
        decode(record[:-1])
    with pytest.raises(ValueError, match="broken"):
        decode(record[:1] + msgspec.msgpack.encode(["no", "record"]))
