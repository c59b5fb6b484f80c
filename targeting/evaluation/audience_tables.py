"""The figures as tables.

    python -m targeting.evaluation.audience_tables FIGURES.json

prints the tables of a run of ``coldstart evaluate`` in Markdown.

    python -m targeting.evaluation.audience_tables FIGURES_RUN.json README.md

writes them between the marks ``<!-- table RUN.NAME -->`` and ``<!-- end -->`` of the page.
"""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from significance import told_apart
from targeting.evaluation.judge import ALL, OUTSIDE, POOL
from targeting.evaluation.ranking_metrics import AT, RECALL_AT
from targeting.evaluation.ranking_variants import OPEN

Json = dict[str, Any]


def of_variants(figures: Json, users: str = ALL) -> str:
    """Every variant's figures in a group of users, and the default's lead.

    Over songs with at least 20 listeners; among all users also over every cold song. ≈ marks what is not told apart
    from 0.
    """
    head = [
        "variant",
        *(f"precision@{n}" for n in AT),
        f"recall@{RECALL_AT}",
        "R-precision",
        "AUC",
        "default minus it, @100",
        *(("R-precision, every song", "default minus it") if users == ALL else ()),
    ]
    rows, gaps = [], []
    for variant, whole in figures["targeting"].items():
        block = whole if users == ALL else whole[users]
        gap = _gap(figures["paired"], f"{figures['targeting_default']}-{variant}")
        among = gap if users == ALL else gap.get(users, {})
        rows.append([f"`{variant}`", *_values(block)])
        gaps.append([among.get("precision_100")])
        if users == ALL:
            rows[-1].append(_number(whole["every_song"]["r_precision"]))
            gaps[-1].append(gap.get("every_song", {}).get("r_precision"))
    words = iter(_marked([gap for own in gaps for gap in own]))
    for row, own in zip(rows, gaps, strict=True):
        row[7:7] = [next(words)]
        row += [next(words) for _ in own[1:]]
    return _table(head, rows)


def _marked(gaps: list[Json | None]) -> list[str]:
    """The differences of one table as text."""
    apart = told_apart([gap["p"] if gap else float("nan") for gap in gaps])
    return [f"{'' if sure or not gap else '≈ '}{_interval(gap)}" for gap, sure in zip(gaps, apart, strict=True)]


def by_listeners(figures: Json) -> str:
    """R-precision by how many listeners a cold song has."""
    bands = list(figures["targeting"][figures["targeting_default"]]["by_listeners"])
    rows = []
    for variant, whole in figures["targeting"].items():
        blocks = [whole["by_listeners"][band] for band in bands]
        rows.append([f"`{variant}`", *(_number(block["r_precision"]) for block in blocks)])
    songs = [figures["targeting"][figures["targeting_default"]]["by_listeners"][band]["songs"] for band in bands]
    return _table(
        ["R-precision, listeners", *(f"{band} ({n} songs)" for band, n in zip(bands, songs, strict=True))], rows
    )


def of_user_vectors(figures: Json) -> str:
    """Other user vectors under production's score, on validation."""
    vectors = figures["targeting_user_vectors"]
    gaps = _marked([row["minus_served"]["precision_100"] for row in vectors.values()])
    rows = [[name, *_values(row)[:3], gap] for (name, row), gap in zip(vectors.items(), gaps, strict=True)]
    return _table(["a user is", *(f"precision@{n}" for n in AT), "minus production's, @100"], rows)


def chosen(figures: Json) -> str:
    """Validation's choices for each variant with open fields."""
    rows = [
        [f"`{variant}`", _config(figures["targeting_config"][variant])]
        for variant in [*OPEN, figures["targeting_default"]]
    ]
    return _table(["variant", "chosen"], rows)


def _config(config: Json) -> str:
    parts = {name: _config(value) if isinstance(value, dict) else value for name, value in config.items()}
    return ", ".join(
        f"{name} ({value})" if isinstance(value, str) else f"{name} {value}" for name, value in parts.items()
    )


def of_calibration(figures: Json) -> str:
    """Chances and the share of listeners, by bin of the users within a budget."""
    known = figures["targeting_calibration"]
    errors = ", ".join(f"{_number(value)} ({name.replace('_', ' ')})" for name, value in known["ece"].items())
    rows = [[_number(row["chance"]), _number(row["listened"]), f"{row['pairs']:,}"] for row in known["bins"]]
    return f"{known['means']}: expected calibration error {errors}\n\n{_table(['chance', 'listened', 'pairs'], rows)}"


def _gap(paired: Json, name: str) -> Json:
    # `coldstart evaluate` adds the encoder's differences, and prefixes these.
    found: Json = paired.get(f"targeting:{name}") or paired.get(name) or {}
    return found


def _values(block: Json) -> list[str]:
    numbers = (*block["precision"].values(), block[f"recall_{RECALL_AT}"], block["r_precision"], block["auc"])
    return [_number(each) for each in numbers]


def _number(value: float | None) -> str:
    return "–" if value is None or value != value else f"{value:.3f}"


def _interval(gap: Json | None) -> str:
    return f"{gap['mean']:+.3f} [{gap['low']:+.3f}, {gap['high']:+.3f}]" if gap else ""


def _table(head: list[str], rows: Iterable[list[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


TABLES: dict[str, Callable[[Json], str]] = {
    "arms": of_variants,
    "listeners": by_listeners,
    "pool": lambda figures: of_variants(figures, POOL),
    "outside": lambda figures: of_variants(figures, OUTSIDE),
    "chosen": chosen,
    "vectors": of_user_vectors,
    "chances": of_calibration,
}


def filled(page: str, figures: Json, run: str) -> str:
    """The page with these figures between the marks of this run.

    Raises:
        KeyError: a mark names no table of :data:`TABLES`.
    """

    def fill(found: re.Match[str]) -> str:
        return f"<!-- table {run}.{found[1]} -->\n{TABLES[found[1]](figures)}\n<!-- end -->"

    return re.sub(rf"<!-- table {re.escape(run)}\.(\w+) -->\n.*?<!-- end -->", fill, page, flags=re.DOTALL)


def main(source: Path, pages: Sequence[Path]) -> None:
    figures = json.loads(source.read_text(encoding="utf-8"))
    if not pages:
        print("\n\n".join(table(figures) for table in TABLES.values()))
    for page in pages:
        text = filled(page.read_text(encoding="utf-8"), figures, source.stem.partition("_")[2])
        page.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]), [Path(page) for page in sys.argv[2:]])
