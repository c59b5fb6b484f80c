"""What does a reader see? One HTML file of tables and plots, from the dictionary of an evaluation alone."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.figure import Figure

Json = Mapping[str, Any]

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 76rem; margin: 2rem auto; padding: 0 1rem; color: #222 }
table { border-collapse: collapse; margin: 1rem 0; font-variant-numeric: tabular-nums }
td, th { padding: .2rem .7rem; text-align: right; border-bottom: 1px solid #ddd }
td:first-child, th:first-child { text-align: left }
td { white-space: nowrap }
tr.default { font-weight: 600; background: #eef4fb }
svg { max-width: 100%; height: auto }
.note { color: #555 }
"""
_OURS, _OTHER, _BOUND = "#1f5fa8", "#9aa5b1", "#d9a441"
_TAIL_TO_HEAD = ("tail", "second", "third", "head")


def html(result: Json) -> str:
    """The whole page; nothing is loaded from anywhere."""
    data, seeds = result["data"], result["seeds"]
    parts = [
        f"<h1>{escape(data['name'])}: cold songs</h1>",
        f"<p>{data['judged_songs']:,} songs with at least 5 listeners, of which {data['cold_songs']:,} are cold under "
        f"each of {len(seeds)} seeds; {data['users']:,} users. Content: {escape(', '.join(data['content']))}. "
        "Truth: the 50 warm songs whose sets of listeners are most like the cold song's.</p>",
        *([f"<p class=note>{escape(data['citation'])}</p>"] if data["citation"] else []),
        "<h2>Encoder</h2>",
        _figure(_ranking(result)),
        _encoder_table(result),
        *(f"<p class=note>{escape(name)} is left out: {escape(why)}.</p>" for name, why in result["skipped"].items()),
        "<h2>The default against the others</h2>",
        f"<p class=note>{escape(result['paired_method'])}</p>",
        _figure(_differences(result)),
        _paired_table(result),
        "<h2>By listeners of the cold song</h2>",
        _figure(_quartiles(result)),
        "<h2>Truths that hold in a large catalogue</h2>",
        "<p>Held out: the 50 warm songs with the most similar listeners, by either half of the users alone. Taste: the "
        "nearest in a generated world. Audience: the share of the song's listeners among the 50 users nearest to it. "
        "The ceiling follows from how far the two halves agree.</p>",
        _truths_table(result),
        "<h2>Less content, strange content</h2>",
        "<p>Full tags are written by the same listeners after the release: optimistic content. Thinned, a cold song "
        "keeps 5 tag assignments; <code>without</code> a feature, no cold song has it; <code>unseen</code>, each has "
        "3 more terms that no song has ever had, which are ignored and counted.</p>",
        _robustness_table(result),
        "<p class=note>Terms of a cold song that no warm song has, on average: "
        + escape(", ".join(f"{name} {value:.2f}" for name, value in result["unseen_terms_per_song"].items()))
        + "</p>",
        *_paper(result),
        "<h2>The spaces</h2>",
        f"<p>Gini coefficient of how often a warm song is another's target: {result['supervision_gini']:.3f}.</p>",
        _gauge_table(result),
        "<h2>What was chosen</h2>",
        f"<p>{result['search']['trials']} trials for each arm at most, {result['search']['seconds']:.0f} s in all, on "
        "songs that are cold under no seed. An arm keeps its own config unless another gains more than a standard "
        "error.</p>",
        _search_table(result),
        *_targeting(result),
    ]
    return (
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{escape(data['name'])}: coldstart evaluate</title>"
        f"<style>{_STYLE}</style>" + "\n".join(parts) + "</html>\n"
    )


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], default: str = "") -> str:
    """Rows of text; the row whose first cell is ``default`` stands out."""
    cells = ["<tr>" + "".join(f"<th>{escape(cell)}</th>" for cell in head) + "</tr>"]
    for row in rows:
        kind = " class=default" if row[0] == default else ""
        cells.append(f"<tr{kind}>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>")
    return "<table>" + "\n".join(cells) + "</table>"


def _ranked(result: Json) -> list[str]:
    """Names of the arms, the best recall last."""
    return sorted(result["arms"], key=lambda name: float(result["arms"][name]["recall_50"]["mean"]))


