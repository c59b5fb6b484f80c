"""The push system that others copy, on a network that lies: each push once, and none that was withdrawn before."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from installation import Installation
from lying_network import Api, LyingNetwork, seeded
from test_push_system import World, at, settled

LIVES, FAULTS = 2, 15
"""How often the process is started again, and how many faults each life meets."""

DEFERRED_S = 30.0
USERS, SONGS = 25, 12
ODDS = {
    Api.PRODUCE: 0.2, Api.FETCH: 0.1, Api.METADATA: 0.3, Api.LIST_OFFSETS: 0.3, Api.OFFSET_COMMIT: 0.3,
    Api.FIND_COORDINATOR: 0.3, Api.INIT_PRODUCER_ID: 0.3,
}  # fmt: skip
# What is not answered is given up soon.
IMPATIENT = {"socket.timeout.ms": 1_500, "reconnect.backoff.max.ms": 200}


class Withdrawing(World):
    """A world in which pushes come and are withdrawn between steps, and that notes those which come too late."""

    def __init__(self, here: Installation, store: Path, draw: random.Random) -> None:
        super().__init__(here, store)
        self.draw = draw
        self.pushes: dict[str, tuple[str, str]] = {}
        self.no_longer: set[str] = set()
        """Users who opted out or were erased, and songs that were taken down."""
        self.too_late: list[str] = []

    @property
    def withdrawn(self) -> set[str]:
        return {push_id for push_id, of in self.pushes.items() if self.no_longer & {*of}}

    def send(self, push: dict[str, Any]) -> None:
        if self.no_longer & {push["user_id"], push["song_id"]}:
            self.too_late.append(push["push_id"])
        super().send(push)

    def goes_on(self) -> None:
        """Some seconds pass: pushes are decided, users and songs leave; all of it is acknowledged."""
        self.now += 2
        # An erasure from further ahead of the broker's clock counts from its record's time.
        assert self.now < self.start + 250
        for _ in range(self.draw.randrange(4)):
            push_id, user, song = f"p-{len(self.pushes)}", self._user(), self._song()
            self.pushes[push_id] = user, song
            self.push(push_id, user=user, song=song, due=self.draw.uniform(0.0, DEFERRED_S) + self.now - self.start)
        happens = self.draw.random()
        if happens < 0.12:
            self.wishes(user := self._user(), opted_in=False)
            self.no_longer.add(user)
        elif happens < 0.24:
            self.wishes(user := self._user(), erase_requested_at=at(self.now))
            self.no_longer.add(user)
        elif happens < 0.36:
            self.campaign(song := self._song(), "taken-down")
            self.no_longer.add(song)

    def _user(self) -> str:
        return f"u-{self.draw.randrange(USERS)}"

    def _song(self) -> str:
        return f"s-{self.draw.randrange(SONGS)}"


@pytest.mark.parametrize("seed", [1, 2])
def test_each_push_is_sent_once_or_was_withdrawn_whatever_the_network_does(
    here: Installation, tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("push_system.PATIENCE_S", 2.0)
    world = Withdrawing(here, tmp_path / "pushes.db", random.Random(seed))
    with LyingNetwork(here.kafka.bootstrap_servers) as net:
        for life in range(LIVES):
            net.be_honest()
            system = world.system(servers=net.bootstrap_servers, kafka=IMPATIENT)
            net.take_chances(seeded(LIVES * seed + life, ODDS, 0.5))
            while net.struck.total() < (life + 1) * FAULTS:
                world.goes_on()
                system.step(wait_s=0.2)
        amid_faults = len(world.sent)
        net.be_honest()
        world.now += DEFERRED_S
        settled(system, lambda: {*world.sent} | world.withdrawn >= world.pushes.keys())
        settled(system, lambda: not system._store.execute("SELECT 1 FROM outcomes").fetchall())
        world.close()
    print(f"\n{net.struck.total()} faults, {amid_faults} of {len(world.sent)} sent amid them: {dict(net.struck)}")
    assert world.too_late == []
    assert Counter(world.sent) == dict.fromkeys(world.sent, 1)
    # Of a user who was erased since, nothing more is reported.
    reported, wanted = world.outcomes(), set(world.sent) - world.withdrawn
    assert reported == {push_id: ["delivered"] for push_id in reported.keys() & {*world.sent} | wanted}
    assert amid_faults > 0
