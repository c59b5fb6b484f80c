"""What the preferences of a batch say: what users allow, who is to be forgotten, and who allows no profiling."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from confluent_kafka import Message

from streams.audience.push_rules import preferences_of
from streams.audience.withdrawals import WITHHELD, erasure_asked, objection, said_at, user_of
from streams.contract.cloudevents import EventColumns, append_time
from streams.contract.events import UserPreferences
from targeting.types import Preferences


@dataclass(frozen=True, slots=True)
class DecodedPreferences:
    """As in :class:`targeting.types.PartitionInputs`."""

    preferences: Sequence[tuple[str, Preferences | None]] = ()
    erasures: Sequence[tuple[str, float]] = ()
    profiling: Sequence[tuple[str, float, bool]] = ()


def wanted(
    messages: Sequence[Message],
    found: EventColumns[UserPreferences],
    deletions: Sequence[Message],
    now: float,
    answered: Callable[[Message], bool],
) -> DecodedPreferences:
    """What the records say, in their order, also those that are refused.

    Args:
        messages: those with a value; ``found``: the events in them.
        now: Unix seconds.
        answered: whether a record was consumed in an earlier life.
    """
    preferences: dict[int, tuple[str, Preferences | None]] = {}
    erasures: list[tuple[str, float]] = []
    profiling: dict[int, tuple[str, float, bool]] = {}
    for at, event in zip(found.at, found.events, strict=True):
        offset, user = _offset(messages[at]), event.user_id
        preferences[offset] = user, preferences_of(event)
        if event.erase_requested_at:
            erasures.append((user, event.erase_requested_at.timestamp()))
        # An objection stands whenever it is read. What allows profiling did so when it was read first: an objection
        # after it that calls itself older was obeyed, because no time is kept of users who never objected.
        if not event.profiling or not answered(messages[at]):
            appended_at = append_time(messages[at].timestamp(), now)
            profiling[offset] = user, said_at(event.updated_at.timestamp(), appended_at), event.profiling
    for at, _ in found.bad:
        refused = messages[at]
        if (user_id := user_of(refused.key())) is None:
            continue
        preferences[_offset(refused)] = user_id, WITHHELD
        value, appended_at = refused.value() or b"", append_time(refused.timestamp(), now)
        if (asked := erasure_asked(value, appended_at)) is not None:
            erasures.append((user_id, asked))
        if (objected := objection(value, appended_at)) is not None:
            profiling[_offset(refused)] = user_id, objected, False
    preferences |= {_offset(message): (user_of(message.key()) or "", None) for message in deletions}
    return DecodedPreferences(
        [preferences[offset] for offset in sorted(preferences)],
        erasures,
        [profiling[offset] for offset in sorted(profiling)],
    )


def _offset(message: Message) -> int:
    return message.offset() or 0
