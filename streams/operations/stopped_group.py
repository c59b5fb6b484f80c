"""Waits until a consumer group has no members, so that its offsets may be moved."""

from __future__ import annotations

import time
from typing import Final

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from streams.contract.errors import Refused, Unavailable
from streams.kafka.clients import reason
from streams.runtime.clock import Clock

_PAUSE_S: Final = 0.5


def wait_until_stopped(client: AdminClient, group: str, clock: Clock, patience_s: float, timeout_s: float) -> None:
    """Returns once nobody is in the group: a worker that was killed stays in it until its session ends.

    Args:
        group: full name; one that does not exist has no members.
        patience_s: how long to wait for workers that just ended.

    Raises:
        Refused: somebody is still in it.
        Unavailable: the broker does not answer.
    """
    deadline = clock.monotonic() + patience_s
    while members := _members(client, group, timeout_s):
        if clock.monotonic() > deadline:
            raise Refused(
                f"group {group}: {len(members)} running ({', '.join(sorted(members))}); stop them all, then try again"
            )
        time.sleep(_PAUSE_S)


def _members(client: AdminClient, group: str, timeout_s: float) -> list[str]:
    try:
        found = client.describe_consumer_groups([group], request_timeout=timeout_s)[group].result(timeout_s)
    except (KafkaException, TimeoutError) as error:
        if isinstance(error, KafkaException) and error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND:
            return []
        raise Unavailable(f"group {group}: {reason(error)}") from error
    return [member.client_id for member in found.members]
