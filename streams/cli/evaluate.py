"""`coldstart evaluate`: compares encoder and targeting with baselines."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from streams.cli import tables
from streams.cli.options import Arms, Strict, errors_explained, refuse, variant_names, writable
from streams.runtime.terminal import Bars, Table, Terminal, bold, say

if TYPE_CHECKING:
    from encoder.evaluation.compare import DefaultVariant
    from targeting.evaluation import Case


def evaluate(
    data: Annotated[
        Path, typer.Option(help="Folder with interactions.csv.gz, songs.csv.gz and, if there are any, tags.")
    ],
    json_path: Annotated[Path, typer.Option("--json", help="File for all figures.")],
    report: Annotated[Path | None, typer.Option(help="Write tables and plots to this HTML file.")] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Number of seeds to split by.")] = 5,
    first_seed: Annotated[int, typer.Option(min=0, help="The first seed; the others follow.")] = 0,
    search: Annotated[
        bool, typer.Option("--search/--no-search", help="Let each variant choose hyper-parameters on this data set.")
    ] = True,
    trials: Annotated[int, typer.Option(min=2, help="Search trials per variant.")] = 10,
    variants: Annotated[str | None, typer.Option(help="Only these encoder variants, separated by commas.")] = None,
    arms: Arms = None,
    paper_seeds: Annotated[
        int, typer.Option(min=1, help="Splits on which the paper's variant is compared with itself without contrast.")
    ] = 10,
    processes: Annotated[int, typer.Option(min=1, help="Processes that fit variants in parallel.")] = 2,
    targeting: Annotated[bool, typer.Option("--targeting/--no-targeting", help="Judge the targeting too.")] = True,
    strict: Strict = False,
) -> None:
    """Compare encoder and targeting with their baselines, on songs held back as cold.

    A tenth of the songs is cold under each seed. Every variant learns from the others and gets only the content of the
    cold ones. Hyper-parameters are chosen on songs that are cold under no seed, with the same number of trials for each
    variant, so no choice is made on a scored song. Without a search every variant keeps its own config.

    Example: coldstart evaluate --data data/lastfm --seeds 5 --json lastfm.json --report lastfm.html
    """
    console = Terminal(stderr=True)
    # Read when torch is loaded, here and in the other processes, which together use each core once.
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))
    try:
        from encoder.evaluation import compare
        from encoder.evaluation import variants as table
        from streams.testbed.pages import evaluation_report as page
    except ModuleNotFoundError as error:
        if error.name not in ("torch", "matplotlib", "jinja2"):
            raise
        refuse(f"evaluation needs {error.name}: pip install 'coldstart[train]'")
    from encoder.data.generate import WORLD, read_world
    from encoder.data.layout import read_dataset

    chosen = dict(table.VARIANTS)
    if variants is not None or arms is not None:
        names = variant_names(variants, arms, all_of=chosen)
        unknown = [name for name in names if name not in chosen]
        if unknown:
            refuse(f"--variants {', '.join(unknown)}: unknown; allowed: {', '.join(chosen)}")
        chosen = {name: arm for name, arm in chosen.items() if name in (*names, table.DEFAULT)}
    for path in filter(None, (json_path, report)):
        if not path.parent.is_dir():
            refuse(f"{path}: there is no folder {path.parent}; make it, or write elsewhere")
    with errors_explained(), console.status(f"reading {data}"):
        writable(json_path, report)
        dataset = read_dataset(data, strict)
    for finding in dataset.findings:
        console.print(str(finding), style="yellow", soft_wrap=True)
    if dataset.citation:
        console.print(dataset.citation, style="dim")
    cases: dict[int | None, Case] = {}

    def serve(served: DefaultVariant) -> None:
        cases[served.seed] = case_of(served)

    with Bars(console, MofNCompleteColumn(), TimeElapsedColumn()) as bars, errors_explained(ValueError):
        bar = bars.add_task("encoder", total=None)

        def tell(stage: compare.EvaluationProgress) -> None:
            bars.update(bar, description=stage.what, completed=stage.done, total=stage.total)
            if not console.is_terminal:
                console.print(f"{stage.done}/{stage.total} {stage.what}")

        result = compare.evaluate(
            dataset,
            seeds,
            trials=trials if search else 0,
            arms=chosen,
            paper_seeds=paper_seeds,
            tell=tell,
            processes=processes,
            serve=serve if targeting else None,
            first=first_seed,
            world=read_world(data) if (data / WORLD).exists() else None,
        )
        if targeting:
            from targeting.evaluation import evaluate as judge_targeting

            validation = cases.pop(None)
            judged = judge_targeting(
                list(cases.values()),
                [validation] if search else [],
                tell=lambda words: bars.update(bar, description=f"targeting: {words}", completed=0, total=None),
            )
            result = joined(result, judged)
    with errors_explained():
        write(json_path, json.dumps(finite(result), indent=1, allow_nan=False) + "\n")
        if report:
            write(report, page.html(result))
    show(result)


def case_of(served: DefaultVariant) -> Case:
    """A split as a case for targeting: the default encoder's vectors and the cold songs' hidden listeners."""
    from encoder.evaluation.content_matrix import unit
    from targeting.evaluation import Case

    asked = served.asked
    return Case(
        name="validation" if served.seed is None else f"seed {served.seed}",
        song_ids=asked.cold.song_ids,
        plays=asked.warm.plays,
        vectors=unit(served.warm),
        queries=unit(served.cold),
        truth=asked.cold.plays,
        played_at=asked.warm.last_played(),
    )


def joined(encoder: dict[str, Any], targeting: dict[str, Any]) -> dict[str, Any]:
    """Both halves in one dictionary; prefixed names keep their paired differences apart."""
    paired = {**encoder["paired"], **{f"targeting:{name}": gap for name, gap in targeting["paired"].items()}}
    rest = {key: value for key, value in targeting.items() if key not in ("paired", "paired_method")}
    return {**encoder, **rest, "paired": paired, "targeting_paired_method": targeting["paired_method"]}


def finite(value: Any) -> Any:
    """The same with null for NaN, which JSON lacks."""
    if isinstance(value, dict):
        return {key: finite(part) for key, part in value.items()}
    if isinstance(value, list):
        return [finite(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def write(path: Path, text: str) -> None:
    """Writes a file atomically."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def show(result: dict[str, Any]) -> None:
    """Prints the tables at the end."""
    table = Table("encoder", "recall@50", "NDCG@50", "recall, tail to head", "train s", title="cold songs")
    for name, arm in sorted(result["arms"].items(), key=lambda item: item[1]["recall_50"]["mean"]):
        recall, ndcg = arm["recall_50"], arm["ndcg_50"]
        table.add_row(
            bold(name) if name == result["default_arm"] else name,
            f"{recall['mean']:.4f} ± {recall['std']:.4f}",
            f"{ndcg['mean']:.4f} ± {ndcg['std']:.4f}",
            " ".join(f"{value:.3f}" for value in recall["quartiles"]),
            f"{arm['train_seconds']:.1f}",
        )
    table.columns[0].no_wrap = True
    tables.show(table)
    for name, why in result["skipped"].items():
        say(f"{name} left out: {why}")
    if "targeting" in result:
        table = Table("targeting", "precision@50", "@100", "@200", "recall@200", "AUC", title="listeners found")
        for name, arm in result["targeting"].items():
            table.add_row(
                bold(name) if name == result["targeting_default"] else name,
                *(f"{arm['precision'][n]:.4f}" for n in ("50", "100", "200")),
                f"{arm['recall_200']:.4f}",
                f"{arm['auc']:.4f}",
            )
        tables.show(table)
