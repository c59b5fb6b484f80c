"""The figures as tables.

    python -m encoder.evaluation.tables FIGURES.json README.md ...

writes the tables of a run of ``coldstart evaluate`` between the marks ``<!-- table NAME -->`` and ``<!-- end -->``. The
tables of a later run of some variants, FIGURES_RUN.json, go between ``<!-- table RUN.NAME -->`` and ``<!-- end -->``.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from significance import told_apart

Json = dict[str, Any]

# Measure by each truth -> its label.
_TRUTHS = {
    "recall_50": "recall@50, similar listeners",
    "held_out_recall_50": "the same, held out",
    "taste_recall_50": "recall@50, known taste",
    "audience_precision_50": "audience@50 by cosine",
    "evidence_precision_50": "audience@50 by what is retrieved",
}


def _short(value: float) -> str:
    """.4123, as the tables write shares."""
    return f"{value:.4f}".replace("0.", ".", 1)


def _gap(part: Json) -> str:
    return " ".join(f"{part[key]:+.4f}".replace("0.", ".", 1) for key in ("mean", "low", "high"))


def _ranked(result: Json) -> list[str]:
    return sorted(result["arms"], key=lambda name: -result["arms"][name]["recall_50"]["mean"])


def run(result: Json) -> list[str]:
    """The data and cost of a run."""
    data, unseen = result["data"], result["unseen_terms_per_song"]
    facts = {
        "songs with at least 5 listeners; cold under each seed": f"{data['judged_songs']:,}; {data['cold_songs']:,}",
        "users; listens": f"{data['users']:,}; {data['listens']:,}",
        "content": ", ".join(data["content"]),
        "seeds; trials of each search": f"{len(result['seeds'])}; {result['search']['trials']}",
        "seconds of all searches": f"{result['search']['seconds']:.0f}",
        "seconds of training the default once, at fixed hyper-parameters": f"{result['train_seconds']:.1f}",
        "Gini of how often a warm song is a target": f"{result['supervision_gini']:.3f}",
        "terms of a cold song that no warm song has: as it is; with 3 unseen terms more": "; ".join(
            f"{unseen[name]:.2f}" for name in ("full", "unseen") if name in unseen
        ),
    }
    return [*_head("what", "figure"), *(f"| {what} | {figure} |" for what, figure in facts.items())]


def arms(result: Json) -> list[str]:
    """Variants, best first; recall by quartile, tail first."""
    rows = [*_head("variant", "recall@50", "NDCG@50", "recall by quartile, tail first", "train s")]
    for name in _ranked(result):
        arm = result["arms"][name]
        recall, ndcg = arm["recall_50"], arm["ndcg_50"]
        quartiles = " ".join(f"{value:.3f}".replace("0.", ".", 1) for value in recall["quartiles"])
        rows.append(
            f"| {name} | {_short(recall['mean'])} ± {_short(recall['std'])} | {_short(ndcg['mean'])} ± "
            f"{_short(ndcg['std'])} | {quartiles} | {arm['train_seconds']:.1f} |"
        )
    return rows


def differences(result: Json) -> list[str]:
    """The default minus each variant: mean, low and high; ≈ before what is not told apart from 0."""
    return _gaps(
        result,
        ("default minus", "recall@50", "NDCG@50", "recall@50, tail quartile"),
        lambda found: [found["recall_50"], found["ndcg_50"], found["recall_50"]["quartiles"][0]],
    )


def quartiles(result: Json) -> list[str]:
    """The same by quartile of the cold song's listeners."""
    head = ("default minus, recall@50", "tail", "second", "third", "head")
    return _gaps(result, head, lambda found: list(found["recall_50"]["quartiles"]))


def ahead(result: Json) -> list[str]:
    """The same by each truth."""
    return _gaps(result, ("default minus", *_TRUTHS.values()), lambda found: [found.get(name) for name in _TRUTHS])


def _marked(cell: Json | None, apart: bool) -> str:
    return "–" if cell is None else _gap(cell) if apart else f"≈ {_gap(cell)}"


def _gaps(result: Json, head: tuple[str, ...], cells_of: Callable[[Json], list[Json | None]]) -> list[str]:
    """A row for each variant that the default is compared with; ≈ is corrected over the table."""
    names = [name for name in _ranked(result) if name != result["default_arm"]]
    rows = [cells_of(result["paired"][f"{result['default_arm']}-{name}"]) for name in names]
    apart = iter(told_apart([cell["p"] if cell else float("nan") for row in rows for cell in row]))
    words = [[_marked(cell, next(apart)) for cell in row] for row in rows]
    return [*_head(*head), *(f"| {name} | {' | '.join(row)} |" for name, row in zip(names, words, strict=True))]


