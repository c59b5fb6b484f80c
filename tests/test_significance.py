"""Of many differences in one table, which are real."""

from __future__ import annotations

import numpy as np
import pytest

from significance import told_apart


@pytest.mark.parametrize(
    ("p", "apart"),
    [
        ([0.04], [True]),
        # .04 is above .05 / 2, and what is larger falls with it.
        ([0.04, 0.04], [False, False]),
        ([0.04, 0.01, np.nan, 0.02], [True, True, False, True]),
        ([0.03, 0.001, 0.03], [False, True, False]),
        ([], []),
    ],
)
def test_of_many_differences_fewer_are_told_apart(p: list[float], apart: list[bool]) -> None:
    assert told_apart(p) == apart
