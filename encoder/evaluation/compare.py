"""All variants on all seeds: search, fit, retrieve, score, and one dictionary of figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from encoder import supervision
from encoder.data.dataset import Dataset
from encoder.data.world import World
from encoder.evaluation import damage, figures, intervals, truths
from encoder.evaluation.jobs import FULL, Fit, Trial, VariantRun, Work, contents_of, each
from encoder.evaluation.retrieval_task import Task
from encoder.evaluation.search import SearchResult, best, draws, untried
from encoder.evaluation.variants import DEFAULT, PAPER, PAPER_TWIN, VARIANTS, Variant, config_of
from encoder.features import FeatureSchema
from encoder.truth import K, Scores, quartiles
from significance import told_apart

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Json = dict[str, Any]

# Minimum number of seeds on which the paper's variant and its twin are compared.
PAPER_SEEDS = 10


@dataclass(frozen=True, slots=True)
class EvaluationProgress:
    """Progress of an evaluation: ``done`` of ``total`` pieces of ``what``."""

    what: str
    done: int
    total: int


@dataclass(frozen=True, slots=True)
class DefaultVariant:
    """The default variant on a split.

    Attributes:
        seed: of the split; None for the validation split.
        asked: the split's songs.
        warm, cold: float32 (songs, d), the default's vectors.
    """

    seed: int | None
    asked: Task
    warm: F32
    cold: F32


@dataclass(slots=True)
class _VariantRecord:
    """The results of one variant."""

    arm: Variant
    found: SearchResult
    runs: dict[int, VariantRun] = field(default_factory=dict)

    def of(self, content: str, seeds: Sequence[int]) -> list[Scores]:
        return [self.runs[seed].scores[content] for seed in seeds]

    def places(self, seeds: Sequence[int]) -> list[I64]:
        """The quartiles of each seed's cold songs."""
        return [scores.quartile for scores in self.of(FULL, seeds)]

    def further(self, seeds: Sequence[int]) -> Json:
        """The figures of the other measures."""
        runs = [self.runs[seed].further for seed in seeds]
        return {name: figures.summed([run[name] for run in runs], self.places(seeds)) for name in runs[0]}


def evaluate(
    dataset: Dataset,
    seeds: int,
    trials: int = 10,
    arms: Mapping[str, Variant] = VARIANTS,
    paper_seeds: int = PAPER_SEEDS,
    processes: int = 1,
    tell: Callable[[EvaluationProgress], None] = lambda _: None,
    serve: Callable[[DefaultVariant], None] | None = None,
    first: int = 0,
    world: World | None = None,
) -> Json:
    """Every variant on the splits of ``seeds`` seeds from ``first``, with the hyper-parameters of its own search.

    Args:
        trials: of each variant's search on the validation split; below 2 the variants' own configs are used.
        arms: variants by name; must include the default, with which all are compared.
        paper_seeds: splits on which the paper's variant and its twin are compared, if both are among the variants.
        processes: number of processes for the fits; the figures do not depend on it.
        serve: receives the default variant on the validation split, then on each of the seeds.
        world: the world that the data set was generated from, if any.

    Returns:
        Plain numbers, strings, lists and dictionaries; the README lists the keys.

    Raises:
        ValueError: the data set is too small to split, has no content, or the default is missing.
    """
    if DEFAULT not in arms:
        raise ValueError(f"variants {', '.join(arms)}: {DEFAULT} must be among them, the others are compared with it")
    scored = list(range(first, first + seeds))
    twins = list(range(first, first + max(seeds, paper_seeds))) if {PAPER, PAPER_TWIN} <= arms.keys() else scored
    present = damage.modalities(dataset.content)
    skipped = {name: [bag for bag in arm.needs if bag not in present] for name, arm in arms.items()}
    skipped = {name: missing for name, missing in skipped.items() if missing}
    arms = {name: arm for name, arm in arms.items() if name not in skipped}
    work = Work(dataset, tuple(twins), world)
    records = _search(work, arms, trials, processes, tell)
    _fit(work, records, scored, twins, processes, tell, with_vectors=serve is not None)
    if serve:
        default = records[DEFAULT]
        check = Fit(default.arm, default.found.model, None, damaged=False, vectors=True)(work)
        for seed, run in [(None, check), *((seed, default.runs[seed]) for seed in scored)]:
            if run.vectors is None:
                raise ValueError(f"{DEFAULT} has no vectors to serve")
            serve(DefaultVariant(seed, work.asked(seed), *run.vectors))
    ginis, unseen = zip(*(_about(work, seed) for seed in twins), strict=True)
    gini, overlap = float(np.mean(ginis)), _overlap(work)
    return {
        "data": _described(work),
        "seeds": scored,
        "default_arm": DEFAULT,
        "train_seconds": _seconds(records[DEFAULT]),
        "search": {"trials": trials, "seconds": sum(record.found.seconds for record in records.values())},
        "arms": {name: _figures(record, scored) for name, record in records.items()},
        "skipped": {name: f"the data have no {' and no '.join(missing)}" for name, missing in skipped.items()},
        "paired": {
            f"{DEFAULT}-{name}": _gaps(records[DEFAULT], record, scored, overlap)
            for name, record in records.items()
            if name != DEFAULT
        },
        "paired_method": intervals.METHOD,
        "truths": _bounds(work, scored),
        "supervision_gini": gini,
        "unseen_terms_per_song": {name: float(np.mean([row[name] for row in unseen])) for name in unseen[0]},
        "paper": _paper(records, twins, gini, overlap) if {PAPER, PAPER_TWIN} <= records.keys() else None,
    }


