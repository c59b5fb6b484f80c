"""What does a backtest look like? A self-contained HTML page."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from streams.backtest.figures import MEASURES, Outcome
from streams.backtest.plan import ARMS, DEFAULT
from streams.demo import plots
from streams.demo.html import DASH, Html, count, known, share, tag
from streams.demo.style import STYLE
from targeting.evaluation.paired import METHOD, Difference

# Nothing is loaded and nothing is run, whatever a title says.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

# arm -> the class that colours it, its two colours on light and dark.
_COLOURS = {
    "random": ("anybody", "#a08a5b", "#c9b27f"),
    "i2i2u": ("i2i2u", "#16806f", "#4fc7b1"),
    "evidence": ("evidence", "#c2540a", "#f2994a"),
    "cat": ("cat", "#8a1f63", "#ff8fd0"),
    "default-once": ("default-once", "#8f85e8", "#c0b8ff"),
    DEFAULT: ("coldstart", "#5646d6", "#9c90ff"),
}


def write_report(outcome: Outcome, path: Path, command: str) -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    page = tag(
        "html",
        tag(
            "head",
            tag("meta", charset="utf-8"),
            tag("meta", http_equiv="Content-Security-Policy", content=_POLICY),
            tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
            tag("title", f"Coldstart: backtest of {outcome.dataset}"),
            tag("style", Html(STYLE + _style())),
        ),
        tag(
            "body",
            _head(outcome),
            tag("main", _arms(outcome), _pairs(outcome), _audit(outcome), _repeat(outcome, command)),
        ),
        lang="en",
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"<!doctype html>\n{page}\n", encoding="utf-8")


def _style() -> str:
    def rules(which: int) -> str:
        return "".join(
            f".{colour[0]}{{fill:{colour[which]};stroke:{colour[which]}}}"
            f".swatch.{colour[0]}{{background:{colour[which]}}}path.{colour[0]}{{stroke:none}}"
            for colour in _COLOURS.values()
        )

    return f"{rules(1)}@media (prefers-color-scheme: dark){{{rules(2)}}}"


def _head(outcome: Outcome) -> Html:
    plan, mine = outcome.plan, outcome.totals(DEFAULT)
    tiles = (
        (share(mine["rate"]), "of coldstart's pushes are right"),
        (f"{mine['right_per_song']:.2f}", f"right pushes a song, of {outcome.ceiling:.2f} possible"),
        (share(mine["found"]), "of the later listeners were pushed before"),
    )
    return tag(
        "header",
        tag("p", "Coldstart · backtest", class_="eyebrow"),
        tag("h1", f"{outcome.dataset}: {count(len(outcome.songs))} songs, uploaded at their first listen"),
        tag(
            "p",
            f"{count(outcome.listens)} listens of {count(outcome.users)} people, replayed from {_day(outcome.start)} "
            f"to {_day(outcome.last)}. Every arm has the same {count(plan.budget)} pushes a song at most and the same "
            f"caps. A push is right if its user listens to the song within {plan.window_days:g} days, unaided: nobody "
            "in the log saw it. Models, index and users' tastes know only what was older.",
            class_="lead",
        ),
        tag("div", *(_tile(*each, not at) for at, each in enumerate(tiles)), class_="tiles"),
        tag("p", outcome.citation, class_="note") if outcome.citation else "",
    )


def _tile(value: str, words: str, first: bool) -> Html:
    return tag("div", tag("strong", value), tag("span", words), class_="card first" if first else "card")


def _arms(outcome: Outcome) -> Html:
    totals = {name: outcome.totals(name) for name in outcome.arms}
    series = [
        plots.Series(name, _COLOURS[name][0], [known(of[key]) for key in ("rate", "found", "songs_with_one")])
        for name, of in totals.items()
    ]
    groups = [("right", "of pushes"), ("found", "of later listeners"), ("with a right push", "of songs")]
    words = "; ".join(f"{each.name}: {', '.join(share(value) for value in each.values)}" for each in series)
    plot = plots.bars(groups, series, f"Right pushes of each arm. {words}.")
    legend = tag("p", *(_swatch(name) for name in totals), class_="note")
    rows = [
        (
            ARMS[name].words, count(of["pushes"]), count(of["right"]), count(of["right_live"]),
            f"{of['right_per_song']:.3f}", share(of["rate"]), share(of["found"]), share(of["songs_with_one"]),
        )
        for name, of in totals.items()
    ]  # fmt: skip
    heads = ("", "pushes", "right", "of them live", "right a song", "of pushes", "of listeners", "songs with one")
    return _section(
        "Who was pushed, and who listened",
        f"Of {count(outcome.later)} later listeners {count(outcome.known)} had listened to anything before the upload; "
        "only those can be pushed at once.",
        tag("div", tag("figure", plot), legend, class_="card"),
        tag("div", _table(heads, rows), class_="card"),
    )


def _pairs(outcome: Outcome) -> Html:
    found = outcome.compared()
    rows = [(name, *(_interval(of.get(measure)) for measure in MEASURES)) for name, of in found.items()]
    return _section(
        "Coldstart against the rivals",
        f"The default minus the rival: {METHOD}. *: the interval excludes 0.",
        tag("div", _table(("default −", *MEASURES.values()), rows), class_="card"),
    )


def _audit(outcome: Outcome) -> Html:
    if outcome.leaks is None:
        words = "Not audited."
    elif outcome.leaks:
        words = "The future leaked: these figures mean nothing."
    else:
        words = (
            f"At {outcome.cuts} uploads all later listens were deleted: every decision until then came out the same."
        )
    rows = [(_day(leak.cut), leak.where) for leak in outcome.leaks or ()]
    table = [tag("div", _table(("upload", "what differs"), rows), class_="card")] if rows else []
    return _section("Did a decision know the future?", words, *table)


def _repeat(outcome: Outcome, command: str) -> Html:
    words = f"{outcome.trainings} trainings, {sum(outcome.seconds.values()):,.0f} CPU seconds in all."
    return _section("Do it again", words, tag("div", tag("pre", tag("code", command)), class_="card"))


def _section(title: str, words: str, *cards: Html) -> Html:
    return tag("section", tag("h2", title), tag("p", words, class_="note"), *cards)


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> Html:
    head = [tag("th", each, scope="col", class_="number" if at else None) for at, each in enumerate(heads)]
    body = [
        tag("tr", tag("th", row[0], scope="row"), *(tag("td", cell, class_="number") for cell in row[1:]))
        for row in rows
    ]
    return tag("div", tag("table", tag("thead", tag("tr", *head)), tag("tbody", *body)), class_="wide")


def _swatch(arm: str) -> Html:
    return Html(tag("span", class_=f"swatch {_COLOURS[arm][0]}", aria_hidden="true") + tag("span", f"{arm}   "))


def _interval(each: Difference | None) -> str:
    if each is None:
        return DASH
    clear = " *" if each.low > 0 or each.high < 0 else ""
    return f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]{clear}"


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
