"""How do all arms do on all seeds? Search, fit, retrieve, score, and one dictionary of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from time import perf_counter
from typing import Any

import numpy as np

from encoder import supervision
from encoder.data.dataset import Dataset
from encoder.data.layout import TAG_BAG
from encoder.data.split import split
from encoder.evaluation import damage, figures
from encoder.evaluation.arms import ARMS, DEFAULT, PAPER, PAPER_TWIN, Arm, config_of
from encoder.evaluation.search import Found, search
from encoder.evaluation.task import Fitted, Task, Vectors, retrieve, task, unheard, validation
from encoder.features import FeatureSchema
from encoder.truth import K, Scores, score

Json = dict[str, Any]

# Seeds on which the paper's arm and its twin are compared, at least.
PAPER_SEEDS = 10
FULL = "full"
THINNED = "thinned"
ESTRANGED = "unseen"


@dataclass(frozen=True, slots=True)
class Stage:
    """Where an evaluation stands: ``done`` of ``total`` pieces of ``what``."""

    what: str
    done: int
    total: int


Tell = Callable[[Stage], None]
# Called with the seed (None: the validation split), its question and the default arm as fitted on it.
Watch = Callable[[int | None, Task, Vectors], None]


@dataclass(slots=True)
class _Record:
    """What is known of one arm."""

    arm: Arm
    found: Found
    runs: dict[str, dict[int, Scores]] = field(default_factory=dict)
    seconds: list[float] = field(default_factory=list)
    gauges: list[dict[str, float]] = field(default_factory=list)

    def of(self, content: str, seeds: Sequence[int]) -> list[Scores]:
        return [self.runs[content][seed] for seed in seeds]


def evaluate(
    dataset: Dataset,
    seeds: int,
    trials: int = 10,
    arms: Mapping[str, Arm] = ARMS,
    paper_seeds: int = PAPER_SEEDS,
    tell: Tell = lambda _: None,
    watch: Watch | None = None,
) -> Json:
    """Every arm on the splits of seeds 0 to ``seeds`` - 1, each with the hyper-parameters of its own search.

    Args:
        trials: of each arm's search on the validation split; below 2 the arms' own configs are taken.
        arms: by name; the default, with which all are compared, must be among them.
        paper_seeds: splits on which the paper's arm and its twin are compared, if both are among the arms.
        watch: is given the default arm as fitted on each of the seeds, after the same on the validation split.

    Returns:
        Plain numbers, strings, lists and dictionaries; the README lists the keys.

    Raises:
        ValueError: the data set is too small to be split, has no content, or the default is not among the arms.
    """
    if DEFAULT not in arms:
        raise ValueError(f"arms {', '.join(arms)}: {DEFAULT} must be among them, the others are compared with it")
    scored = list(range(seeds))
    twins = list(range(max(seeds, paper_seeds))) if {PAPER, PAPER_TWIN} <= arms.keys() else scored
    present = damage.modalities(dataset.content)
    skipped = {name: [bag for bag in arm.needs if bag not in present] for name, arm in arms.items()}
    skipped = {name: missing for name, missing in skipped.items() if missing}
    chosen_on = task(dataset, validation(dataset, twins))
    records = {}
    for name, arm in arms.items():
        if name not in skipped:
            records[name] = _Record(arm, _found(name, arm, chosen_on, trials, tell))
    for name, record in records.items():
        if record.arm.apart:
            found = records[DEFAULT].found
            model = replace(record.arm, model=found.model).varied(**record.arm.apart)
            records[name].found = Found(model, {**found.chosen, **record.arm.apart}, None, 0, 0.0)
    if watch:
        fitted = records[DEFAULT].found.model.fit(chosen_on.warm, 0)
        assert isinstance(fitted, Vectors)
        watch(None, chosen_on, fitted)
    ginis, unseen = [], []
    for seed in twins:
        asked = task(dataset, split(dataset, seed))
        contents = contents_of(asked.cold, present, seed)
        wanted = list(records) if seed in scored else [PAPER, PAPER_TWIN]
        for done, name in enumerate(wanted):
            tell(Stage(f"seed {seed}: {name}", done, len(wanted)))
            fitted = _run(records[name], asked, contents if seed in scored else {FULL: asked.cold}, seed)
            if name == DEFAULT and watch:
                assert isinstance(fitted, Vectors)
                watch(seed, asked, fitted)
        listeners = supervision.listener_rows(asked.warm.plays)
        ginis.append(figures.skew(supervision.targets(listeners, K), len(asked.warm.song_ids)))
        schema = FeatureSchema.learn(asked.warm.content)
        unseen.append({name: float(schema.transform(c.content).unseen.mean()) for name, c in contents.items()})
    return {
        "data": _described(dataset, chosen_on),
        "seeds": scored,
        "default_arm": DEFAULT,
        "train_seconds": float(np.mean(records[DEFAULT].seconds)),
        "search": {"trials": trials, "seconds": sum(record.found.seconds for record in records.values())},
        "arms": {name: _figures(record, scored) for name, record in records.items()},
        "skipped": {name: f"the data have no {' and no '.join(missing)}" for name, missing in skipped.items()},
        "paired": {
            f"{DEFAULT}-{name}": figures.paired(records[DEFAULT].of(FULL, scored), record.of(FULL, scored))
            for name, record in records.items()
            if name != DEFAULT
        },
        "paired_method": figures.METHOD,
        "supervision_gini": float(np.mean(ginis)),
        "unseen_terms_per_song": {name: float(np.mean([row[name] for row in unseen])) for name in unseen[0]},
        "paper": _paper(records, twins, float(np.mean(ginis))) if {PAPER, PAPER_TWIN} <= records.keys() else None,
    }


def _found(name: str, arm: Arm, chosen_on: Task, trials: int, tell: Tell) -> Found:
    """The arm's search, told as a stage."""
    return search(arm, chosen_on, trials, lambda done, of: tell(Stage(f"search: {name}", done, of)))


