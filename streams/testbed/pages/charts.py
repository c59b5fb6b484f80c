"""The charts of the pages: lines, bars, histogram, timeline, waveform.

They are 360 units wide: on a phone a unit is about a pixel and the text stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from streams.testbed.pages.inline_svg import colour, inline, style
from streams.testbed.pages.number_text import milliseconds

_WIDTH: Final = 360
_MARKS: Final = "osD^vPX*p"
_DASHED: Final[Mapping[str, Any]] = {"linewidth": 1.5, "linestyle": (0, (4, 3)), "clip_on": False}


@dataclass(frozen=True, slots=True)
class Series:
    """One arm: its name in the plot, the variable of page.css that colours it, its values (None: not known)."""

    name: str
    colour: str
    values: Sequence[float | None]


def lines(name: str, ticks: Sequence[str], under: str, series: Sequence[Series], words: str) -> Markup:
    """Shares over a few ordered positions; each line is named at its end and has its own mark."""
    with style():
        figure, axes = _blank(270, left=42, right=130, top=14, bottom=44)
        ends = []
        for mark, each in zip(_MARKS, series, strict=False):
            values = _numbers(each.values)
            axes.plot(values, color=colour(each.colour), marker=mark, clip_on=False)
            if np.isfinite(values).any():
                at = int(np.flatnonzero(np.isfinite(values))[-1])
                ends.append((float(values[at]), each))
        _shares(axes)
        low, high = axes.get_ylim()
        # A line of text is 16 units high, and the axes are 212.
        for y, (_, each) in zip(_apart([y for y, _ in ends], 16 / 212 * (high - low)), _by_height(ends), strict=True):
            axes.text(
                1.03, y, each.name, color=colour(each.colour), weight="bold", va="center",
                transform=axes.get_yaxis_transform(),
            )  # fmt: skip
        step = math.ceil(len(ticks) / 10)
        axes.set_xticks(range(0, len(ticks), step), ticks[::step])
        axes.set_xlim(-0.15, max(1, len(ticks) - 1) + 0.15)
        axes.set_xlabel(under)
        return inline(figure, name, words)


def bars(name: str, groups: Sequence[tuple[str, str]], series: Sequence[Series], words: str) -> Markup:
    """Shares in groups, one bar a series; a group has a name and a smaller line below it."""
    with style():
        figure, axes = _blank(270, left=42, right=2, top=20, bottom=44)
        wide = 0.76 / max(1, len(series))
        for number, each in enumerate(series):
            values = _numbers(each.values)
            x = np.arange(len(groups)) + wide * (number + 0.5 - len(series) / 2)
            drawn = axes.bar(x, np.nan_to_num(values), 0.9 * wide, color=colour(each.colour))
            labels = [f"{100 * value:.0f}" if math.isfinite(value) else "–" for value in values]
            axes.bar_label(drawn, labels, padding=3)
        _shares(axes)
        axes.set_xticks(range(len(groups)), [f"{title}\n{below}" for title, below in groups])
        axes.set_xlim(-0.5, len(groups) - 0.5)
        return inline(figure, name, words)


def histogram(name: str, values: Sequence[float], span: tuple[float, float], variable: str, words: str) -> Markup:
    """Milliseconds on a logarithmic axis over ``span``, half and 99 of 100 marked."""
    with style():
        figure, axes = _blank(210, left=22, right=22, top=40, bottom=30)
        edges = np.geomspace(*span, 45)
        heights, _ = np.histogram(np.clip(values, *span), edges)
        axes.bar(edges[:-1], heights, 0.88 * np.diff(edges), align="edge", color=colour(variable))
        axes.set_xlim(span)
        axes.set_ylim(0, max(1, heights.max()))
        axes.yaxis.set_major_locator(NullLocator())
        _times(axes, "x")
        # The words stand on the side that has room for them.
        for percent, said, lift, room in ((50, "half within", 5, 0.3), (99, "99 of 100 within", 22, 0.48)):
            if not values:
                break
            value = float(np.percentile(values, percent))
            left = math.log(value / span[0]) > room * math.log(span[1] / span[0])
            axes.axvline(value, 0, 1 + lift / 140, color=colour("ink"), **_DASHED)
            axes.annotate(
                f"{said} {milliseconds(value)}", (value, 1), (-5 if left else 5, lift), weight="bold", size=11,
                ha="right" if left else "left", xycoords=axes.get_xaxis_transform(), textcoords="offset points",
            )  # fmt: skip
        return inline(figure, name, words)


def timeline(
    name: str, points: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float]], limit: float, words: str
) -> Markup:
    """Waits in ms, on a logarithmic axis, at their seconds; spans of seconds stand shaded, the limit is a line."""
    with style():
        figure, axes = _blank(240, left=56, right=14, top=12, bottom=42)
        span = rounded_span([limit, *(wait for _, wait in points)])
        for begin, to in marks:
            axes.axvspan(begin, to, color=colour("nobody"), linewidth=0)
        axes.plot(*zip(*points, strict=True) if points else ((), ()), ".", color=colour("default"), markersize=5)
        axes.axhline(limit, color=colour("ink"), **_DASHED)
        axes.set_xlim(0, max([1.0, *(x for x, _ in points), *(to for _, to in marks)]))
        axes.set_ylim(span)
        axes.grid(axis="y")
        _times(axes, "y")
        axes.xaxis.set_major_locator(MaxNLocator(4))
        axes.xaxis.set_major_formatter("{x:g} s")
        axes.set_xlabel("time of the upload")
        return inline(figure, name, words)


def waveform(name: str, inner: Sequence[float], outer: Sequence[float], cut: float, words: str) -> Markup:
    """Two series in their order as mirrored bars, the inner one before the outer; higher than ``cut`` is cut."""
    size = max(1, math.ceil(len(outer) / 240))
    with style():
        figure = Figure(figsize=(960 / 72, 150 / 72))
        axes = figure.add_axes((0, 0, 1, 1))
        axes.set_axis_off()
        axes.set_xlim(-0.5, max(1, math.ceil(len(outer) / size)) - 0.5)
        axes.set_ylim(-1, 1)
        for values, variable, alpha in ((outer, "evidence", 0.45), (inner, "default", 1)):
            slowest = [max(values[at : at + size]) for at in range(0, len(values), size)]
            half = np.clip(np.array(slowest) / cut, 0.02, 0.98)
            # One path of strokes: a gap between any two.
            x = np.repeat(np.arange(len(half), dtype=float), 3)
            y = np.stack([-half, half, np.full(len(half), np.nan)], axis=1).ravel()
            width = min(9.0, 0.62 * 960 / max(1, len(half)))
            axes.plot(x, y, color=colour(variable), alpha=alpha, linewidth=width, solid_capstyle="butt")
        return inline(figure, name, words, preserveAspectRatio="none", **{"class": "waveform"})


def rounded_span(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest (low, high) of powers of ten times 1, 2 or 5 around the values, which are milliseconds."""
    low, high = max(0.1, min(values, default=1.0)), max(1.0, max(values, default=100.0))
    fine = [n * 10.0**p for p in range(-2, 10) for n in (1, 2, 5)]
    below = max(tick for tick in fine if tick <= low)
    return below, max(min((tick for tick in fine if tick >= high), default=high), 5 * below)