def _encoder_table(result: Json) -> str:
    rows = []
    for name in reversed(_ranked(result)):
        arm = result["arms"][name]
        rows.append(
            [
                name,
                arm["what"],
                *(f"{arm[m]['mean']:.4f} ± {arm[m]['std']:.4f}" for m in ("recall_50", "ndcg_50")),
                " ".join(f"{value:.3f}" for value in arm["recall_50"]["quartiles"]),
                f"{arm['train_seconds']:.1f}",
            ]
        )
    head = ["arm", "what", "recall@50", "NDCG@50", "recall by quartile, tail first", "train s"]
    return _table(head, rows, result["default_arm"])


def _paired_table(result: Json) -> str:
    rows = []
    for pair, gap in _encoder_pairs(result):
        tail = gap["recall_50"]["quartiles"][0]
        rows.append([pair, *(_interval(part) for part in (gap["recall_50"], gap["ndcg_50"], tail))])
    return _table(["difference", "recall@50", "NDCG@50", "recall@50, tail quartile"], rows)


def _truths_table(result: Json) -> str:
    """Each arm by each truth, all cold songs and the tail quartile; last what the truths themselves allow."""
    names = {
        "recall_50": ("recall@50", "ceiling"),
        "held_out_recall_50": ("held out", "ceiling_half"),
        "taste_recall_50": ("known taste", ""),
        "audience_precision_50": ("audience@50 by cosine", "audience"),
        "evidence_precision_50": ("audience@50 by what is retrieved", "audience"),
    }
    default = result["arms"][result["default_arm"]]
    names = {measure: name for measure, name in names.items() if measure in default}

    def cell(found: Json | None) -> str:
        return f"{found['mean']:.4f}, {found['quartiles'][0]:.3f}" if found else "–"

    rows = [
        [name, *(cell(result["arms"][name].get(measure)) for measure in names)] for name in reversed(_ranked(result))
    ]
    rows.append(["what it allows", *(cell(result["truths"].get(bound)) for _, bound in names.values())])
    return _table(["all, tail", *(name for name, _ in names.values())], rows, result["default_arm"])


def _encoder_pairs(result: Json) -> list[tuple[str, Json]]:
    return [(pair, gap) for pair, gap in result["paired"].items() if not pair.startswith("targeting:")]


def _interval(part: Json) -> str:
    return f"{part['mean']:+.4f} [{part['low']:+.4f}, {part['high']:+.4f}]"


def _robustness_table(result: Json) -> str:
    names = list(next(iter(result["arms"].values()))["content"])
    rows = []
    for name in reversed(_ranked(result)):
        arm = result["arms"][name]
        rows.append(
            [
                name,
                f"{arm['recall_50']['mean']:.4f}",
                *(f"{arm['content'][content]['recall_50']['mean']:.4f}" for content in names),
            ]
        )
    return _table(["arm, recall@50", "full", *(name.replace("_", " ") for name in names)], rows, result["default_arm"])


def _gauge_table(result: Json) -> str:
    rows = [
        [name, *(f"{arm['gauges'][key]:.3f}" for key in ("alignment", "uniformity", "variance"))]
        for name, arm in result["arms"].items()
        if arm["gauges"]
    ]
    return _table(["arm", "alignment", "uniformity", "variance"], rows, result["default_arm"])


def _search_table(result: Json) -> str:
    rows = [
        [
            name,
            ", ".join(f"{key} {value}" for key, value in arm["chosen"].items()) or "its own config",
            f"{arm['search']['trials']} of {arm['search']['of']:,}",
            f"{arm['search']['seconds']:.0f}",
        ]
        for name, arm in result["arms"].items()
    ]
    return _table(["arm", "chosen", "trials", "seconds"], rows, result["default_arm"])


