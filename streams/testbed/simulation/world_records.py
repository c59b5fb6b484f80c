"""The records that happenings in the world amount to.

Listens carry simulated time, so that tastes fade as they would; the simulated days end about now. What the wall clock
decides, caps and the ends of campaigns, runs in compressed days; pushes are answered at the wall clock's time.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import msgspec
import numpy as np
from scipy import sparse

from encoder.data.dataset import Dataset
from encoder.data.generate import content
from encoder.data.world import DAY, song_id, user_id
from streams.contract.cloudevents import Record, pack
from streams.contract.events import Listen, PushOutcome, PushTarget, UserPreferences
from streams.testbed.demo.dataset_events import upload_event, upload_record
from streams.testbed.simulation.life import Life, PushResponses, WorldListens
from streams.testbed.simulation.scenario import Scenario

SOURCE = "coldstart/simulate"

Outcome = Literal["delivered", "failed", "opened", "dismissed", "expired"]


@dataclass(frozen=True, slots=True)
class Compressed:
    """Compressed time: since ``began``, Unix seconds of the launch, a simulated day passes in ``day_s`` seconds."""

    scenario: Scenario
    began: float
    day_s: float

    def due(self, at: float) -> float:
        """The Unix seconds at which a simulated moment, seconds since the world's start, comes."""
        return self.began + (at - self.scenario.launch) / DAY * self.day_s

    def stamp(self, at: float) -> float:
        """What a listen at a simulated moment is stamped with: the watched days end at ``began``."""
        return self.began - self.scenario.days * DAY + at - self.scenario.launch


def dataset(life: Life) -> Dataset:
    """What the encoder may be trained on: all content, and the listens before the launch."""
    scenario, past = life.scenario, life.past
    n = scenario.world.songs
    shape = (n, scenario.users)
    plays = sparse.csr_matrix((np.ones(len(past), np.float32), (past.songs, past.users)), shape=shape)
    return Dataset(
        name="simulated",
        content=content(scenario.world),
        user_ids=tuple(user_id(row) for row in range(scenario.users)),
        plays=plays,
        titles=tuple(f"Song {row}" for row in range(n)),
    )


def upload(data: Dataset, row: int, clock: Compressed, at: float) -> Record:
    """The upload of a new song at a simulated moment."""
    scenario = clock.scenario
    ends = datetime.fromtimestamp(clock.due(at + scenario.campaign_days * DAY), UTC)
    event = msgspec.structs.replace(upload_event(data, row, scenario.budget), expires_at=ends)
    return upload_record(event, clock.due(at))


def listens(heard: WorldListens, clock: Compressed, push_ids: list[str] | None = None) -> Iterator[Record]:
    """One record a listen, in order; ``push_ids``: the push that led to each."""
    columns = (heard.users, heard.songs, heard.at, heard.completed, heard.collected)
    for n, (user, song, at, completed, collected) in enumerate(zip(*(c.tolist() for c in columns), strict=True)):
        id, time = f"{user}/{song}/{at:.3f}", clock.stamp(at)
        event = Listen(
            listen_id=id,
            user_id=user_id(user),
            song_id=song_id(song),
            played_at=datetime.fromtimestamp(time, UTC),
            source="push" if push_ids else "organic",
            completed=completed,
            collected=collected,
            push_id=push_ids[n] if push_ids else None,
        )
        yield pack(event, id=id, source=SOURCE, time=time)


def outcomes(pushes: list[PushTarget], answers: PushResponses, now: float) -> Iterator[Record]:
    """What the push system tells: failed, or delivered and then one more."""
    at = datetime.fromtimestamp(now, UTC)
    for n, push in enumerate(pushes):
        told: tuple[Outcome, ...] = ("failed",) if answers.failed[n] else ("delivered", _what(answers, n))
        for outcome in told:
            event = PushOutcome(
                push_id=push.push_id, user_id=push.user_id, song_id=push.song_id, outcome=outcome, at=at
            )  # fmt: skip
            id = f"{push.push_id}/{outcome}"
            yield pack(event, id=id, source=SOURCE, time=now)


def opt_outs(answers: PushResponses, now: float) -> Iterator[Record]:
    """The preferences of those who take no pushes any more."""
    for user in answers.left.tolist():
        event = UserPreferences(user_id=user_id(user), opted_in=False, updated_at=datetime.fromtimestamp(now, UTC))
        yield pack(event, id=f"{user}/left", source=SOURCE, time=now)


def _what(answers: PushResponses, n: int) -> Outcome:
    return "opened" if answers.opened[n] else "dismissed" if answers.dismissed[n] else "expired"
