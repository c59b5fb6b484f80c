"""What users are told of the ranking is what the code does by default."""

from __future__ import annotations

import re
from pathlib import Path

from streams.runtime.settings_sources import load_settings
from targeting.ranking.scoring import ScoreWeights
from targeting.ranking.selection import _NAMED
from targeting.users import histories, score_thresholds, taste_vectors

PAGE = " ".join((Path(__file__).parents[1] / "docs/explanation/ranking-parameters.md").read_text().split())
WORDS = {1: "one", 3: "three", 5: "five", 20: "twenty"}


def told(words: str) -> list[float]:
    """The numbers in the page's one place where these words stand; ``#`` is a number, as ``65`` or ``.5``."""
    places = re.findall(re.escape(words).replace(r"\#", r"(\d*\.?\d+)"), PAGE)
    assert len(places) == 1, words
    return [float(number) for number in (places[0] if isinstance(places[0], tuple) else (places[0],))]


def test_every_figure_on_the_page_is_the_codes() -> None:
    settings, weight = load_settings(), ScoreWeights().weight
    audience = settings.audience
    assert told("The # most similar are taken") == [settings.songs.neighbours]
    assert told("of the last # songs; a song counts half after # days") == [histories.HISTORY, taste_vectors.HALF_LIFE]
    assert told("| # % of the score | `reason.terms.taste`") == [round(100 * (1 - weight))]
    assert told("| # % of the score | `reason.terms.evidence`") == [round(100 * weight)]
    assert f"up to {WORDS[_NAMED]} of them in `reason.songs`" in PAGE
    most = 2**score_thresholds.HIGHEST
    assert told("divides the score by # to #") == [1 / most, most]
    assert told("Half of that is forgotten in # days") == [score_thresholds.HALF_LIFE_S / 86_400]
    assert told("# % of a song's pushes go to people at random, to learn; in # % of all cases nothing is sent") == [
        100 * audience.exploration, 100 * audience.holdout,
    ]  # fmt: skip
    assert told("budget has: # % of them at once") == [100 * audience.at_once]
    assert audience.cap_hours == audience.artist_cap_hours == told("pushes in # hours")[0]
    caps = f"{WORDS[audience.cap_pushes]} pushes in 24 hours, or {WORDS[audience.artist_cap_pushes]} of the same artist"
    assert caps in PAGE
    assert f"reached {WORDS[settings.songs.warm_listeners]} listeners with your help" in PAGE
