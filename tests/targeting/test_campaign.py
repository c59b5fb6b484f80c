from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest

from targeting.campaigns.campaign import CampaignRecord, decode_account, decode_request, encode_account, encode_request
from targeting.types import EndReason, Match, OutcomeCounts, Prototypes

MATCH = Match(
    "new", 3, "rec", "Nové", ("a1", "a2"), "space", np.asarray([0.6, -0.8], np.float32), ("s1", "s2"),
    np.asarray([0.9, 0.25], np.float32), 500, 1_700_000_000.5, 1_700_086_400.0,
    explicit=True, territories=("DE", "FR"), available_from=1_700_000_100.0,
    others=(("next", np.asarray([1, 0, 0], np.float32)),),
)  # fmt: skip


def plain(match: Match) -> dict[str, object]:
    """A match as values that compare."""
    names = type(match).__slots__
    told = {name: getattr(match, name) for name in names}
    told["vector"], told["similarities"] = match.vector.tolist(), match.similarities.tolist()
    told["others"] = [(space, vector.tolist()) for space, vector in match.others]
    return told


@pytest.mark.parametrize(
    "match",
    [
        MATCH,
        replace(MATCH, neighbours=(), similarities=np.zeros(0, np.float32), artist_ids=(), territories=(), others=()),
        replace(MATCH, vector=np.arange(300, dtype=np.float32)[::3]),
    ],
)
def test_a_request_comes_back_as_it_was(match: Match) -> None:
    again = decode_request(encode_request(match))
    assert plain(again) == plain(match)
    assert encode_request(again) == encode_request(match)
    assert again.vector.dtype == again.similarities.dtype == np.float32


def test_whole_seconds_make_the_same_record_as_floats() -> None:
    ints = replace(MATCH, requested_at=5, expires_at=9, available_from=0)
    floats = replace(MATCH, requested_at=5.0, expires_at=9.0, available_from=0.0)
    assert encode_request(ints) == encode_request(floats)


@pytest.mark.parametrize("ended", [None, *EndReason])
def test_an_account_comes_back_as_it_was(ended: EndReason | None) -> None:
    counts = OutcomeCounts(*range(1, 17))
    record = encode_account(CampaignRecord(MATCH, counts, ended, 7))
    assert decode_account(record) == (counts, ended, 7.0)


def test_an_account_does_not_grow_with_the_request() -> None:
    small = replace(MATCH, neighbours=(), similarities=np.zeros(0, np.float32))
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


def test_counts_add_up() -> None:
    assert OutcomeCounts(*range(16)) + OutcomeCounts(*[1] * 16) == OutcomeCounts(*range(1, 17))


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
