"""The page of a demo: its figures and charts, for ``demo_report.html.j2``."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any, Final

import numpy as np
from markupsafe import Markup

from streams.testbed.demo.outcome import DemoOutcome
from streams.testbed.demo.precision import CUTS, ENOUGH_LISTENERS
from streams.testbed.demo.swap_measurement import LIMIT_MS, SwapFigures
from streams.testbed.pages import charts
from streams.testbed.pages.number_text import DASH, count, known, milliseconds, of_ten, share
from streams.testbed.pages.page import write_page

# arm -> the variable that colours it, its name in a plot, its name in a table, what it means.
_VARIANTS: Final = {
    "coldstart": ("default", "coldstart", "coldstart", "The people whom the system pushed, best score first."),
    "evidence": (
        "evidence",
        "similar, ranked",
        "heard similar songs, ranked",
        "People who heard the most of the retrieved similar songs: the plain baseline.",
    ),
    "i2i2u": (
        "i2i2u",
        "similar, unranked",
        "heard similar songs, unranked",
        "Anyone who heard at least one of the retrieved similar songs, in no order.",
    ),
    "random": ("organic", "anybody", "anybody", "People drawn from everybody by chance."),
}
_QUANTILES: Final = {"half within": 50, "9 of 10 within": 90, "99 of 100 within": 99, "the slowest": 100}
_PHASES: Final = {
    "data": "read or generate the data",
    "broker": "start Apache Kafka",
    "training": "train the encoder",
    "chances": "calibrate scores",
    "publish": "publish model and warm songs",
    "workers": "start the workers",
    "history": "replay the listens",
    "uploads": "upload the cold songs",
    "answers": "wait for the last answers",
    "judging": "compare with the hidden listeners",
    "swap": "upload on while models are swapped",
}
_SWAP_PHASES: Final = {
    "swap": "while the second model is published",
    "rollback": "while the first is published again",
}
_PROCESSES: Final = {
    "total": "all together, at one time",
    "demo": "the demo itself, training included",
    "java": "Apache Kafka",
    "songs": "songs worker",
    "python": "other Python processes",
}


def write_report(outcome: DemoOutcome, path: Path, command: str = "coldstart demo") -> None:
    """Write the page: one file that loads nothing.

    Args:
        command: how the run was started, shown for repeating it.
    """
    first, last = _timed(outcome, "first"), _timed(outcome, "last")
    took = [known(value) or 0.0 for value in outcome.seconds.values()]
    peaks = [
        (_PROCESSES.get(name, name.replace("audience-", "audience worker ")), known(value) or 0.0)
        for name, value in outcome.memory_mb.items()
    ]
    reasons = [(*reason.partition(": ")[::2], records) for reason, records in outcome.dead_letter_reasons.items()]
    sizes = [
        (_size(bucket), {"coldstart": None, "evidence": None, "songs": None} | of)
        for bucket, of in outcome.judgement.r_precision.items()
    ]
    # A few stragglers would flatten all others.
    cut = _percentile(last, 99) or 1.0
    write_page(
        path,
        "demo/demo_report.html.j2",
        outcome=outcome,
        command=command,
        dash=DASH,
        headlines=_headlines(outcome, first),
        wrong=_wrong(outcome),
        reasons=sorted(reasons, key=lambda each: -each[2]),
        enough=ENOUGH_LISTENERS,
        arms=_arms(outcome),
        sizes=sizes,
        first=first,
        cut=cut,
        quantiles=[
            (words, milliseconds(_percentile(first, at)), milliseconds(_percentile(last, at)))
            for words, at in (
                ("half within", 50),
                ("9 of 10 within", 90),
                ("99 of 100 within", 99),
                ("the slowest", 100),
            )
        ],
        neighbours=[
            (title, near, max(0.0, known(near) or 0.0)) for title, near in outcome.example.get("neighbours", ())
        ],
        phases=[
            (_PHASES.get(phase, phase), each, end - each)
            for phase, each, end in zip(outcome.seconds, took, accumulate(took), strict=True)
        ],
        peaks=sorted(peaks, key=lambda each: -each[1]),
        swap=_swap(outcome.swapped) if outcome.swapped else None,
        charts=_charts(outcome, first, last, cut, sizes),
    )


def coloured_width(fraction: float | None) -> float:
    """How much of a row of ten people is coloured: people are 18 wide, at each 26, and gaps do not count."""
    filled = 10 * min(1.0, max(0.0, known(fraction) or 0.0))
    return round(int(filled) * 26 + 1 + (filled - int(filled)) * 18, 2)


def _headlines(outcome: DemoOutcome, first: Sequence[float]) -> list[tuple[str, str]]:
    best, anybody = (known(outcome.judgement.precision.get(arm, {}).get(100)) for arm in ("coldstart", "random"))
    ratio = best / anybody if best and anybody else None
    times = "" if ratio is None else f", {ratio:.{0 if ratio >= 3 else 1}f} times fewer"
    doubled = "none of them twice" if not outcome.pushes_doubled else f"{count(outcome.pushes_doubled)} of them twice"
    return [
        (
            f"{of_ten(best)} of 10",
            f"people pushed really listen (the best 100 of a song). Anybody: {of_ten(anybody)} of 10{times}.",
        ),
        (
            milliseconds(_percentile(first, 50)),
            "from upload to the first push, for half of the songs; 99 of 100 within "
            f"{milliseconds(_percentile(first, 99))}.",
        ),
        (count(outcome.push_targets), f"pushes to {count(outcome.users)} people, {doubled}."),
        (
            f"{count(outcome.answered)} of {count(outcome.uploads)}",
            f"songs answered by all {count(outcome.partitions)} audience partitions.",
        ),
    ]


def _wrong(outcome: DemoOutcome) -> list[str]:
    wrong = []
    if outcome.answered != outcome.uploads:
        wrong.append(f"{count(outcome.answered)} of {count(outcome.uploads)} uploads answered by every partition")
    if not outcome.dead_letters_identical:
        wrong.append("the dead letters are not exactly the malformed uploads")
    if outcome.pushes_doubled:
        wrong.append(f"pushes that came twice: {count(outcome.pushes_doubled)}")
    if outcome.swapped and outcome.swapped.verdict:
        wrong.append(f"swap of models: {outcome.swapped.verdict}")
    return wrong


def _arms(outcome: DemoOutcome) -> list[dict[str, Any]]:
    judged = outcome.judgement
    return [
        {
            "colour": colour,
            "name": name,
            "meaning": meaning,
            "precision": judged.precision[arm],
            "recall_200": judged.recall_200.get(arm),
            "liking": (judged.liking or {}).get(arm, {}),
            "coloured": coloured_width(judged.precision[arm].get(100)),
        }
        for arm, (colour, _, name, meaning) in _VARIANTS.items()
        if arm in judged.precision
    ]


def _size(bucket: str) -> str:
    return bucket.replace("-", "–").replace(">=", "") + ("+" if bucket.startswith(">=") else "")


def _charts(
    outcome: DemoOutcome, first: list[float], last: list[float], cut: float, sizes: list[tuple[str, dict[str, Any]]]
) -> dict[str, Markup]:
    precision = [
        charts.Series(name, colour, [known(outcome.judgement.precision[arm].get(cut)) for cut in CUTS])
        for arm, (colour, name, _, _) in _VARIANTS.items()
        if arm in outcome.judgement.precision
    ]
    of_lines = "; ".join(
        f"{each.name}: {', '.join(f'{share(value)} of {cut}' for cut, value in zip(CUTS, each.values, strict=True))}"
        for each in precision
    )
    both = [
        charts.Series(arm, _VARIANTS[arm][0], [known(of[arm]) for _, of in sizes]) for arm in ("coldstart", "evidence")
    ]
    of_sizes = "; ".join(
        f"{name} listeners: coldstart {share(of['coldstart'])}, evidence {share(of['evidence'])}" for name, of in sizes
    )
    found = {
        "precision": charts.lines(
            "precision", [str(cut) for cut in CUTS], "people pushed, best first", precision,
            f"Precision by variant. {of_lines}.",
        ),
        "sizes": charts.bars(
            "sizes", [(name, f"{count(of['songs'])} songs") for name, of in sizes], both,
            f"R-precision by audience size, in percent. {of_sizes}.",
        ),
    }  # fmt: skip
    if first and last:
        span = charts.rounded_span([*first, *last])
        for which, values, colour in (("first", first, "default"), ("last", last, "evidence")):
            words = (
                f"Upload to the {which} push: half within {milliseconds(_percentile(values, 50))}, 99 of 100 within "
                f"{milliseconds(_percentile(values, 99))}, the slowest {milliseconds(max(values))}."
            )
            found[which] = charts.histogram(which, values, span, colour, words)
        words = "Time to the first and the last push of each song, in order of upload."
        found["waveform"] = charts.waveform("waveform", first, last, cut, words)
    if outcome.swapped:
        seen, start = outcome.swapped, min(outcome.swapped.starts.values())
        points = [(seen.sent[song].at - start, wait) for song, wait in seen.waits.items()]
        begins = [each - start for each in seen.starts.values()]
        ends = dict(zip(seen.starts, [*begins[1:], seen.ended - start], strict=True))
        marks = [(seen.starts[phase] - start, ends[phase]) for phase in _SWAP_PHASES if phase in ends]
        found["swap"] = charts.timeline("swap", points, marks, LIMIT_MS, _swap_words(seen))
    return found


def _swap(seen: SwapFigures) -> dict[str, Any]:
    """How long uploads waited beside a swap of models and its rollback, and which model decided."""
    phases = {_SWAP_PHASES.get(phase, phase): each for phase, each in seen.as_json()["phases"].items()}
    return {
        "words": _swap_words(seen),
        "waits": [
            (name, count(each["uploads"]), count(each["failed"]),
             *(milliseconds(each[key]) for key in ("p50_ms", "p99_ms", "longest_ms")))
            for name, each in phases.items()
        ],
        "models": [
            (name, *(count(each["spaces"][which]) for which in ("first", "second", "both", "no push")))
            for name, each in phases.items()
        ],
        "verdict": seen.verdict or f"None failed, and none waited more than {milliseconds(LIMIT_MS)} for a swap.",
    }  # fmt: skip


def _swap_words(seen: SwapFigures) -> str:
    return (
        f"{count(len(seen.sent))} uploads, {count(len(seen.failed))} of them failed; the longest wait before any swap "
        f"was {milliseconds(seen.longest('before'))}, during the swap {milliseconds(seen.longest('swap'))}, during "
        f"the rollback {milliseconds(seen.longest('rollback'))}."
    )


def _timed(outcome: DemoOutcome, which: str) -> list[float]:
    return [value for value in outcome.latencies.get(which, []) if known(value) is not None]


def _percentile(values: Sequence[float], which: float) -> float | None:
    return float(np.percentile(values, which)) if values else None