def contents_of(cold: Dataset, present: Sequence[str], seed: int) -> dict[str, Dataset]:
    """The cold songs as they are, and damaged in each way that the data allow."""
    found = {FULL: cold}
    bags = [name for name in present if name in cold.content.bags]
    if TAG_BAG in bags:
        found[THINNED] = replace(cold, content=damage.thinned(cold.content, TAG_BAG, seed))
    for name in present:
        found[f"without_{name}"] = replace(cold, content=damage.without(cold.content, name))
    if bags:
        found[ESTRANGED] = replace(cold, content=damage.estranged(cold.content, bags[0]))
    return found


def _run(record: _Record, asked: Task, contents: Mapping[str, Dataset], seed: int) -> Fitted:
    """Fits an arm on one seed and scores it on each content."""
    started = perf_counter()
    fitted = record.found.model.fit(asked.warm, seed)
    record.seconds.append(perf_counter() - started)
    popularity = np.diff(asked.warm.plays.indptr).astype(np.int64)
    for name, cold in contents.items():
        shown = cold if record.arm.hears else unheard(cold)
        record.runs.setdefault(name, {})[seed] = score(retrieve(fitted, shown, popularity), asked.answer)
    # One dimension is no space: popularity.
    if isinstance(fitted, Vectors) and fitted.warm.shape[1] > 1:
        cold = contents[FULL] if record.arm.hears else unheard(contents[FULL])
        record.gauges.append(figures.gauges(fitted.encode(cold), fitted.warm, asked.answer))
    return fitted


def _figures(record: _Record, seeds: Sequence[int]) -> Json:
    found = record.found
    return {
        "what": record.arm.what,
        **figures.summary(record.of(FULL, seeds)),
        "content": {name: figures.summary(record.of(name, seeds)) for name in record.runs if name != FULL},
        "config": config_of(found.model),
        "chosen": found.chosen,
        "search": {"trials": found.trials, "seconds": found.seconds, "validation": found.value},
        "train_seconds": float(np.mean(record.seconds)),
        "gauges": {key: float(np.mean([g[key] for g in record.gauges])) for key in (record.gauges or [{}])[0]},
    }


def _paper(records: Mapping[str, _Record], seeds: Sequence[int], gini: float) -> Json:
    """What the contrastive term does to the paper's arm: the pair's difference by quartile, and a verdict on each."""
    difference = figures.paired(records[PAPER].of(FULL, seeds), records[PAPER_TWIN].of(FULL, seeds))
    return {
        "seeds": list(seeds),
        "supervision_gini": gini,
        "difference": difference,
        "verdict": {
            measure: {
                "overall": figures.verdict(found),
                "quartiles": [figures.verdict(part) for part in found["quartiles"]],
            }
            for measure, found in difference.items()
        },
    }


def _described(dataset: Dataset, chosen_on: Task) -> Json:
    warm, cold = len(chosen_on.warm.song_ids), len(chosen_on.cold.song_ids)
    return {
        "name": dataset.name,
        "citation": dataset.citation,
        "songs": len(dataset.song_ids),
        "users": len(dataset.user_ids),
        "listens": int(dataset.plays.nnz),
        "judged_songs": warm + cold,
        "cold_songs": cold,
        "content": list(damage.modalities(dataset.content)),
    }