def truths(result: Json) -> list[str]:
    """Each variant by each truth, over all cold songs and the tail quartile; then the truths' own bounds."""
    rows = [*_head("variant: all, tail", *_TRUTHS.values())]
    for name in _ranked(result):
        parts = [_all_and_tail(result["arms"][name].get(measure)) for measure in _TRUTHS]
        rows.append(f"| {name} | {' | '.join(parts)} |")
    known = result["truths"]
    world = "taste" in known
    ceiling, half, found, taste, agreement = (
        _all_and_tail(known.get(name)) for name in ("ceiling", "ceiling_half", "audience", "taste", "agreement")
    )
    # A world's tastes are exact.
    exact = "1 1" if world else "–"
    return [
        *rows,
        f"| **ceiling** | {ceiling} | {half} | {exact} | {found} | {found} |",
        f"| half of the users, by the other half | – | {agreement} | – | – | – |",
        f"| neighbours by the known taste | {taste} | – | {exact} | – | – |",
    ][: None if world else -1]


def robustness(result: Json) -> list[str]:
    """recall@50 on damaged content."""
    damages = list(result["arms"][result["default_arm"]]["content"])
    rows = [*_head("variant, recall@50", "full", *(name.replace("_", " ") for name in damages))]
    for name in _ranked(result):
        arm = result["arms"][name]
        columns = [arm, *(arm["content"][content] for content in damages)]
        rows.append(f"| {name} | {' | '.join(_short(column['recall_50']['mean']) for column in columns)} |")
    return rows


def paper(result: Json) -> list[str]:
    """The paper's variant with InfoNCE minus without."""
    rows = [*_head("measure", "listeners of the cold song", "with minus without", "the term")]
    if not result["paper"]:
        return rows
    for measure in ("recall_50", "ndcg_50"):
        found, verdict = result["paper"]["difference"][measure], result["paper"]["verdict"][measure]
        label = {"recall_50": "recall@50", "ndcg_50": "NDCG@50"}[measure]
        parts = zip([found, *found["quartiles"]], [verdict["overall"], *verdict["quartiles"]], strict=True)
        for name, (part, word) in zip(("all", "tail", "second", "third", "head"), parts, strict=True):
            rows.append(f"| {label} | {name} | {_gap(part)} | {word} |")
    return rows


def gauges(result: Json) -> list[str]:
    """The gauges of the spaces."""
    return [
        *_head("variant", "alignment", "uniformity", "variance"),
        *(
            f"| {name} | "
            + " | ".join(f"{arm['gauges'][key]:.3f}" for key in ("alignment", "uniformity", "variance"))
            + " |"
            for name, arm in result["arms"].items()
            if arm["gauges"]
        ),
    ]


def search(result: Json) -> list[str]:
    """The choice of each search."""
    return [
        *_head("variant", "chosen", "trials", "seconds"),
        *(
            f"| {name} | {', '.join(f'{key} {value}' for key, value in arm['chosen'].items())} | "
            f"{arm['search']['trials']} of {arm['search']['of']:,} | {arm['search']['seconds']:.0f} |"
            for name, arm in result["arms"].items()
            if arm["search"]["trials"]
        ),
    ]


def _head(*cells: str) -> tuple[str, str]:
    return f"| {' | '.join(cells)} |", "|" + "---|" * len(cells)


def _all_and_tail(found: Json | None) -> str:
    """A measure over all songs and over the tail quartile."""
    if found is None:
        return "–"
    return " ".join("–" if value is None else _short(value) for value in (found["mean"], found["quartiles"][0]))


TABLES: dict[str, Callable[[Json], list[str]]] = {
    table.__name__: table
    for table in (run, arms, differences, quartiles, truths, ahead, robustness, paper, gauges, search)
}


def filled(page: str, result: Json, run: str = "") -> str:
    """The page with these figures between its marks, or between those of the named run.

    Raises:
        KeyError: a mark names no table of :data:`TABLES`.
    """

    def fill(found: re.Match[str]) -> str:
        rows = "\n".join(TABLES[found[1]](result))
        return f"<!-- table {prefix}{found[1]} -->\n{rows}\n<!-- end -->"

    prefix = f"{run}." if run else ""
    return re.sub(rf"<!-- table {re.escape(prefix)}(\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


if __name__ == "__main__":
    source = Path(sys.argv[1])
    figures = json.loads(source.read_text(encoding="utf-8"))
    for path in map(Path, sys.argv[2:]):
        text = filled(path.read_text(encoding="utf-8"), figures, source.stem.partition("_")[2])
        path.write_text(text, encoding="utf-8")
