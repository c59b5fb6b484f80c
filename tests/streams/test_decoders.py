"""Every decoder of what comes in reads any bytes or refuses them by its declared error; see ``decoders.py``."""

from __future__ import annotations

import random

import pytest
from decoders import NAMES, NOW, SPACE, ask, packed, question, seeds, unpacked
from hostile_traffic import Traffic
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

RECORDS = [name for name in NAMES if name not in ("vector", "answer", "batch")]
SEEDS = list(seeds())


def test_good_records_are_asked_of_every_decoder() -> None:
    assert {NAMES[seed[0]] for seed in SEEDS} == set(NAMES)
    for seed in SEEDS:
        ask(seed)


def test_a_record_survives_being_packed() -> None:
    for sent in ((None, None, []), (b"k", b"", [("a", None), ("a", b"\xff")])):
        assert unpacked(packed(sent)) == sent  # type: ignore[arg-type]


@pytest.mark.parametrize("name", NAMES)
def test_good_records_with_something_wrong_in_them_are_read_or_refused(name: str) -> None:
    pick = random.Random(name)
    traffic = Traffic(7, lambda: NOW, (SPACE.name, SPACE.dimension))
    mine = [seed[1:] for seed in SEEDS if NAMES[seed[0]] == name]
    for _ in range(20 if name == "audience-state" else 200):
        body = pick.choice(mine)
        if name in RECORDS:
            ask(question(name, packed(traffic.bent(unpacked(body), binary=name in ("vectors", "audience-state")))))
        else:
            ask(question(name, traffic.bent((None, body, []), binary=True)[1] or b""))


# A batch whose unpacking tells other lengths than its records have: aiokafka's reader refuses it, the careful one does
# not; and a vector of another space that is too short to have a direction in ours.
ODD_BATCH = (
    b"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00s\xff\xff\xff\xff\x02S\xb6g\xcf\x00\x04\x00\x00\x00\x02\x00\x00\x01"
    b"\x9c\xa8\xd7@\x88\x00\x00\x01\x9c\xa8\xd7@\x8a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x00\x00\x00"
    b"\x03(\xb5/\xfd \xb4\xcd\x01\x00\x94\x02\xfc\x01\x00\x00\x00\x06key\xc8\x01value\x04\x08name\x08said\x08none\x01"
    b"2\xd9\x02\x02\x01\x04\x04\x00\x05\x00`\x04`\xb1'Y\xc1\x0b.\xc6T\xc0"
)
ELSEWHERE = b"CSVE\x01\x01\x02\x00bcl\x00\x00\x00\x00\x15" + bytes(24) + b"\x00W\x0e" + bytes(5)


@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example(name="answer", body=ODD_BATCH)
@example(name="vector", body=ELSEWHERE)
@given(name=st.sampled_from(NAMES), body=st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(name: str, body: bytes) -> None:
    ask(question(name, body))
