"""A worker's claim to its slot: while another worker has it, a newcomer is refused and disturbs nothing.

Kafka lets the newcomer win: the group and the transactions fence the older worker. So a worker asks first. On one
machine a lock tells, which ends with its process. Across machines the group tells: a member that is still there when
its session would have ended is alive.
"""

from __future__ import annotations

import os
import re
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from fcntl import LOCK_EX, LOCK_NB, flock
from pathlib import Path
from typing import IO, Final

import structlog

from streams.contract.errors import Refused
from streams.kafka.group_members import group_members
from streams.runtime.clock import Clock
from streams.runtime.settings import KafkaSettings

# Beyond the session: the broker notices lost members a moment later.
_MARGIN_S: Final = 3.0

_AGAIN_S: Final = 0.2

# What a lock file holds.
_LINE: Final = re.compile(r"(?P<token>[0-9a-f]{32}) (?P<pid>[ 0-9]{10})\n")

_log = structlog.get_logger(__name__)


class SlotClaim:
    """A slot of the audience role, held by this process until :meth:`close`, or its end.

    Args:
        folder: of the locks of this machine.
        member: the name that the slot's workers have in the group, one after another.

    Raises:
        Refused: another process of this machine has it.
    """

    def __init__(self, folder: Path, member: str) -> None:
        self._member = member
        self._lock: IO[str] | None = None
        token = uuid.uuid4().hex
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = os.fdopen(os.open(folder / f"{member}.lock", os.O_RDWR | os.O_CREAT, 0o600), "r+")
        except OSError as error:
            # Without a lock the group alone tells, and a restart waits for the session of its former self.
            _log.warning("no lock for this slot", error=str(error))
        else:
            known = _LINE.match(lock.read(100))
            try:
                flock(lock, LOCK_EX | LOCK_NB)
            except BlockingIOError:
                lock.close()
                pid = known["pid"].strip() if known else "unknown"
                raise Refused(
                    f"{member}: another process of this machine (pid {pid}) has this slot; "
                    "give every audience worker a --slot of its own"
                ) from None
            token = known["token"] if known else token
            # In place and of one length, so that a full disk takes it too; on one that does not, it stays as it is.
            with suppress(OSError):
                os.pwrite(lock.fileno(), f"{token} {os.getpid():10}\n".encode(), 0)
            self._lock = lock
        self.client_id = f"{member}-{token}"
        """Of the group's member: says by which lock it is held."""

    def wait_until_free(
        self, kafka: KafkaSettings, group: str, clock: Clock, session_s: float, waiting: Callable[[str], None]
    ) -> None:
        """Return when no worker of another machine has the slot.

        A member with our own client id was our former self: we hold its lock, so it is dead. A worker of a release that
        made no claims is not waited for: the group fences it when we join, as that release had it.

        Args:
            waiting: told what is waited for.

        Raises:
            Refused: a worker elsewhere has it, and is alive.
            Unavailable: the group cannot be described.
        """
        deadline = clock.monotonic() + session_s + _MARGIN_S
        claim = re.compile(rf"{re.escape(self._member)}-[0-9a-f]{{32}}")
        while True:
            claims = [each for each in group_members(kafka, group).members if claim.fullmatch(each.client_id)]
            others = [each for each in claims if each.client_id != self.client_id]
            if not others:
                return
            host = others[0].host
            if clock.monotonic() > deadline:
                raise Refused(
                    f"{self._member}: a worker at {host} has this slot and is alive; "
                    "give every audience worker a --slot of its own"
                )
            waiting(f"slot taken from {host}: waiting up to {session_s:g} s for that worker's session to end")
            time.sleep(_AGAIN_S)

    def close(self) -> None:
        if self._lock is not None:
            self._lock.close()
