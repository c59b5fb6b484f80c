"""Checks that uploads, reports, campaigns, warm songs and pushes tell the same story."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Set
from itertools import pairwise
from math import floor

from streams.contract.events import Campaign, SongUpload
from streams.contract.internal_events import CampaignReport
from streams.contract.topics import Naming
from streams.testbed.chaos.evidence import Evidence, Said, space_of
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.push_check import Wishes
from streams.testbed.chaos.rules import Rules

Account = tuple[str, int]
"""A song's in one partition."""


def judge(evidence: Evidence, rules: Rules, naming: Naming) -> Iterator[Judged]:
    """Every song, and what of its story does not hold. To be asked when nothing is on its way any more.

    - every accepted upload is answered by every partition; what was never uploaded is nowhere;
    - of no song more is pushed than its budget, at the request no more than that share of it;
    - a partition's newest report counts the pushes that stand, and the listeners and deliveries that were sent;
    - after the end of a campaign nothing is decided for it, and it does not come back; nor does an old revision, which
      is neither pushed after a newer one nor what a campaign shows in the end;
    - a song heard by enough is promoted, no other is; what is promoted can be retrieved, what is taken down cannot;
    - every vector is of a space that was published, and stands with others of its space alone.
    """
    songs = _Songs(evidence)
    yield from _answers(evidence, songs, naming)
    for asked in sorted({said.event.song_id for said in evidence.requests if said.event}):
        unknown = f"{asked}: asked for an audience, and was never uploaded"
        yield "never-uploaded", unknown if asked not in songs.revisions else None
    yield from _budgets(evidence, songs, rules)
    yield from _counts(evidence, songs)
    yield from _ends(evidence, songs)
    yield from _views(evidence, songs, rules)
    yield from _spaces(evidence)


def newest_reports(evidence: Evidence) -> dict[Account, CampaignReport]:
    """The report that counts, by song and partition: highest revision, then highest version."""
    newest: dict[Account, CampaignReport] = {}
    for said in evidence.reports:
        report = said.event
        if report is None:
            continue
        place = report.song_id, report.partition
        known = newest.get(place)
        if known is None or (report.revision, report.version) >= (known.revision, known.version):
            newest[place] = report
    return newest


class _Songs:
    """What was uploaded: of each song every revision, and the last word on it."""

    def __init__(self, evidence: Evidence) -> None:
        self.revisions: dict[str, dict[int, Said[SongUpload]]] = {}
        for said in evidence.uploads:
            if said.event:
                self.revisions.setdefault(said.event.song_id, {}).setdefault(said.event.revision, said)
        self._promoted: dict[str, int] = {}
        for view in evidence.campaigns:
            if view.event and view.event.end_reason == "promoted":
                self._promoted.setdefault(view.event.song_id, view.event.revision)

    def last(self, song_id: str) -> Said[SongUpload]:
        return max(self.revisions[song_id].items())[1]

    def taken_down(self, song_id: str) -> bool:
        return SongUpload.taken_down(self.last(song_id).type)

    def stayed_warm(self, song_id: str) -> bool:
        """Whether a later revision came when the song had been promoted: that begins no campaign."""
        last = max(self.revisions[song_id])
        return self._promoted.get(song_id, last) < last and len(self.recordings(song_id)) == 1

    def recordings(self, song_id: str) -> set[str]:
        """Every recording that the song ever was."""
        events = (said.event for said in self.revisions[song_id].values())
        return {event.recording_id or event.song_id for event in events if event}

    def recording(self, song_id: str) -> str:
        """The recording that the song is; its own where nothing was uploaded."""
        event = self.last(song_id).event if song_id in self.revisions else None
        return (event.recording_id if event else None) or song_id

    def budget(self, song_id: str, rules: Rules) -> int:
        """The largest that any revision gave."""
        events = (said.event for said in self.revisions[song_id].values())
        return max(rules.budget if event.budget is None else event.budget for event in events if event)


def _answers(evidence: Evidence, songs: _Songs, naming: Naming) -> Iterator[Judged]:
    answered: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for said in evidence.reports:
        if said.event:
            answered[said.event.song_id, said.event.revision].add(said.event.partition)
    for song_id in songs.revisions:
        revision = max(songs.revisions[song_id])
        # Of a song taken down nothing is asked, and of a warm one neither, unless it is another recording now.
        if songs.taken_down(song_id) or songs.stayed_warm(song_id):
            continue
        missing = sorted(set(range(naming.audience_partitions)) - answered[song_id, revision])
        yield "unanswered", f"upload of {song_id}: not answered by partitions {missing}" if missing else None


