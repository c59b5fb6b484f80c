"""``coldstart probe``: does an upload come through, and how fast?"""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING, Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, naming_of, settings_from
from streams.runtime.clock import SystemClock
from streams.runtime.exit_codes import RESTART
from streams.runtime.terminal import say, say_json

if TYPE_CHECKING:
    from streams.operations.probe import Probe


def probe(
    every: Annotated[
        float | None,
        typer.Option(min=1, max=86_400, help="Keep probing, once every so many seconds, and serve /metrics."),
    ] = None,
    patience: Annotated[
        float, typer.Option(min=0.1, max=3600, help="Seconds after which a probe that is not answered is late.")
    ] = 10.0,
    name: Annotated[str | None, typer.Option(help="Tells several probes apart; by default this host's name.")] = None,
    http_host: Annotated[str, typer.Option(help="Where /metrics is served, with --every.")] = "127.0.0.1",
    http_port: Annotated[int, typer.Option(min=0, max=65535, help="Its port; 0 takes a free one.")] = 9103,
    json_: Annotated[bool, typer.Option("--json", help="Print JSON, one line per probe.")] = False,
    bootstrap: Bootstrap = None,
    config: Config = None,
) -> None:
    """Publish an upload that reaches no user, and measure how long every audience partition takes to answer it.

    Its id begins with coldstart-probe-: the songs role asks for listeners with a budget of 0, whatever the upload says.
    Every partition decides and answers as for any other song, and pushes to nobody. It leaves one campaign, of which
    each probe is a new revision. One that is late ends with exit code 75 and names the partitions that are missing;
    with --every it goes on, and the alert ColdstartProbeMissing fires.

    Examples: coldstart probe; coldstart probe --every 60 --http-port 9103
    """
    from prometheus_client import CollectorRegistry

    from streams.operations.probe import Probe
    from streams.runtime.health import ObserveServer, Readiness
    from streams.runtime.metrics import ProbeMetrics

    clock, stop, registry = SystemClock(), threading.Event(), CollectorRegistry()
    with errors_explained():
        settings = settings_from(config, bootstrap)
        naming = naming_of(settings)
        if every is None:
            _once(Probe(settings.kafka, naming, clock, name), patience, json_)
            return
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stop.set())
        metrics = ProbeMetrics(registry)
        metrics.probe_answered_timestamp_seconds.set(clock.now())
        # From 0 on: the first of either counts as a change.
        for outcome in ("answered", "late"):
            metrics.probes.labels(outcome)
        with ObserveServer(http_host, http_port, registry, Readiness()) as server:
            say(f"{server.url}/metrics", err=True)
            sender = Probe(settings.kafka, naming, clock, name)
            while not stop.is_set():
                began = clock.monotonic()
                answer = sender.send(patience)
                metrics.probes.labels("answered" if answer.answered else "late").inc()
                if answer.answered:
                    metrics.probe_seconds.observe(answer.seconds)
                    metrics.probe_answered_timestamp_seconds.set(clock.now())
                _tell(answer.seconds, sorted(answer.missing), json_)
                stop.wait(max(0.0, began + every - clock.monotonic()))
            sender.close()


def _once(sender: Probe, patience: float, json_: bool) -> None:
    answer = sender.send(patience)
    sender.close()
    _tell(answer.seconds, sorted(answer.missing), json_)
    if not answer.answered:
        raise typer.Exit(RESTART)


def _tell(seconds: float, missing: list[int], json_: bool) -> None:
    if json_:
        say_json({"answered": not missing, "seconds": round(seconds, 3), "missing": missing}, indent=None)
    elif missing:
        say(f"late: after {seconds:.1f} s partitions {', '.join(map(str, missing))} have not answered", err=True)
    else:
        say(f"answered by every partition after {seconds:.2f} s")