def _blank(height: int, *, left: int, right: int, top: int, bottom: int) -> tuple[Figure, Axes]:
    """A figure of the width of all, and its axes within these margins."""
    figure = Figure(figsize=(_WIDTH / 72, height / 72))
    wide, high = _WIDTH - left - right, height - top - bottom
    return figure, figure.add_axes((left / _WIDTH, bottom / height, wide / _WIDTH, high / height))


def _numbers(values: Sequence[float | None]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([np.nan if value is None else value for value in values], np.float64)


def _shares(axes: Axes) -> None:
    """The height is a share, from 0 up."""
    axes.set_ylim(0, max(0.01, axes.dataLim.y1) * 1.02)
    axes.yaxis.set_major_locator(MaxNLocator(5, steps=[1, 2, 5, 10]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axes.grid(axis="y")


def _times(axes: Axes, which: str) -> None:
    """Milliseconds, equal steps multiply them."""
    axis = axes.xaxis if which == "x" else axes.yaxis
    axes.set(**{f"{which}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=7))
    axis.set_major_formatter(FuncFormatter(lambda value, _: milliseconds(value)))
    axis.set_minor_locator(NullLocator())
    axes.tick_params(labelsize=11)


def _by_height(ends: Sequence[tuple[float, Series]]) -> list[tuple[float, Series]]:
    return sorted(ends, key=lambda end: end[0])


def _apart(ys: Sequence[float], gap: float) -> list[float]:
    """The positions in ascending order, each moved up as far as it must to stand ``gap`` above the last."""
    placed: list[float] = []
    for y in sorted(ys):
        placed.append(max(y, placed[-1] + gap) if placed else y)
    return placed
