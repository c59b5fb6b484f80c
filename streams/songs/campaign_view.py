"""The view of a song over all partitions: the newest report of each, added up."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime

import msgspec

from streams.contract.cloudevents import Headers, unpack
from streams.contract.errors import InvalidField
from streams.contract.events import Campaign, CampaignCounts, Counts, EndReason
from streams.contract.internal_events import CampaignReport
from streams.songs.song_record import Song
from targeting.types import LARGEST_COUNT

# People and dashboards read a campaign; the heaviest prototypes are enough. Complete lists of sixteen partitions
# would take 100 kB per song, in every record and in memory.
MAX_PROTOTYPES = 8
MAX_PROTOTYPES_KEPT = 2

_COUNTS = Counts.__struct_fields__


def read_report(
    key: bytes | None, value: bytes | None, headers: Headers | None, appended: float, partitions: int
) -> CampaignReport:
    """The report in a record.

    Args:
        appended: when the broker appended the record, Unix seconds.
        partitions: of the audience.

    Raises:
        BadRecord: it holds none, or one of another number of partitions.
    """
    report = unpack(CampaignReport, key, value, headers, appended).event
    if report.partitions != partitions:
        raise InvalidField(f"partitions: {report.partitions}, there are {partitions}")
    return report


def newer(report: CampaignReport, known: CampaignReport | None) -> bool:
    """Whether a report replaces the one known from its partition; repeated and reordered reports are harmless."""
    return known is None or (report.revision, report.version) > (known.revision, known.version)


def kept(report: CampaignReport) -> CampaignReport:
    """What is remembered of a report: all counts, and its heaviest prototypes."""
    heaviest = sorted(report.prototypes, key=lambda prototype: -prototype.members)[:MAX_PROTOTYPES_KEPT]
    return msgspec.structs.replace(report, prototypes=heaviest)


def listeners(reports: Sequence[CampaignReport]) -> int:
    """Distinct listeners over partitions. Exact: a user is in one partition only."""
    return sum(report.counts.distinct_listeners for report in reports)


def reported_end(song: Song, reports: Sequence[CampaignReport], partitions: int) -> tuple[EndReason, float] | None:
    """Why and when the song's campaign ended, once every partition says so; else None.

    All partitions are waited for. If those that answered were enough, a song whose first answer is a spent share would
    end, and be active again a moment later. If reasons differ, the latest counts.
    """
    ends = [
        (report.ended_at.timestamp() if report.ended_at else song.at, report.ended)
        for report in reports
        if report.revision == song.asked and report.ended
    ]
    if len(ends) < partitions:
        return None
    at, reason = max(ends)
    return reason, at


def campaign(song_id: str, song: Song, reports: Sequence[CampaignReport]) -> Campaign:
    """The view of a song: its status from its song record, all else from the newest reports, one a partition.

    Counts go on over revisions; a partition has answered once it reports on the present one.
    """
    newest = max(reports, key=lambda report: (report.revision, report.version), default=None)
    # During a model swap, partitions briefly report from two spaces.
    prototypes = [each for report in reports if newest and report.space == newest.space for each in report.prototypes]
    total = sum(prototype.members for prototype in prototypes)
    heaviest = sorted(prototypes, key=lambda prototype: -prototype.members)[:MAX_PROTOTYPES]
    return Campaign(
        song_id=song_id,
        revision=song.asked,
        status="ended" if song.ended else "active",
        end_reason=song.ended,
        started_at=song.uploaded,
        ended_at=datetime.fromtimestamp(song.ended_at, UTC) if song.ended else None,
        counts=CampaignCounts(
            # Each is within its bound; the view must be, too, or nobody can read it.
            **{name: min(LARGEST_COUNT, sum(getattr(report.counts, name) for report in reports)) for name in _COUNTS},
            answered=sorted(report.partition for report in reports if report.revision >= song.asked),
        ),
        space=newest.space if newest else song.space,
        prototypes=[
            msgspec.structs.replace(prototype, weight=round(prototype.members / total, 6)) for prototype in heaviest
        ],
    )
