"""Whether any broker answers, and whether the inputs are still the topics they were, asked on a thread of its own."""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from typing import Final, Self

import structlog
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from streams.contract.errors import Unavailable
from streams.kafka.topic_identity import topic_ids
from streams.runtime.clock import Clock
from streams.runtime.exit_codes import REFUSED, RESTART, leave
from streams.runtime.health import Condition
from streams.runtime.settings import KafkaSettings

_EVERY_S: Final = 1.0
_ANSWER_S: Final = 2.0
# Two failures in a row: a single one may be a busy machine.
_PATIENCE_S: Final = 4.0
# A topic that is gone for this long is not one that is created again in the next moment.
_GONE_S: Final = 5.0

_log = structlog.get_logger(__name__)


class Reachability:
    """Holds a condition while brokers answer; says in one log line when they stop, and in one when they are back.

    A consuming client does not tell: it waits for as long as the brokers are away. A frozen broker keeps its
    connections open and answers nothing.

    Args:
        condition: of the role's readiness.
        topics: full names of the inputs. When one of them becomes another topic of the same name, the process ends
            with exit code 2: positions that it would go on to write say nothing of the new one.
        needed: full names of all topics that the role cannot do without. When one that was there is gone, the condition
            fails, and after some seconds the process ends with exit code 75 and the topic's name.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        condition: Condition,
        clock: Clock,
        topics: Collection[str] = (),
        needed: Collection[str] = (),
    ) -> None:
        # The role's own clients log that connections fail; this one would say so again every second.
        silent = logging.getLogger("librdkafka.reachability")
        silent.propagate = False
        silent.addHandler(logging.NullHandler())
        self._client = AdminClient(kafka.confluent(), logger=silent)
        self._condition = condition
        self._clock = clock
        self._topics = topics
        self._ids: dict[str, str] = {}
        self._needed = {*topics, *needed}
        self._seen: set[str] = set()
        self._gone_since: float | None = None
        self._answered = clock.monotonic()
        self._since: float | None = None
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="reachability", daemon=True)

    def start(self) -> Self:
        """Begin to ask; ends with :meth:`close`."""
        self._thread.start()
        return self

    def ask(self) -> None:
        """Ask once, and set the condition by the answer."""
        try:
            present = set(self._client.list_topics(timeout=_ANSWER_S).topics)
        except KafkaException as error:
            self._silent(error.args[0].str())
            return
        self._answered = self._clock.monotonic()
        self._look_for(present)
        if self._since is not None:
            _log.warning("kafka answers again", after_s=round(self._clock.monotonic() - self._since))
            self._since = None
        self._compare()

    def _look_for(self, present: set[str]) -> None:
        """Hold the condition while every topic is there that was there before."""
        self._seen |= self._needed & present
        gone = ", ".join(sorted(self._seen - present))
        if not gone:
            self._gone_since = None
            self._condition.holds()
            return
        why = f"topic {gone}: deleted while it was in use, or hidden from this user"
        self._condition.fails(why)
        if self._gone_since is None:
            self._gone_since = self._answered
            _log.error("topic gone", topic=gone)
        if self._answered - self._gone_since >= _GONE_S:
            leave(
                RESTART,
                f"{why}; `coldstart topics create` creates what is missing, `coldstart topics adopt` accepts it",
            )

    def close(self) -> None:
        self._closed.set()
        self._thread.join(_ANSWER_S + 1)

    def _silent(self, why: str) -> None:
        if self._clock.monotonic() - self._answered < _PATIENCE_S:
            return
        if self._since is None:
            self._since = self._answered
            _log.error("no broker answers", why=why)
        seconds = self._clock.monotonic() - self._since
        at = datetime.fromtimestamp(self._clock.now() - seconds, UTC)
        self._condition.fails(f"no broker answers since {at:%H:%M:%S} UTC ({seconds:.0f} s)")

    def _compare(self) -> None:
        try:
            ids = topic_ids(self._client, self._topics, _ANSWER_S) if self._topics else {}
        except Unavailable:
            # Missing for now, or no answer: the next one tells.
            return
        for name, id in ids.items():
            former = self._ids.setdefault(name, id)
            if id != former:
                leave(
                    REFUSED,
                    f"topic {name} was deleted and created again while it was read (id {former}, now {id}); "
                    "`coldstart topics adopt` with its name accepts the new one, read from its beginning",
                )

    def _watch(self) -> None:
        while not self._closed.wait(_EVERY_S):
            self.ask()
