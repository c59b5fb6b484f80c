"""Reports of partitions become one campaign, in whatever order and however often they come."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from streams.contract.events import Counts, PartitionPrototype
from streams.contract.internal_events import CampaignReport
from streams.operations.campaigns import read_campaign
from streams.songs.campaign_view import (
    MAX_PROTOTYPES,
    MAX_PROTOTYPES_KEPT,
    campaign,
    kept,
    listeners,
    newer,
    reported_end,
)
from streams.songs.song_record import Song
from targeting.types import LARGEST_COUNT

START = 1_800_000_000
SONG = Song(revision=1, id="a", asked=1, at=START, expires_at=START + 100, upload=msgspec.Raw(b"{}"), space="x")


def at(second: int) -> datetime:
    return datetime.fromtimestamp(START + second, UTC)


def report(partition: int, version: int, counts: Counts | None = None, **more: Any) -> CampaignReport:
    known = {
        "song_id": "s", "revision": 1, "partition": partition, "partitions": 2, "version": version, "space": "x",
        "started_at": at(0), "counts": counts or Counts(candidates=10 + partition, pushed=version),
    }  # fmt: skip
    return CampaignReport(**known | more)


def newest(arrivals: list[CampaignReport]) -> dict[int, CampaignReport]:
    """What is known of each partition after these arrivals."""
    known: dict[int, CampaignReport] = {}
    for each in arrivals:
        if newer(each, known.get(each.partition)):
            known[each.partition] = each
    return known


def test_disorder_and_repeats_change_nothing() -> None:
    reports = [report(0, 5), report(0, 9), report(1, 7), report(1, 3)]
    merged = {
        str(campaign("s", SONG, sorted(newest(list(order)).values(), key=lambda each: each.partition)))
        for order in itertools.permutations([*reports, reports[0]])
    }  # fmt: skip
    assert len(merged) == 1
    assert newest(reports)[0].version == 9
    assert newest(reports)[1].version == 7


def test_counts_that_are_legal_one_by_one_make_a_view_that_can_be_read() -> None:
    largest = [report(partition, 1, Counts(pushed=LARGEST_COUNT, opened=2)) for partition in range(2)]
    view = campaign("s", SONG, largest)
    _, again = read_campaign(b"s", msgspec.json.encode(view))
    assert again is not None
    assert (again.counts.pushed, again.counts.opened) == (LARGEST_COUNT, 4)


def test_the_same_version_is_not_newer() -> None:
    assert newer(report(0, 5), None)
    assert newer(report(0, 5), report(0, 4))
    assert not newer(report(0, 5), report(0, 5))
    assert not newer(report(0, 4), report(0, 5))


def test_every_count_is_added_field_by_field() -> None:
    one = Counts(**{name: number for number, name in enumerate(Counts.__struct_fields__, 1)})
    two = Counts(**{name: 100 * number for number, name in enumerate(Counts.__struct_fields__, 1)})
    found = campaign("s", SONG, [report(1, 7, one), report(0, 5, two)])
    assert [getattr(found.counts, name) for name in Counts.__struct_fields__] == [
        101 * number for number in range(1, len(Counts.__struct_fields__) + 1)
    ]
    assert found.counts.answered == [0, 1]
    assert listeners([report(1, 7, one), report(0, 5, two)]) == found.counts.distinct_listeners
    assert (found.started_at, found.status, found.end_reason, found.ended_at) == (at(0), "active", None, None)


def test_an_end_stands_once_every_partition_says_so() -> None:
    spent = report(0, 5, ended="budget", ended_at=at(50))
    assert reported_end(SONG, [spent], 2) is None
    assert reported_end(SONG, [spent, report(1, 6)], 2) is None
    over = report(1, 6, ended="expired", ended_at=at(60))
    assert reported_end(SONG, [spent, over], 2) == ("expired", START + 60)
    assert reported_end(SONG, [over, spent], 2) == ("expired", START + 60)


def test_ends_of_a_former_revision_do_not_end_the_present_one() -> None:
    revised = msgspec.structs.replace(SONG, revision=2, asked=2)
    ends = [report(number, 5, ended="budget", ended_at=at(50)) for number in range(2)]
    assert reported_end(revised, ends, 2) is None
    found = campaign("s", revised, ends)
    assert (found.revision, found.status, found.counts.answered) == (2, "active", [])
    # What was pushed before counts on.
    assert found.counts.pushed == 10


def test_the_status_is_the_ledgers_whatever_reports_say() -> None:
    ended = msgspec.structs.replace(SONG, ended="promoted", ended_at=START + 70.0)
    found = campaign("s", ended, [report(0, 9), report(1, 9)])
    assert (found.status, found.end_reason, found.ended_at) == ("ended", "promoted", at(70))
    assert found.counts.pushed == 18


def prototypes(*members: int) -> list[PartitionPrototype]:
    return [PartitionPrototype(0.5, each, bytes([number])) for number, each in enumerate(members)]


def test_the_heaviest_prototypes_stand_with_their_share_of_all() -> None:
    found = campaign("s", SONG, [report(0, 1, prototypes=prototypes(30, 10)), report(1, 1, prototypes=prototypes(60))])
    assert [each.members for each in found.prototypes] == [60, 30, 10]
    assert [each.weight for each in found.prototypes] == pytest.approx([0.6, 0.3, 0.1])
    many = campaign("s", SONG, [report(0, 1, prototypes=prototypes(*range(10, 40)))])
    assert [each.members for each in many.prototypes] == list(range(39, 39 - MAX_PROTOTYPES, -1))


def test_what_is_kept_of_a_report_merges_to_the_same_counts() -> None:
    whole = report(0, 5, prototypes=prototypes(12, 50, 11, 40))
    short = kept(whole)
    assert [each.members for each in short.prototypes] == [50, 40][:MAX_PROTOTYPES_KEPT]
    assert campaign("s", SONG, [short]).counts == campaign("s", SONG, [whole]).counts
    assert short.version == whole.version
