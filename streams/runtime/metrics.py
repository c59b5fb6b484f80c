"""Every metric of both roles, declared once: name, type, unit, labels, meaning.

A role makes its catalogue on its own registry and uses the members: ``metrics.uploads_served.inc()``.
A misspelt member is a type error. ``deploy/metrics.md`` is this module's table (``python -m streams.runtime.metrics``).
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final, Generic, TypeVar, overload

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_NAMESPACE: Final = "coldstart"

# From one commit's cost to "somebody should look": the promises (p99 of 200 and 500 ms) lie on bounds.
_SECONDS: Final = (
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0, 60.0, 300.0,
)  # fmt: skip
_MANY: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000)

M = TypeVar("M", bound="Counter | Gauge | Histogram")


class Declared(Generic[M]):
    """One metric's declaration; on an instance of its catalogue, the live metric itself."""

    def __init__(
        self,
        kind: type[M],
        unit: str,
        meaning: str,
        *,
        labels: Sequence[str] = (),
        buckets: Sequence[float] = (),
    ) -> None:
        self.kind = kind
        self.meaning = meaning
        self.unit = unit
        self.labels = tuple(labels)
        self.buckets = tuple(buckets)
        self.attribute = ""

    def __set_name__(self, owner: type[object], name: str) -> None:
        self.attribute = name

    @overload
    def __get__(self, instance: None, owner: type[object]) -> Declared[M]: ...
    @overload
    def __get__(self, instance: Metrics, owner: type[object]) -> M: ...
    def __get__(self, instance: Metrics | None, owner: type[object]) -> Declared[M] | M:
        if instance is None:
            return self
        live: M = instance.live[self.attribute]
        return live

    @property
    def name(self) -> str:
        """As Prometheus shows it."""
        suffix = "_total" if self.kind is Counter else ""
        return f"{_NAMESPACE}_{self.attribute}{suffix}"

    def make(self, registry: CollectorRegistry) -> M:
        more: dict[str, Any] = {"buckets": self.buckets} if self.buckets else {}
        name = f"{_NAMESPACE}_{self.attribute}"
        return self.kind(name, self.meaning, self.labels, registry=registry, **more)


def _counter(unit: str, meaning: str, *labels: str) -> Declared[Counter]:
    return Declared(Counter, unit, meaning, labels=labels)


def _gauge(unit: str, meaning: str, *labels: str) -> Declared[Gauge]:
    return Declared(Gauge, unit, meaning, labels=labels)


def _seconds(meaning: str, *labels: str) -> Declared[Histogram]:
    return Declared(Histogram, "seconds", meaning, labels=labels, buckets=_SECONDS)


def _many(unit: str, meaning: str, *labels: str) -> Declared[Histogram]:
    return Declared(Histogram, unit, meaning, labels=labels, buckets=_MANY)


class Metrics:
    """A catalogue; its members are the live metrics.

    Args:
        registry: where the metrics are shown; one catalogue may be made once on it.
    """

    def __init__(self, registry: CollectorRegistry) -> None:
        self.live: Final[dict[str, Any]] = {each.attribute: each.make(registry) for each in self.declared()}

    @classmethod
    def declared(cls) -> Iterator[Declared[Any]]:
        """Every metric of this catalogue, the common ones first."""
        for owner in reversed(cls.__mro__):
            yield from (each for each in vars(owner).values() if isinstance(each, Declared))


class RoleMetrics(Metrics):
    """The metrics that every role has."""

    dead_letters = _counter(
        "records",
        "Records that can never be served, by the stage that refused them and the class of error",
        "stage",
        "error",
    )
    bad_bursts = _counter(
        "bursts",
        "Bursts of bad records on an input, by topic and by what was done: went-on, resumed, stopped; once a minute",
        "topic",
        "outcome",
    )
    skipped_records = _counter(
        "records", "Records of cached topics (warm-songs, models, ...) that could not be read", "topic", "error"
    )
    batch_records = _many("records", "Records taken in one batch")
    condition = _gauge(
        "0 or 1", "1 where a condition of /readyz holds, 0 where it keeps the role from being ready", "name"
    )
    disk_free_bytes = _gauge("bytes", "Free space on the disk of paths.cache, for this user")
    lag_records = _gauge(
        "records",
        "Records that wait on an input partition of this worker, from where it would go on",
        "topic",
        "partition",
    )
    lag_seconds = _gauge(
        "seconds", "Age of the oldest of them, 0 when none waits; absent while no broker answers", "topic", "partition"
    )
    records_lost = _counter(
        "records", "Records that were gone before they were read, by topic: retention passed", "topic"
    )


class SongsMetrics(RoleMetrics):
    """What the songs role measures."""

    uploads_received = _counter("uploads", "Upload events read, by type", "type")
    uploads_served = _counter("uploads", "Uploads whose requests were acknowledged for every audience partition")
    uploads_ignored = _counter("uploads", "Uploads that change nothing, by reason", "reason")
    uploads_waiting = _gauge("uploads", "Uploads read and not yet served")
    encode_seconds = _seconds("Content to vectors, for one batch")
    search_seconds = _seconds("Vectors to their most similar warm songs, for one batch")
    upload_to_request_seconds = _seconds("From an upload's timestamp to the last acknowledged request for it")
    requests_sent = _counter("records", "Match requests and other commands, acknowledged by the broker")
    reports_merged = _counter("reports", "Campaign reports that changed a campaign")
    model_space = _gauge("0 or 1", "1 for the embedding space in use, 0 for one that was", "space")
    warm_songs = _gauge("songs", "Songs in the index")
    warm_index = _gauge("0 or 1", "1 for the index that searches warm songs: hnsw or exact", "kind")
    canary_recall = _gauge(
        "share", "Of the true nearest warm songs of a sample of warm songs, the share that the index found"
    )
    unseen_content = _counter("parts", "Tags, categories and features in uploads that the model was not trained on")