def _search(
    work: Work, arms: Mapping[str, Variant], trials: int, processes: int, tell: Callable[[EvaluationProgress], None]
) -> dict[str, _VariantRecord]:
    """Each variant with what its search found; derived variants follow the default's search."""
    drawn = {name: draws(arm, trials) for name, arm in arms.items()}
    jobs = [(name, Trial(arms[name], values)) for name, all_values in drawn.items() for values in all_values]
    tell(EvaluationProgress("search", 0, len(jobs)))
    outcomes: dict[int, tuple[F64, float]] = {}
    for place, outcome in each(work, [job for _, job in jobs], processes):
        outcomes[place] = outcome
        tell(EvaluationProgress(f"search: {jobs[place][0]}", len(outcomes), len(jobs)))
    records = {}
    for name, arm in arms.items():
        mine = [outcomes[place] for place, (owner, _) in enumerate(jobs) if owner == name]
        values, seconds = [value for value, _ in mine], sum(took for _, took in mine)
        records[name] = _VariantRecord(arm, best(arm, drawn[name], values, seconds) if mine else untried(arm))
    default = records[DEFAULT].found
    for record in records.values():
        if record.arm.apart:
            model = replace(record.arm, model=default.model).varied(**record.arm.apart)
            record.found = SearchResult(model, {**default.chosen, **record.arm.apart}, None, 0, 0, 0.0)
    return records


def _fit(
    work: Work,
    records: Mapping[str, _VariantRecord],
    scored: Sequence[int],
    twins: Sequence[int],
    processes: int,
    tell: Callable[[EvaluationProgress], None],
    with_vectors: bool,
) -> None:
    """Fits every variant on every seed, the paper's pair on more of them."""
    jobs = []
    for seed in twins:
        for name in records if seed in scored else (PAPER, PAPER_TWIN):
            record, vectors = records[name], with_vectors and name == DEFAULT
            jobs.append((name, seed, Fit(record.arm, record.found.model, seed, seed in scored, vectors)))
    tell(EvaluationProgress("fit", 0, len(jobs)))
    for done, (place, run) in enumerate(each(work, [job for _, _, job in jobs], processes), 1):
        name, seed, _ = jobs[place]
        records[name].runs[seed] = run
        tell(EvaluationProgress(f"seed {seed}: {name}", done, len(jobs)))


def _about(work: Work, seed: int) -> tuple[float, dict[str, float]]:
    """The skew of a seed's supervision, and the mean number of unseen terms of a cold song, by content."""
    asked = work.asked(seed)
    listeners = supervision.listener_rows(asked.warm.plays)
    schema = FeatureSchema.learn(asked.warm.content)
    unseen = {
        name: float(schema.transform(cold.content).unseen.mean())
        for name, cold in contents_of(asked.cold, work.dataset, seed).items()
    }
    return figures.skew(supervision.targets(listeners, K), len(asked.warm.song_ids)), unseen


