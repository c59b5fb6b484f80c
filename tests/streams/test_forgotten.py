"""What a worker keeps beside the state goes with what it was kept for."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
from installation import Installation
from test_worker import CLOCK, Life, here  # noqa: F401 - a fixture

from streams.contract import vector_codec
from streams.contract.cloudevents import pack
from streams.contract.internal_events import MatchRequest
from streams.contract.topics import MATCH_REQUESTS
from streams.runtime.clock import ManualClock


def test_of_a_forgotten_campaign_no_version_is_kept(here: Installation) -> None:  # noqa: F811 - the fixture
    now = CLOCK.now()
    event = MatchRequest(
        song_id="s", revision=1, recording="s", vector=vector_codec.pack("x", np.ones(2, np.float32)), budget=9,
        uploaded_at=datetime.fromtimestamp(now, UTC), expires_at=datetime.fromtimestamp(now + 60, UTC),
    )  # fmt: skip
    here.send(MATCH_REQUESTS, pack(event, ce_type=MatchRequest.REQUESTED, id="s", source="test", time=now))
    clock = ManualClock(now)
    life = Life(here, clock=clock)
    held = life.worker._tasks
    life.until(lambda: 0 in held and len(held[0].versions) == 1)
    # The heart beats once a minute: first the campaign ends, much later it is forgotten.
    for days in (1, 15, 15):
        clock.advance(days * 86_400)
        life.worker.round()
    assert held[0].versions == {}
    assert life.states[-1].campaigns == 0
    life.end()
    again = Life(here)
    again.until(lambda: 0 in again.worker._tasks)
    assert again.worker._tasks[0].versions == {}
    again.end()
