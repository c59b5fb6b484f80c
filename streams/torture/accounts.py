"""Do uploads, reports, campaigns, warm songs and pushes tell the same story?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from itertools import pairwise
from math import floor

from streams.events import Campaign, CampaignReport, SongUpload
from streams.topics import Naming
from streams.torture.consent import Wishes
from streams.torture.evidence import Evidence, Said, space_of
from streams.torture.promises import broken
from streams.torture.rules import Rules

Account = tuple[str, int]
"""A song's in one partition."""


def judge(evidence: Evidence, rules: Rules, naming: Naming) -> Iterator[str]:
    """Every song whose story does not hold, in words. To be asked when nothing is on its way any more.

    - every accepted upload is answered by every partition; what was never uploaded is nowhere;
    - of no song more is pushed than its budget, at the request no more than that share of it;
    - a partition's newest report counts the pushes that stand, and the listeners and deliveries that were sent;
    - after the end of a campaign nothing is decided for it, and it does not come back; nor does an old revision;
    - a song heard by enough is promoted, no other is; what is promoted can be retrieved, what is taken down cannot;
    - every vector is of a space that was published, and stands with others of its space alone.
    """
    songs = _Songs(evidence)
    yield from _answers(evidence, songs, naming)
    for asked in sorted({said.event.song_id for said in evidence.requests if said.event} - set(songs.revisions)):
        yield broken("never-uploaded", f"{asked}: asked for an audience, and was never uploaded")
    yield from _budgets(evidence, songs, rules)
    yield from _counts(evidence, songs)
    yield from _ends(evidence)
    yield from _promotions(evidence, songs, rules)
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
        self.revisions: defaultdict[str, dict[int, Said[SongUpload]]] = defaultdict(dict)
        for said in evidence.uploads:
            if said.event:
                self.revisions[said.event.song_id].setdefault(said.event.revision, said)

    def last(self, song_id: str) -> Said[SongUpload]:
        return max(self.revisions[song_id].items())[1]

    def taken_down(self, song_id: str) -> bool:
        return SongUpload.taken_down(self.last(song_id).type)

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


def _answers(evidence: Evidence, songs: _Songs, naming: Naming) -> Iterator[str]:
    answered: defaultdict[tuple[str, int], set[int]] = defaultdict(set)
    for said in evidence.reports:
        if said.event:
            answered[said.event.song_id, said.event.revision].add(said.event.partition)
    promoted: dict[str, int] = {}
    for view in evidence.campaigns:
        if view.event and view.event.end_reason == "promoted":
            promoted.setdefault(view.event.song_id, view.event.revision)
    for song_id in songs.revisions:
        revision = max(songs.revisions[song_id])
        # Of a song taken down nothing is asked, and of a warm one neither, unless it is another recording now.
        if songs.taken_down(song_id):
            continue
        if promoted.get(song_id, revision) < revision and len(songs.recordings(song_id)) == 1:
            continue
        missing = sorted(set(range(naming.audience_partitions)) - answered[song_id, revision])
        if missing:
            yield broken("unanswered", f"upload of {song_id}: not answered by partitions {missing}")


def _budgets(evidence: Evidence, songs: _Songs, rules: Rules) -> Iterator[str]:
    pushed: defaultdict[str, int] = defaultdict(int)
    at_once: defaultdict[str, int] = defaultdict(int)
    for said in evidence.pushes:
        if said.event and said.event.song_id in songs.revisions:
            pushed[said.event.song_id] += 1
            at_once[said.event.song_id] += said.event.tier == "initial"
    for song_id, count in pushed.items():
        budget = songs.budget(song_id, rules)
        allowed = min(budget, floor(budget * rules.at_once + 0.5))
        if count > budget:
            yield broken("budget", f"{song_id}: {count} pushes, its budget is {budget}")
        if at_once[song_id] > allowed:
            yield broken("budget-at-once", f"{song_id}: {at_once[song_id]} pushes, {allowed} allowed at once")


def _counts(evidence: Evidence, songs: _Songs) -> Iterator[str]:
    pushed: defaultdict[Account, int] = defaultdict(int)
    for push in evidence.pushes:
        if push.event:
            pushed[push.event.song_id, push.partition] += 1
    told: defaultdict[str, list[CampaignReport]] = defaultdict(list)
    for (song_id, partition), report in newest_reports(evidence).items():
        told[song_id].append(report)
        count = pushed.pop((song_id, partition), 0)
        if report.counts.pushed != count:
            yield broken(
                "count-pushes", f"{song_id}: partition {partition} reports {report.counts.pushed} pushes, {count} stand"
            )
    for song_id, partition in pushed:
        yield broken("unreported", f"{song_id}: pushed by partition {partition}, which never reported on it")
    yield from _answered_by_users(evidence, songs, told)


def _answered_by_users(evidence: Evidence, songs: _Songs, told: dict[str, list[CampaignReport]]) -> Iterator[str]:
    # Who was forgotten and came back may count again.
    erased = {user for _, user in Wishes(evidence.preferences).erased()}
    heard: defaultdict[str, set[str]] = defaultdict(set)
    for listen in evidence.listens:
        if listen.event:
            heard[listen.event.song_id].add(listen.event.user_id)
    for song_id, reports in told.items():
        users, counted = heard[song_id], sum(report.counts.distinct_listeners for report in reports)
        if not users & erased and counted != len(users):
            yield broken("count-listeners", f"{song_id}: {counted} listeners are reported, there were {len(users)}")
    # What became of a push is known by its recording: songs that share one are counted together.
    delivered: defaultdict[str, set[str]] = defaultdict(set)
    for outcome in evidence.outcomes:
        if outcome.event and outcome.event.outcome == "delivered":
            delivered[songs.recording(outcome.event.song_id)].add(outcome.event.user_id)
    counts: defaultdict[str, int] = defaultdict(int)
    for song_id, reports in told.items():
        counts[songs.recording(song_id)] += sum(report.counts.delivered for report in reports)
    for recording, counted in counts.items():
        users = delivered[recording]
        if not users & erased and counted != len(users):
            yield broken(
                "count-deliveries", f"recording {recording}: {counted} deliveries are reported, there were {len(users)}"
            )


