"""Checks that every push was one that its user allows, once, and not too often."""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from hashlib import blake2b
from itertools import chain, pairwise
from math import inf
from zoneinfo import ZoneInfo

from streams.contract.events import PushTarget, QuietHours, SongUpload, UserPreferences
from streams.testbed.chaos.evidence import Evidence, Said
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.rules import AtMost, Rules

_MASK = 2**64 - 1

User = tuple[int, str]
"""Partition and id."""


@dataclass(frozen=True, slots=True)
class Word:
    """What a user said of profiling.

    Attributes:
        offset, appended: of the record; Unix seconds.
        at: its ``updated_at``, Unix seconds.
        objects: whether profiling is not allowed.
    """

    offset: int
    appended: float
    at: float
    objects: bool


class Wishes:
    """What each user's preferences were at each offset of their partition, which erasures they asked for, and whether
    they allowed profiling.

    Of profiling the latest ``updated_at`` since the first objection counts, of two the objection. What a deletion, or a
    refused record without an objection, says of it is nothing.
    """

    def __init__(self, preferences: Sequence[Said[UserPreferences]]) -> None:
        self._said: defaultdict[User, list[tuple[int, UserPreferences | None]]] = defaultdict(list)
        self._erasures: defaultdict[User, list[tuple[int, float]]] = defaultdict(list)
        self._words: defaultdict[User, list[Word]] = defaultdict(list)
        for said in preferences:
            user = said.partition, said.key
            self._said[user].append((said.offset, said.event))
            asked = said.event.erase_requested_at if said.event else None
            # Preferences are the full state, so that an old request is said again: only a later one is another.
            if asked and (not self._erasures[user] or asked.timestamp() > self._erasures[user][-1][1]):
                self._erasures[user].append((said.offset, asked.timestamp()))
            if said.event and not (said.refused and said.event.profiling):
                self._note(self._words[user], said, said.event)

    def at(self, user: User, offset: int) -> UserPreferences | None:
        """What was in force when everything before ``offset`` was obeyed; None: the default."""
        said = self._said.get(user, [])
        before = bisect_left(said, offset, key=lambda each: each[0])
        return said[before - 1][1] if before else None

    def forgotten(self, user: User, offset: int) -> list[float]:
        """Up to when the user was forgotten, Unix seconds, ascending, once for each erasure, and for each time that
        profiling was allowed again, as far as it was said before ``offset``."""
        words = self.words(user)
        again = [word.at for before, word in pairwise(words) if before.objects > word.objects and word.offset < offset]
        return sorted([*(time for at, time in self._erasures.get(user, []) if at < offset), *again])

    def words(self, user: User) -> list[Word]:
        """What the user said of profiling, from the first objection on, as far as it was not outdated."""
        return self._words.get(user, [])

    def profiled(self, user: User, offset: int) -> bool:
        """Whether everything before ``offset`` allowed profiling."""
        before = [word for word in self.words(user) if word.offset < offset]
        return not before or not before[-1].objects

    def ever_forgotten(self) -> set[str]:
        """Everybody who ever asked to be forgotten, or allowed no profiling, by id."""
        return {user for said in (self._erasures, self._words) for (_, user), what in said.items() if what}

    def objectors(self) -> list[User]:
        """Everybody who allows no profiling in the end."""
        return [user for user, words in self._words.items() if words and words[-1].objects]

    def objections(self) -> Iterator[tuple[User, float, float]]:
        """Everybody's times without profiling: user, when the broker appended the objection, and when what allowed
        profiling again, Unix seconds; infinity: nothing did."""
        for user, words in self._words.items():
            since: float | None = None
            for word in words:
                if word.objects:
                    since = word.appended if since is None else since
                elif since is not None:
                    yield user, since, word.appended
                    since = None
            if since is not None:
                yield user, since, inf

    @staticmethod
    def _note(words: list[Word], said: Said[UserPreferences], event: UserPreferences) -> None:
        at, objects = event.updated_at.timestamp(), not event.profiling
        newest = (at, objects) > (words[-1].at, words[-1].objects) if words else objects
        if newest:
            words.append(Word(said.offset, said.appended, at, objects))

    def erased(self) -> dict[User, float]:
        """Everybody who ever asked, and when last, Unix seconds."""
        return {user: asked[-1][1] for user, asked in self._erasures.items() if asked}


@dataclass(slots=True)
class _Told:
    """What a user was told since they were forgotten last: all that may count."""

    forgotten: int
    recordings: set[str] = field(default_factory=set)
    times: list[float] = field(default_factory=list)
    by_artist: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))


