"""Who is in a consumer group, asked by a client that survives the answer.

librdkafka's requests to a group's coordinator (describe a group, list its offsets) use freed memory when the connection
breaks at the wrong moment, and the process aborts: its issue 4605, seen on a network that cuts answers. A worker that
asks for months must not end by a question, so it asks through aiokafka. Questions are rare: each opens its own
connection.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Final

from streams.contract.errors import Unavailable
from streams.runtime.settings import KafkaSettings

_AGAIN_S: Final = 0.2
# To connect, to learn versions, to ask for brokers, for the coordinator, for the group.
_STEPS: Final = 5


@dataclass(frozen=True, slots=True)
class GroupMember:
    """One of a group.

    Attributes:
        client_id: as its client calls itself.
        host: where it connects from.
        partitions: numbers of the partitions that it was assigned, of any topic.
    """

    client_id: str
    host: str
    partitions: frozenset[int]


@dataclass(frozen=True, slots=True)
class GroupMembers:
    """All of a group at one moment.

    Attributes:
        settled: whether nobody joins or leaves just now; only then every member's partitions are known.
    """

    settled: bool
    members: tuple[GroupMember, ...]

    @property
    def held(self) -> frozenset[int] | None:
        """The numbers of the partitions that members have; None while members come and go."""
        if not self.settled:
            return None
        return frozenset(number for member in self.members for number in member.partitions)


def group_members(kafka: KafkaSettings, group: str) -> GroupMembers:
    """Ask the group's coordinator; while that is being moved, or reads its log, again.

    Raises:
        Unavailable: no answer within the request timeout, or this client may not describe the group.
    """
    # The calling thread may run an event loop one day; this one is private.
    return asyncio.run(_ask(kafka, group))


async def _ask(kafka: KafkaSettings, group: str) -> GroupMembers:
    # Loaded where a group is asked about: few commands do.
    from aiokafka.admin import AIOKafkaAdminClient  # type: ignore[import-untyped]
    from aiokafka.errors import (  # type: ignore[import-untyped]
        GroupCoordinatorNotAvailableError,
        GroupLoadInProgressError,
        KafkaError,
        NotCoordinatorForGroupError,
        for_code,
    )

    # A step ends by itself before the whole is cancelled: a connection that is cancelled while it is made is left open.
    step_ms = int(kafka.request_timeout_s * 1000 / _STEPS)
    client: Any = AIOKafkaAdminClient(request_timeout_ms=step_ms, **kafka.aiokafka())
    moving: Exception | None = None
    try:
        async with asyncio.timeout(kafka.request_timeout_s):
            await client.start()
            while True:
                try:
                    (answer,) = await client.describe_consumer_groups([group])
                    ((code, _, state, _, _, members, *_),) = answer.groups
                    if code:
                        raise for_code(code)
                except (
                    GroupLoadInProgressError,
                    GroupCoordinatorNotAvailableError,
                    NotCoordinatorForGroupError,
                ) as error:
                    moving = error
                    await asyncio.sleep(_AGAIN_S)
                else:
                    return GroupMembers(state == "Stable", tuple(_member(*each) for each in members))
    except (KafkaError, OSError, TimeoutError) as error:
        raise Unavailable(f"group {group}: cannot be described ({moving or error!r})") from error
    finally:
        await client.close()


def _member(_: str, client_id: str, host: str, __: bytes, assignment: bytes) -> GroupMember:
    from aiokafka.coordinator.protocol import ConsumerProtocolMemberAssignment  # type: ignore[import-untyped]

    # Of a member that has just joined, there is none.
    topics = ConsumerProtocolMemberAssignment.decode(assignment).assignment if assignment else ()
    return GroupMember(client_id, host.lstrip("/"), frozenset(number for _, numbers in topics for number in numbers))
