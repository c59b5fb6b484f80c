"""`coldstart train`: content and listens on disk → an encoder artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from streams.cli import tables

# The stages of encoder.train in their order, with what they do in words.
_STAGES = {
    "features": "learning the vocabulary of the warm songs",
    "audiences": "comparing audiences",
    "tuning": "weighing the parts of content",
    "contexts": "predicting audiences from content, each song left out",
    "epochs": "training the network",
}
# The gauges beside the bar: the two losses, the recall of the last epoch, and whether the vectors collapse.
_LIVE = ("supervised", "contrastive", "recall", "uniformity")


def train(
    data: Annotated[
        Path, typer.Option(help="Folder with interactions.csv.gz, songs.csv.gz and, if there are any, tags.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the artifact.")],
    seed: Annotated[int, typer.Option(help="Decides which songs are cold, and the training's randomness.")] = 0,
    all_songs: Annotated[
        bool,
        typer.Option("--all-songs", help="Train on every song with 5 listeners; hold none back as cold."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File to save the state to after each epoch; if it is there, training goes on from it."),
    ] = None,
    name: Annotated[str, typer.Option(help="Begins the name of the embedding space.")] = "bcl",
    calibrate: Annotated[
        bool,
        typer.Option("--calibrate", help="Also learn which chance each score stands for; trains a second time for it."),
    ] = False,
) -> None:
    """Train the encoder: from what a song is to the vectors of songs with such an audience.

    Songs with fewer than 5 listeners are left out; of the others a tenth, drawn by the seed, is held back as cold,
    so that the result can be judged on songs it has never seen. The artifact is a folder of safetensors with a
    manifest: checksums, the name of the embedding space, and the figures of the training.

    Example: coldstart train --data data/lastfm --out models/lastfm --seed 0
    """
    import numpy as np

    from encoder import artifact
    from encoder.data.layout import LayoutError, read_dataset
    from encoder.data.split import MIN_LISTENERS, split

    console = Console(stderr=True)
    try:
        from encoder import train as training
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        console.print("[red]Training needs torch.[/red] Install it: pip install 'coldstart\\[train]'")
        raise typer.Exit(2) from None
    if out.exists():
        console.print(f"[red]--out {out}: something is already there.[/red] Choose a new folder, or delete it.")
        raise typer.Exit(2)
    try:
        with console.status(f"reading {data}"):
            dataset = read_dataset(data)
        if all_songs:
            warm = np.flatnonzero(np.diff(dataset.plays.indptr) >= MIN_LISTENERS)
        else:
            warm = split(dataset, seed).warm
        if dataset.citation:
            console.print(f"[dim]{dataset.citation}[/dim]")
        with _Bars(console) as (bars, tasks):

            def show(progress: training.Progress) -> None:
                for stage in _STAGES:
                    if stage == progress.stage:
                        break
                    bars.update(tasks[stage], total=1, completed=1)
                figures = "  ".join(f"{key} {progress.gauges[key]:.3f}" for key in _LIVE if key in progress.gauges)
                bars.update(tasks[progress.stage], total=progress.total, completed=progress.done, figures=figures)

            config = training.Config(seed=seed)
            trained = training.train(dataset, warm, config, show, checkpoint)
        manifest = artifact.save(trained, out, name)
        if calibrate:
            from streams import calibrating

            with console.status("learning chances: training once more, a tenth of the warm songs made cold"):
                calibrating.save(calibrating.fit(dataset, warm, config), out)
    except (LayoutError, artifact.ArtifactError, ValueError) as error:
        console.print(f"[red]{error}[/red]")
        raise typer.Exit(2) from None
    table = Table("what", "value", title=f"{out}")
    table.add_row("embedding space", manifest.space)
    table.add_row("dimension", str(manifest.dim))
    for key, value in trained.gauges.items():
        table.add_row(key.replace("_", " "), f"{value:,.3f}".rstrip("0").rstrip("."))
    table.add_row("size", f"{sum(size for size, _ in manifest.files.values()) / 2**20:.1f} MiB")
    tables.show(table)


class _Bars:
    """Progress bars, one a stage; as a context gives them and their ids by stage."""

    def __init__(self, console: Console) -> None:
        self._bars = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            TimeElapsedColumn(),
            TextColumn("[dim]{task.fields[figures]}"),
            console=console,
        )

    def __enter__(self) -> tuple[Progress, dict[str, TaskID]]:
        self._bars.start()
        tasks = {stage: self._bars.add_task(words, total=None, figures="") for stage, words in _STAGES.items()}
        return self._bars, tasks

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
