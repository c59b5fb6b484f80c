# %% [markdown]
# # Read a running system into pandas
#
# What was pushed, to whom, and how the campaigns stand: topics as data frames. The events decode into the structs of
# the contract, so that a misspelt field is an error. Settings come from the environment, as everywhere.

# %%
from collections.abc import Iterator

import msgspec
import pandas as pd
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition

from streams.contract.events import Campaign, Event, PushTarget
from streams.runtime.settings_sources import load_settings

# How long Kafka may be silent. After that it is an error: half of a topic must not pass for all of it.
PATIENCE_S = 30.0

settings = load_settings()
naming = settings.topics.naming()


def read(cls: type[Event]) -> Iterator[dict]:
    """Every committed record of an event's topic, from its beginning to its present end."""
    consumer = Consumer(
        settings.kafka.confluent() | {"group.id": "notebook", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    topic = naming.name(cls.TOPIC)
    there = consumer.list_topics(topic, timeout=PATIENCE_S).topics[topic]
    if there.error is not None:
        raise KafkaException(there.error)
    consumer.assign([TopicPartition(topic, part, OFFSET_BEGINNING) for part in there.partitions])
    open_parts = set(there.partitions)
    while open_parts:
        message = consumer.poll(PATIENCE_S)
        if message is None:
            raise TimeoutError(f"{topic}: {PATIENCE_S:g} s of silence before the ends of partitions {open_parts}")
        if message.error() is None:
            if message.value():
                yield msgspec.structs.asdict(msgspec.json.decode(message.value(), type=cls))
        elif message.error().code() == KafkaError._PARTITION_EOF:
            open_parts.discard(message.partition())
        else:
            raise KafkaException(message.error())
    consumer.close()


# %% [markdown]
# Pushes by song: how many, how sure, from which term.

# %%
pushes = pd.DataFrame(read(PushTarget), columns=PushTarget.__struct_fields__)
pushes["why"] = [reason.why for reason in pushes.reason]
print(pushes.groupby(["song_id", "why"]).agg(users=("user_id", "nunique"), score=("score", "mean")))

# %% [markdown]
# Campaigns, compacted by song: the last record of each counts.

# %%
campaigns = pd.DataFrame(read(Campaign), columns=Campaign.__struct_fields__).drop_duplicates("song_id", keep="last")
counts = pd.DataFrame([msgspec.to_builtins(each) for each in campaigns.counts], index=campaigns.song_id)
print(campaigns.set_index("song_id")[["status", "revision"]].join(counts))
