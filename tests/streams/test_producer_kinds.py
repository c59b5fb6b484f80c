"""A worker counts what comes by any codec and any kind of producer."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from installation import PRODUCERS, Installation
from test_erased import CLOCK, USER, Scene

from streams.contract.cloudevents import pack
from streams.contract.events import Listen, UserPreferences
from streams.contract.topics import AUDIENCE_STATE, DEAD_LETTERS, LISTENS, PREFERENCES
from targeting.partition.state_keys import USER as HISTORY
from targeting.users.history_record import decode


def test_records_of_every_codec_and_kind_of_producer_are_counted(here: Installation, tmp_path: Path) -> None:
    now = datetime.fromtimestamp(CLOCK.now() - 60, UTC)
    scene, kinds = Scene(here, tmp_path, session_s=6.0), list(PRODUCERS)
    for number, kind in enumerate(kinds):
        listens = [
            Listen(listen_id=f"{kind}-{n}", user_id=USER, song_id=f"s-{number}-{n}", played_at=now, source="organic")
            for n in range(20)
        ]
        stamp = now.timestamp()
        here.send_as(kind, LISTENS, [pack(each, id=each.listen_id, source="t", time=stamp) for each in listens])
        wishes = [UserPreferences(user_id=f"{kind}-{n}", opted_in=False, updated_at=now) for n in range(20)]
        here.send_as(kind, PREFERENCES, [pack(each, id=each.user_id, source="t", time=stamp) for each in wishes])

    scene.work(scene.consumed(LISTENS, 20 * len(kinds)))
    scene.work(lambda: sum(here.committed("audience", PREFERENCES, each) for each in (0, 1)) >= 20 * len(kinds))
    history = [message for message in here.read(AUDIENCE_STATE) if message.key() == HISTORY + USER.encode()][-1]
    (lengths, _) = decode([history.value() or b""])
    assert lengths.tolist() == [20 * len(kinds)]
    assert here.read(DEAD_LETTERS) == []
