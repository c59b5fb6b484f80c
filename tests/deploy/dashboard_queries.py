"""The queries of deploy/grafana/dashboards, asked of a Prometheus and drawn: what Grafana would show, without it."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from prometheus_server import ROOT, PrometheusServer

DASHBOARDS: Final = sorted((ROOT / "deploy" / "grafana" / "dashboards").glob("*.json"))
# What Grafana would put in, at a scrape a second.
_VARIABLES: Final = {"$__rate_interval": "15s", "$__range": "10m"}
_BACK_S: Final = 600


def panels(board: Path) -> list[dict[str, Any]]:
    found = json.loads(board.read_text(encoding="utf-8"))["panels"]
    return [panel for panel in found if panel["type"] != "row"]


def queries(board: Path) -> Iterator[tuple[str, str]]:
    """Panel's title and query."""
    for panel in panels(board):
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def empty(prometheus: PrometheusServer, board: Path) -> list[str]:
    """The queries that return no number over the last minutes."""
    return [
        f"{board.stem}: {title}: {expr}"
        for title, expr in queries(board)
        if not any(points for _, points in _series(prometheus, expr))
    ]


def draw(prometheus: PrometheusServer, board: Path, to: Path) -> None:
    """A picture of the board's panels."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    found = panels(board)
    rows = math.ceil(len(found) / 3)
    figure = Figure(figsize=(15, 2.4 * rows), layout="constrained")
    FigureCanvasAgg(figure)
    began = [at for _, points in _series(prometheus, "up") for at, _ in points]
    start, minutes = min(began), (max(began) - min(began)) / 60
    for number, panel in enumerate(found):
        axes = figure.add_subplot(rows, 3, number + 1)
        unit = panel.get("fieldConfig", {}).get("defaults", {}).get("unit", "")
        axes.set_title(panel["title"] + (f" ({unit})" if unit not in ("", "short") else ""), fontsize=9, loc="left")
        axes.tick_params(labelsize=7)
        axes.grid(alpha=0.3)
        axes.set_xlim(0, minutes)
        for target in panel["targets"]:
            for labels, points in _series(prometheus, target["expr"]):
                legend = target.get("legendFormat", "")
                for name, value in labels.items():
                    legend = legend.replace("{{" + name + "}}", value)
                legend = re.sub(r"{{\w+}}", "none", legend)
                axes.plot([(at - start) / 60 for at, _ in points], [value for _, value in points], lw=1, label=legend)
        handles, names = axes.get_legend_handles_labels()
        axes.legend(handles[:6], names[:6], fontsize=6, loc="upper left")
        axes.set_ylim(bottom=0)
    to.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(to, dpi=70)


def _series(prometheus: PrometheusServer, expr: str) -> list[tuple[dict[str, str], list[tuple[float, float]]]]:
    for name, value in _VARIABLES.items():
        expr = expr.replace(name, value)
    now = time.time()
    data = prometheus.ask("query_range", query=expr, start=now - _BACK_S, end=now, step=2)
    return [
        (each["metric"], [(at, float(value)) for at, value in each["values"] if math.isfinite(float(value))])
        for each in data["result"]
    ]
