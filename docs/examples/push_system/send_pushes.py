"""A push system in 20 lines, on `push_system.py`: `PROVIDER=http://localhost:8000/ python send_pushes.py`."""

import json
import logging
import os
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from push_system import PushSystem, Rejected


def send(push: dict[str, Any]) -> None:
    """One notification. The provider sends once whatever comes under one idempotency key."""
    headers = {"content-type": "application/json", "idempotency-key": push["push_id"]}
    body = {"to": push["user_id"], "title": push["title"], "song": push["song_id"]}
    try:
        urlopen(Request(os.environ["PROVIDER"], json.dumps(body).encode(), headers), timeout=10).close()
    except HTTPError as error:
        if 400 <= error.code < 500:
            raise Rejected(error.code) from None
        raise  # it is tried again, under the same key


logging.basicConfig()
servers = os.environ.get("COLDSTART_KAFKA__BOOTSTRAP_SERVERS", "localhost:9092")
prefix = os.environ.get("COLDSTART_TOPICS__PREFIX", "coldstart.")
PushSystem(servers, os.environ.get("STORE", "pushes.db"), send, idempotent=True, prefix=prefix).run()
