"""The page of an evaluation: tables and charts for ``evaluation_report.html.j2``, from its dictionary alone."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle
from typing import Any, Final

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from streams.testbed.pages.inline_svg import colour, inline, style
from streams.testbed.pages.page import environment

Json = Mapping[str, Any]
Rows = list[list[str]]

_TAIL_TO_HEAD: Final = ("tail", "second", "third", "head")
_OTHERS: Final = ("evidence", "i2i2u", "cat", "liking", "random", "cat-once", "organic")


def html(result: Json) -> str:
    """The whole page; nothing is loaded from anywhere."""
    template = environment().get_template("pages/evaluation_report.html.j2")
    return template.render(
        result=result,
        charts={"ranking": _ranking(result), "differences": _differences(result), "quartiles": _quartiles(result)},
        encoder=_encoder(result),
        paired=[
            [pair, *map(_interval, (gap["recall_50"], gap["ndcg_50"], gap["recall_50"]["quartiles"][0]))]
            for pair, gap in _encoder_pairs(result)
        ],
        truths=_truths(result),
        contents=[content.replace("_", " ") for content in next(iter(result["arms"].values()))["content"]],
        robustness=_robustness(result),
        unseen=", ".join(f"{name} {value:.2f}" for name, value in result["unseen_terms_per_song"].items()),
        gauges=[
            [name, *(f"{arm['gauges'][key]:.3f}" for key in ("alignment", "uniformity", "variance"))]
            for name, arm in result["arms"].items()
            if arm["gauges"]
        ],
        chosen=_chosen(result),
        paper=_paper(result) if result["paper"] else [],
        targeting=_targeting(result) if "targeting" in result else [],
        targeting_pairs=_targeting_pairs(result),
    )


def _ranked(result: Json) -> list[str]:
    """Names of the variants, the best recall last."""
    return sorted(result["arms"], key=lambda name: float(result["arms"][name]["recall_50"]["mean"]))


def _encoder_pairs(result: Json) -> list[tuple[str, Json]]:
    return [(pair, gap) for pair, gap in result["paired"].items() if not pair.startswith("targeting:")]


def _interval(part: Json) -> str:
    return f"{part['mean']:+.4f} [{part['low']:+.4f}, {part['high']:+.4f}]"


def _encoder(result: Json) -> Rows:
    rows = []
    for name in reversed(_ranked(result)):
        arm = result["arms"][name]
        scores = (f"{arm[measure]['mean']:.4f} ± {arm[measure]['std']:.4f}" for measure in ("recall_50", "ndcg_50"))
        quartiles = " ".join(f"{value:.3f}" for value in arm["recall_50"]["quartiles"])
        rows.append([name, arm["what"], *scores, quartiles, f"{arm['train_seconds']:.1f}"])
    return rows


# A measure's name in the table, and what bounds it.
_TRUTHS: Final = {
    "recall_50": ("recall@50", "ceiling"),
    "held_out_recall_50": ("held out", "ceiling_half"),
    "taste_recall_50": ("known taste", ""),
    "audience_precision_50": ("audience@50 by cosine", "audience"),
    "evidence_precision_50": ("audience@50 by what is retrieved", "audience"),
}


def _truths(result: Json) -> tuple[list[str], Rows]:
    """Heads and rows: each variant by each truth, all cold songs and the tail; last what truths allow."""
    default = result["arms"][result["default_arm"]]
    names = {measure: name for measure, name in _TRUTHS.items() if measure in default}

    def cell(found: Json | None) -> str:
        return f"{found['mean']:.4f}, {found['quartiles'][0]:.3f}" if found else "–"

    rows = [
        [name, *(cell(result["arms"][name].get(measure)) for measure in names)] for name in reversed(_ranked(result))
    ]
    rows.append(["what it allows", *(cell(result["truths"].get(bound)) for _, bound in names.values())])
    return ["all, tail", *(name for name, _ in names.values())], rows


def _robustness(result: Json) -> Rows:
    """An arm's recall with full content, and with each of the others."""
    rows = []
    for name in reversed(_ranked(result)):
        arm = result["arms"][name]
        rows.append([name, *(f"{each['recall_50']['mean']:.4f}" for each in (arm, *arm["content"].values()))])
    return rows


def _chosen(result: Json) -> Rows:
    return [
        [
            name,
            ", ".join(f"{key} {value}" for key, value in arm["chosen"].items()) or "its own config",
            f"{arm['search']['trials']} of {arm['search']['of']:,}",
            f"{arm['search']['seconds']:.0f}",
        ]
        for name, arm in result["arms"].items()
    ]