def _ends(evidence: Evidence) -> Iterator[str]:
    ended: dict[tuple[str, int, int], CampaignReport] = {}
    by_place: defaultdict[tuple[str, int, int], list[CampaignReport]] = defaultdict(list)
    for said in evidence.reports:
        if said.event:
            by_place[said.event.song_id, said.event.partition, said.event.revision].append(said.event)
    for place, reports in by_place.items():
        reports.sort(key=lambda report: report.version)
        for before, after in pairwise(reports):
            if before.ended and not after.ended and after.version > before.version:
                yield broken(
                    "revived",
                    f"{place[0]}: ended in partition {place[1]} ({before.ended}), alive again at {after.version}",
                )
        over = [report for report in reports if report.ended and report.ended != "superseded"]
        if over:
            ended[place] = min(over, key=lambda report: report.version)
    revision: dict[Account, int] = {}
    for push in evidence.pushes:
        if push.event is None:
            continue
        account = push.event.song_id, push.partition
        end = ended.get((*account, push.event.revision))
        if end and end.ended_at and push.event.decided_at > end.ended_at:
            yield broken(
                "push-after-end",
                f"push {push.event.push_id} of {push.event.song_id} to {push.event.user_id}: decided at "
                f"{push.event.decided_at}, the campaign ended at {end.ended_at} ({end.ended})",
            )
        if push.event.revision < revision.get(account, push.event.revision):
            yield broken(
                "old-revision",
                f"push {push.event.push_id} of {push.event.song_id}: revision {push.event.revision} after a later one",
            )
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
            yield broken("revived", f"{campaign.song_id}: campaign ended ({before_it.end_reason}), and is active again")


def _promotions(evidence: Evidence, songs: _Songs, rules: Rules) -> Iterator[str]:
    warm: defaultdict[str, set[str]] = defaultdict(set)
    for said in evidence.warm:
        space, _, song_id = said.key.partition(" ")
        (warm[song_id].discard if said.event is None else warm[song_id].add)(space)
    last = {view.event.song_id: view.event for view in evidence.campaigns if view.event}
    newest = newest_reports(evidence)
    for song_id, campaign in last.items():
        if song_id not in songs.revisions:
            yield broken("never-uploaded", f"{song_id}: has a campaign, and was never uploaded")
            continue
        listeners = campaign.counts.distinct_listeners
        down = songs.taken_down(song_id)
        if down and campaign.end_reason != "taken-down":
            yield broken(
                "taken-down", f"{song_id}: taken down, its campaign is {campaign.end_reason or campaign.status}"
            )
        if down and warm[song_id]:
            yield broken("taken-down", f"{song_id}: taken down, and warm in {', '.join(sorted(warm[song_id]))}")
        if campaign.end_reason in ("promoted", "taken-down"):
            alive = sorted(of[1] for of, report in newest.items() if of[0] == song_id and not report.ended)
            if alive:
                yield broken("goes-on", f"{song_id}: {campaign.end_reason}, and alive in partitions {alive}")
        if down or len(songs.recordings(song_id)) > 1:
            continue
        if campaign.end_reason == "promoted":
            if listeners < rules.warm_listeners:
                yield broken(
                    "promoted-early",
                    f"{song_id}: promoted with {listeners} listeners, {rules.warm_listeners} make a song warm",
                )
            if not warm[song_id]:
                yield broken("promoted-cold", f"{song_id}: promoted, and not among the warm songs")
        elif campaign.end_reason in (None, "budget") and listeners >= rules.warm_listeners:
            yield broken("unpromoted", f"{song_id}: {listeners} listeners, and not promoted")


def _spaces(evidence: Evidence) -> Iterator[str]:
    published = {said.event.space for said in evidence.models if said.event}
    for push in evidence.pushes:
        if push.event and push.event.space not in published:
            yield broken(
                "spaces", f"push {push.event.push_id}: of space {push.event.space!r}, which was never published"
            )
    for request in evidence.requests:
        if request.event is None:
            continue
        vectors = [request.event.vector, *request.event.other_vectors]
        spaces = [space_of(vector) for vector in vectors if vector]
        if not set(spaces) <= published or len(set(spaces)) < len(spaces):
            yield broken(
                "spaces",
                f"request {request.key} ({request.type}): has vectors of {spaces}, published are {sorted(published)}",
            )
    for song in evidence.warm:
        if song.event and not song.key.partition(" ")[0] == song.event.space == space_of(song.event.vector):
            yield broken(
                "spaces",
                f"warm song {song.key}: says {song.event.space!r}, its vector is of {space_of(song.event.vector)!r}",
            )
    told: list[CampaignReport | Campaign | None] = [each.event for each in evidence.reports]
    told += [each.event for each in evidence.campaigns]
    for event in told:
        others = sorted({space_of(each.vector) for each in event.prototypes} - {event.space}) if event else []
        if event and others:
            yield broken("spaces", f"{event.song_id}: of space {event.space!r}, with prototypes of {', '.join(others)}")
