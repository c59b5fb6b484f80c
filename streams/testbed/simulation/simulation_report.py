"""The page of simulated worlds: its figures and charts, for ``simulation_report.html.j2``."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from markupsafe import Markup

from streams.testbed.pages import charts
from streams.testbed.pages.number_text import DASH, count, known, share, signed_share
from streams.testbed.pages.page import write_page
from streams.testbed.simulation.push_variants import COMPARISONS, DEFAULT, EVIDENCE, ORGANIC, VARIANTS
from streams.testbed.simulation.simulation_figures import MEASURES, Compared
from streams.testbed.simulation.simulation_run import NETEASE, Worlds


def write_report(worlds: Worlds, path: Path, command: str) -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    compared = {(each.one, each.other, each.measure): each for each in worlds.compared()}
    pushing = [arm for arm in worlds.runs if VARIANTS[arm].pushes]
    write_page(
        path,
        "simulation/simulation_report.html.j2",
        command=command,
        scenario=worlds.plan.scenario,
        seeds=worlds.seeds,
        arms=list(worlds.runs),
        headlines=[
            (signed_share(each.relative), f"{MEASURES[measure][0]}: {DEFAULT} against {other}")
            for other in (EVIDENCE, ORGANIC)
            for measure in ("reach", "warm_share")
            if (each := compared.get((DEFAULT, other, measure)))
        ],
        curves=_curves(worlds),
        pushing=pushing,
        answers=_answers(worlds, pushing) if pushing else None,
        measures=[
            (words, *(_number(worlds.mean(arm, name)) for arm in worlds.runs)) for name, (words, _) in MEASURES.items()
        ],
        theirs=", ".join(f"+{100 * value:g} % {name}" for name, value in NETEASE.items()),
        pairs=_pairs(worlds, compared),
    )


def _curves(worlds: Worlds) -> list[tuple[str, Markup]]:
    """What grows day by day: (title, chart)."""
    days = [str(day) for day in range(worlds.plan.scenario.watch + 1)]
    curves = []
    for what, title in (
        ("reach", "Who listens: share of all people, mean over new songs"),
        ("warm", f"Warm songs: share of new songs with {worlds.plan.warm_at} listeners"),
    ):
        means = {
            arm: np.mean([getattr(run, what) for run in runs.values()], axis=0) for arm, runs in worlds.runs.items()
        }
        series = [charts.Series(arm, arm, [known(float(each)) for each in mean]) for arm, mean in means.items()]
        ends = "; ".join(f"{each.name} {share(each.values[-1])}" for each in series)
        words = f"{title}, by days since the upload. At the end: {ends}."
        curves.append((title, charts.lines(what, days, "days since the upload", series, words)))
    return curves


def _answers(worlds: Worlds, arms: list[str]) -> Markup:
    rates = ("opened_rate", "push_listen_rate")
    bars = [charts.Series(arm, arm, [known(worlds.mean(arm, rate)) for rate in rates]) for arm in arms]
    words = "; ".join(f"{each.name}: {', '.join(share(value) for value in each.values)}" for each in bars)
    groups = [("opened", "of pushes"), ("listened", "of pushes")]
    return charts.bars("answers", groups, bars, f"Answers to pushes. {words}.")


def _pairs(
    worlds: Worlds, compared: dict[tuple[str, str, str], Compared]
) -> list[tuple[str, list[str], list[tuple[str, ...]]]]:
    """(title, names of the pairs, a row for each measure) of each comparison that can be made."""
    found = []
    for title, pairs in COMPARISONS.items():
        shown = [pair for pair in pairs if worlds.runs.keys() >= {*pair}]
        if shown:
            rows = [
                (words, *(_interval(compared.get((*pair, name))) for pair in shown))
                for name, (words, _) in MEASURES.items()
            ]
            found.append((title[0].upper() + title[1:], [f"{one} − {other}" for one, other in shown], rows))
    return found


def _interval(each: Compared | None) -> str:
    if each is None:
        return DASH
    of, share_of = each.difference, f" ({signed_share(each.relative)})"
    if each.seeds == 1:
        return f"{of.mean:+.3g}{share_of}"
    return f"{of.mean:+.3g} [{of.low:+.3g}, {of.high:+.3g}]{share_of}{' *' if each.clear else ''}"


def _number(value: float) -> str:
    if known(value) is None:
        return DASH
    return count(value) if abs(value) >= 100 else f"{value:.3g}"
