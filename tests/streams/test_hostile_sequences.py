"""Any sequence of records on every input of a partition: each is served or buried once, and the state comes back."""

from __future__ import annotations

import gc
from typing import Any

import numpy as np
from confluent_kafka import Message
from decoders import TOPIC_OF, accounted
from hostile_traffic import Traffic
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from streams.audience.decode import Decoded, Decoder, Records, SpaceInUse
from streams.audience.deduplication import Deduplication
from streams.audience.encode import push_record, report_record
from streams.contract.record_size import record_size
from streams.contract.topics import AUDIENCE_STATE, CAMPAIGN_REPORTS, PUSH_TARGETS, Topic
from targeting.catalogue.catalogue import Catalogue
from targeting.config import TargetingConfig
from targeting.partition.partition import Partition
from targeting.rules.policy import Policy
from targeting.types import FrequencyCap

SPACE = SpaceInUse("bcl", 4)
START = 1_800_000_000.0
CONFIG = TargetingConfig(
    policy=Policy(cap=FrequencyCap(3, 24), artist_cap=FrequencyCap(1, 24), holdout=0.1, exploration=0.1)
)


class Partitioned(RuleBasedStateMachine):
    """One partition from records to records, as the worker drives it, with a changelog that a list is."""

    @initialize(seed=st.integers(0, 2**32), wrong=st.sampled_from([0.1, 0.5, 0.9]))
    def begin(self, seed: int, wrong: float) -> None:
        self.now = START
        self.traffic = Traffic(seed, lambda: self.now, wrong=wrong)
        self.offset = 0
        self.log: list[tuple[bytes, bytes | None]] = []
        # Inputs that are their own changelogs: read again at every start.
        self.again: dict[str, list[Message]] = {"preferences": [], "vectors": []}
        self.pushed: set[tuple[str, str, float | None]] = set()
        self.partition = self.fresh()

    def fresh(self) -> Partition:
        songs = Catalogue()
        vectors = np.random.default_rng(0).standard_normal((30, 4)).astype(np.float32)
        songs.set_vectors("bcl", [f"s{n}" for n in range(30)], vectors)
        self.repeats = Deduplication(0)
        return Partition(0, 1, songs, CONFIG)

    def received(self, topic: Topic) -> Message:
        key, value, headers = self.traffic.of(topic)
        self.offset += 1
        more: dict[str, Any] = {"headers": headers} if headers else {}
        return Message(
            topic=topic.name, partition=0, offset=self.offset, key=key, value=value,
            timestamp=(2, int(self.now * 1000)), **more,
        )  # fmt: skip

    def decoded(self, records: Records, again: bool = False) -> Decoded:
        decoded = Decoder(self.now, lambda _: again, 1).decode(records, SPACE, self.repeats)
        if not again:
            accounted(records, decoded)
        return decoded

    def commit(self, decoded: Decoded) -> None:
        staged = self.partition.stage(decoded.inputs)
        for key, value in staged.outputs.changelog:
            assert record_size(key, value) <= AUDIENCE_STATE.largest
        for push in staged.outputs.pushes:
            record = push_record(push, self.now, 0)
            assert record_size(record.key, record.value, record.headers) <= PUSH_TARGETS.largest
            assert self.now <= push.not_before < push.match.expires_at
            once = push.user_id, push.match.recording, push.erased_at
            assert once not in self.pushed
            self.pushed.add(once)
        for account in [*staged.outputs.accounts, *self.partition.accounts()]:
            record = report_record(account, 0, 1, 1, self.now)
            assert record_size(record.key, record.value, record.headers) <= CAMPAIGN_REPORTS.largest
        self.partition.apply(staged)
        self.log += staged.outputs.changelog
        if decoded.seen:
            self.repeats.remember(decoded.seen)

    @rule(sizes=st.fixed_dictionaries({name: st.integers(0, 12) for name in TOPIC_OF}), seconds=st.integers(0, 90_000))
    def batch(self, sizes: dict[str, int], seconds: int) -> None:
        self.now += seconds
        records = Records(
            **{name: [self.received(TOPIC_OF[name]) for _ in range(size)] for name, size in sizes.items()}
        )
        self.commit(self.decoded(records))
        for name, messages in self.again.items():
            messages += getattr(records, name)

    @rule(size=st.integers(1, 12))
    def aborted(self, size: int) -> None:
        """Staged and dropped, as after a rebalance: nothing of it may stay."""
        before = self.partition.digest()
        records = Records(**{name: [self.received(topic) for _ in range(size)] for name, topic in TOPIC_OF.items()})
        self.partition.stage(self.decoded(records).inputs)
        assert self.partition.digest() == before

    @rule()
    def restart(self) -> None:
        before = self.partition.digest()
        self.partition = self.fresh()
        self.partition.restore(iter(self.log))
        assert self.partition.digest() == before
        self.commit(
            self.decoded(Records(**{name: list(messages) for name, messages in self.again.items()}), again=True)
        )

    @invariant()
    def a_fresh_start_finds_the_same_state(self) -> None:
        if not hasattr(self, "partition"):
            return
        songs, repeats = self.partition, self.repeats
        other = self.fresh()
        self.repeats = repeats
        other.restore(iter(self.log))
        assert other.digest() == songs.digest()


def test_no_bad_record_waits_in_a_circle_for_the_collector() -> None:
    machine = Partitioned()
    machine.begin(seed=1, wrong=0.9)
    gc.collect()
    gc.disable()
    try:
        for _ in range(20):
            machine.decoded(
                Records(**{name: [machine.received(topic) for _ in range(40)] for name, topic in TOPIC_OF.items()})
            )
        gc.set_debug(gc.DEBUG_SAVEALL)
        gc.collect()
        assert not [each for each in gc.garbage if isinstance(each, Message)]
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()


TestPartitioned = Partitioned.TestCase
TestPartitioned.settings = settings(
    max_examples=25, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
