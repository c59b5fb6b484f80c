"""Compares ways of choosing an audience: variants, measures and verdicts."""

from targeting.evaluation.case import Case
from targeting.evaluation.judge import evaluate
from targeting.evaluation.ranking_variants import DEFAULT
from targeting.evaluation.reliability import fitted

__all__ = ["DEFAULT", "Case", "evaluate", "fitted"]