def _budgets(evidence: Evidence, songs: _Songs, rules: Rules) -> Iterator[Judged]:
    pushed: defaultdict[str, int] = defaultdict(int)
    at_once: defaultdict[str, int] = defaultdict(int)
    for said in evidence.pushes:
        if said.event and said.event.song_id in songs.revisions:
            pushed[said.event.song_id] += 1
            at_once[said.event.song_id] += said.event.tier == "initial"
    for song_id, count in pushed.items():
        budget = songs.budget(song_id, rules)
        allowed = min(budget, floor(budget * rules.at_once + 0.5))
        # What stays below a bound does not try it.
        if count >= budget:
            yield "budget", f"{song_id}: {count} pushes, its budget is {budget}" if count > budget else None
        if (now := at_once[song_id]) >= allowed:
            yield "budget-at-once", f"{song_id}: {now} pushes, {allowed} allowed at once" if now > allowed else None


def _counts(evidence: Evidence, songs: _Songs) -> Iterator[Judged]:
    pushed: defaultdict[Account, int] = defaultdict(int)
    for push in evidence.pushes:
        if push.event:
            pushed[push.event.song_id, push.partition] += 1
    told: defaultdict[str, list[CampaignReport]] = defaultdict(list)
    for (song_id, partition), report in newest_reports(evidence).items():
        told[song_id].append(report)
        count = pushed.pop((song_id, partition), 0)
        if count:
            yield "unreported", None
        if count or report.counts.pushed:
            other = f"{song_id}: partition {partition} reports {report.counts.pushed} pushes, {count} stand"
            yield "count-pushes", other if report.counts.pushed != count else None
    for song_id, partition in pushed:
        yield "unreported", f"{song_id}: pushed by partition {partition}, which never reported on it"
    yield from _answered_by_users(evidence, songs, told)


def _answered_by_users(evidence: Evidence, songs: _Songs, told: dict[str, list[CampaignReport]]) -> Iterator[Judged]:
    # Who was forgotten may count again, or not at all.
    erased = Wishes(evidence.preferences).ever_forgotten()
    heard: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for listen in evidence.listens:
        if listen.event:
            heard[listen.event.song_id][listen.event.user_id] += 1
    for song_id, reports in told.items():
        least, most = _bounds(heard[song_id], erased)
        counted = sum(report.counts.distinct_listeners for report in reports)
        if most or counted:
            other = f"{song_id}: {counted} listeners are reported, there were {_words(least, most)}"
            yield "count-listeners", None if least <= counted <= most else other
    # What became of a push is known by its recording: songs that share one are counted together.
    delivered: defaultdict[str, Counter[str]] = defaultdict(Counter)
    for outcome in evidence.outcomes:
        if outcome.event and outcome.event.outcome == "delivered":
            delivered[songs.recording(outcome.event.song_id)][outcome.event.user_id] += 1
    counts: defaultdict[str, int] = defaultdict(int)
    for song_id, reports in told.items():
        counts[songs.recording(song_id)] += sum(report.counts.delivered for report in reports)
    for recording, counted in counts.items():
        least, most = _bounds(delivered[recording], erased)
        if most or counted:
            other = f"recording {recording}: {counted} deliveries are reported, there were {_words(least, most)}"
            yield "count-deliveries", None if least <= counted <= most else other


def _bounds(times: Counter[str], erased: Set[str]) -> tuple[int, int]:
    """How many users may be counted, of whom each did it so many times."""
    certain = len(times.keys() - erased)
    return certain, certain + sum(times[user] for user in times.keys() & erased)


def _words(least: int, most: int) -> str:
    return f"{least}" if least == most else f"{least} to {most}"


def _ends(evidence: Evidence, songs: _Songs) -> Iterator[Judged]:
    ended: dict[tuple[str, int, int], CampaignReport] = {}
    by_place: defaultdict[tuple[str, int, int], list[CampaignReport]] = defaultdict(list)
    for said in evidence.reports:
        if said.event:
            by_place[said.event.song_id, said.event.partition, said.event.revision].append(said.event)
    for place, reports in by_place.items():
        reports.sort(key=lambda report: report.version)
        for before, after in pairwise(reports):
            if before.ended and after.version > before.version:
                again = f"{place[0]}: ended in partition {place[1]} ({before.ended}), alive again at {after.version}"
                yield "revived", again if not after.ended else None
        over = [report for report in reports if report.ended and report.ended != "superseded"]
        if over:
            ended[place] = min(over, key=lambda report: report.version)
    revision: dict[Account, int] = {}
    for push in evidence.pushes:
        if push.event is None:
            continue
        account = push.event.song_id, push.partition
        end = ended.get((*account, push.event.revision))
        if end and end.ended_at:
            late = (
                f"push {push.event.push_id} of {push.event.song_id} to {push.event.user_id}: decided at "
                f"{push.event.decided_at}, the campaign ended at {end.ended_at} ({end.ended})"
            )
            yield "push-after-end", late if push.event.decided_at > end.ended_at else None
        if account in revision and len(songs.revisions.get(push.event.song_id, ())) > 1:
            old = f"push {push.event.push_id} of {push.event.song_id}: revision {push.event.revision} after a later one"
            yield "old-revision", old if push.event.revision < revision[account] else None
        revision[account] = push.event.revision
    over_at: dict[str, Campaign] = {}
    for view in evidence.campaigns:
        campaign = view.event
        if campaign is None:
            continue
        before_it = over_at.get(campaign.song_id)
        if campaign.status == "ended":
            if before_it is None or campaign.revision >= before_it.revision:
                over_at[campaign.song_id] = campaign
        elif before_it and campaign.revision <= before_it.revision:
            yield "revived", f"{campaign.song_id}: campaign ended ({before_it.end_reason}), and is active again"
    yield from (("revived", None) for _ in over_at)


