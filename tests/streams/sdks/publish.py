"""Publishes events with the CloudEvents SDK for Python: python publish.py BOOTSTRAP < events."""

import json
import sys

from cloudevents.core.bindings.kafka import to_binary, to_structured
from cloudevents.core.formats.json import JSONFormat
from cloudevents.core.v1.event import CloudEvent
from confluent_kafka import Producer
from dateutil.parser import isoparse

producer = Producer({"bootstrap.servers": sys.argv[1], "partitioner": "murmur2_random", "enable.idempotence": True})
for line in sys.stdin:
    said = json.loads(line)
    attributes = said["attributes"] | {"time": isoparse(said["attributes"]["time"])}
    convert = {"binary": to_binary, "structured": to_structured}[said["mode"]]
    message = convert(CloudEvent(attributes, said["data"]), JSONFormat(), lambda _, key=said["key"]: key)
    producer.produce(said["topic"], message.value, message.key, headers=message.headers)
sys.exit(producer.flush(60))
