"""Turns decisions into records."""

from __future__ import annotations

from datetime import UTC, datetime

from msgspec import structs

from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Counts, Experiment, Learned, PartitionPrototype, PushTarget, Reason, Terms
from streams.contract.internal_events import CampaignReport
from targeting.rules.policy import POLICY_VERSION
from targeting.types import Account, Push, push_id

SOURCE = "coldstart/audience"

# Fewer members could point at a person.
MIN_MEMBERS = 10


def push_record(push: Push, now: float, preferences_offset: int, experiment: str | None = None) -> Record:
    """The push-target of a decision.

    Args:
        now: when it was decided, Unix seconds.
        preferences_offset: up to where, exclusive, the partition's preferences were obeyed.
        experiment: the name of the comparison, where a share is held out.
    """
    match = push.match
    event = PushTarget(
        push_id=push_id(push.user_id, match.recording, push.erased_at),
        campaign_id=match.song_id,
        user_id=push.user_id,
        song_id=match.song_id,
        revision=match.revision,
        title=match.title,
        artist_ids=list(match.artist_ids),
        explicit=match.explicit,
        decided_at=_time(now),
        not_before=_time(push.not_before),
        expires_at=_time(match.expires_at),
        score=round(push.score, 6),
        calibrated=push.calibrated,
        tier=push.tier.value,
        reason=Reason(
            why=push.why.value,
            songs=list(push.songs),
            prototype=push.prototype,
            boundary=round(push.score_threshold, 3),
            terms=Terms(
                evidence=round(push.evidence, 6), taste=round(push.direct, 6), activity=round(push.activity, 6)
            ),
            learned=_learned(push),
        ),
        experiment=Experiment(experiment) if experiment else None,
        space=match.space,
        policy_version=POLICY_VERSION,
        preferences_offset=preferences_offset,
    )
    return pack(event, id=event.push_id, source=SOURCE, time=now)


def report_record(account: Account, partition: int, partitions: int, version: int, now: float) -> Record:
    """The campaign report of an account, at a changelog offset."""
    sampled = max(1, int(account.prototypes.members.sum()))
    event = CampaignReport(
        song_id=account.song_id,
        revision=account.revision,
        partition=partition,
        partitions=partitions,
        version=version,
        space=account.space,
        started_at=_time(account.started_at),
        counts=Counts(**structs.asdict(account.counts)),
        ended=account.ended.value if account.ended else None,
        ended_at=_time(account.ended_at) if account.ended else None,
        prototypes=[
            PartitionPrototype(round(int(members) / sampled, 6), int(members), vector_codec.pack(account.space, vector))
            for vector, members in zip(account.prototypes.vectors, account.prototypes.members, strict=True)
            if members >= MIN_MEMBERS
        ],
    )
    id = f"{account.song_id}/{partition}/{version}"
    return pack(event, id=id, source=SOURCE, time=now)


def _learned(push: Push) -> Learned | None:
    if (push.offset, push.slope) == (0, 1):
        return None
    return Learned(offset=round(push.offset, 6), slope=round(push.slope, 6))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
