"""Which campaigns are there, and how do they stand? The ``campaigns`` topic as it is now."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from streams.clock import Clock
from streams.events import Campaign, CampaignCounts
from streams.settings import Kafka
from streams.snapshot import Snapshot
from streams.topics import CAMPAIGNS, Naming

_CAMPAIGN = msgspec.json.Decoder(Campaign)
_COUNTS = tuple(name for name in CampaignCounts.__struct_fields__ if name != "answered")


def current(kafka: Kafka, naming: Naming, clock: Clock) -> dict[str, Campaign]:
    """The newest record of every song, by song id; those that are over for long have been deleted.

    Raises:
        Unavailable: the broker does not answer, or the topic does not exist.
    """
    snapshot = Snapshot(kafka, [naming.name(CAMPAIGNS)], clock)
    found: dict[str, Campaign] = {}
    try:
        for message in snapshot.read_to_end():
            key, value = (message.key() or b"").decode(), message.value()
            if value is None:
                found.pop(key, None)
            else:
                found[key] = _CAMPAIGN.decode(value)
    finally:
        snapshot.close()
    return found


def total(campaigns: Iterable[Campaign]) -> CampaignCounts:
    """The counts of several songs, added up: pairs of a user and a song."""
    counts = [each.counts for each in campaigns]
    return CampaignCounts(**{name: sum(getattr(each, name) for each in counts) for name in _COUNTS})
