"""Who gets the users' attention when songs want more of it than caps allow: the first, or all alike.

    python tests/bench/bench_contention.py

Songs arrive one after the other, evenly over days, at one partition whose users take three pushes in any 24 hours.
Their budgets together are a quarter of that, as much, twice and four times as much. Users have one to three tastes of
twelve, a song has one; tastes are unequally popular. Scores are cosines with noise, the chance of a listen follows from
the cosine without it. Decisions are :func:`targeting.ranking.selection.choose` under
:class:`targeting.users.frequency_caps.FrequencyCaps`, all else switched off. On the first day all caps are unused; on
the last one pushes grow old and free room as they do for good.

Rules:
    first come: no discount.
    discount: scores times :func:`targeting.rules.policy.fairness`, by the part of the cap that is used.
    discount cubed: the same to the third power.
    by age: used pushes count by the part of the 24 hours that they have left.
    spaced: a third of a cap each eight hours.
    thinned: the shipped one: a user is open to a song with that as chance, and closed places are not filled up.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

import numpy as np

from targeting.arrays.id_table import IdTable
from targeting.ranking.scored import Scored
from targeting.ranking.selection import SelectionContext, choose
from targeting.rules.policy import Policy, fairness
from targeting.types import F32, F64, FrequencyCap, Match, Suppression
from targeting.users.frequency_caps import FrequencyCaps
from targeting.users.preferences import PreferenceTable
from targeting.users.push_log import Added, PushLog
from targeting.users.score_thresholds import ScoreThresholds

RULES = ("first come", "discount", "discount cubed", "by age", "spaced", "thinned")
NOW, DAY, CAP, TASTES, D, BUDGET = 1_700_000_000.0, 86_400.0, 3, 12, 32, 500


def unit(rows: F64) -> F32:
    return np.asarray(rows / np.linalg.norm(rows, axis=-1, keepdims=True), np.float32)


class World:
    """Users, and a stream of songs."""

    def __init__(self, users: int, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.centres = unit(self.rng.standard_normal((TASTES, D)))
        self.popular = 1 / np.arange(1, TASTES + 1) ** 0.7
        self.popular /= self.popular.sum()
        keys = self.rng.gumbel(size=(users, TASTES)) + np.log(self.popular)
        order = np.argsort(-keys, axis=1)[:, :3]
        shares = self.rng.dirichlet([1] * 3, users) * (np.arange(3) < self.rng.integers(1, 4, users)[:, None])
        mean = np.einsum("nk,nkd->nd", shares, self.centres[order])
        self.users = unit(unit(mean) + self.rng.standard_normal((users, D)) * 0.08)

    def song(self) -> tuple[F32, F64]:
        """Scores float32 (users,) as a model would say them, and true chances float64 (users,)."""
        taste = self.rng.choice(TASTES, p=self.popular)
        vector = unit(self.centres[taste] + self.rng.standard_normal(D) * 0.08)
        cosines = (self.users @ vector).astype(np.float64)
        seen = np.clip(cosines + self.rng.normal(0, 0.1, len(cosines)), 0, 1)
        return seen.astype(np.float32), 0.4 * np.clip(cosines, 0, 1) ** 2


def run(rule: str, times: float, users: int, days: int, seed: int) -> dict[str, object]:
    world = World(users, seed)
    policy = Policy(cap=FrequencyCap(CAP, 24.0), fair=rule == "thinned")
    ledger, consent, slots = PushLog(), PreferenceTable(policy), IdTable()
    rows = slots.take([f"u{n}" for n in range(users)])
    a_day = round(times * users * CAP / BUDGET)
    nothing, nobody = np.zeros(0, np.int32), np.zeros(0, np.int64)
    room = FrequencyCaps(policy, consent, ledger, {}, Added(), nobody)
    latest = np.full((users, CAP), -np.inf)  # times of each user's latest pushes, the latest first
    delivered, listens = [], []
    for number in range(a_day * days):
        now = np.ceil(NOW + number * DAY / a_day)
        scores, chances = world.song()
        used = (now - latest < DAY).sum(axis=1).astype(np.float64)
        cap, allowed = np.full(users, float(CAP)), np.ones(users, np.bool_)
        ranked = scores.astype(np.float64)
        if rule in ("discount", "discount cubed"):
            ranked = ranked * fairness(used, cap) ** (3 if rule == "discount cubed" else 1)
        elif rule == "by age":
            ranked = ranked * fairness(np.clip(1 - (now - latest) / DAY, 0, 1).sum(axis=1), cap)
        elif rule == "spaced":
            allowed = (now - latest[:, 0]) >= DAY / CAP
        scored = Scored(rows, ranked.astype(np.float32), scores, scores * 0, nothing, nothing, np.zeros(0, np.float32))
        name = f"song-{number}"
        match = Match(name, 1, name, "", (name,), "s", np.ones(1, np.float32), (), np.ones(0, np.float32), BUDGET, now,
                      now + DAY)  # fmt: skip
        by = SelectionContext(now, policy, slots, consent, {}, ScoreThresholds(), room, None, 0.0)
        held = np.where(allowed, 0, Suppression.CAP_RESERVED).astype(np.uint8)
        chosen = choose(match, scored, held, BUDGET, by).users
        added = Added()
        added.add(chosen, number, number, np.full(len(chosen), now), np.zeros(len(chosen), np.uint16))
        entries = ledger.plan(added, None, now)
        if entries:
            ledger.apply(entries)
        latest[chosen] = np.column_stack([np.full(len(chosen), now), latest[chosen, :-1]])
        delivered.append(len(chosen))
        listens.append(float(chances[chosen].sum()))
    return {"rule": rule, "demand": times, "first_day": told(delivered[:a_day], listens[:a_day])} | {
        "last_day": told(delivered[-a_day:], listens[-a_day:])
    }


def told(delivered: Sequence[int], listens: Sequence[float]) -> dict[str, object]:
    pushes, heard = np.asarray(delivered, np.float64), np.asarray(listens)
    thirds = list(zip(np.array_split(pushes, 3), np.array_split(heard, 3), strict=True))
    return {
        "pushes_a_song": [round(float(p.mean())) for p, _ in thirds],
        "chance": [round(float(h.sum() / max(p.sum(), 1)), 3) for p, h in thirds],
        "gini": round(gini(pushes), 3),
        "gini_listens": round(gini(heard), 3),
        "songs_below_a_tenth": round(float((pushes < BUDGET / 10).mean()), 3),
        "pushes": int(pushes.sum()),
        "listens": round(float(heard.sum())),
    }


def gini(values: F64) -> float:
    """0: all have the same, 1: one has all."""
    ordered = np.sort(values)
    n = len(ordered)
    return float((2 * np.arange(1, n + 1) - n - 1) @ ordered / max(n * ordered.sum(), 1e-9))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--users", type=int, default=20_000)
    parser.add_argument("--days", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rules", nargs="+", default=RULES, choices=RULES)
    parser.add_argument("--demand", type=float, nargs="+", default=[0.25, 1, 2, 4])
    options = parser.parse_args()
    found = [
        run(rule, times, options.users, options.days, options.seed)
        for times in options.demand
        for rule in options.rules
    ]
    print(json.dumps(found))
    for day in ("first_day", "last_day"):
        print(
            f"\n{day}\n| demand | rule | pushes a song, by third | chance, by third | Gini | below a tenth | listens |"
        )
        print("|---|---|---|---|---|---|---|")
        for each in found:
            d = each[day]
            thirds = " ".join(map(str, d["pushes_a_song"])), " ".join(f"{c:.3f}" for c in d["chance"])  # type: ignore[index]
            print(
                f"| {each['demand']:g} | {each['rule']} | {thirds[0]} | {thirds[1]} | {d['gini']:.2f} "  # type: ignore[index]
                f"| {d['songs_below_a_tenth']:.2f} | {d['listens']:,} |"  # type: ignore[index]
            )


if __name__ == "__main__":
    main()
