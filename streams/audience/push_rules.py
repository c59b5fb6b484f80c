"""The rules about people, as targeting takes them: those of the settings, and each user's own."""

from __future__ import annotations

from streams.contract.events import UserPreferences
from streams.runtime.settings import AudienceSettings
from targeting.rules.policy import Policy
from targeting.types import FrequencyCap, Preferences, QuietSpan


def policy_of(settings: AudienceSettings) -> Policy:
    """What holds for everybody."""
    return Policy(
        cap=FrequencyCap(settings.cap_pushes, settings.cap_hours),
        artist_cap=FrequencyCap(settings.artist_cap_pushes, settings.artist_cap_hours),
        holdout=settings.holdout,
        salt=settings.holdout_salt,
        exploration=settings.exploration,
        fair=settings.fair,
    )


def preferences_of(event: UserPreferences) -> Preferences:
    """What a user wants."""
    return Preferences(
        opted_in=event.opted_in,
        country=event.country,
        muted_artists=frozenset(event.muted_artists),
        allow_explicit=event.allow_explicit,
        timezone=event.timezone,
        quiet=tuple(QuietSpan(_minutes(span.start), _minutes(span.end)) for span in event.quiet_hours),
        cap=FrequencyCap(event.cap.pushes, event.cap.hours) if event.cap else None,
    )


def _minutes(clock: str) -> int:
    """HH:MM after midnight; the event's pattern lets nothing else through."""
    return 60 * int(clock[:2]) + int(clock[3:])