def _paper(result: Json) -> list[str]:
    paper = result["paper"]
    if not paper:
        return []
    rows = []
    for measure, label in (("recall_50", "recall@50"), ("ndcg_50", "NDCG@50")):
        gap, verdict = paper["difference"][measure], paper["verdict"][measure]
        rows.append([label, "all", _interval(gap), verdict["overall"]])
        for quartile, part, word in zip(_TAIL_TO_HEAD, gap["quartiles"], verdict["quartiles"], strict=True):
            rows.append([label, quartile, _interval(part), word])
    return [
        "<h2>What the contrastive term does to the paper's encoder</h2>",
        f"<p>bcl_paper minus its twin without InfoNCE, both searched with the same budget, over {len(paper['seeds'])} "
        f"seeds. Gini of the supervision: {paper['supervision_gini']:.3f}. The paper filters its positives by "
        "listeners' feedback on recommendations, which no public data hold.</p>",
        _table(["measure", "quartile", "with minus without", "the term"], rows),
    ]


def _targeting(result: Json) -> list[str]:
    if "targeting" not in result:
        return []
    rows = [
        [
            name,
            *(f"{arm['precision'][n]:.4f}" for n in ("50", "100", "200")),
            *(f"{arm[key]:.4f}" for key in ("recall_200", "r_precision", "auc")),
            f"{arm['every_song']['r_precision']:.4f}",
        ]
        for name, arm in result["targeting"].items()
    ]
    head = ["arm", "precision@50", "@100", "@200", "recall@200", "R-precision", "AUC", "R-precision, every song"]
    pairs = []
    for pair, gap in result["paired"].items():
        if pair.startswith("targeting:"):
            keys = ("precision_50", "precision_100", "precision_200")
            pairs.append([pair.removeprefix("targeting:"), *(_interval(gap[key]) for key in keys)])
    return [
        "<h2>Targeting</h2>",
        "<p>Cold songs with at least 20 listeners, and in the last column every one; all users ranked.</p>",
        _table(head, rows, result["targeting_default"]),
        f"<p class=note>{escape(result['targeting_paired_method'])}</p>",
        _table(["difference", "precision@50", "@100", "@200"], pairs),
    ]


def _colour(result: Json, name: str) -> str:
    return _OURS if name == result["default_arm"] else _BOUND if name == "ceiling" else _OTHER


def _ranking(result: Json) -> Figure:
    names = _ranked(result)
    figure = Figure(figsize=(8, 0.3 * len(names) + 0.8), layout="constrained")
    axes = figure.subplots()
    means = [result["arms"][name]["recall_50"]["mean"] for name in names]
    spread = [result["arms"][name]["recall_50"]["std"] for name in names]
    axes.barh(names, means, xerr=spread, color=[_colour(result, name) for name in names], ecolor="#444")
    axes.set_xlabel("recall@50, standard deviation over seeds")
    return figure


def _differences(result: Json) -> Figure:
    pairs = [(pair, gap["recall_50"]) for pair, gap in _encoder_pairs(result)]
    figure = Figure(figsize=(8, 0.3 * len(pairs) + 0.8), layout="constrained")
    axes = figure.subplots()
    # symlog: the gap to chance and the gap to the next best arm on one axis.
    axes.set_xscale("symlog", linthresh=0.02)
    for row, (_, gap) in enumerate(reversed(pairs)):
        axes.plot([gap["low"], gap["high"]], [row, row], color=_OURS)
        axes.plot(gap["mean"], row, "o", color=_OURS, markersize=4)
    axes.axvline(0, color="#444", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [pair for pair, _ in reversed(pairs)])
    axes.set_xlabel("difference in recall@50, 95 % interval")
    return figure


def _quartiles(result: Json) -> Figure:
    figure = Figure(figsize=(8, 4), layout="constrained")
    axes = figure.subplots()
    for name in reversed(_ranked(result)):
        ours = name == result["default_arm"]
        values = np.array(result["arms"][name]["recall_50"]["quartiles"], float)
        axes.plot(_TAIL_TO_HEAD, values, "o-", label=name, linewidth=2.5 if ours else 1, zorder=3 if ours else 2)
    axes.set_ylabel("recall@50")
    axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return figure


def _figure(figure: Figure) -> str:
    """The figure as an SVG element; equal figures give equal text."""
    text = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": "coldstart", "svg.fonttype": "none"}):
        figure.savefig(text, format="svg", metadata={"Date": None})
    drawn = text.getvalue()
    return drawn[drawn.index("<svg") :]
