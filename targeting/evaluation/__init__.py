"""Who gets a song, judged: the arms, the measures, the verdicts."""

from targeting.evaluation.case import Case
from targeting.evaluation.judge import evaluate
from targeting.evaluation.ranking_variants import DEFAULT
from targeting.evaluation.reliability import fitted

__all__ = ["DEFAULT", "Case", "evaluate", "fitted"]
