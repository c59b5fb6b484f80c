"""Checks every promise that can be judged from the topics alone.

It shares no code with the roles but the declaration of events and topics: what it knows, a stranger could read.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from streams.contract.topics import Naming
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings
from streams.testbed.chaos import consistency_check, dead_letter_check, erasure_check, push_check, withdrawal_delay
from streams.testbed.chaos.evidence import Evidence, read
from streams.testbed.chaos.promises import Judged, broken
from streams.testbed.chaos.push_check import Wishes
from streams.testbed.chaos.rules import Rules

# Fewer pushes than this are expected to be held out: none at all may be chance (2e-9).
_EXPECTED = 20


@dataclass(slots=True)
class Verdict:
    """What was looked at, and every promise that was broken, in words.

    Attributes:
        deferred: pushes that wait for the end of quiet hours, or for the song's release.
        live: pushes decided after the request.
        erased: users who asked to be forgotten; ``without_profiling``: who did not allow it at some time.
        spaces: of the models that were published.
        late: of every opt-out, erasure and objection to profiling, seconds to the last push after it, by the broker's
            clock; 0: none came.
        judged: of each promise, how often it could have been broken. None at all: nothing is known of it.
    """

    uploads: int = 0
    listens: int = 0
    pushes: int = 0
    deferred: int = 0
    live: int = 0
    held_out: int = 0
    outcomes: int = 0
    preferences: int = 0
    erased: int = 0
    without_profiling: int = 0
    promoted: int = 0
    ended: int = 0
    spaces: int = 0
    dead_letters: int = 0
    late: list[float] = field(default_factory=list)
    judged: Counter[str] = field(default_factory=Counter)
    violations: list[str] = field(default_factory=list)

    def add(self, judged: Iterable[Judged]) -> None:
        """What was judged besides."""
        for promise, what in judged:
            self.judged[promise] += 1
            if what is not None:
                self.violations.append(broken(promise, what))


def check(kafka: KafkaSettings, naming: Naming, clock: Clock, rules: Rules) -> Verdict:
    """Read everything and judge it. To be called when nothing is on its way any more.

    What is checked stands in the modules: :mod:`streams.testbed.chaos.consistency_check`,
    :mod:`streams.testbed.chaos.push_check`, :mod:`streams.testbed.chaos.erasure_check`,
    :mod:`streams.testbed.chaos.dead_letter_check`, :mod:`streams.testbed.chaos.withdrawal_delay`.

    Args:
        rules: what the system was told to keep.

    Raises:
        Unavailable: the broker does not answer, or a topic is missing.
    """
    return judge(read(kafka, naming, clock), naming, rules)


def judge(evidence: Evidence, naming: Naming, rules: Rules) -> Verdict:
    """The verdict on what was read; see :func:`check`."""
    verdict = _seen(evidence)
    verdict.add(dead_letter_check.judge(evidence, naming))
    verdict.add(consistency_check.judge(evidence, rules, naming))
    verdict.add(push_check.judge(evidence, rules))
    verdict.add(erasure_check.judge(evidence, rules))
    verdict.add(withdrawal_delay.judge(evidence, rules))
    if verdict.pushes * rules.holdout > _EXPECTED:
        nobody = f"nobody is held out of {verdict.pushes:,} pushes, the share is {rules.holdout:g}"
        verdict.add([("holdout-empty", None if verdict.held_out else nobody)])
    return verdict


def _seen(evidence: Evidence) -> Verdict:
    pushes = [said.event for said in evidence.pushes if said.event]
    views = {said.event.song_id: said.event for said in evidence.campaigns if said.event}
    newest, wishes = consistency_check.newest_reports(evidence), Wishes(evidence.preferences)
    return Verdict(
        uploads=len(evidence.uploads),
        listens=len(evidence.listens),
        pushes=len(pushes),
        deferred=sum(push.not_before > push.decided_at for push in pushes),
        live=sum(push.tier == "live" for push in pushes),
        held_out=sum(report.counts.held_out for report in newest.values()),
        outcomes=len(evidence.outcomes),
        preferences=len(evidence.preferences),
        erased=len(wishes.erased()),
        without_profiling=len({user for user, _, _ in wishes.objections()}),
        promoted=sum(view.end_reason == "promoted" for view in views.values()),
        ended=sum(view.status == "ended" for view in views.values()),
        spaces=len({said.event.space for said in evidence.models if said.event}),
        dead_letters=len(evidence.dead),
        late=[each.late for each in withdrawal_delay.withdrawals(evidence)],
    )
