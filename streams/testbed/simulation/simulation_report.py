"""What do the worlds look like? A self-contained HTML page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from streams.testbed.demo import plots
from streams.testbed.demo.html import DASH, Html, count, known, share, tag
from streams.testbed.demo.page import colour_of, section, style_of_arms, swatches, table_of_numbers, tile, write_page
from streams.testbed.simulation.push_variants import ARMS, COMPARISONS, DEFAULT, EVIDENCE, ORGANIC
from streams.testbed.simulation.simulation_figures import MEASURES, Compared
from streams.testbed.simulation.simulation_run import NETEASE, Worlds


def write_report(worlds: Worlds, path: Path, command: str) -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    write_page(
        path,
        "Coldstart: simulated worlds",
        [_head(worlds), tag("main", _curves(worlds), _measures(worlds), _pairs(worlds), _repeat(command))],
        style_of_arms(),
    )


def _head(worlds: Worlds) -> Html:
    scenario = worlds.plan.scenario
    tiles: list[tuple[str, str]] = []
    for other in (EVIDENCE, ORGANIC):
        tiles += [
            (_signed(each.relative), f"{MEASURES[each.measure][0]}: {DEFAULT} against {other}")
            for each in worlds.compared()
            if (each.one, each.other) == (DEFAULT, other) and each.measure in ("reach", "warm_share")
        ]
    return tag(
        "header",
        tag("p", "Coldstart · simulated worlds", class_="eyebrow"),
        tag("h1", f"{count(scenario.new)} new songs, {count(scenario.users)} people, {count(worlds.seeds)} worlds"),
        tag(
            "p",
            f"In each world {count(scenario.new)} songs are uploaded over {scenario.days - scenario.watch} days and "
            f"watched for {scenario.watch} more. Every arm meets the same people with the same chances, and has the "
            f"same {count(scenario.budget)} pushes a song at most, and the same caps; an arm that finds too few "
            "users spends less. The people are made; the system is real.",
            class_="lead",
        ),
        tag("div", *(tile(*each, not at) for at, each in enumerate(tiles)), class_="tiles") if tiles else "",
    )


def _curves(worlds: Worlds) -> Html:
    days = [str(day) for day in range(worlds.plan.scenario.watch + 1)]

    def mean(arm: str, what: str) -> list[float | None]:
        return [
            known(float(each)) for each in np.mean([getattr(run, what) for run in worlds.runs[arm].values()], axis=0)
        ]

    cards = []
    for what, title in (
        ("reach", "Who listens: share of all people, mean over new songs"),
        ("warm", f"Warm songs: share of new songs with {worlds.plan.warm_at} listeners"),
    ):
        series = [plots.Series(arm, colour_of(arm), mean(arm, what)) for arm in worlds.runs]
        ends = "; ".join(f"{each.name} {share(each.values[-1])}" for each in series)
        plot = plots.lines(
            days, "days since the upload", series, f"{title}, by days since the upload. At the end: {ends}."
        )
        cards.append(tag("div", tag("h3", title), tag("figure", plot), class_="card"))
    answers = [arm for arm in worlds.runs if ARMS[arm].pushes]
    if answers:
        bars = [
            plots.Series(arm, colour_of(arm), [known(worlds.mean(arm, m)) for m in ("opened_rate", "push_listen_rate")])
            for arm in answers
        ]
        words = "; ".join(f"{each.name}: {', '.join(share(value) for value in each.values)}" for each in bars)
        plot = plots.bars([("opened", "of pushes"), ("listened", "of pushes")], bars, f"Answers to pushes. {words}.")
        cards.append(tag("div", tag("h3", "Answers to pushes"), tag("figure", plot), swatches(answers), class_="card"))
    return section("Day by day", "Means over the worlds.", tag("div", *cards, class_="pair"))


def _measures(worlds: Worlds) -> Html:
    rows = [(words, *(_number(worlds.mean(arm, name)) for arm in worlds.runs)) for name, (words, _) in MEASURES.items()]
    theirs = ", ".join(f"+{100 * value:g} % {name}" for name, value in NETEASE.items())
    return section(
        "All measures",
        "Means over the worlds. Gini: 0 where all are come across alike, towards 1 where one has everything.",
        tag("div", table_of_numbers(("", *worlds.runs), rows), class_="card"),
        tag(
            "p", f"Beside these, theirs: NetEase's paper reports, online and on its own users, {theirs}.", class_="note"
        ),
    )


def _pairs(worlds: Worlds) -> Html:
    found, cards = {(each.one, each.other, each.measure): each for each in worlds.compared()}, []
    for title, pairs in COMPARISONS.items():
        shown = [pair for pair in pairs if pair[0] in worlds.runs and pair[1] in worlds.runs]
        if shown:
            rows = [
                (words, *(_interval(found.get((one, other, name))) for one, other in shown))
                for name, (words, _) in MEASURES.items()
            ]
            table = table_of_numbers(("", *(f"{one} − {other}" for one, other in shown)), rows)
            cards.append(tag("div", tag("h3", title[0].upper() + title[1:]), table, class_="card"))
    return section(
        "One against the other",
        "Mean differences within a world, with Student's 95 % interval over worlds and, in brackets, as a share of the "
        "other's mean; *: the interval excludes 0.",
        *cards,
    )


def _repeat(command: str) -> Html:
    words = (
        "The same seeds give the same worlds. Pushes pass through real processes, whose timing is the machine's: the "
        "last digit may differ. How people behave is assumed, not measured: the order of arms can be trusted further "
        "than sizes."
    )
    return section("Do it again", words, tag("div", tag("pre", tag("code", command)), class_="card"))


def _interval(each: Compared | None) -> str:
    if each is None:
        return DASH
    of, share_of = each.difference, f" ({_signed(each.relative)})"
    if each.seeds == 1:
        return f"{of.mean:+.3g}{share_of}"
    return f"{of.mean:+.3g} [{of.low:+.3g}, {of.high:+.3g}]{share_of}{' *' if each.clear else ''}"


def _signed(value: float | None) -> str:
    return DASH if value is None or known(value) is None else f"{100 * value:+.1f}\u00a0%"


def _number(value: float) -> str:
    if known(value) is None:
        return DASH
    return count(value) if abs(value) >= 100 else f"{value:.3g}"
