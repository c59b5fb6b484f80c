"""``coldstart capacity``: what does an installation of a given size need?"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer

from streams.cli.options import errors_explained
from streams.operations.capacity import FIGURES, Demand, needs
from streams.runtime.terminal import say, say_json


def capacity(
    users: Annotated[int, typer.Option(min=1, help="Users.")],
    songs: Annotated[int, typer.Option(min=1, help="Warm songs.")],
    uploads_per_s: Annotated[float, typer.Option("--uploads-per-s", min=0, help="New songs a second.")],
    listens_per_s: Annotated[
        float | None,
        typer.Option("--listens-per-s", min=0, help="Listens a second, of all users; by default 20 a day each."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print needs and figures as a JSON object.")] = False,
) -> None:
    """What an installation of this size needs: partitions, workers, memory, disk, cores, brokers.

    Derived from figures that were measured on small installations, each named with the command that repeats it. What
    lies beyond the largest measured size is marked as extrapolated: measure it before you buy.

    Example: coldstart capacity --users 1000000 --songs 100000 --uploads-per-s 1
    """
    with errors_explained():
        demand = Demand(users, songs, uploads_per_s, users * 20 / 86_400 if listens_per_s is None else listens_per_s)
        found = needs(demand)
    if as_json:
        say_json({
            "demand": asdict(demand),
            "needs": [asdict(each) for each in found],
            "figures": [asdict(each) for each in FIGURES],
        })  # fmt: skip
        return
    for each in found:
        say(f"{each.what:<36}{_number(each.value):>12} {each.unit:<3} {each.basis:<13} {each.why}".rstrip())
    say("")
    for figure in FIGURES:
        say(f"{figure.name:<48}{_number(figure.value):>12} {figure.unit:<3} {figure.basis:<9} {figure.source}".rstrip())


def _number(value: float) -> str:
    """Three digits of it, or all before the point."""
    if value and abs(value) < 0.01:
        return f"{value:.2e}"
    return f"{value:,.0f}" if value >= 100 or value == int(value) else f"{value:.3g}"
