"""Simulates worlds seed by seed: the world, its model, then one variant after the other."""

from __future__ import annotations

import json
import os
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.progress import MofNCompleteColumn, TimeElapsedColumn

from encoder import artifact
from encoder.data.split import MIN_LISTENERS, rare_rows
from streams.contract.errors import Refused
from streams.models import learned_chances
from streams.runtime.settings import KafkaSettings, Settings
from streams.runtime.terminal import Bars, Terminal
from streams.testbed.broker import EmbeddedKafka
from streams.testbed.simulation import world_records
from streams.testbed.simulation.life import Life
from streams.testbed.simulation.push_variants import COMPARISONS, VARIANTS, PushVariant
from streams.testbed.simulation.scenario import Scenario
from streams.testbed.simulation.simulation_figures import MEASURES, Compared, Figures, Pushes, compare
from streams.testbed.simulation.variant_run import Prepared, organic, pushed

NETEASE = {"potential target users": 0.38, "collects": 0.0195, "full plays": 0.0142}
"""What its paper reports of its system online, against the one before it: to stand beside, not ours."""


@dataclass(frozen=True, slots=True)
class SimulationPlan:
    """What is to be simulated.

    Attributes:
        scenario: of every world; its seed is the first one's.
        seeds: how many worlds.
        arms: names, of :data:`streams.testbed.simulation.push_variants.VARIANTS`.
        day_s: seconds in which a simulated day passes.
        warm_at: listeners that make a song warm.
        folder: models and logs.
        bootstrap: an existing cluster; None starts the embedded broker.
    """

    scenario: Scenario
    seeds: int
    arms: Sequence[str]
    day_s: float
    warm_at: int
    folder: Path
    bootstrap: str | None = None


@dataclass(slots=True)
class Worlds:
    """What came of it: figures by arm and seed."""

    plan: SimulationPlan
    runs: dict[str, dict[int, Figures]] = field(default_factory=dict)

    @property
    def seeds(self) -> int:
        """How many worlds an arm has seen at most."""
        return max((len(each) for each in self.runs.values()), default=0)

    def mean(self, arm: str, measure: str) -> float:
        values = np.array([each.values[measure] for each in self.runs[arm].values()])
        return float(values[np.isfinite(values)].mean()) if np.isfinite(values).any() else float("nan")

    def compared(self) -> list[Compared]:
        """All pairs of arms that were run, in all measures."""
        all_pairs = [pair for pairs in COMPARISONS.values() for pair in pairs]
        pairs = [(one, other) for one, other in all_pairs if one in self.runs and other in self.runs]
        found = [compare(one, other, measure, self.runs) for one, other in pairs for measure in MEASURES]
        return [each for each in found if each is not None]

    def as_json(self) -> dict[str, Any]:
        """The figures, for a program; NaN and infinities are null."""
        plain = {
            "conditions": conditions(self.plan),
            "seeds": sorted({seed for each in self.runs.values() for seed in each}),
            "measures": {name: words for name, (words, _) in MEASURES.items()},
            "arms": {
                arm: {
                    "words": VARIANTS[arm].words,
                    "mean": {measure: self.mean(arm, measure) for measure in MEASURES},
                    "worlds": [{"seed": seed} | asdict(each) for seed, each in sorted(runs.items())],
                }
                for arm, runs in self.runs.items()
            },
            "compared": [asdict(each) | {"clear": each.clear} for each in self.compared()],
            "netease_reports": NETEASE,
        }
        known: dict[str, Any] = _known(plain)
        return known


def conditions(plan: SimulationPlan) -> dict[str, Any]:
    """All that must be alike for worlds to be compared, and for a run to go on where another one stopped."""
    scenario = asdict(plan.scenario)
    del scenario["seed"]
    return {"scenario": scenario, "day_s": plan.day_s, "warm_at": plan.warm_at}


