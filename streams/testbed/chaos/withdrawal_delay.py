"""How long pushes went on after a user had withdrawn, by the broker's clock.

Both records carry the time at which the broker appended them. No worker's word is asked: neither when a push was
decided, nor which preferences it says it obeyed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import inf

from streams.testbed.chaos.evidence import OF_A_USER, Evidence
from streams.testbed.chaos.promises import Judged
from streams.testbed.chaos.push_check import User, Wishes
from streams.testbed.chaos.rules import Rules

# Of so many withdrawals one in a hundred says something.
_MANY = 100


@dataclass(frozen=True, slots=True)
class Withdrawal:
    """One user's, and the pushes after it.

    Attributes:
        at: when the broker appended it, Unix seconds.
        until: when it appended what allowed pushes again; infinity: nothing did.
        late: seconds to the last push in between; 0: there was none.
    """

    user: User
    what: str
    at: float
    until: float
    late: float


def withdrawals(evidence: Evidence) -> list[Withdrawal]:
    """Every opt-out, every erasure, and every objection to profiling, with what came after it."""
    pushes: defaultdict[User, list[float]] = defaultdict(list)
    for push in evidence.pushes:
        pushes[push.partition, push.key].append(push.appended)
    gone = {user: asked for user, _, asked in _erasures(evidence)}
    back: defaultdict[User, list[float]] = defaultdict(list)
    for listen in evidence.listens:
        if listen.time > gone.get((listen.partition, listen.key), inf):
            back[listen.partition, listen.key].append(listen.appended)
    made = dict(evidence.vectors)
    for user, asked in gone.items():
        if made.get(user[1], 0.0) > asked:
            back[user].append(made[user[1]])
    found = [("opt-out", *each) for each in _opt_outs(evidence)]
    # Whoever comes back at once may be read before the erasure is.
    found += [("erasure", user, at, max(at, min(back[user], default=inf))) for user, at, _ in _erasures(evidence)]
    found += [("objection", *each) for each in Wishes(evidence.preferences).objections()]
    return [
        Withdrawal(user, what, at, until, _late(sorted(pushes[user]), at, until)) for what, user, at, until in found
    ]


def percentile(late: Sequence[float], share: float) -> float:
    """The least value that at least that share of all stay within; 0 of none."""
    ordered = sorted(late)
    return ordered[max(0, -int(-len(ordered) * share // 1) - 1)] if ordered else 0.0


def judge(evidence: Evidence, rules: Rules) -> Iterator[Judged]:
    """Every withdrawal, whether it was obeyed in time, and what was written of who had gone.

    ``rules.latest_s`` holds for every single one, faults or not; ``rules.late_s`` for 99 of 100.
    """
    found = withdrawals(evidence)
    for each in found:
        slow = f"{each.user[1]}: pushed {each.late:.1f} s after the {each.what}, {rules.latest_s:g} s allowed"
        yield "opt-out-late", slow if each.late > rules.latest_s else None
    late = percentile([each.late for each in found], 0.99)
    if len(found) >= _MANY and late > rules.late_s:
        yield "opt-out-late", f"p99 of {len(found):,} withdrawals is {late:.2f} s, {rules.late_s:g} s allowed"
    yield from _written(evidence, found, rules)


def _written(evidence: Evidence, found: Sequence[Withdrawal], rules: Rules) -> Iterator[Judged]:
    """What was written of whom nothing is to be known."""
    gone = {each.user: each.at for each in found if each.what == "erasure" and each.until == inf}
    objected: defaultdict[User, list[Withdrawal]] = defaultdict(list)
    for each in found:
        if each.what == "objection":
            objected[each.user].append(each)
            yield "profiled-state", None
    yield from (("erased-written", None) for _ in gone)
    for partition, key, appended in evidence.written:
        user = partition, key[1:].decode("utf-8", "replace")
        if key[:1] in OF_A_USER and appended > gone.get(user, inf) + rules.latest_s:
            yield (
                "erased-written",
                f"{user[1]}: {appended - gone[user]:.1f} s after the erasure a record {key[:1]!r} of partition "
                f"{partition} was written",
            )
        for each in objected.get(user, []):
            if each.at + rules.latest_s < appended < each.until:
                yield (
                    "profiled-state",
                    f"{user[1]}: {appended - each.at:.1f} s after the objection a record {key[:1]!r} of partition "
                    f"{partition} was written",
                )


def _opt_outs(evidence: Evidence) -> Iterator[tuple[User, float, float]]:
    since: dict[User, float] = {}
    for said in evidence.preferences:
        user = said.partition, said.key
        if said.event is not None and not said.event.opted_in:
            since.setdefault(user, said.appended)
        elif user in since:
            yield user, since.pop(user), said.appended
    yield from ((user, at, inf) for user, at in since.items())


def _erasures(evidence: Evidence) -> Iterator[tuple[User, float, float]]:
    """User, when the last erasure was appended, and from when on everything is forgotten."""
    last: dict[User, tuple[float, float]] = {}
    for said in evidence.preferences:
        asked = said.event.erase_requested_at if said.event else None
        user = said.partition, said.key
        if asked and (user not in last or asked.timestamp() > last[user][1]):
            last[user] = said.appended, asked.timestamp()
    yield from ((user, *times) for user, times in last.items())


def _late(pushes: Sequence[float], at: float, until: float) -> float:
    after = pushes[bisect_right(pushes, at) : bisect_left(pushes, until)]
    return after[-1] - at if after else 0.0
