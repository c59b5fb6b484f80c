"""What do all partitions together say of a song? The newest report of each, added up."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from streams.events import Campaign, CampaignReport, Counts

Reports = Mapping[str, CampaignReport]
"""Partition number, as text, to its newest report: the shape in which Faust keeps it."""

# A campaign is read by people and dashboards; the heaviest prototypes tell the story, and sixteen
# partitions' whole lists would not fit comfortably in a record.
MAX_PROTOTYPES = 8


def newer(report: CampaignReport, known: CampaignReport | None) -> bool:
    """Whether a report replaces the one known from its partition; repeats and disorder are harmless."""
    return known is None or report.version > known.version


def merge(reports: Reports) -> Campaign:
    """The campaign that a song's newest reports make. ``reports`` is not empty.

    Partitions may stand at different revisions for a moment; the highest gives its name to the whole. A campaign
    has ended when every partition that answered says so.
    """
    newest = max(reports.values(), key=lambda report: (report.revision, report.version))
    ended = all(report.ended for report in reports.values())
    total = sum(prototype.members for report in reports.values() for prototype in report.prototypes)
    prototypes = [prototype for report in reports.values() for prototype in report.prototypes]
    heaviest = sorted(prototypes, key=lambda prototype: -prototype.members)[:MAX_PROTOTYPES]
    return Campaign(
        song_id=newest.song_id,
        revision=newest.revision,
        status="ended" if ended else "active",
        end_reason=newest.ended if ended else None,
        started_at=min(report.started_at for report in reports.values()),
        ended_at=max(report.ended_at or report.started_at for report in reports.values()) if ended else None,
        counts=Counts(
            candidates=sum(report.candidates for report in reports.values()),
            pushed=sum(report.pushed for report in reports.values()),
            listened=sum(report.listened for report in reports.values()),
            answered=sorted(report.partition for report in reports.values()),
        ),
        space=newest.space,
        prototypes=[
            msgspec.structs.replace(prototype, weight=round(prototype.members / total, 6)) for prototype in heaviest
        ],
    )
