"""The records that a step of the script amounts to.

Every moment in them is event time; the broker stamps them with its own. Moments go to the microsecond, vectors and
similarities to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from hashlib import sha256

import numpy as np
from msgspec import structs

from encoder.data.history import History
from streams.contract import vector_codec
from streams.contract.cloudevents import Record, pack
from streams.contract.errors import Refused
from streams.contract.events import Listen, PushTarget
from streams.contract.internal_events import Answers, Chances, LiveModel, MatchRequest, Neighbour, WarmSong
from streams.contract.topics import LISTENS, MATCH_REQUESTS, Topic
from streams.models.learned_chances import MEANS
from streams.models.registry import ENCODER
from streams.testbed.backtest.replay import Pushed, commands
from streams.testbed.backtest.script import Grown, Listened, ModelSwapped, Step
from targeting.calibration import Calibration
from targeting.types import F32, Command, Match, Takedown

SOURCE = "coldstart/backtest"
SCORE_DIGITS = 6
"""A push says its score to so many."""


def inputs(step: Step, history: History) -> tuple[Topic, list[Record]]:
    """What a partition reads of a step, in order, and where.

    Raises:
        Refused: listens of which no record can be made.
    """
    if isinstance(step, Listened):
        return LISTENS, list(_listens(step, history))
    return MATCH_REQUESTS, [_command(each, step.now) for each in commands(step)]


def warm(step: Step) -> list[Record]:
    """The songs that a step makes warm."""
    if isinstance(step, ModelSwapped):
        return [_warm(step.now, step.space, *each) for each in zip(step.ids, step.vectors, strict=True)]
    if isinstance(step, Grown) and step.vector is not None:
        return [_warm(step.now, step.space, step.song_id, step.vector)]
    return []


def model(step: ModelSwapped) -> LiveModel:
    """The model that takes over. Its file is read by the songs role alone, and there is none."""
    return LiveModel(
        name=ENCODER,
        uri=f"backtest:{step.space}",
        manifest_sha256=sha256(np.ascontiguousarray(step.vectors).tobytes()).hexdigest(),
        space=step.space,
        dim=step.vectors.shape[1],
        warm_songs=len(step.ids),
        published_at=_time(step.now),
        chances=_chances(step.chances),
    )


def packed(event: LiveModel, now: float) -> Record:
    return pack(event, id=f"{event.name}/{event.space}/{now}", source=SOURCE, time=now)


def as_told(push: Pushed) -> Pushed:
    """A push as its record tells it."""
    now, at = _time(push.now).timestamp(), _time(push.at).timestamp()
    return push._replace(now=now, at=at, score=round(push.score, SCORE_DIGITS))


def pushed(event: PushTarget) -> Pushed:
    """The push that a record tells of."""
    return Pushed(
        event.decided_at.timestamp(), event.not_before.timestamp(), event.song_id, event.user_id, event.score,
        event.tier == "live",
    )  # fmt: skip


def _listens(step: Listened, history: History) -> Iterator[Record]:
    ids, names = history.dataset.user_ids, history.dataset.song_ids
    rows = range(step.first, step.end)
    columns = (history.user[step.first : step.end], history.song[step.first : step.end])
    plays, at = history.plays[step.first : step.end], history.at[step.first : step.end]
    if not (plays == np.floor(plays)).all() or not (plays >= 1).all():
        raise Refused("a listen stands for a share of a play: a record holds whole plays alone; leave out --stream")
    for row, user, song, times, moment in zip(
        rows, *(each.tolist() for each in (*columns, plays, at)), strict=True
    ):  # fmt: skip
        event = Listen(
            listen_id=str(row), user_id=ids[user], song_id=names[song], played_at=_time(moment), source="organic",
            plays=int(times),
        )  # fmt: skip
        yield pack(event, id=event.listen_id, source=SOURCE, time=moment)


def _command(command: Command, now: float) -> Record:
    at = _time(now)
    event = MatchRequest(song_id=command.song_id, revision=command.revision, uploaded_at=at, expires_at=at)
    if isinstance(command, Takedown):
        return _packed(event, MatchRequest.PROMOTED, now)
    near = [
        Neighbour(name, float(cosine)) for name, cosine in zip(command.neighbours, command.similarities, strict=True)
    ]
    place = {"vector": vector_codec.pack(command.space, command.vector), "neighbours": near}
    if not isinstance(command, Match):
        return _packed(structs.replace(event, **place), MatchRequest.REANCHORED, now)
    asked = structs.replace(
        event, **place, recording=command.recording, title=command.title, artist_ids=list(command.artist_ids),
        budget=command.budget, uploaded_at=_time(command.requested_at), expires_at=_time(command.expires_at),
    )  # fmt: skip
    return _packed(asked, MatchRequest.REQUESTED, now)


def _packed(event: MatchRequest, ce_type: str, now: float) -> Record:
    id = f"{event.song_id}/{ce_type}/{now}"
    return pack(event, ce_type=ce_type, id=id, source=SOURCE, time=now)


def _warm(now: float, space: str, song_id: str, vector: F32) -> Record:
    event = WarmSong(song_id=song_id, space=space, vector=vector_codec.pack(space, vector))
    return pack(event, id=f"{space}/{song_id}", source=SOURCE, time=now)


def _chances(fitted: Calibration | None) -> Chances | None:
    if fitted is None:
        return None
    scores, chances = list(fitted.scores), list(fitted.chances)
    return Chances(scores, chances, MEANS, Answers(fitted.activity, scores, chances))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)
