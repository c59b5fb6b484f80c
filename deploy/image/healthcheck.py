"""Exits with 0 when the role in this container is alive: its ``/livez`` answers 200."""

from __future__ import annotations

import os
import sys
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

TIMEOUT_S = 5


def main() -> str | None:
    """What is wrong; None when the role is alive."""
    ports = (
        os.environ.get("COLDSTART_SONGS__HTTP_PORT", "9101"),
        os.environ.get("COLDSTART_AUDIENCE__HTTP_PORT", "9102"),
        # Of `coldstart probe --every`.
        "9103",
    )
    for port in ports:
        try:
            with urlopen(f"http://127.0.0.1:{port}/livez", timeout=TIMEOUT_S):
                return None
        except HTTPError as error:
            return error.read().decode()
        except (URLError, OSError):
            # The port of another role.
            continue
    return f"no role answers on port {' or '.join(ports)}"


if __name__ == "__main__":
    sys.exit(main())
