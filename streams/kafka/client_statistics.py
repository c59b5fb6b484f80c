"""What librdkafka measures of itself, as metrics of a client that has a name."""

from __future__ import annotations

import json
from collections import Counter as Tally
from typing import Any, Final

from streams.kafka.clients import Statistics
from streams.runtime.metrics import AudienceMetrics

_MICROSECONDS: Final = 1e-6

# What grows, over brokers: as the client says it, and which counter with which further labels follows it.
_GROWING: Final = {
    "txerrs": ("client_errors", ()),
    "rxerrs": ("client_errors", ()),
    "req_timeouts": ("client_errors", ()),
    "txbytes": ("client_bytes", ("sent",)),
    "rxbytes": ("client_bytes", ("received",)),
}


def statistics_of(metrics: AudienceMetrics, client: str) -> Statistics:
    """A ``stats_cb`` that keeps the metrics of one client.

    Args:
        client: one of a few names that the code gives, never an id: it is a label.
    """
    known: Tally[str] = Tally()

    def show(text: str) -> None:
        brokers: list[dict[str, Any]] = list(json.loads(text).get("brokers", {}).values())
        up = [each for each in brokers if each.get("state") == "UP"]
        rtt = max((each.get("rtt", {}).get("p99", 0) for each in up), default=0)
        metrics.client_rtt_seconds.labels(client).set(rtt * _MICROSECONDS)
        waiting = sum(each.get("outbuf_cnt", 0) + each.get("waitresp_cnt", 0) for each in brokers)
        metrics.client_waiting.labels(client).set(waiting)
        for name, (metric, more) in _GROWING.items():
            total = sum(each.get(name, 0) for each in brokers)
            # A broker that left takes its count with it.
            getattr(metrics, metric).labels(client, *more).inc(max(0, total - known[name]))
            known[name] = total

    return show
