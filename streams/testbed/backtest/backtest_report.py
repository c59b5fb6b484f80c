"""What does a backtest look like? A self-contained HTML page."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from streams.testbed.backtest.backtest_figures import MEASURES, BacktestOutcome
from streams.testbed.backtest.broker_replay import Streamed
from streams.testbed.backtest.plan import ARMS, DEFAULT
from streams.testbed.demo import plots
from streams.testbed.demo.html import DASH, Html, count, known, share, tag
from streams.testbed.demo.page import colour_of, section, style_of_arms, swatches, table_of_numbers, tile, write_page
from targeting.evaluation.paired import METHOD, Difference


def write_report(outcome: BacktestOutcome, path: Path, command: str) -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    write_page(
        path,
        f"Coldstart: backtest of {outcome.dataset}",
        [_head(outcome), tag("main", *_sections(outcome, command))],
        style_of_arms(),
    )


def _sections(outcome: BacktestOutcome, command: str) -> list[Html]:
    stream = [_stream(outcome.streamed)] if outcome.streamed else []
    return [_arms(outcome), _pairs(outcome), _audit(outcome), *stream, _repeat(outcome, command)]


def _head(outcome: BacktestOutcome) -> Html:
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
            f"to {_day(outcome.last)}{_undated(outcome)}. Every arm has the same {count(plan.budget)} pushes a song at "
            f"most and the same caps. A push is right if its user listens to the song within {plan.window_days:g} "
            "days, unaided: nobody in the log saw it. Models, index and users' tastes know only what was older.",
            class_="lead",
        ),
        tag("div", *(tile(*each, not at) for at, each in enumerate(tiles)), class_="tiles"),
        tag("p", outcome.citation, class_="note") if outcome.citation else "",
    )


def _arms(outcome: BacktestOutcome) -> Html:
    totals = {name: outcome.totals(name) for name in outcome.arms}
    series = [
        plots.Series(name, colour_of(name), [known(of[key]) for key in ("rate", "found", "songs_with_one")])
        for name, of in totals.items()
    ]
    groups = [("right", "of pushes"), ("found", "of later listeners"), ("with a right push", "of songs")]
    words = "; ".join(f"{each.name}: {', '.join(share(value) for value in each.values)}" for each in series)
    plot = plots.bars(groups, series, f"Right pushes of each arm. {words}.")
    rows = [
        (
            ARMS[name].words, count(of["pushes"]), count(of["right"]), count(of["right_live"]),
            f"{of['right_per_song']:.3f}", share(of["rate"]), share(of["found"]), share(of["songs_with_one"]),
        )
        for name, of in totals.items()
    ]  # fmt: skip
    heads = ("", "pushes", "right", "of them live", "right a song", "of pushes", "of listeners", "songs with one")
    return section(
        "Who was pushed, and who listened",
        f"Of {count(outcome.later)} later listeners {count(outcome.known)} had listened to anything before the upload; "
        "only those can be pushed at once.",
        tag("div", tag("figure", plot), swatches(totals), class_="card"),
        tag("div", table_of_numbers(heads, rows), class_="card"),
    )


def _pairs(outcome: BacktestOutcome) -> Html:
    found = outcome.compared()
    rows = [(name, *(_interval(of.get(measure)) for measure in MEASURES)) for name, of in found.items()]
    return section(
        "Coldstart against the rivals",
        f"The default minus the rival: {METHOD}. *: the interval excludes 0.",
        tag("div", table_of_numbers(("default −", *MEASURES.values()), rows), class_="card"),
    )


def _audit(outcome: BacktestOutcome) -> Html:
    if outcome.leaks is None:
        words = "Not audited."
    elif outcome.leaks:
        words = "The future leaked: these figures mean nothing."
    else:
        words = (
            f"At {outcome.cuts} uploads all later listens were deleted: every decision until then came out the same."
        )
    rows = [(_day(leak.cut), leak.where) for leak in outcome.leaks or ()]
    table = [tag("div", table_of_numbers(("upload", "what differs"), rows), class_="card")] if rows else []
    return section("Did a decision know the future?", words, *table)


def _stream(of: Streamed) -> Html:
    rows = [
        ("pushes through Kafka and a worker", count(of.pushes)),
        ("pushes in process, in the worker's batches", count(of.expected)),
        ("of them the same, in order", count(of.same)),
        ("the worker's state is that of the process", "yes" if of.state else "no"),
        ("its changelog restores that state", "yes" if of.restored else "no"),
        ("batches of the worker", count(of.batches)),
        ("steps that it split", count(of.split)),
        ("pushes that are others without the split", count(of.moved)),
    ]
    words = (
        "The same script, through a broker and the audience's worker, for the default arm: "
        + ("the same pushes." if of.alike else f"not the same. {of.first or 'The pushes are, the state is not.'}")
        + f" {of.seconds:,.0f} seconds."
    )
    return section("Does the stream do the same?", words, tag("div", table_of_numbers(("", ""), rows), class_="card"))


def _repeat(outcome: BacktestOutcome, command: str) -> Html:
    words = f"{outcome.trainings} trainings, {sum(outcome.seconds.values()):,.0f} CPU seconds in all."
    return section("Do it again", words, tag("div", tag("pre", tag("code", command)), class_="card"))


def _interval(each: Difference | None) -> str:
    if each is None:
        return DASH
    clear = " *" if each.low > 0 or each.high < 0 else ""
    return f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]{clear}"


def _undated(outcome: BacktestOutcome) -> str:
    return f"; {count(outcome.undated)} more have no date and were left out" if outcome.undated else ""


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