def read(plan: SimulationPlan, path: Path) -> Worlds:
    """What an earlier run wrote: the worlds of it that the plan asks for.

    Raises:
        Refused: the file holds something else, or worlds under other conditions.
    """
    worlds = Worlds(plan, {arm: {} for arm in plan.arms})
    if not path.exists():
        return worlds
    try:
        plain = json.loads(path.read_text(encoding="utf-8"))
        alike = plain["conditions"] == conditions(plan)
        found = {arm: {each.pop("seed"): _figures(each) for each in of["worlds"]} for arm, of in plain["arms"].items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise Refused(f"{path}: not figures of a simulation: {error!r}; give another file") from None
    if not alike:
        raise Refused(f"{path}: worlds under other conditions, {plain['conditions']}; give another file, or the same")
    # Arms that are not asked for now are kept: a file grows.
    return Worlds(plan, found | {arm: found.get(arm, {}) for arm in plan.arms})


def write(worlds: Worlds, path: Path) -> None:
    """Write the figures, all or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    new = path.with_name(f"{path.name}.new")
    new.write_text(json.dumps(worlds.as_json(), indent=2) + "\n", encoding="utf-8")
    os.replace(new, path)


def simulate(worlds: Worlds, settings: Settings, console: Terminal, keep: Callable[[Worlds], None]) -> None:
    """Run every arm of the plan in every world that it has not seen; progress goes to the console.

    Args:
        keep: called after every world of an arm.

    Raises:
        Unavailable, Refused: a broker or worker cannot start or go on.
    """
    plan = worlds.plan
    # Torch is needed for training alone; the workers never load it.
    from encoder import train as training

    first = plan.scenario.seed
    missing = {
        seed: [VARIANTS[name] for name in plan.arms if seed not in worlds.runs[name]]
        for seed in range(first, first + plan.seeds)
    }
    runs = sum(map(len, missing.values()))
    if not runs:
        return
    needed = any(arm.pushes for arms in missing.values() for arm in arms)
    plan.folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        bars = stack.enter_context(_bars(console))
        whole = bars.add_task("variants and worlds", total=runs)
        kafka = settings.kafka
        if plan.bootstrap is None and needed:
            broker = EmbeddedKafka(cache=settings.paths.broker, heap_mb=settings.broker.heap_mb, console=console)
            kafka = KafkaSettings(bootstrap_servers=stack.enter_context(broker).bootstrap_servers)
        for seed, arms in missing.items():
            scenario = replace(plan.scenario, seed=seed)
            prepared: Prepared | None = None
            for arm in arms:
                if arm.pushes and prepared is None:
                    task = bars.add_task(f"seed {seed}: training the encoder", total=None)
                    data = world_records.dataset(Life(scenario))
                    known = np.flatnonzero(np.diff(data.plays.indptr) >= MIN_LISTENERS)
                    model = plan.folder / f"model-{seed}-{uuid.uuid4().hex[:8]}"
                    config = training.TrainingConfig(seed=seed)
                    rare = rare_rows(data)
                    artifact.save(training.train(data, known, config, rare_rows=rare), model)
                    if fitted := learned_chances.fit(data, np.union1d(known, rare), config):
                        learned_chances.save(fitted, model)
                    prepared = Prepared(scenario, data, model)
                    bars.remove_task(task)
                worlds.runs[arm.name][seed] = _one(arm, scenario, prepared, plan, kafka, bars)
                keep(worlds)
                bars.advance(whole)


def _one(
    arm: PushVariant,
    scenario: Scenario,
    prepared: Prepared | None,
    plan: SimulationPlan,
    kafka: KafkaSettings,
    bars: Bars,
) -> Figures:
    seed = scenario.seed
    task = bars.add_task(f"seed {seed}: {arm.name}", total=None)

    def tick(done: int, total: int) -> None:
        bars.update(task, completed=done, total=total)

    try:
        if prepared is None or not arm.pushes:
            return organic(scenario, plan.warm_at, tick)
        name = f"simulate-{uuid.uuid4().hex[:8]}"
        folder = plan.folder / f"{seed}-{arm.name}-{name}"
        return pushed(arm, prepared, kafka, f"{name}.", folder, plan.day_s, plan.warm_at, tick)
    finally:
        bars.remove_task(task)


def _bars(console: Terminal) -> Bars:
    return Bars(console, MofNCompleteColumn(), TimeElapsedColumn())


def _figures(plain: dict[str, Any]) -> Figures:
    values = {name: float("nan") if value is None else float(value) for name, value in plain.pop("values").items()}
    return Figures(values=values, pushes=Pushes(**plain.pop("pushes")), **plain)


def _known(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _known(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_known(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
