# %% [markdown]
# # Read a running system into pandas
#
# What was pushed, to whom, and how the campaigns stand: topics as data frames. The events decode into the structs of
# the contract, so that a misspelt field is an error. Settings come from the environment, as everywhere.

# %%
from collections.abc import Iterator

import msgspec
import pandas as pd
from confluent_kafka import Consumer, TopicPartition

from streams.contract.events import Campaign, Event, PushTarget
from streams.runtime.settings_sources import load_settings

settings = load_settings()
naming = settings.topics.naming()


def read(cls: type[Event]) -> Iterator[dict]:
    """Every committed record of an event's topic, from its beginning to its present end."""
    consumer = Consumer(
        settings.kafka.confluent() | {"group.id": "notebook", "enable.auto.commit": False, "enable.partition.eof": True}
    )
    topic = naming.name(cls.TOPIC)
    parts = consumer.list_topics(topic, timeout=10).topics[topic].partitions
    consumer.assign([TopicPartition(topic, part, 0) for part in parts])
    open_parts = set(parts)
    while open_parts:
        message = consumer.poll(1)
        if message is not None and message.error():
            open_parts.discard(message.partition())  # its end
        elif message is not None and message.value():
            yield msgspec.structs.asdict(msgspec.json.decode(message.value(), type=cls))
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
