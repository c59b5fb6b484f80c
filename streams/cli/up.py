"""``coldstart up``: every role on this machine, supervised."""

from __future__ import annotations

import signal
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, settings_from
from streams.cli.worker import POLICY, PolicySwitch, Resume
from streams.runtime.clock import SystemClock
from streams.runtime.supervised_worker import SupervisedWorker
from streams.runtime.supervisor import RoleProcess
from streams.runtime.terminal import Terminal, bold

_LOOK_EVERY_S = 0.5
# Beyond a role's own deadline after SIGTERM.
_BESIDE_S = 5.0


def up(
    songs_workers: Annotated[int, typer.Option(min=1, help="Songs workers.")] = 1,
    audience_workers: Annotated[int, typer.Option(min=1, help="Number of audience workers, with slots from 0.")] = 1,
    policy: Annotated[PolicySwitch, typer.Option(help=POLICY)] = PolicySwitch.ON,
    silence: Annotated[
        float, typer.Option(min=1, help="Seconds without an answer after which a worker is killed and started again.")
    ] = 30.0,
    logs: Annotated[Path, typer.Option(help="Folder for the workers' logs.")] = Path("runs/logs"),
    resume_with_bad: Resume = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Run all roles on this machine and keep them running, until Ctrl-C or SIGTERM.

    It needs topics, and a model that every songs worker can read where it was published.

    A worker that ends is started again, at once and then after 1, 2, 4 seconds and so on, up to a minute; one that
    does not answer for --silence seconds is killed first. The others go on. A worker that is refused (code 2) says why
    once, and is tried again for about eight minutes; one that stops at bad records (code 65) stays down. Once all stay
    down the command ends; if any did, its exit code is theirs.

    Example: coldstart kafka up; coldstart topics create; coldstart train --data DATA --out runs/model --all-songs;
    coldstart publish runs/model; coldstart up
    """
    console, stop = Terminal(stderr=True), threading.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: stop.set())
    with errors_explained(), ExitStack() as stack:
        settings = settings_from(config, bootstrap)
        logs.mkdir(parents=True, exist_ok=True)
        environment = {
            "COLDSTART_KAFKA__BOOTSTRAP_SERVERS": settings.kafka.bootstrap_servers,
            # Matrix products are small: more threads would wait for each other and for other workers.
            "OMP_NUM_THREADS": "1",
            "OPENBLAS_NUM_THREADS": "1",
        }
        common = [] if config is None else ["--config", str(config.resolve())]
        common += ["--resume-with-bad"] if resume_with_bad else []
        roles = [
            (f"songs-{n}", ["songs"], _port(settings.songs.http_port, n), settings.songs.shutdown_s)
            for n in range(songs_workers)
        ]
        roles += [
            (
                f"audience-{n}",
                ["audience", "--slot", str(n), "--policy", policy.value],
                _port(settings.audience.http_port, n),
                settings.audience.shutdown_s,
            )
            for n in range(audience_workers)
        ]
        clock = SystemClock()
        workers: list[SupervisedWorker] = []
        stack.callback(_stop, workers)
        for name, args, port, shutdown_s in roles:
            process = RoleProcess(
                name, [*args, *common], environment, logs / f"{name}.log", port, clock, shutdown_s + _BESIDE_S
            )
            workers.append(SupervisedWorker(process, clock, silence))
        while not stop.wait(_LOOK_EVERY_S) and any(worker.down is None for worker in workers):
            for worker in workers:
                if news := worker.look():
                    console.print(bold(worker.process.name), f" {news}")
        console.print("stopping" if stop.is_set() else "no worker is left")
        if codes := [worker.down for worker in workers if worker.down is not None]:
            # The code that asks for a decision about data, before the one that asks for a change.
            raise typer.Exit(max(codes))


def _port(first: int, number: int) -> int:
    """Of a role's n-th worker; 0: each takes a free one."""
    return first and first + 10 * number


def _stop(workers: Sequence[SupervisedWorker]) -> None:
    """All at once, so that they drain side by side."""
    for worker in workers:
        worker.process.ask_to_stop()
    for worker in workers:
        worker.process.stop()
