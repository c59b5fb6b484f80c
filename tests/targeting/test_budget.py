from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from targeting.campaigns.budget import at_once, share


def test_seven_tenths_at_once() -> None:
    assert [at_once(n) for n in (0, 1, 2, 10, 300, 1001)] == [0, 1, 1, 7, 210, 701]


@given(st.integers(0, 10_000), st.integers(1, 64), st.integers(0, 2**64 - 1))
def test_shares_sum_to_the_whole_and_differ_by_one(pushes: int, partitions: int, song: int) -> None:
    shares = [share(pushes, number, partitions, song) for number in range(partitions)]
    assert sum(shares) == pushes
    assert max(shares) - min(shares) <= 1


def test_the_remainder_goes_round() -> None:
    given_one = [sum(share(1, number, 4, song) for song in range(400)) for number in range(4)]
    assert given_one == [100, 100, 100, 100]
