"""Which listens are repeats, whatever the batches and however often the worker starts."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from streams.audience.deduplication import WINDOW, Deduplication

# Offsets with gaps as wide as the window; few ids, so that many come again.
TOPIC = st.lists(st.tuples(st.integers(1, WINDOW), st.sampled_from("abcdefgh")), max_size=30).map(
    lambda steps: [(sum(step for step, _ in steps[: n + 1]), id) for n, (_, id) in enumerate(steps)]
)


def kept(topic: list[tuple[int, str]], repeats: Deduplication) -> list[int]:
    ids, offsets = [id for _, id in topic], [offset for offset, _ in topic]
    seen = repeats.look(ids, offsets)
    repeats.remember(seen)
    return [offsets[at] for at in seen.keep]


def by_definition(topic: list[tuple[int, str]]) -> list[int]:
    return [
        offset
        for n, (offset, id) in enumerate(topic)
        if not any(other == id and offset - before <= WINDOW for before, other in topic[:n])
    ]


@given(TOPIC, st.lists(st.integers(0, 30)))
def test_batches_make_no_difference(topic: list[tuple[int, str]], cuts: list[int]) -> None:
    repeats = Deduplication(0)
    edges = sorted({0, len(topic), *(cut for cut in cuts if cut < len(topic))})
    assert [o for a, b in pairwise(edges) for o in kept(topic[a:b], repeats)] == by_definition(topic)


@given(TOPIC, st.integers(0, 30))
def test_a_restart_makes_no_difference(topic: list[tuple[int, str]], at: int) -> None:
    before, after = topic[:at], topic[at:]
    repeats = Deduplication(after[0][0] if after else WINDOW * 40)
    kept([each for each in before if each[0] >= repeats.start], repeats)
    assert kept(after, repeats) == [o for o in by_definition(topic) if o in {offset for offset, _ in after}]


def test_nothing_is_remembered_before_the_commit() -> None:
    repeats = Deduplication(0)
    assert list(repeats.look(["a", "a"], [0, 1]).keep) == [0]
    assert list(repeats.look(["a", "a"], [0, 1]).keep) == [0]
    assert len(repeats) == 0


def test_memory_is_bounded() -> None:
    repeats = Deduplication(0)
    for start in range(0, 10 * WINDOW, 1000):
        repeats.remember(repeats.look([f"l-{start + n}" for n in range(1000)], range(start, start + 1000)))
    assert len(repeats) <= 2 * WINDOW + 1000


def test_a_partition_that_was_never_read_has_no_window() -> None:
    assert Deduplication(-2).start == Deduplication(0).start == Deduplication(WINDOW).start == 0
    assert Deduplication(WINDOW + 5).start == 5