def _seconds(record: _VariantRecord) -> float:
    return float(np.mean([run.seconds for run in record.runs.values()]))


def _figures(record: _VariantRecord, seeds: Sequence[int]) -> Json:
    found, first = record.found, record.runs[seeds[0]]
    return {
        "what": record.arm.what,
        **figures.summary(record.of(FULL, seeds)),
        **record.further(seeds),
        "content": {name: figures.summary(record.of(name, seeds)) for name in first.scores if name != FULL},
        "config": config_of(found.model),
        "chosen": found.chosen,
        "search": {"trials": found.trials, "of": found.of, "seconds": found.seconds, "validation": found.value},
        "train_seconds": _seconds(record),
        "gauges": {key: float(np.mean([record.runs[seed].gauges[key] for seed in seeds])) for key in first.gauges},
    }


def _gaps(ours: _VariantRecord, other: _VariantRecord, seeds: Sequence[int], overlap: float) -> Json:
    """One variant minus another, by measure."""
    gaps = figures.paired(ours.of(FULL, seeds), other.of(FULL, seeds), overlap)
    runs = [(ours.runs[seed].further, other.runs[seed].further) for seed in seeds]
    for name in [name for name in runs[0][0] if name in runs[0][1]]:
        gaps[name] = figures.differing([mine[name] - its[name] for mine, its in runs], ours.places(seeds), overlap)
    return gaps


def _bounds(work: Work, seeds: Sequence[int]) -> Json:
    """The bounds of the truths themselves, overall and by quartile."""
    asked = [work.asked(seed) for seed in seeds]
    found = [truths.bounds(task, work.truths(seed)) for task, seed in zip(asked, seeds, strict=True)]
    places = [quartiles(task.answer.listeners) for task in asked]
    known = {name: figures.summed([own[name] for own in found], places) for name in found[0]}
    share = K / len(asked[0].warm.song_ids)
    for place, name in enumerate(("ceiling_half", "ceiling")):
        agreement = known["agreement"]
        known[name] = {
            "mean": truths.ceilings(agreement["mean"], share)[place],
            "quartiles": [truths.ceilings(part, share)[place] for part in agreement["quartiles"]],
        }
    return known


def _overlap(work: Work) -> float:
    """Cold songs per warm one, the same for all seeds."""
    parts = work.asked(work.seeds[0]).split
    return len(parts.cold) / len(parts.warm)


def _paper(records: Mapping[str, _VariantRecord], seeds: Sequence[int], gini: float, overlap: float) -> Json:
    """The effect of the paper's contrastive term: the pair's difference by quartile, with verdicts."""
    difference = figures.paired(records[PAPER].of(FULL, seeds), records[PAPER_TWIN].of(FULL, seeds), overlap)
    return {
        "seeds": list(seeds),
        "supervision_gini": gini,
        "difference": difference,
        "verdict": verdicts(difference),
    }


def verdicts(difference: Json) -> Json:
    """Verdicts on the paper's term, by measure: ``overall`` and by quartile, corrected over all of them."""
    parts = {measure: [found, *found["quartiles"]] for measure, found in difference.items()}
    apart = iter(told_apart([part["p"] for found in parts.values() for part in found]))
    words = {measure: [intervals.verdict(part, next(apart)) for part in found] for measure, found in parts.items()}
    return {measure: {"overall": own[0], "quartiles": own[1:]} for measure, own in words.items()}


def _described(work: Work) -> Json:
    dataset = work.dataset
    parts = work.asked(work.seeds[0]).split
    return {
        "name": dataset.name,
        "citation": dataset.citation,
        "songs": len(dataset.song_ids),
        "users": len(dataset.user_ids),
        "listens": int(dataset.plays.nnz),
        "judged_songs": len(parts.warm) + len(parts.cold),
        "cold_songs": len(parts.cold),
        "content": list(damage.modalities(dataset.content)),
    }
