from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from targeting.ledger import Ledger

pairs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), unique=True)


def push(ledger: Ledger, batch: list[tuple[int, int]], now: float) -> dict[int, bytes]:
    users, recordings = np.asarray(batch or np.zeros((0, 2)), np.int64).T
    entries = ledger.plan(users, recordings.astype(np.uint64), now)
    records = dict(zip(entries.users.tolist(), ledger.encode(entries), strict=True))
    ledger.apply(entries)
    return records


@given(pairs, st.data())
def test_it_is_a_set_of_pairs_and_comes_back_from_its_records(
    all_pairs: list[tuple[int, int]], data: st.DataObject
) -> None:
    cut = data.draw(st.integers(0, len(all_pairs)))
    ledger, records = Ledger(), dict[int, bytes]()
    for now, batch in enumerate([all_pairs[:cut], all_pairs[cut:]]):
        records |= push(ledger, batch, now)
    again, everybody = Ledger(), np.arange(6)
    again.load(np.asarray(list(records), np.int64), list(records.values()))
    again.loaded(everybody)
    for recording in range(4):
        expected = sorted(user for user, each in all_pairs if each == recording)
        assert sorted(ledger.users(recording).tolist()) == expected
        assert sorted(again.users(recording).tolist()) == expected
    assert ledger.records(everybody) == again.records(everybody) == [records.get(u, b"") for u in range(6)]


@pytest.mark.parametrize("record", [b"\x02", b"\x01" + b"x" * 13])
def test_a_broken_record_is_refused(record: bytes) -> None:
    with pytest.raises(ValueError, match="ledger record"):
        Ledger().load(np.zeros(1, np.int64), [record])