def judge(evidence: Evidence, rules: Rules) -> Iterator[Judged]:
    """Every push, and why it should not have been.

    By the preferences before the push's own ``preferences_offset``:

    - none to a user who was opted out, had muted one of its artists, does not allow what is explicit, or is not known
      to be in one of its territories;
    - none more than the user's cap, or the default one, in any span of its length over ``not_before``, nor of one
      artist;
    - ``not_before`` lies in none of the user's quiet hours, nor before the decision or the song's release, and before
      the song expires;
    - none after the user's erasure that rests on what was heard before it;
    - none while the user allows no profiling, and none later that rests on what was heard before it was allowed again.

    And: a push_id stands once, and a recording once for a user between two erasures; no (user, song) that the lot holds
    out; of a partition, preferences once obeyed are obeyed from then on.
    """
    wishes, heard, seen = Wishes(evidence.preferences), _Heard(evidence), _seen(evidence.uploads)
    told: dict[User, _Told] = {}
    ids: set[str] = set()
    obeyed: dict[int, int] = {}
    for said in evidence.pushes:
        push = said.event
        yield "push-deleted", f"push-targets[{said.partition}] at {said.offset}" if push is None else None
        if push is None:
            continue
        what, user = f"push {push.push_id} of {push.song_id} to {push.user_id}", (said.partition, push.user_id)
        before = obeyed.get(said.partition, 0)
        back = (
            f"{what}: preferences were obeyed up to {push.preferences_offset}, "
            f"by an earlier push of the partition up to {before}"
        )
        yield "preferences-back", back if push.preferences_offset < before else None
        obeyed[said.partition] = max(push.preferences_offset, before)
        song = seen.get((push.song_id, push.revision))
        yield "never-uploaded", f"{what}: the song was never uploaded" if song is None else None
        if song is None:
            continue
        forgotten = wishes.forgotten(user, push.preferences_offset)
        mine = told.get(user)
        if mine is None or mine.forgotten < len(forgotten):
            mine = told[user] = _Told(len(forgotten))
        wish = wishes.at(user, push.preferences_offset)
        if wishes.words(user):
            why = "the user allowed no profiling"
            profiled = wishes.profiled(user, push.preferences_offset)
            yield "profiled", None if profiled else f"{what}: {why}"
        judged = chain(
            _once(push, song, mine, ids),
            _against(wish, song),
            _when(push, song, wish),
            _often(push, song, wish, rules, mine),
            heard.against(push, forgotten[-1] if forgotten else None),
            _drawn(push, rules),
        )
        yield from ((rule, why and f"{what}: {why}") for rule, why in judged)


def held_out(user_id: str, song_id: str, rules: Rules) -> bool:
    """The lot, from its documentation: 64-bit BLAKE2b of the user's id, XORed with that of ``salt/song``, scrambled by
    the finaliser of SplitMix64; held out where that is less than the share of 2**64."""
    x = _hash64(user_id) ^ _hash64(f"{rules.salt}/{song_id}")
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _MASK
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _MASK
    return float(x ^ (x >> 31)) < rules.holdout * 2.0**64


def is_quiet(moment: datetime, timezone: str, spans: Sequence[QuietHours]) -> bool:
    """Whether the local clock shows a time in one of the spans, ends excluded."""
    local = moment.astimezone(ZoneInfo(timezone))
    clock = f"{local.hour:02}:{local.minute:02}"
    return any(
        span.start <= clock < span.end if span.start < span.end else clock >= span.start or clock < span.end
        for span in spans
    )


def fullest(times: Sequence[float], moment: float, seconds: float) -> int:
    """The most pushes in any half-open span of that length that holds the moment.

    Args:
        times: ascending, the moment's own push among them.
    """
    most = 0
    for first in range(bisect_right(times, moment - seconds), bisect_right(times, moment)):
        most = max(most, bisect_left(times, times[first] + seconds) - first)
    return most


