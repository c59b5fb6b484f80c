"""The verbs of ``coldstart``."""

from __future__ import annotations

import typer

from streams.cli import contract, data, dead_letters, kafka, offsets, topics, worker
from streams.cli.backfill import backfill
from streams.cli.backtest import backtest
from streams.cli.campaigns import campaigns
from streams.cli.capacity import capacity
from streams.cli.chaos import chaos
from streams.cli.demo import demo
from streams.cli.digest import digest
from streams.cli.doctor import doctor
from streams.cli.erased import erased
from streams.cli.evaluate import evaluate
from streams.cli.explain import explain
from streams.cli.export import export
from streams.cli.lag import lag
from streams.cli.probe import probe
from streams.cli.publish import publish
from streams.cli.rewind import rewind
from streams.cli.send import send
from streams.cli.simulate import simulate
from streams.cli.train import train
from streams.cli.up import up
from streams.cli.validate import validate
from streams.runtime import terminal

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Cold-start music matching on a stream: a song nobody has heard goes in, the people who will love it come "
    "out.\n\nStart with `coldstart demo`. On a cluster of your own: topics create, train, publish, then one or more "
    "of each worker.",
)
app.command()(demo)
app.command()(train)
app.command()(evaluate)
app.command()(backtest)
app.command()(publish)
app.command()(validate)
app.command()(send)
app.command()(backfill)
app.command()(up)
app.command()(chaos)
# Its former name.
app.command("torture", hidden=True)(chaos)
app.command()(simulate)
app.command()(campaigns)
app.command()(explain)
app.command()(probe)
app.command()(lag)
app.command()(capacity)
app.command()(doctor)
app.command()(rewind)
app.command()(digest)
app.command()(erased)
app.command()(export)
app.add_typer(data.app, name="data")
app.add_typer(worker.app, name="worker")
app.add_typer(topics.app, name="topics")
app.add_typer(contract.app, name="contract")
app.add_typer(dead_letters.app, name="dead-letters")
app.add_typer(offsets.app, name="offsets")
app.add_typer(kafka.app, name="kafka")


def main() -> None:
    """The entry point of the command ``coldstart``."""
    terminal.prepare()
    app()
