"""Reports of partitions become one campaign, in whatever order and however often they come."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime
from typing import Any

import pytest

from streams.events import CampaignReport, PartitionPrototype
from streams.songs.merging import MAX_PROTOTYPES, MAX_PROTOTYPES_KEPT, kept, merge, newer


def at(second: int) -> datetime:
    return datetime.fromtimestamp(1_800_000_000 + second, UTC)


def report(partition: int, version: int, **more: Any) -> CampaignReport:
    known = {
        "song_id": "s", "revision": 1, "partition": partition, "partitions": 2, "version": version, "space": "x",
        "started_at": at(partition), "candidates": 10 + partition, "pushed": version, "listened": 0,
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
        str(merge(list(newest(list(order)).values())))
        for order in itertools.permutations([*reports, reports[0]])
    }  # fmt: skip
    assert len(merged) == 1
    assert newest(reports)[0].version == 9
    assert newest(reports)[1].version == 7


def test_the_same_version_is_not_newer() -> None:
    assert newer(report(0, 5), None)
    assert newer(report(0, 5), report(0, 4))
    assert not newer(report(0, 5), report(0, 5))
    assert not newer(report(0, 4), report(0, 5))


def test_counts_are_added_and_answers_told() -> None:
    campaign = merge([report(1, 7, listened=2), report(0, 5, listened=1)])
    assert (campaign.counts.candidates, campaign.counts.pushed, campaign.counts.listened) == (21, 12, 3)
    assert campaign.counts.answered == [0, 1]
    assert (campaign.started_at, campaign.status) == (at(0), "active")
    assert campaign.end_reason is None
    assert campaign.ended_at is None


def test_ended_only_when_all_that_answered_have_ended() -> None:
    over = report(0, 5, ended="taken-down", ended_at=at(50))
    assert merge([over, report(1, 6)]).status == "active"
    campaign = merge([over, report(1, 6, ended="expired", ended_at=at(60))])
    assert (campaign.status, campaign.end_reason, campaign.ended_at) == ("ended", "expired", at(60))


def test_the_highest_revision_speaks_for_the_whole() -> None:
    campaign = merge([report(0, 99, space="old"), report(1, 3, revision=2, space="new")])
    assert (campaign.revision, campaign.space) == (2, "new")


def prototypes(*members: int) -> list[PartitionPrototype]:
    return [PartitionPrototype(0.5, each, bytes([number])) for number, each in enumerate(members)]


def test_the_heaviest_prototypes_stand_with_their_share_of_all() -> None:
    campaign = merge([report(0, 1, prototypes=prototypes(30, 10)), report(1, 1, prototypes=prototypes(60))])
    assert [each.members for each in campaign.prototypes] == [60, 30, 10]
    assert [each.weight for each in campaign.prototypes] == pytest.approx([0.6, 0.3, 0.1])
    many = merge([report(0, 1, prototypes=prototypes(*range(10, 40)))])
    assert [each.members for each in many.prototypes] == list(range(39, 39 - MAX_PROTOTYPES, -1))


def test_what_is_kept_of_a_report_merges_to_the_same_counts() -> None:
    whole = report(0, 5, prototypes=prototypes(12, 50, 11, 40))
    short = kept(whole)
    assert [each.members for each in short.prototypes] == [50, 40][:MAX_PROTOTYPES_KEPT]
    assert merge([short]).counts == merge([whole]).counts
    assert short.version == whole.version