class _Heard:
    """Who listened to what, and has which vector from outside; times are Unix seconds."""

    def __init__(self, evidence: Evidence) -> None:
        self._listens: defaultdict[str, list[tuple[str, float]]] = defaultdict(list)
        for said in evidence.listens:
            if said.event:
                self._listens[said.event.user_id].append((said.event.song_id, said.time))
        self._vectors: dict[str, float] = {}
        for user, time in evidence.vectors:
            self._vectors[user] = max(time, self._vectors.get(user, 0.0))

    def against(self, push: PushTarget, erased: float | None) -> Iterator[Judged]:
        """Why the user is pushed, and what is wrong with it."""
        since = -1.0 if erased is None else erased
        songs = {song for song, time in self._listens.get(push.user_id, []) if time > since}
        if erased is not None:
            nothing = not songs and self._vectors.get(push.user_id, -1.0) <= since
            why = "the user was erased, and neither listened nor has a vector since"
            yield "erased-pushed", why if nothing else None
        if push.reason.songs:
            unheard = sorted(set(push.reason.songs) - songs)
            why = f"it says that the user heard {', '.join(unheard)}{' since the erasure' if erased else ''}"
            yield "erased-pushed" if erased else "reason", why if unheard else None


def _seen(uploads: Sequence[Said[SongUpload]]) -> dict[tuple[str, int], SongUpload]:
    """The uploads, by song and revision: the first of a revision counts."""
    seen: dict[tuple[str, int], SongUpload] = {}
    for said in uploads:
        if said.event:
            seen.setdefault((said.event.song_id, said.event.revision), said.event)
    return seen


def _once(push: PushTarget, song: SongUpload, told: _Told, ids: set[str]) -> Iterator[Judged]:
    recording = song.recording_id or song.song_id
    yield "push-twice", "stands twice" if push.push_id in ids else None
    if told.recordings:
        twice = "the recording was pushed to this user before"
        yield "recording-twice", twice if recording in told.recordings else None
    ids.add(push.push_id)
    told.recordings.add(recording)


def _against(wish: UserPreferences | None, song: SongUpload) -> Iterator[Judged]:
    """What in a user's preferences may speak against a push of this song."""
    if wish is None:
        return
    yield "opted-out", "the user had opted out" if not wish.opted_in else None
    if wish.muted_artists:
        muted = sorted(set(wish.muted_artists) & set(song.artist_ids))
        yield "muted", f"the user had muted {', '.join(muted)}" if muted else None
    if song.explicit:
        yield "explicit", "explicit, which the user does not allow" if not wish.allow_explicit else None
    if song.territories:
        where = wish.country or "an unknown country"
        yield "territory", f"not for {where}" if wish.country not in song.territories else None


def _when(push: PushTarget, song: SongUpload, wish: UserPreferences | None) -> Iterator[Judged]:
    # Only what is put off, or ends soon, tries these.
    if push.not_before < push.decided_at:
        yield "too-early", f"not before {push.not_before}, decided at {push.decided_at}"
    if push.not_before >= push.expires_at:
        yield "expired", f"not before {push.not_before}, and it expires at {push.expires_at}"
    elif song.expires_at or push.not_before > push.decided_at:
        yield "expired", None
    if song.available_from and song.available_from > push.decided_at:
        early = f"not before {push.not_before}, the song is there from {song.available_from}"
        yield "too-early", early if push.not_before < song.available_from else None
    if wish and wish.quiet_hours:
        quiet = is_quiet(push.not_before, wish.timezone, wish.quiet_hours)
        why = f"not before {push.not_before}, in the user's quiet hours ({wish.timezone})"
        yield "quiet-hours", why if quiet else None


def _often(
    push: PushTarget, song: SongUpload, wish: UserPreferences | None, rules: Rules, told: _Told
) -> Iterator[Judged]:
    moment = push.not_before.timestamp()
    cap = AtMost(wish.cap.pushes, wish.cap.hours * 3600) if wish and wish.cap else rules.cap
    insort(told.times, moment)
    artist = song.artist_ids[0] if song.artist_ids else ""
    insort(told.by_artist[artist], moment)
    # A span that is not full does not try its cap.
    if cap and (count := fullest(told.times, moment, cap.seconds)) >= cap.pushes:
        why = f"{count} pushes in {cap.seconds:g} s, the cap is {cap.pushes}"
        yield "cap", why if count > cap.pushes else None
    if artist and (most := rules.artist_cap):
        count = fullest(told.by_artist[artist], moment, most.seconds)
        if count >= most.pushes:
            why = f"{count} pushes of artist {artist} in {most.seconds:g} s, the cap is {most.pushes}"
            yield "artist-cap", why if count > most.pushes else None


def _drawn(push: PushTarget, rules: Rules) -> Iterator[Judged]:
    yield "held-out", "the lot holds it out" if held_out(push.user_id, push.song_id, rules) else None
    wrong = f"experiment is {push.experiment}, the share held out {rules.holdout:g}"
    yield "experiment", wrong if (push.experiment is None) != (rules.holdout == 0) else None


def _hash64(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")