class AudienceMetrics(RoleMetrics):
    """What the audience role measures."""

    batch_seconds = _seconds("From the first record of a batch to its commit")
    busy_seconds = _counter(
        "seconds", "Seconds of the worker's loop by activity; the rest of each second is not measured", "activity"
    )
    rebalances = _counter("changes", "Changes of the partitions that this worker holds")
    restore_seconds = _seconds("From assignment to restored state")
    requests_served = _counter("commands", "Commands consumed in a committed transaction, by kind", "kind")
    request_seconds = _seconds("Deciding who gets one song")
    candidates = _many("users", "Listeners considered for one song, in one partition")
    pushes = _counter("pushes", "Push targets committed, by reason", "why")
    pushes_deferred = _counter("pushes", "Of these, put off to the end of the user's quiet hours")
    suppressions = _counter(
        "candidates",
        "Candidates who were not pushed a song, by the first reason that holds (opted-out, not-wanted, heard, "
        "already-pushed, erased, below-threshold, expired, cap-reserved, quiet-hours, frequency-cap, held-out, budget) "
        "and by whether the song was new (initial) or the user came near it later (live)",
        "reason",
        "tier",
    )
    upload_to_push_seconds = _seconds("From an upload's timestamp to the commit of the pushes that answer it")
    listens_applied = _counter("listens", "Listens in the committed state")
    listens_repeated = _counter(
        "listens", "Listens dropped as repeats: their listen_id is among the latest of the partition"
    )
    vectors_applied = _counter("records", "Vectors from outside in the committed state: taken or withdrawn", "change")
    outcomes_applied = _counter("records", "Outcomes of pushes in the committed state")
    preferences_applied = _counter("records", "Preferences in the committed state")
    transactions = _counter(
        "transactions", "Transactions, by outcome; uncertain ones count as what they proved to be, too", "outcome"
    )
    commit_seconds = _seconds("From the first output of a transaction to its commit")
    changelog_records = _counter("records", "Records written to the changelog of the state")
    reports_sent = _counter("reports", "Campaign reports acknowledged by the broker")
    restoring_records = _gauge("records", "Changelog records still to be read by the restore that is going on")
    restoring_seconds = _gauge("seconds", "Time that they will take at the rate so far")
    state_disk_bytes = _gauge("bytes", "Size of a partition's state on this machine's disk", "partition")
    restored_records = _counter("records", "Records read from the changelog or the disk to restore state")
    client_rtt_seconds = _gauge("seconds", "Slowest broker's p99 round trip, by Kafka client", "client")
    client_waiting = _gauge("requests", "Requests that wait to be sent or answered, by Kafka client", "client")
    client_errors = _counter("requests", "Requests that failed or timed out, by Kafka client", "client")
    client_bytes = _counter(
        "bytes", "Bytes exchanged with brokers, by Kafka client and direction", "client", "direction"
    )
    partitions_declared = _gauge("partitions", "Audience partitions of the installation: somebody must serve each")
    partitions = _gauge("partitions", "Partitions that this worker serves")
    users = _gauge("users", "Users with a history, an outside vector or pushes, by partition", "partition")
    campaigns = _gauge("campaigns", "Campaigns alive, by partition", "partition")


class ProbeMetrics(Metrics):
    """What `coldstart probe` measures."""

    probe_seconds = _seconds("From a probe's upload to the campaign in which every partition has answered it")
    probes = _counter("probes", "Probes, by outcome: answered, or late", "outcome")
    probe_answered_timestamp_seconds = _gauge(
        "seconds", "Unix time of the last probe that was answered in time; of the start before the first"
    )


def free_bytes(folder: Path) -> float:
    """What a user may still write where a folder is, or will be; NaN where the system does not say."""
    there = next((each for each in (folder, *folder.parents) if each.exists()), None)
    try:
        return float(shutil.disk_usage(there).free) if there else float("nan")
    except OSError:
        return float("nan")


def table() -> str:
    """The catalogue in Markdown."""
    lines = [
        "# Metrics",
        "",
        "Made from `streams/runtime/metrics.py` by `python -m streams.runtime.metrics > deploy/metrics.md`.",
    ]
    common = set(RoleMetrics.declared())
    sections: list[tuple[str, type[Metrics]]] = [
        ("Both roles", RoleMetrics),
        ("Songs role", SongsMetrics),
        ("Audience role", AudienceMetrics),
        ("`coldstart probe`", ProbeMetrics),
    ]
    for title, catalogue in sections:
        lines += ["", f"## {title}", "", "| metric | type | unit | labels | meaning |", "|---|---|---|---|---|"]
        for each in catalogue.declared():
            if catalogue is RoleMetrics or each not in common:
                kind = each.kind.__name__.lower()
                lines.append(f"| `{each.name}` | {kind} | {each.unit} | {', '.join(each.labels)} | {each.meaning} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table())
