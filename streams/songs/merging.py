"""What do all partitions together say of a song? The newest report of each, added up."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from streams.events import Campaign, CampaignReport, Counts

# A campaign is read by people and dashboards; the heaviest prototypes tell the story. Sixteen partitions' whole
# lists would be 100 kB a song, in every record and in memory.
MAX_PROTOTYPES = 8
MAX_PROTOTYPES_KEPT = 2


def newer(report: CampaignReport, known: CampaignReport | None) -> bool:
    """Whether a report replaces the one known from its partition; repeats and disorder are harmless."""
    return known is None or (report.revision, report.version) > (known.revision, known.version)


def kept(report: CampaignReport) -> CampaignReport:
    """What is remembered of a report: all counts, and its heaviest prototypes."""
    heaviest = sorted(report.prototypes, key=lambda prototype: -prototype.members)[:MAX_PROTOTYPES_KEPT]
    return msgspec.structs.replace(report, prototypes=heaviest)


def merge(reports: Sequence[CampaignReport]) -> Campaign:
    """The campaign that a song's newest reports, one a partition and at least one, make.

    Partitions may stand at different revisions for a moment; the highest gives its name to the whole. A campaign
    has ended when every partition that answered says so.
    """
    newest = max(reports, key=lambda report: (report.revision, report.version))
    ended = all(report.ended for report in reports)
    total = sum(prototype.members for report in reports for prototype in report.prototypes)
    prototypes = [prototype for report in reports for prototype in report.prototypes]
    heaviest = sorted(prototypes, key=lambda prototype: -prototype.members)[:MAX_PROTOTYPES]
    return Campaign(
        song_id=newest.song_id,
        revision=newest.revision,
        status="ended" if ended else "active",
        end_reason=newest.ended if ended else None,
        started_at=min(report.started_at for report in reports),
        ended_at=max(report.ended_at or report.started_at for report in reports) if ended else None,
        counts=Counts(
            candidates=sum(report.candidates for report in reports),
            pushed=sum(report.pushed for report in reports),
            listened=sum(report.listened for report in reports),
            answered=sorted(report.partition for report in reports),
        ),
        space=newest.space,
        prototypes=[
            msgspec.structs.replace(prototype, weight=round(prototype.members / total, 6)) for prototype in heaviest
        ],
    )
