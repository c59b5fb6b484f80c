"""The ``campaigns`` topic as it is now."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streams.contract.errors import BadRecord, KeyMismatch, Undecodable
from streams.contract.event_time import check_times
from streams.contract.events import Campaign, CampaignCounts
from streams.contract.topics import CAMPAIGNS, Naming
from streams.kafka.compacted_topic import Snapshot
from streams.kafka.skipped_records import Skipped
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

_CAMPAIGN = msgspec.json.Decoder(Campaign)
_COUNTS = tuple(name for name in CampaignCounts.__struct_fields__ if name != "answered")


def current(kafka: KafkaSettings, naming: Naming, clock: Clock, skipped: Skipped | None = None) -> dict[str, Campaign]:
    """The newest record of every song, by song id; those that are over for long have been deleted.

    Args:
        skipped: is told of records that cannot be read; what their songs said before stands.

    Raises:
        Unavailable: the broker does not answer, or the topic does not exist.
    """
    snapshot = Snapshot(kafka, [naming.name(CAMPAIGNS)], clock)
    found: dict[str, Campaign] = {}
    skipped = skipped or Skipped()
    try:
        for message in snapshot.read_to_end():
            try:
                song_id, campaign = read_campaign(message.key(), message.value())
            except BadRecord as error:
                skipped.add(message, error)
                continue
            if campaign is None:
                found.pop(song_id, None)
            else:
                found[song_id] = campaign
    finally:
        snapshot.close()
    return found


def read_campaign(key: bytes | None, value: bytes | None) -> tuple[str, Campaign | None]:
    """The song id and the campaign in a record of ``campaigns``; None: it is deleted.

    Raises:
        BadRecord: it holds none.
    """
    try:
        song_id = (key or b"").decode()
        campaign = None if value is None else _CAMPAIGN.decode(value)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise Undecodable(f"no campaign: {error}") from None
    if campaign is not None:
        if campaign.song_id != song_id:
            raise KeyMismatch(f"key: {key!r} is not song_id {campaign.song_id!r}")
        check_times(campaign)
    return song_id, campaign


def total(campaigns: Iterable[Campaign]) -> CampaignCounts:
    """The counts of several songs, added up: pairs of a user and a song."""
    counts = [each.counts for each in campaigns]
    return CampaignCounts(**{name: sum(getattr(each, name) for each in counts) for name in _COUNTS})
