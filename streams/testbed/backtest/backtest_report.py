"""The page of a backtest: its figures and chart, for ``backtest_report.html.j2``."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from markupsafe import Markup

from streams.testbed.backtest.backtest_figures import MEASURES, BacktestOutcome
from streams.testbed.backtest.broker_replay import Streamed
from streams.testbed.backtest.plan import DEFAULT, VARIANTS
from streams.testbed.pages import charts
from streams.testbed.pages.number_text import DASH, count, known, share
from streams.testbed.pages.page import write_page
from targeting.evaluation.paired import METHOD, Difference


def write_report(outcome: BacktestOutcome, path: Path, command: str) -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    totals = {name: outcome.totals(name) for name in outcome.arms}
    mine = totals[DEFAULT]
    write_page(
        path,
        "backtest/backtest_report.html.j2",
        command=command,
        outcome=outcome,
        start=_day(outcome.start),
        last=_day(outcome.last),
        undated=_undated(outcome),
        headlines=(
            (share(mine["rate"]), "of coldstart's pushes are right"),
            (f"{mine['right_per_song']:.2f}", f"right pushes a song, of {outcome.ceiling:.2f} possible"),
            (share(mine["found"]), "of the later listeners were pushed before"),
        ),
        chart=_chart(totals),
        arms=[
            (
                VARIANTS[name].words, count(of["pushes"]), count(of["right"]), count(of["right_live"]),
                f"{of['right_per_song']:.3f}", share(of["rate"]), share(of["found"]), share(of["songs_with_one"]),
            )
            for name, of in totals.items()
        ],
        method=METHOD,
        measures=list(MEASURES.values()),
        pairs=[
            (name, *(_interval(of.get(measure)) for measure in MEASURES)) for name, of in outcome.compared().items()
        ],
        audit=_audit(outcome),
        leaks=[(_day(leak.cut), leak.where) for leak in outcome.leaks or ()],
        stream=_stream(outcome.streamed) if outcome.streamed else None,
    )  # fmt: skip


def _chart(totals: dict[str, dict[str, float]]) -> Markup:
    series = [
        charts.Series(name, name, [known(of[key]) for key in ("rate", "found", "songs_with_one")])
        for name, of in totals.items()
    ]
    groups = [("right", "of pushes"), ("found", "of later listeners"), ("with a right push", "of songs")]
    words = "; ".join(f"{each.name}: {', '.join(share(value) for value in each.values)}" for each in series)
    return charts.bars("arms", groups, series, f"Right pushes of each variant. {words}.")


def _audit(outcome: BacktestOutcome) -> str:
    if outcome.leaks is None:
        return "Not audited."
    if outcome.leaks:
        return "The future leaked: these figures mean nothing."
    return f"At {outcome.cuts} uploads all later listens were deleted: every decision until then came out the same."


def _stream(of: Streamed) -> tuple[str, list[tuple[str, str]]]:
    rows = [
        ("pushes through Kafka and a worker", count(of.pushes)),
        ("pushes in process, in the worker's batches", count(of.expected)),
        ("of them the same, in order", count(of.same)),
        ("the worker's state is that of the process", "yes" if of.state else "no"),
        ("its changelog restores that state", "yes" if of.restored else "no"),
        ("batches of the worker", count(of.batches)),
        ("steps that it split", count(of.split)),
        ("pushes that differ without the split", count(of.moved)),
    ]
    said = "the same pushes." if of.alike else f"not the same. {of.first or 'The pushes are, the state is not.'}"
    words = f"The same script, through a broker and the audience's worker, for the default: {said}"
    return f"{words} {of.seconds:,.0f} seconds.", rows


def _interval(each: Difference | None) -> str:
    if each is None:
        return DASH
    clear = " *" if each.low > 0 or each.high < 0 else ""
    return f"{each.mean:+.3f} [{each.low:+.3f}, {each.high:+.3f}]{clear}"


def _undated(outcome: BacktestOutcome) -> str:
    return f"; {count(outcome.undated)} more have no date and were left out" if outcome.undated else ""


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
