"""Who gets a song, judged: the arms, the measures, the verdicts."""

from targeting.evaluation.arms import DEFAULT
from targeting.evaluation.case import Case
from targeting.evaluation.judge import evaluate

__all__ = ["DEFAULT", "Case", "evaluate"]
