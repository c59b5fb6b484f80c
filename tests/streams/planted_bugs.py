"""Bugs of the product, each planted in a copy of its source, and the promise whose breach must give it away.

A chaos run must see each of them. A place that has moved on is found at once: every text must stand there exactly once.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

Edit = tuple[str, str, str]
"""A file, a text in it, and what takes its place."""

PACKAGES = ("streams", "targeting", "encoder", "significance")

# Not bugs: what may happen at any time, made to happen often.
ABORTS: Edit = (
    "streams/kafka/transaction.py",
    "            self._producer.commit_transaction(self._timeout)\n",
    "            if __import__('random').random() < 0.2:\n"
    "                self.abort()\n"
    "                raise Aborted\n"
    "            self._producer.commit_transaction(self._timeout)\n",
)


@dataclass(frozen=True)
class Planted:
    """A bug.

    Attributes:
        promise: the name of the rule that must find it.
        faults: what strikes, one a round; see :data:`streams.testbed.chaos.faults.FAULTS`; "none": nothing.
        settings: of the audience role, beside those of a chaos run.
        between_s: seconds of a round.
    """

    name: str
    promise: str
    edits: Sequence[Edit]
    faults: Sequence[str] = ("none",)
    settings: Sequence[tuple[str, Any]] = ()
    between_s: float = 5.0


def plant(root: Path, edits: Sequence[Edit], target: Path) -> None:
    """Copy the packages and change them.

    Raises:
        ValueError: a text does not stand exactly once where it should; the bug must be planted elsewhere.
    """
    for package in PACKAGES:
        shutil.copytree(root / package, target / package, ignore=shutil.ignore_patterns("__pycache__"))
    for file, text in changed(root, edits).items():
        (target / file).write_text(text)


def changed(root: Path, edits: Sequence[Edit]) -> dict[str, str]:
    """The files that a bug changes, as they are with it.

    Raises:
        ValueError: see :func:`plant`.
    """
    texts: dict[str, str] = {}
    for file, old, new in edits:
        text = texts.get(file) or (root / file).read_text()
        if text.count(old) != 1:
            raise ValueError(f"{file}: {old!r} stands there {text.count(old)} times, it must be once")
        texts[file] = text.replace(old, new)
    for file, text in texts.items():
        compile(text, file, "exec")
    return texts


_USERS = "targeting/partition/users_in_batch.py"
_CAMPAIGNS = "targeting/partition/campaigns_in_batch.py"
_COMMANDS = _CAMPAIGNS
_LIVE_PUSHES = "targeting/partition/live_pushes.py"
_FEEDBACK = "targeting/partition/feedback.py"
_CHANGELOG = "targeting/partition/changelog.py"
_DECISION = "targeting/ranking/selection.py"
_INPUTS = "streams/audience/decode.py"
_PREFERENCES = "streams/audience/preference_records.py"
_WORKER = "streams/audience/worker.py"
_COMMIT = "streams/audience/commit.py"
_OUTPUTS = "streams/audience/encode.py"
_WISHES = "targeting/users/preferences.py"
_REPORTS = "streams/songs/reports.py"
_LIVE = (("at_once", 0.3),)

PLANTED = (
    Planted(
        "the pushes are forgotten at a restart",
        "push-twice",
        [
            (
                "targeting/users/push_log.py",
                "        lengths, entries = decode(records)\n",
                "        lengths, entries = np.zeros(len(users), np.int64), np.zeros(0, PUSHED)\n",
            )
        ],
        ("all",),
    ),
    Planted(
        "pushes are sent outside the transaction",
        "push-twice",
        [
            ABORTS,
            (
                _COMMIT,
                "            produce(name(PUSH_TARGETS), partition, record.key, record.value, record.headers)\n",
                "            self._reporter._producer.produce(\n"
                "                name(PUSH_TARGETS), record.value, record.key, partition, headers=record.headers\n"
                "            )\n",
            ),
        ],
    ),
    Planted(
        "after an abort nothing is read again",
        "unanswered",
        [
            ABORTS,
            (
                _COMMIT,
                "            self._assignment.go_back({p: task.resumption for p, task in self._tasks.items()})\n"
                "            return False\n",
                "            return False\n",
            ),
        ],
    ),
    Planted(
        "an opt-out is ignored in live pushes",
        "opted-out",
        [
            (
                _CAMPAIGNS,
                "        held = self._held_back(match, scored.users, not_to)\n",
                "        held = self._held_back(match, scored.users, not_to)\n"
                "        if tier is Tier.LIVE:\n"
                "            held[held <= Suppression.NOT_WANTED] = 0\n",
            )
        ],
        ("none", "none"),
        settings=_LIVE,
    ),
    Planted(
        "preferences are read late",
        "opt-out-late",
        [
            (
                _WORKER,
                'until = self._assignment.ends("preferences", pushing) if pushing else {}',
                "until: dict[int, int] = {}",
            ),
            (
                _WORKER,
                "        batch = Round()\n        for partition, messages in self._assignment.poll_preferences(until)",
                "        batch, now = Round(), self._clock.monotonic()\n"
                "        if now < getattr(self, '_due', 0.0):\n            return batch\n"
                "        self._due = now + 40.0\n"
                "        for partition, messages in self._assignment.poll_preferences(until)",
            ),
        ],
        between_s=20.0,
    ),
    Planted(
        "a refused withdrawal is ignored",
        "opted-out",
        [
            (
                _PREFERENCES,
                "        if (user_id := user_of(refused.key())) is None:\n",
                "        if True:\n",
            )
        ],
    ),
    Planted(
        "the cap is off by one",
        "cap",
        [("targeting/users/frequency_caps.py", "fits = (used < pushes) &", "fits = (used <= pushes) &")],
    ),
    Planted(
        "the artist cap is off by two",
        "artist-cap",
        [("targeting/users/frequency_caps.py", "fits &= counts < cap.pushes", "fits &= counts < cap.pushes + 2")],
    ),
    Planted(
        "quiet hours end at midnight",
        "quiet-hours",
        [("targeting/rules/quiet_hours.py", "return minute >= span.start or minute < span.end", "return False")],
    ),
    Planted(
        "muted artists are pushed",
        "muted",
        [
            (_WISHES, "may = may & ~np.isin(numbers, np.fromiter(muting, np.int64, len(muting)))", "pass"),
            ("targeting/rules/policy.py", "preferences.muted_artists.isdisjoint(match.artist_ids)", "True"),
        ],
    ),
    Planted(
        "explicit songs are pushed to everybody",
        "explicit",
        [(_WISHES, "        if match.explicit:\n", "        if False:\n")],
    ),
    Planted(
        "territories are ignored", "territory", [(_WISHES, "        if match.territories:\n", "        if False:\n")]
    ),
    Planted(
        "a song is pushed before its release",
        "too-early",
        [(_DECISION, "start = max(context.now, float(math.ceil(match.available_from)))", "start = context.now")],
    ),
    Planted(
        "a push is put off beyond its song's end",
        "expired",
        [(_DECISION, "fits = when < match.expires_at\n", "fits = np.isfinite(when)\n")],
    ),
    Planted(
        "whom the lot holds out is pushed",
        "held-out",
        [(_DECISION, "pushed = (marks & Mark.HELD_OUT) == 0", "pushed = marks < 2**15")],
    ),
    Planted(
        "pushes do not name their experiment",
        "experiment",
        [(_OUTPUTS, "experiment=Experiment(experiment) if experiment else None", "experiment=None")],
    ),
    Planted(
        "every share of a budget is rounded up",
        "budget-at-once",
        [
            (
                "targeting/campaigns/budget.py",
                "return base + ((number - song_hash) % partitions < remainder)",
                "return base + 1",
            )
        ],
    ),
    Planted(
        "a push_id leaves the erasure out",
        "push-twice",
        [
            (
                _OUTPUTS,
                "push_id(push.user_id, match.recording, push.erased_at)",
                "push_id(push.user_id, match.recording)",
            )
        ],
        ("none", "none", "none", "none"),
    ),
    Planted(
        "an erased user's late listens count",
        "erased-written",
        [
            (
                _USERS,
                "keep = np.flatnonzero(listens.times > self.since(listens.user_ids))",
                "keep = np.flatnonzero(self.since(listens.user_ids) < np.inf)",
            )
        ],
        ("none", "none"),
        between_s=14.0,
    ),
    Planted(
        "an erasure leaves no marker",
        "erased-marker",
        [(_CHANGELOG, "        records[ERASED + hashed] = state.erasures.encode(marker)\n", "        pass\n")],
    ),
    Planted(
        "a score threshold is not written to the changelog",
        "state",
        [(_CHANGELOG, "if moved := changes.score_thresholds:", "if False and (moved := changes.score_thresholds):")],
    ),
    Planted(
        "one partition gets no requests",
        "unanswered",
        [
            (
                "streams/songs/producer.py",
                "for each in range(self._naming.audience_partitions)]",
                "for each in range(self._naming.audience_partitions - 1)]",
            )
        ],
    ),
    Planted(
        "an upload is acknowledged before it is served",
        "unanswered",
        [
            (
                "streams/songs/agents.py",
                "            await _or_leave(uploads.serve(store, events))\n"
                "            _count(store, events)\n"
                "            for event in events:\n"
                "                await stream.ack(event)\n",
                "            for event in events:\n"
                "                await stream.ack(event)\n"
                "            await asyncio.sleep(6)\n"
                "            await _or_leave(uploads.serve(store, events))\n"
                "            _count(store, events)\n",
            )
        ],
        ("none", "songs"),
    ),
    Planted(
        "an upload in an aborted transaction is served",
        "never-uploaded",
        [
            (
                "streams/songs/committed_consumer.py",
                'client._isolation_level = "read_committed"',
                'client._isolation_level = "read_uncommitted"',
            )
        ],
    ),
    Planted(
        "a takedown is ignored",
        "goes-on",
        [
            (
                _COMMANDS,
                "if each is None or command.revision < each.match.revision:",
                "if each is None or command.reason is End.TAKEN_DOWN:",
            )
        ],
        ("none", "none"),
    ),
    Planted(
        "a promoted song does not become warm",
        "promoted-cold",
        [
            (
                _REPORTS,
                "    await asyncio.gather(*[await store.producer.send(WARM_SONGS, record) for record in records])\n",
                "    assert WARM_SONGS and records\n",
            )
        ],
    ),
    Planted(
        "songs are promoted too early",
        "promoted-early",
        [(_REPORTS, "heard >= store.settings.warm_listeners", "heard >= 2")],
    ),
    Planted(
        "no song is promoted", "unpromoted", [(_REPORTS, "heard >= store.settings.warm_listeners", "heard >= 10**6")]
    ),
    Planted(
        "a request has two vectors of one space",
        "spaces",
        [("streams/songs/messages.py", "other_vectors=list(others)", "other_vectors=[matched.vector, *others]")],
    ),
    Planted(
        "a listener counts twice",
        "count-listeners",
        [(_FEEDBACK, "each.counts.distinct_listeners + count)", "each.counts.distinct_listeners + 2 * count)")],
    ),
    Planted(
        "what became of a push counts twice",
        "count-deliveries",
        [(_FEEDBACK, "getattr(each.counts, name) + count}", "getattr(each.counts, name) + 2 * count}")],
    ),
    Planted(
        "a report counts a push too many",
        "count-pushes",
        [
            (
                _CAMPAIGNS,
                "pushed=campaign.counts.pushed + len(chosen.pushes)",
                "pushed=campaign.counts.pushed + len(chosen.pushes) + 1",
            )
        ],
    ),
    Planted(
        "a dead letter loses a byte",
        "dead-letter-wrong",
        [
            (
                "streams/contract/dead_letters.py",
                "return DeadLetter(origin.key, origin.value, headers)",
                "return DeadLetter(origin.key, (origin.value or b'')[:-1], headers)",
            )
        ],
    ),
    Planted(
        "a bad record is buried at every start",
        "dead-letter-twice",
        [(_INPUTS, "        if not self._answered(message):\n", "        if True:\n")],
        ("all",),
    ),
    Planted(
        "bad outcomes are not buried",
        "unburied",
        [(_INPUTS, "        if not self._answered(message):\n", '        if stage != "audience.outcomes":\n')],
    ),
    Planted(
        "ids beyond ASCII are refused",
        "good-buried",
        [
            (
                "streams/contract/cloudevents.py",
                "if key != expected.encode():",
                "if key != expected.encode() or not expected.isascii():",
            ),
            (
                "streams/contract/cloudevents.py",
                "if key_of(event).encode() == key and (time",
                "if key_of(event).isascii() and key_of(event).encode() == key and (time",
            ),
        ],
    ),
    Planted(
        "a record of 5 MB stops a role",
        "stopped",
        [
            (
                "streams/contract/dead_letters.py",
                "    return _cut(origin, reason)\n",
                '    raise ValueError("too large")\n',
            )
        ],
    ),
    Planted(
        "a push names a song that its user never heard",
        "reason",
        [
            (
                _DECISION,
                "tuple([match.neighbours[song] for song in heard[user][:_NAMED]])",
                "tuple(match.neighbours[:_NAMED])",
            )
        ],
    ),
    Planted(
        "bad uploads are not buried",
        "refused-unburied",
        [
            (
                "streams/songs/uploads.py",
                "            buried.append(await store.producer.bury(message, _STAGE, error))\n",
                "",
            )
        ],
    ),
    Planted(
        "an erased user's history stays in the changelog",
        "erased-state",
        [(_CHANGELOG, "records |= {USER + gone: None, PUSHED + gone: None", "records |= {PUSHED + gone: None")],
    ),
    Planted(
        "a push says that less was obeyed than before",
        "preferences-back",
        [(_COMMIT, "max(0, after.preferences)", "max(0, after.preferences - len(records.commands))")],
    ),
    Planted(
        "every partition takes the whole budget",
        "budget",
        [("targeting/campaigns/budget.py", "divmod(pushes, partitions)", "divmod(pushes, 1)")],
    ),
    Planted(
        "a campaign that was ended meets users still",
        "push-after-end",
        [
            (_CAMPAIGNS, "        self.live.close(campaign.match.song_id)\n        self.touch", "        self.touch"),
            (
                _LIVE_PUSHES,
                "            if campaign is not None and campaign.ended is None:\n                self._push",
                "            if campaign is not None:\n                self._push",
            ),
        ],
        ("none", "none"),
        settings=_LIVE,
    ),
    Planted(
        "a listen brings an ended campaign back",
        "revived",
        [
            (
                _FEEDBACK,
                "                self._campaigns.put(replace(each, counts=more))\n                # Who",
                "                self._campaigns.put(replace(each, counts=more, ended=None))\n                # Who",
            )
        ],
    ),
    Planted(
        "an outdated upload is served",
        "old-revision",
        [
            ("streams/songs/song_record.py", "if song.revision > known.revision:", "if True:"),
            (_COMMANDS, "if before and match.revision <= before", "if before and match.revision == before"),
        ],
        ("none", "none"),
    ),
    Planted(
        "a song that was taken down stays warm",
        "taken-down",
        [
            (
                "streams/songs/uploads.py",
                "    sends += await _cool_down(store, serving, each.song_id, known)\n    return song\n",
                "    return song\n",
            ),
            # Which would mend it within ten seconds.
            ("streams/songs/reconcile.py", '    if song.ended == "taken-down" and warm_here:\n', "    if False:\n"),
        ],
        ("none", "none", "none"),
    ),
    Planted(
        "a partition does not report on what it pushes",
        "unreported",
        [
            (
                "streams/audience/campaign_reporter.py",
                "            version = held.versions",
                "            if partition == 3 and account.counts.pushed:\n                continue\n"
                "            version = held.versions",
            )
        ],
    ),
    Planted(
        "whom the lot holds out is not counted",
        "holdout-empty",
        [(_CAMPAIGNS, "out = int(np.count_nonzero(chosen.marks & Mark.HELD_OUT))", "out = 0")],
    ),
    Planted(
        "an erased user's history is still matched",
        "erased-pushed",
        [
            (
                _USERS,
                "zip(rows, forgotten.values(), strict=True) if row >= 0",
                "zip(rows, forgotten.values(), strict=True) if row < -1",
            )
        ],
        ("none", "none"),
    ),
    Planted(
        "an erasure deletes pushes",
        "push-deleted",
        [
            (
                _COMMIT,
                "        for letter in letters:\n            produce(",
                "        for user, _ in decoded.inputs.erasures:\n"
                "            produce(name(PUSH_TARGETS), partition, user.encode(), None)\n"
                "        for letter in letters:\n            produce(",
            )
        ],
    ),
    Planted(
        "pushes are forgotten at a restart, and their ids are drawn by lot",
        "recording-twice",
        [
            (
                "targeting/users/push_log.py",
                "        lengths, entries = decode(records)\n",
                "        lengths, entries = np.zeros(len(users), np.int64), np.zeros(0, PUSHED)\n",
            ),
            (
                _OUTPUTS,
                "push_id=push_id(push.user_id, match.recording, push.erased_at)",
                "push_id=__import__('uuid').uuid4().hex",
            ),
        ],
        ("all",),
    ),
    Planted(
        "an objection to profiling is ignored",
        "profiled",
        [
            (
                _PREFERENCES,
                "        if not event.profiling or not answered(messages[at]):\n",
                "        if not event.profiling:\n            continue\n        if not answered(messages[at]):\n",
            )
        ],
        ("none", "none"),
    ),
    Planted(
        "a record that comes late allows profiling again",
        "profiled-state",
        [
            (
                "targeting/users/erasures.py",
                "        if time <= self.said or not self.said:\n",
                "        if not self.said:\n",
            )
        ],
        ("none", "none", "none"),
    ),
    Planted(
        "an erased user's listens never count again",
        "returned",
        [
            (
                _USERS,
                "keep = np.flatnonzero(listens.times > self.since(listens.user_ids))",
                "keep = np.flatnonzero(self.since(listens.user_ids) <= 0)",
            )
        ],
    ),
)
