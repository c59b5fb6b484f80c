"""``coldstart up``: every role on this machine, supervised."""

from __future__ import annotations

import re
import signal
import threading
from contextlib import ExitStack
from pathlib import Path
from typing import Annotated

import typer

from streams.cli.options import Bootstrap, Config, errors_explained, settings_from
from streams.cli.worker import PolicySwitch, Resume
from streams.contract.errors import BadBurst
from streams.runtime.exit_codes import BAD_INPUT
from streams.runtime.supervisor import RoleProcess
from streams.runtime.terminal import Terminal, bold

_LOOK_EVERY_S = 0.5
_COUNTS = re.compile(r"[\d,]+ of [\d,]+|\(\d+ s\)|[\d,]+ s to go")


def up(
    songs_workers: Annotated[int, typer.Option(min=1, help="Songs workers.")] = 1,
    audience_workers: Annotated[int, typer.Option(min=1, help="Number of audience workers, with slots from 0.")] = 1,
    policy: Annotated[PolicySwitch, typer.Option(help="off: preferences are ignored.")] = PolicySwitch.ON,
    logs: Annotated[Path, typer.Option(help="Folder for the workers' logs.")] = Path("runs/logs"),
    resume_with_bad: Resume = False,
    config: Config = None,
    bootstrap: Bootstrap = None,
) -> None:
    """Run all roles on this machine and keep them running, until Ctrl-C or SIGTERM.

    A worker that exits is restarted, at once and then after 1, 2, 4 and 8 seconds. After six exits within a minute, or
    if a worker says that a restart does not help, everything stops with its reason and exit code 2. A worker that stops
    at bad records (code 65) stays down while the others go on; `coldstart up` then ends with 65, too.

    Example: coldstart kafka up; coldstart topics create; coldstart publish runs/model; coldstart up
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
        roles = [(f"songs-{n}", ["songs"], settings.songs.http_port + 10 * n) for n in range(songs_workers)]
        roles += [
            (
                f"audience-{n}",
                ["audience", "--slot", str(n), "--policy", policy.value],
                settings.audience.http_port + 10 * n,
            )
            for n in range(audience_workers)
        ]
        workers = []
        for name, args, port in roles:
            workers.append(RoleProcess(name, [*args, *common], environment, logs / f"{name}.log", port))
            stack.callback(workers[-1].stop)
        said: dict[str, str] = {}
        stopped = False
        while not stop.wait(_LOOK_EVERY_S):
            for worker in list(workers):
                try:
                    ended = worker.watch()
                except BadBurst as burst:
                    workers.remove(worker)
                    if not workers:
                        raise
                    stopped = True
                    console.print(bold(worker.name), f" {burst}\nIt stays down, the others go on")
                    continue
                if ended is not None:
                    console.print(bold(worker.name), f" {ended}; started again")
                reasons = worker.readiness()
                state = "; ".join(f"{name}: {reason}" for name, reason in reasons.items()) or "ready"
                # A growing count is not worth another line.
                if said.get(worker.name) != (news := _COUNTS.sub("", state)):
                    said[worker.name] = news
                    console.print(bold(worker.name), f" pid {worker.pid}  {worker.url}  {state}")
        console.print("stopping")
        if stopped:
            raise typer.Exit(BAD_INPUT)
