"""How many listens a second Faust takes, one by one, into a table in RocksDB.

Prints one line of JSON.

    python rival_faust.py BOOTSTRAP TOPIC PARTITIONS COUNT FOLDER

At least once, which is the most that Faust keeps its word on; the table's changelog is written as it does by itself.
"""

from __future__ import annotations

import json
import sys
import time

import faust


def main() -> None:
    bootstrap, name, partitions, count, folder = sys.argv[1:]
    sys.argv = sys.argv[:1]
    app = faust.App(
        f"{name}-faust", broker=f"kafka://{bootstrap}", store="rocksdb://", datadir=folder,
        topic_partitions=int(partitions), topic_replication_factor=1, web_enabled=False,
        consumer_auto_offset_reset="earliest", value_serializer="json", key_serializer="raw",
        processing_guarantee="at_least_once", table_standby_replicas=0,
    )  # fmt: skip
    history = app.Table("history", default=dict, partitions=int(partitions), options={"driver": "rocksdict"})
    seen: list[float] = []

    @app.agent(app.topic(name, key_type=bytes, partitions=int(partitions)))
    async def listen(stream):  # type: ignore[no-untyped-def]
        async for value in stream:
            heard = history[value["user_id"]]
            plays = heard.get(value["song_id"], (0, ""))[0] + value.get("plays", 1)
            heard[value["song_id"]] = (plays, value["played_at"])
            history[value["user_id"]] = heard
            seen.append(time.monotonic())
            if len(seen) == int(count):
                print(json.dumps({"records": len(seen), "per_s": (len(seen) - 1) / (seen[-1] - seen[0])}), flush=True)
                # Its own way out waits for seconds.
                import os

                os._exit(0)

    faust.Worker(app, loglevel="ERROR", debug=False, redirect_stdouts=False).execute_from_commandline()


if __name__ == "__main__":
    main()
