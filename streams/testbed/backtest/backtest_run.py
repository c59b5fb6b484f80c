"""The steps of a backtest, in order."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from encoder.data.generate import World, generate
from encoder.data.history import History
from encoder.data.layout import read_history
from streams.contract.errors import Refused
from streams.runtime.settings import KafkaSettings, Settings
from streams.runtime.terminal import Bars, Terminal
from streams.testbed.backtest.audit import audit, cuts
from streams.testbed.backtest.backtest_figures import BacktestOutcome, Judge
from streams.testbed.backtest.broker_replay import Streamed, compare
from streams.testbed.backtest.past_models import Trainer
from streams.testbed.backtest.plan import DEFAULT, VARIANTS, BacktestPlan
from streams.testbed.backtest.replay import Decisions, replay
from streams.testbed.backtest.script import Script, begin, write
from streams.testbed.broker import EmbeddedKafka


def run(plan: BacktestPlan, console: Terminal) -> BacktestOutcome:
    """Do it all; progress goes to the console.

    Raises:
        Refused: there is too little to replay.
        Unavailable: a broker or worker cannot start or go on.
        encoder.data.findings.LayoutError: the data cannot be read, or have no dates.
    """
    seconds: dict[str, float] = {}
    with Bars(console, MofNCompleteColumn(), TimeElapsedColumn()) as bars:
        with _phase(seconds, "data"):
            history = _history(plan, bars)
            for finding in history.dataset.findings:
                console.print(str(finding), style="yellow", soft_wrap=True)
            if history.dataset.citation:
                console.print(history.dataset.citation, style="dim")
        trainer, start = Trainer(plan.seed), begin(history, plan)
        with _phase(seconds, "script"):
            task = bars.add_task("training on the past", total=None)
            script = write(history, plan, start, trainer, lambda done, of: bars.update(task, completed=done, total=of))
        judge = Judge(history, plan, script)
        if not judge.songs:
            raise Refused(
                f"{len(script.uploads)} songs are first heard after the history, none of them "
                f"{plan.campaign_days + plan.window_days:g} days before the end; take a smaller --history, --campaign "
                "or --window"
            )
        looks, traces = cuts(script, plan.cuts), dict[str, Decisions]()
        for name in plan.arms:
            with _phase(seconds, name):
                bar = bars.add_task(f"replaying: {VARIANTS[name].words}", total=None)
                traces[name] = replay(
                    script, history, VARIANTS[name].config(plan.rules), looks=looks if name == DEFAULT else (),
                    tell=lambda done, of, bar=bar: bars.update(bar, completed=done, total=of),  # type: ignore[misc]
                )  # fmt: skip
        streamed = None
        if plan.stream is not None:
            with _phase(seconds, "stream"):
                streamed = _stream(plan.stream, plan, script, history, traces[DEFAULT], bars, console)
        leaks, trainings = None, trainer.trainings
        if looks:
            with _phase(seconds, "audit"):
                bar = bars.add_task("repeating without the future", total=None)
                leaks = audit(
                    history, plan, script, traces[DEFAULT], VARIANTS[DEFAULT].config(plan.rules), trainer, looks,
                    lambda done, of: bars.update(bar, completed=done, total=of),
                )  # fmt: skip
    return BacktestOutcome(
        plan=plan,
        dataset=history.dataset.name,
        citation=history.dataset.citation,
        users=len(history.dataset.user_ids),
        listens=len(history),
        first=float(history.at[0]),
        start=start,
        last=float(history.at[-1]),
        trainings=trainings,
        songs=judge.songs,
        uploads=len(script.uploads),
        mute=script.mute,
        later=int(judge.later.sum()),
        known=int(judge.known.sum()),
        ceiling=judge.ceiling,
        arms={name: judge.judge(trace) for name, trace in traces.items()},
        leaks=leaks,
        cuts=len(looks),
        seconds=seconds,
        undated=history.undated,
        streamed=streamed,
    )


def _history(plan: BacktestPlan, bars: Bars) -> History:
    if plan.data is not None:
        return read_history(plan.data, plan.strict)
    folder = plan.folder / f"generated-{plan.users}-{plan.songs}-{plan.seed}"
    task = bars.add_task("making a data set", total=None)
    try:
        generate(
            World(users=plan.users, songs=plan.songs, seed=plan.seed), folder,
            lambda done, of: bars.update(task, completed=done, total=of),
        )  # fmt: skip
    except ValueError as error:
        raise Refused(f"--users {plan.users} --songs {plan.songs}: {error}") from None
    return read_history(folder)


def _stream(
    settings: Settings,
    plan: BacktestPlan,
    script: Script,
    history: History,
    trace: Decisions,
    bars: Bars,
    console: Terminal,
) -> Streamed:
    bar = bars.add_task("on the stream: starting Kafka" if plan.embedded else "on the stream", total=None)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        kafka = settings.kafka
        if plan.embedded:
            broker = EmbeddedKafka(cache=settings.paths.broker, heap_mb=settings.broker.heap_mb, console=console)
            kafka = KafkaSettings(bootstrap_servers=stack.enter_context(broker).bootstrap_servers)
        bars.update(bar, description=f"on the stream: {VARIANTS[DEFAULT].words}")
        return compare(
            script, history, VARIANTS[DEFAULT].config(plan.rules), trace, settings.audience, kafka,
            plan.folder / "worker.log", lambda done, of: bars.update(bar, completed=done, total=of),
        )  # fmt: skip


@contextmanager
def _phase(seconds: dict[str, float], name: str) -> Iterator[None]:
    started = time.process_time()
    yield
    seconds[name] = round(time.process_time() - started, 2)
