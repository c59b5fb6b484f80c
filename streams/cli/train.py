"""`coldstart train`: content and listens on disk → an encoder artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer
from rich.progress import TaskID, TextColumn, TimeElapsedColumn

from streams.cli import tables
from streams.cli.options import Strict, errors_explained, refuse, writable
from streams.runtime.terminal import Bars, Table, Terminal

# As encoder.training_config has it, which is imported by training alone.
Device = Literal["auto", "cpu", "cuda"]

# The stages of encoder.train in order, in words.
_STAGES = {
    "features": "learning the vocabulary of the warm songs",
    "audiences": "comparing audiences",
    "tuning": "weighing the parts of content",
    "contexts": "predicting audiences from content, each song left out",
    "epochs": "training the network",
    "mixing": "weighing the network and the closed form",
}
# Gauges beside the bar: both losses, the last epoch's recall, and whether vectors collapse.
_LIVE = ("supervised", "contrastive", "recall", "uniformity")


def train(
    data: Annotated[
        Path, typer.Option(help="Folder with interactions.csv.gz, songs.csv.gz and, if there are any, tags.")
    ],
    out: Annotated[Path, typer.Option(help="New folder for the artifact.")],
    seed: Annotated[int, typer.Option(help="Seed of the split into warm and cold, and of the training.")] = 0,
    all_songs: Annotated[
        bool,
        typer.Option("--all-songs", help="Train on every song with 5 listeners or more, holding none back as cold."),
    ] = False,
    checkpoint: Annotated[
        Path | None,
        typer.Option(help="File for the state after each epoch; if it exists, training resumes from it."),
    ] = None,
    name: Annotated[str, typer.Option(help="Prefix of the embedding space's name.")] = "bcl",
    calibrate: Annotated[
        bool,
        typer.Option(
            help="Also learn how much users' activity counts and the chance behind each score; this takes a second "
            "training, without a tenth of the songs."
        ),
    ] = True,
    device: Annotated[
        Device, typer.Option(help="Where network, contexts and audiences are computed; auto: a GPU if there is one.")
    ] = "auto",
    strict: Strict = False,
) -> None:
    """Train the encoder, which maps a song's content to the vectors of songs with a similar audience.

    Songs with fewer than 5 listeners are neither warm nor cold; of the others a tenth, drawn by the seed, is held back
    as cold, to judge the result on unseen songs. The artifact is a folder of safetensors with a
    manifest: checksums, the name of the embedding space, and the figures of the training.

    Under torchrun several processes train one encoder, each on its own GPU, and the first one writes:
    torchrun --nproc-per-node 2 -m streams train --data ... --out ...

    Example: coldstart train --data data/lastfm --out models/lastfm --seed 0
    """
    import numpy as np

    from encoder import artifact
    from encoder.data.layout import read_dataset
    from encoder.data.split import MIN_LISTENERS, rare_rows, split

    console = Terminal(stderr=True)
    try:
        from encoder import train as training
        from encoder.device import chosen
        from encoder.ranks import Ranks
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        refuse("training needs torch: pip install 'coldstart[train]'")
    with errors_explained(ValueError):
        # Before the work, not after it.
        artifact.vacant(out, name)
        writable(checkpoint)
        # Only the first process calibrates and writes.
        first = Ranks.of_environment(chosen(device)).rank == 0
        console.quiet = not first
        with console.status(f"reading {data}"):
            dataset = read_dataset(data, strict)
        for finding in dataset.findings:
            console.print(str(finding), style="yellow", soft_wrap=True)
        if all_songs:
            warm = np.flatnonzero(np.diff(dataset.plays.indptr) >= MIN_LISTENERS)
        else:
            warm = split(dataset, seed).warm
        if dataset.citation:
            console.print(dataset.citation, style="dim")
        with _Bars(console) as (bars, tasks):

            def show(progress: training.Progress) -> None:
                for stage in _STAGES:
                    if stage == progress.stage:
                        break
                    bars.update(tasks[stage], total=1, completed=1)
                figures = "  ".join(f"{key} {progress.gauges[key]:.3f}" for key in _LIVE if key in progress.gauges)
                bars.update(tasks[progress.stage], total=progress.total, completed=progress.done, figures=figures)

            config = training.TrainingConfig(seed=seed)
            rare = rare_rows(dataset)
            trained = training.train(dataset, warm, config, show, checkpoint, rare_rows=rare, device=device)
        manifest = artifact.save(trained, out, name) if first else None
        fitted = None
        if calibrate:
            from streams.models import learned_chances

            with console.status("learning chances: training again, with a tenth of the warm songs held back as cold"):
                fitted = learned_chances.fit(dataset, np.union1d(warm, rare), config, device=device)
            if fitted is None:
                console.print("too few songs to learn chances from: scores will rank users but stand for no chances")
            elif first:
                learned_chances.save(fitted, out)
    if manifest is None:
        return
    table = Table("what", "value", title=f"{out}")
    table.add_row("embedding space", manifest.space)
    table.add_row("dimension", str(manifest.dim))
    if fitted is not None:
        table.add_row("power of users' activity", f"{fitted.answers.activity:g}")
    for key, value in trained.gauges.items():
        table.add_row(key.replace("_", " "), f"{value:,.3f}".rstrip("0").rstrip("."))
    table.add_row("size", f"{sum(size for size, _ in manifest.files.values()) / 2**20:.1f} MiB")
    tables.show(table)


class _Bars:
    """Progress bars, one per stage; the context yields them and their ids by stage."""

    def __init__(self, console: Terminal) -> None:
        figures = TextColumn("{task.fields[figures]}", style="dim", markup=False)
        self._bars = Bars(console, TimeElapsedColumn(), figures)

    def __enter__(self) -> tuple[Bars, dict[str, TaskID]]:
        self._bars.start()
        tasks = {stage: self._bars.add_task(words, total=None, figures="") for stage, words in _STAGES.items()}
        return self._bars, tasks

    def __exit__(self, *_: object) -> None:
        self._bars.stop()
