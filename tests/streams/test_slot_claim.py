"""Who has a slot keeps it: on this machine by a lock, on others while its session lives."""

from __future__ import annotations

import resource
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from confluent_kafka import Consumer
from installation import PATIENCE_S, Installation

from streams.audience.slot_claim import SlotClaim
from streams.audience.worker import member_of
from streams.contract.errors import Refused
from streams.contract.topics import LISTENS
from streams.kafka.clients import consumer
from streams.runtime.clock import ManualClock, SystemClock

HOLD = """
import sys
from pathlib import Path
from streams.audience.slot_claim import SlotClaim
slot = SlotClaim(Path(sys.argv[1]), "audience-0")
print(slot.client_id, flush=True)
sys.stdin.readline()
"""


def test_a_slot_that_a_process_of_this_machine_has_is_refused_until_that_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout is not None
        held = holder.stdout.readline().strip()
        with pytest.raises(Refused, match=rf"audience-0: another process of this machine \(pid {holder.pid}\)"):
            SlotClaim(tmp_path, "audience-0")
        SlotClaim(tmp_path, "audience-1").close()
        holder.kill()
    with closing(SlotClaim(tmp_path, "audience-0")) as successor:
        # By this it knows its former self in the group.
        assert successor.client_id == held


def test_without_a_place_for_locks_the_group_alone_tells(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    one, other = (SlotClaim(tmp_path / "file" / "slots", "audience-0") for _ in range(2))
    assert one.client_id != other.client_id


def test_a_lock_whose_file_cannot_grow_still_keeps_the_slot_and_its_name(tmp_path: Path) -> None:
    with closing(SlotClaim(tmp_path, "audience-0")) as first:
        pass
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        with closing(SlotClaim(tmp_path, "audience-0")) as second, closing(SlotClaim(tmp_path, "audience-1")):
            assert second.client_id == first.client_id
            with pytest.raises(Refused):
                SlotClaim(tmp_path, "audience-1")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Ticking(ManualClock):
    """A clock on which every look takes a second."""

    def monotonic(self) -> float:
        self.advance(1)
        return self.elapsed


def joined(here: Installation, member: str, client_id: str) -> Consumer:
    reader = consumer(
        here.kafka,
        f"{here.naming.prefix}audience",
        group_instance_id=member,
        client_id=client_id,
        session_timeout_ms=6000,
    )
    reader.subscribe([here.naming.name(LISTENS)])
    clock = SystemClock()
    deadline = clock.monotonic() + PATIENCE_S
    while not reader.assignment():
        reader.poll(0.1)
        assert clock.monotonic() < deadline
    return reader


@pytest.fixture
def slot(here: Installation, tmp_path: Path) -> Iterator[SlotClaim]:
    with closing(SlotClaim(tmp_path, member_of(here.naming, 0))) as slot:
        yield slot


def test_a_slot_that_a_worker_elsewhere_has_is_refused_and_that_one_stays(here: Installation, slot: SlotClaim) -> None:
    member, group, told = member_of(here.naming, 0), f"{here.naming.prefix}audience", set[str]()
    with closing(joined(here, member, f"{member}-{uuid.uuid4().hex}")) as elsewhere:
        with pytest.raises(Refused, match=r"a worker at 127\.0\.0\.1 has this slot and is alive"):
            slot.wait_until_free(here.kafka, group, Ticking(), 6, told.add)
        assert told == {"slot taken from 127.0.0.1: waiting up to 6 s for that worker's session to end"}
        assert elsewhere.assignment()


@pytest.mark.parametrize(
    "former", [pytest.param(None, id="of this release"), pytest.param("rdkafka", id="of one that made no claims")]
)
def test_the_session_of_a_former_self_is_not_waited_for(
    here: Installation, slot: SlotClaim, former: str | None
) -> None:
    member, group = member_of(here.naming, 0), f"{here.naming.prefix}audience"
    # Static members stay in the group when they close.
    joined(here, member, former or slot.client_id).close()
    another = member_of(here.naming, 1)
    joined(here, another, f"{another}-{uuid.uuid4().hex}").close()
    slot.wait_until_free(here.kafka, group, ManualClock(), 6, pytest.fail)