def _paper(result: Json) -> Rows:
    """What the contrastive term does: a row for each measure, over all songs and by quartile."""
    rows = []
    for measure, label in (("recall_50", "recall@50"), ("ndcg_50", "NDCG@50")):
        gap, verdict = result["paper"]["difference"][measure], result["paper"]["verdict"][measure]
        rows.append([label, "all", _interval(gap), verdict["overall"]])
        for quartile, part, word in zip(_TAIL_TO_HEAD, gap["quartiles"], verdict["quartiles"], strict=True):
            rows.append([label, quartile, _interval(part), word])
    return rows


def _targeting(result: Json) -> Rows:
    return [
        [
            name,
            *(f"{arm['precision'][cut]:.4f}" for cut in ("50", "100", "200")),
            *(f"{arm[key]:.4f}" for key in ("recall_200", "r_precision", "auc")),
            f"{arm['every_song']['r_precision']:.4f}",
        ]
        for name, arm in result["targeting"].items()
    ]


def _targeting_pairs(result: Json) -> Rows:
    prefix = "targeting:"
    return [
        [pair.removeprefix(prefix), *(_interval(gap[f"precision_{cut}"]) for cut in (50, 100, 200))]
        for pair, gap in result["paired"].items()
        if pair.startswith(prefix)
    ]


def _ranking(result: Json) -> Markup:
    names = _ranked(result)
    recall = [result["arms"][name]["recall_50"] for name in names]
    variables = [
        "default" if name == result["default_arm"] else "random" if name == "ceiling" else "organic" for name in names
    ]
    with style():
        figure, axes = _wide(0.3 * len(names) + 0.8)
        axes.barh(
            names, [each["mean"] for each in recall], xerr=[each["std"] for each in recall],
            color=[colour(each) for each in variables], ecolor=colour("ink"),
        )  # fmt: skip
        axes.set_xlabel("recall@50, standard deviation over seeds")
        best = ", ".join(f"{name} {each['mean']:.3f}" for name, each in reversed([*zip(names, recall, strict=True)]))
        return inline(figure, "ranking", f"Recall at 50 of each variant, the best first: {best}.")


def _differences(result: Json) -> Markup:
    pairs = [(pair, gap["recall_50"]) for pair, gap in reversed(_encoder_pairs(result))]
    with style():
        figure, axes = _wide(0.3 * len(pairs) + 0.8)
        # symlog: the gap to chance and the gap to the next best variant on one axis.
        axes.set_xscale("symlog", linthresh=0.02)
        axes.xaxis.set_major_locator(FixedLocator((-1, -0.1, 0, 0.1, 1)))
        axes.xaxis.set_major_formatter("{x:+g}")
        for row, (_, gap) in enumerate(pairs):
            axes.plot([gap["low"], gap["high"]], [row, row], color=colour("default"))
            axes.plot(gap["mean"], row, "o", color=colour("default"), markersize=6)
        axes.axvline(0, color=colour("ink"), linewidth=0.8)
        axes.set_yticks(range(len(pairs)), [pair for pair, _ in pairs])
        axes.set_xlabel("difference in recall@50, 95 % interval")
        said = ", ".join(f"{pair} {gap['mean']:+.3f}" for pair, gap in reversed(pairs))
        return inline(figure, "differences", f"Mean differences in recall at 50: {said}.")


def _quartiles(result: Json) -> Markup:
    others = cycle((variable, mark) for mark in "sD^v" for variable in _OTHERS)
    with style():
        figure, axes = _wide(4)
        for name in reversed(_ranked(result)):
            ours = name == result["default_arm"]
            variable, mark = ("default", "o") if ours else next(others)
            axes.plot(
                _TAIL_TO_HEAD, result["arms"][name]["recall_50"]["quartiles"], marker=mark, label=name, markersize=5,
                color=colour(variable), linewidth=3 if ours else 1, zorder=3 if ours else 2,
            )  # fmt: skip
        axes.set_ylabel("recall@50")
        axes.legend(fontsize=10, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
        return inline(figure, "quartiles", "Recall at 50 by variant and quartile of listeners; the table above has it.")


def _wide(height: float) -> tuple[Figure, Axes]:
    """A figure of 6 inches, whose margins are as wide as its names."""
    figure = Figure(figsize=(6, height), layout="constrained")
    return figure, figure.subplots()
