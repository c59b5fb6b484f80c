"""How are the demo's numbers drawn? Inline SVG, coloured by the page's classes, so that it follows dark mode.

Plots are 360 units wide: on a phone a unit is about a pixel and the text stays readable.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from streams.testbed.demo.html import Html, count, known, milliseconds, tag

_WIDTH = 360
_MARKS: Mapping[int, Callable[[float, float], Html]] = {
    0: lambda x, y: tag("circle", cx=x, cy=y, r=5),
    1: lambda x, y: tag("rect", x=x - 4.2, y=y - 4.2, width=8.4, height=8.4),
    2: lambda x, y: tag("path", d=f"M{x:.1f} {y - 6:.1f}l6 6-6 6-6-6z"),
    3: lambda x, y: tag("path", d=f"M{x:.1f} {y - 5.5:.1f}l5.5 9.5h-11z"),
}


@dataclass(frozen=True, slots=True)
class Series:
    """One arm: its name in the plot, the class that colours it, its values (None: not known)."""

    name: str
    colour: str
    values: Sequence[float | None]


def people(fraction: float | None, colour: str, words: str) -> Html:
    """Ten people in a row, as many of them coloured as the fraction says, the last one in part."""
    pitch, width = 26, 18
    body = "M{0} 34v-9a9 9 0 0 1 18 0v9z"
    figures = [
        Html(tag("circle", cx=at * pitch + 10, cy=7, r=6) + tag("path", d=body.format(at * pitch + 1)))
        for at in range(10)
    ]
    filled = 10 * min(1.0, max(0.0, known(fraction) or 0.0))
    shown = int(filled) * pitch + 1 + (filled - int(filled)) * width
    clip = f"people-{colour}"
    return _svg(
        10 * pitch - 6, 36, words,
        tag("clipPath", tag("rect", width=shown, height=36), id=clip),
        tag("g", *figures, class_="nobody"),
        tag("g", *figures, class_=colour, clip_path=f"url(#{clip})"),
    )  # fmt: skip


def lines(ticks: Sequence[str], under: str, series: Sequence[Series], words: str) -> Html:
    """Shares over a few ordered positions; each line is named at its end and has its own mark."""
    height, left, right, top, bottom = 270, 38, 118, 14, 44
    ys, grid = _shares([value for each in series for value in each.values], left, _WIDTH - right, top, height - bottom)
    step = (_WIDTH - right - left - 28) / max(1, len(ticks) - 1)
    xs = [left + 14 + step * at for at in range(len(ticks))]
    drawn, ends = [], []
    for number, each in enumerate(series):
        points = [(x, ys(value)) for x, value in zip(xs, each.values, strict=True) if value is not None]
        if not points:
            continue
        path = "M" + "L".join(f"{x:.1f} {y:.1f}" for x, y in points)
        marks = [_MARKS[number % len(_MARKS)](x, y) for x, y in points]
        drawn.append(tag("g", tag("path", d=path, class_="line"), *marks, class_=each.colour))
        ends.append((points[-1][1], each))
    names = [
        tag("text", each.name, x=_WIDTH - right + 2, y=y + 4, class_=f"name {each.colour}")
        for y, (_, each) in zip(_apart([y for y, _ in ends], 16), sorted(ends, key=lambda end: end[0]), strict=True)
    ]
    labels = [_text(tick, x, height - bottom + 18) for tick, x in zip(ticks, xs, strict=True)]
    return _svg(
        _WIDTH, height, words, *grid, *reversed(drawn), *names, *labels,
        _text(under, (left + _WIDTH - right) / 2, height - 6, "quiet"),
    )  # fmt: skip


def bars(groups: Sequence[tuple[str, str]], series: Sequence[Series], words: str) -> Html:
    """Shares in groups, one bar a series; a group has a name and a smaller line below it."""
    height, left, top, bottom = 270, 38, 20, 44
    ys, grid = _shares([value for each in series for value in each.values], left, _WIDTH - 2, top, height - bottom)
    floor = height - bottom
    pitch = (_WIDTH - 2 - left) / max(1, len(groups))
    wide = pitch * 0.76 / max(1, len(series))
    drawn = []
    for number, each in enumerate(series):
        for group, value in enumerate(each.values):
            x = left + pitch * (group + 0.12) + wide * number
            if value is None:
                drawn.append(_text("–", x + wide / 2, floor - 5, "quiet"))
                continue
            bar = tag("path", d=_bar(x + 1, ys(value), wide - 2, floor), class_=each.colour)
            drawn += [bar, _text(f"{100 * value:.0f}", x + wide / 2, ys(value) - 5)]
    labels = [
        _text(text, left + pitch * (at + 0.5), y, kind)
        for at, pair in enumerate(groups)
        for text, y, kind in ((pair[0], floor + 18, "tick"), (pair[1], floor + 34, "quiet"))
    ]
    return _svg(_WIDTH, height, words, *grid, *drawn, *labels)


def histogram(values: Sequence[float], span: tuple[float, float], colour: str, words: str) -> Html:
    """Milliseconds on a logarithmic axis over ``span``, half and 99 of 100 marked."""
    height, left, right, top, bottom = 210, 8, 8, 40, 30
    low, high = (math.log(bound) for bound in span)
    floor, wide = height - bottom, _WIDTH - left - right

    def at(value: float) -> float:
        return left + wide * (math.log(min(max(value, span[0]), span[1])) - low) / (high - low)

    bins = 44
    heights, _ = np.histogram([at(value) for value in values], bins, (left, left + wide))
    tallest = max(1, int(heights.max()))
    drawn = [
        tag(
            "path",
            d=_bar(left + wide * n / bins + 0.6, floor - (floor - top) * size / tallest, wide / bins - 1.2, floor),
        )
        for n, size in enumerate(heights.tolist())
        if size
    ]
    axis = [tag("path", d=f"M{left} {floor}H{left + wide}", class_="axis")]
    for tick in round_numbers(*span):
        anchor = "start" if tick == span[0] else "end" if tick == span[1] else "middle"
        axis.append(tag("path", d=f"M{at(tick):.1f} {floor}v5", class_="axis"))
        axis.append(tag("text", milliseconds(tick), x=at(tick), y=floor + 20, class_="tick", text_anchor=anchor))
    marks = []
    for percent, name, y in ((50, "half within ", 28), (99, "99 of 100 within ", 11)) if values else ():
        value = float(np.percentile(values, percent))
        x = at(value)
        # The words stand on the side that has room.
        anchor, shift = ("end", -5) if x > _WIDTH * 0.45 else ("start", 5)
        marks.append(tag("path", d=f"M{x:.1f} {y - 8}V{floor}", class_="mark"))
        marks.append(tag("text", name + milliseconds(value), x=x + shift, y=y + 2, class_="label", text_anchor=anchor))
    return _svg(_WIDTH, height, words, tag("g", *drawn, class_=colour), *axis, *marks)


def timeline(
    points: Sequence[tuple[float, float]], marks: Sequence[tuple[float, float]], limit: float, words: str
) -> Html:
    """Waits in ms, on a logarithmic axis, at their seconds; spans of seconds stand shaded, the limit is a line."""
    height, left, right, top, bottom = 240, 52, 8, 12, 40
    floor, end = height - bottom, max([1.0, *(x for x, _ in points), *(to for _, to in marks)])
    span = rounded_span([limit, *(wait for _, wait in points)])
    low, high = (math.log(bound) for bound in span)

    def across(second: float) -> float:
        return left + (_WIDTH - left - right) * second / end

    def up(wait: float) -> float:
        return floor - (floor - top) * (math.log(min(max(wait, span[0]), span[1])) - low) / (high - low)

    shaded = [
        tag("rect", x=across(begin), y=top, width=max(1.0, across(to) - across(begin)), height=floor - top)
        for begin, to in marks
    ]
    grid = []
    for tick in round_numbers(*span):
        grid.append(tag("path", d=f"M{left} {up(tick):.1f}H{_WIDTH - right}", class_="grid"))
        grid.append(tag("text", milliseconds(tick), x=left - 5, y=up(tick) + 4, class_="tick", text_anchor="end"))
    dots = [tag("circle", cx=across(x), cy=up(wait), r=1.8) for x, wait in points]
    below = [_text(f"{end * part:.0f} s", across(end * part), floor + 17) for part in (0, 0.5, 0.97)]
    return _svg(
        _WIDTH, height, words, tag("g", *shaded, class_="nobody"), *grid, tag("g", *dots, class_="coldstart"),
        tag("path", d=f"M{left} {up(limit):.1f}H{_WIDTH - right}", class_="mark"), *below,
        _text("time of the upload", (left + _WIDTH - right) / 2, height - 5, "quiet"),
    )  # fmt: skip


def round_numbers(low: float, high: float) -> list[float]:
    """Powers of ten times 1, 2 and 5 in [low, high]; powers of ten alone where those are many."""
    powers = [10.0**p for p in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    fine = [n * power for power in powers for n in (1, 2, 5) if low * 0.999 <= n * power <= high * 1.001]
    return fine if len(fine) <= 7 else [tick for tick in fine if tick in powers]


def rounded_span(values: Sequence[float]) -> tuple[float, float]:
    """The narrowest (low, high) of powers of ten times 1, 2 or 5 around the values, which are milliseconds."""
    low, high = max(0.1, min(values, default=1.0)), max(1.0, max(values, default=100.0))
    fine = [n * 10.0**p for p in range(-2, 10) for n in (1, 2, 5)]
    below = max(tick for tick in fine if tick <= low)
    return below, max(min((tick for tick in fine if tick >= high), default=high), 5 * below)


def waveform(inner: Sequence[float], outer: Sequence[float], cut: float, words: str) -> Html:
    """Two series in their order as mirrored bars, the inner one before the outer; higher than ``cut`` is cut."""
    wide, high, bars_at_most = 960, 150, 240
    size = max(1, math.ceil(len(outer) / bars_at_most))
    number = max(1, math.ceil(len(outer) / size))
    pitch = wide / number
    drawn = []
    for values, colour in ((outer, "last"), (inner, "first")):
        paths = []
        for at in range(number):
            slowest = max(values[at * size : (at + 1) * size], default=0.0)
            half = max(1.0, (high / 2 - 2) * min(1.0, slowest / cut))
            x = pitch * (at + 0.5)
            paths.append(f"M{x:.1f} {high / 2 - half:.1f}V{high / 2 + half:.1f}")
        drawn.append(tag("path", d="".join(paths), class_=f"wave {colour}", stroke_width=min(9.0, pitch * 0.62)))
    return _svg(wide, high, words, *drawn, preserveAspectRatio="none", class_="waveform")


@dataclass(frozen=True, slots=True)
class Flow:
    """What went where; None where it is not known."""

    uploads: int
    partitions: int
    answered: int
    dead_letters: int
    pushes: int
    listens: int
    warm_songs: int
    users: int


def flow(seen: Flow, words: str) -> Html:
    """The way of a song, drawn twice: from left to right, and from top to bottom for narrow screens."""
    lanes = [f"partition {lane}" for lane in range(seen.partitions)]
    if len(lanes) > 4:
        lanes = [*lanes[:3], f"… {len(lanes) - 3} more"]
    texts = {
        "uploads": ("song-uploads", f"{count(seen.uploads)} songs"),
        "songs": ("songs role", "content → vector →", "similar warm songs"),
        "requests": ("match-requests", f"to {count(seen.partitions)} partitions"),
        "pushes": ("push-targets", f"{count(seen.pushes)} pushes"),
        "warm": ("warm-songs", count(seen.warm_songs)),
        "listens": ("listens", f"{count(seen.listens)} of {count(seen.users)} people"),
        "dead": ("dead-letters", count(seen.dead_letters)),
        "reports": ("campaign-reports", f"{count(seen.answered)} songs answered"),
    }
    n = len(lanes)
    across: dict[str, tuple[float, float, float, float]] = {
        "uploads": (2, 126, 140, 58), "songs": (190, 113, 168, 84), "requests": (406, 126, 150, 58),
        "pushes": (806, 126, 152, 58), "warm": (204, 2, 140, 50), "dead": (204, 258, 140, 50),
        "listens": (588, 2, 190, 50), "reports": (588, 258, 190, 50),
    }  # fmt: skip
    across |= {f"lane{at}": (618, 155 - n * 21 + at * 42 + 3, 130, 36) for at in range(n)}
    wide = 352 / n
    down: dict[str, tuple[float, float, float, float]] = {
        "uploads": (4, 2, 150, 54), "songs": (4, 98, 190, 82), "requests": (4, 222, 190, 54),
        "pushes": (4, 416, 165, 54), "warm": (230, 50, 126, 50), "dead": (230, 144, 126, 50),
        "listens": (212, 224, 146, 50), "reports": (191, 416, 165, 54),
    }  # fmt: skip
    down |= {f"lane{at}": (4 + at * wide + 3, 322, wide - 6, 46) for at in range(n)}
    every = [f"lane{at}" for at in range(n)]
    edges = [("uploads", "songs"), ("songs", "requests")]
    edges += [("requests", lane) for lane in every] + [(lane, "pushes") for lane in every]
    sides = [("warm", "songs"), ("songs", "dead")]
    drawings = []
    for name, boxes, size in (("across", across, (960, 310)), ("down", down, (360, 474))):
        vertical = name == "down"
        drawn = [_edge(boxes[a], boxes[b], vertical, name) for a, b in edges]
        if vertical:
            drawn += [_sideways(boxes["warm"], boxes["songs"], name), _sideways(boxes["songs"], boxes["dead"], name)]
            drawn += [_edge(boxes["listens"], boxes[lane], True, name, "side") for lane in every]
            drawn += [_edge(boxes[lane], boxes["reports"], True, name, "side") for lane in every]
        else:
            drawn += [_edge(boxes[a], boxes[b], True, name, "side") for a, b in sides]
            drawn.append(_edge(boxes["listens"], boxes[every[0]], True, name, "side"))
            drawn.append(_edge(boxes[every[-1]], boxes["reports"], True, name, "side"))
        for key, box in boxes.items():
            if key.startswith("lane"):
                drawn.append(_box(box, (lanes[int(key[4:])],), "role"))
            else:
                drawn.append(_box(box, texts[key], "role" if key == "songs" else "topic"))
        if not vertical:
            drawn.append(tag("text", "audience role", x=692, y=155 - n * 21 - 4, class_="quiet"))
        head = tag("path", d="M0 0L8 4L0 8z", class_="head")
        arrow = tag(
            "marker", head, id=f"arrow-{name}", viewBox="0 0 8 8", refX=7, refY=4,
            markerWidth=7, markerHeight=7, orient="auto", markerUnits="userSpaceOnUse",
        )  # fmt: skip
        drawings.append(_svg(*size, words, arrow, *drawn, class_=f"flow {name}"))
    return Html("".join(drawings))


_Box = tuple[float, float, float, float]


def _edge(a: _Box, b: _Box, vertical: bool, arrow: str, kind: str = "") -> Html:
    """A curve from the end of one box to the start of the next."""
    # At the larger box, where edges fan out or in, they stand apart: at one point they would look like an arrow's head.
    if vertical:
        x1, y1, x2, y2 = a[0] + a[2] / 2, a[1] + a[3], b[0] + b[2] / 2, b[1] - 2
        fan = 0.12 * (x2 - x1)
        x1, x2 = (x1 + fan, x2) if a[2] > b[2] else (x1, x2 - fan)
        bend = f"C{x1:.1f} {(y1 + y2) / 2:.1f} {x2:.1f} {(y1 + y2) / 2:.1f}"
    else:
        x1, y1, x2, y2 = a[0] + a[2], a[1] + a[3] / 2, b[0] - 2, b[1] + b[3] / 2
        fan = 0.12 * (y2 - y1)
        y1, y2 = (y1 + fan, y2) if a[3] > b[3] else (y1, y2 - fan)
        bend = f"C{(x1 + x2) / 2:.1f} {y1:.1f} {(x1 + x2) / 2:.1f} {y2:.1f}"
    path = f"M{x1:.1f} {y1:.1f}{bend} {x2:.1f} {y2:.1f}"
    return tag("path", d=path, class_=f"edge {kind}".strip(), marker_end=f"url(#arrow-{arrow})")


def _sideways(a: _Box, b: _Box, arrow: str) -> Html:
    """A side branch of the narrow drawing: between boxes that stand beside each other."""
    if a[0] < b[0]:
        return _edge(a, b, False, arrow, "side")
    x1, y1, x2, y2 = a[0], a[1] + a[3] / 2, b[0] + b[2] + 2, b[1] + b[3] / 3
    path = f"M{x1:.1f} {y1:.1f}C{(x1 + x2) / 2:.1f} {y1:.1f} {(x1 + x2) / 2:.1f} {y2:.1f} {x2:.1f} {y2:.1f}"
    return tag("path", d=path, class_="edge side", marker_end=f"url(#arrow-{arrow})")


def _box(box: _Box, texts: Sequence[str], kind: str) -> Html:
    x, y, wide, high = box
    middle = y + high / 2 - 9 * (len(texts) - 1) + 4.5
    written = [
        _text(text, x + wide / 2, middle + 18 * at, "title" if at == 0 else "quiet") for at, text in enumerate(texts)
    ]
    outline = tag("rect", x=x, y=y, width=wide, height=high, rx=high / 2 if kind == "topic" else 10)
    return tag("g", outline, *written, class_=kind)


def _svg(wide: float, high: float, words: str, *children: str, **attributes: object) -> Html:
    return tag("svg", *children, viewBox=f"0 0 {wide} {high}", role="img", aria_label=words, **attributes)


def _text(text: str, x: float, y: float, kind: str = "tick") -> Html:
    return tag("text", text, x=x, y=y, class_=kind, text_anchor="middle")


def _bar(x: float, y: float, wide: float, floor: float) -> str:
    """A bar that stands on the floor, its upper corners rounded."""
    r = max(0.0, min(3.0, wide / 2, floor - y))
    up, along, down = f"q0-{r:.1f} {r:.1f}-{r:.1f}", f"h{wide - 2 * r:.1f}", f"q{r:.1f} 0 {r:.1f} {r:.1f}"
    return f"M{x:.1f} {floor:.1f}V{y + r:.1f}{up}{along}{down}V{floor:.1f}z"


def _shares(
    values: Sequence[float | None], left: float, right: float, top: float, floor: float
) -> tuple[Callable[[float], float], list[Html]]:
    """Where a share stands between floor and top, and the grid lines with their percentages."""
    highest = max((value for value in values if value is not None), default=0.0)
    step = next((s for s in (0.01, 0.02, 0.05, 0.1) if highest <= 5 * s), 0.2)
    steps = max(1, math.ceil(highest / step - 1e-9))

    def at(value: float) -> float:
        return floor - (floor - top) * value / (steps * step)

    grid = []
    for number in range(steps + 1):
        y = at(number * step)
        grid.append(tag("path", d=f"M{left:.1f} {y:.1f}H{right:.1f}", class_="grid" if number else "axis"))
        grid.append(tag("text", f"{100 * number * step:.0f} %", x=left - 5, y=y + 4, class_="tick", text_anchor="end"))
    return at, grid


def _apart(ys: Sequence[float], gap: float) -> list[float]:
    """The positions in ascending order, each moved down as far as it must to stand ``gap`` below the last."""
    placed: list[float] = []
    for y in sorted(ys):
        placed.append(max(y, placed[-1] + gap) if placed else y)
    return placed
