"""Uploads one song. Needs confluent-kafka alone: `pip install confluent-kafka`, then `python upload.py`."""

import json
import os
import time

from confluent_kafka import Producer

servers = os.environ.get("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")
prefix = os.environ.get("COLDSTART_TOPICS__PREFIX", "coldstart.")
song = {"song_id": "s-81", "revision": 1, "title": "Small Hours", "artist_ids": ["a-7"], "tags": {"dream pop": 3}}
headers = {
    "ce_id": f"{song['song_id']}/{song['revision']}",  # sent again under the same id, it changes nothing
    "ce_source": "upload-service/python",
    "ce_specversion": "1.0",
    "ce_time": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
    "ce_type": "coldstart.song.uploaded.v1",
    "content-type": "application/json",
}
# Java, JavaScript and Go place keys as the service does by themselves; librdkafka must be told to.
producer = Producer({"bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.idempotence": True})
sent, refused = [], []


def told(error, message):
    if error is None:
        sent.append(f"{message.topic()}[{message.partition()}]")
    else:
        refused.append(str(error))


producer.produce(f"{prefix}song-uploads", json.dumps(song), song["song_id"], headers=headers, on_delivery=told)
producer.flush(30)
if not sent:  # It may lie there all the same: send it again, under the same id.
    raise SystemExit(f"{song['song_id']}: not acknowledged: {refused or 'no answer within 30 s'}; run this again")
print(f"sent to {sent[0]}")