def _views(evidence: Evidence, songs: _Songs, rules: Rules) -> Iterator[Judged]:
    warm: defaultdict[str, set[str]] = defaultdict(set)
    for said in evidence.warm:
        space, _, song_id = said.key.partition(" ")
        (warm[song_id].discard if said.event is None else warm[song_id].add)(space)
    last = {view.event.song_id: view.event for view in evidence.campaigns if view.event}
    newest = newest_reports(evidence)
    for song_id, campaign in last.items():
        if song_id not in songs.revisions:
            yield "never-uploaded", f"{song_id}: has a campaign, and was never uploaded"
            continue
        listeners = campaign.counts.distinct_listeners
        down = songs.taken_down(song_id)
        if len(songs.revisions[song_id]) > 1 and not down and not songs.stayed_warm(song_id):
            latest = max(songs.revisions[song_id])
            old = f"{song_id}: revision {campaign.revision} has the campaign, {latest} was uploaded"
            yield "old-revision", old if campaign.revision < latest else None
        if down:
            other = f"{song_id}: taken down, its campaign is {campaign.end_reason or campaign.status}"
            yield "taken-down", other if campaign.end_reason != "taken-down" else None
            still = f"{song_id}: taken down, and warm in {', '.join(sorted(warm[song_id]))}"
            yield "taken-down", still if warm[song_id] else None
        if campaign.end_reason in ("promoted", "taken-down"):
            alive = sorted(of[1] for of, report in newest.items() if of[0] == song_id and not report.ended)
            yield "goes-on", f"{song_id}: {campaign.end_reason}, and alive in partitions {alive}" if alive else None
        if down or len(songs.recordings(song_id)) > 1:
            continue
        if campaign.end_reason == "promoted":
            early = f"{song_id}: promoted with {listeners} listeners, {rules.warm_listeners} make a song warm"
            yield "promoted-early", early if listeners < rules.warm_listeners else None
            yield "promoted-cold", f"{song_id}: promoted, and not among the warm songs" if not warm[song_id] else None
        if campaign.end_reason in (None, "budget", "promoted") and listeners >= rules.warm_listeners:
            not_yet = f"{song_id}: {listeners} listeners, and not promoted"
            yield "unpromoted", not_yet if campaign.end_reason != "promoted" else None


def _spaces(evidence: Evidence) -> Iterator[Judged]:
    published = {said.event.space for said in evidence.models if said.event}
    for push in evidence.pushes:
        if push.event:
            unknown = f"push {push.event.push_id}: of space {push.event.space!r}, which was never published"
            yield "spaces", unknown if push.event.space not in published else None
    for request in evidence.requests:
        if request.event is None:
            continue
        vectors = [request.event.vector, *request.event.other_vectors]
        spaces = [space_of(vector) for vector in vectors if vector]
        other = f"request {request.key} ({request.type}): has vectors of {spaces}, published are {sorted(published)}"
        yield "spaces", other if not set(spaces) <= published or len(set(spaces)) < len(spaces) else None
    for song in evidence.warm:
        if song.event:
            own = space_of(song.event.vector)
            other = f"warm song {song.key}: says {song.event.space!r}, its vector is of {own!r}"
            yield "spaces", other if not song.key.partition(" ")[0] == song.event.space == own else None
    told: list[CampaignReport | Campaign | None] = [each.event for each in evidence.reports]
    told += [each.event for each in evidence.campaigns]
    for event in told:
        others = sorted({space_of(each.vector) for each in event.prototypes} - {event.space}) if event else []
        if event and event.prototypes:
            mixed = f"{event.song_id}: of space {event.space!r}, with prototypes of {', '.join(others)}"
            yield "spaces", mixed if others else None
