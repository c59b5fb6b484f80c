"""Checks that changelog, disk and the workers' own last words agree on the state."""

from __future__ import annotations

import json
from collections.abc import Iterator

from streams.audience.local_store import StoreCorrupted
from streams.audience.main import stores, targeting_config
from streams.contract.errors import Unavailable
from streams.operations.state_digest import digest
from streams.runtime.clock import SystemClock
from streams.testbed.chaos.environment import Environment
from streams.testbed.chaos.promises import Judged
from targeting.catalogue.catalogue import Catalogue
from targeting.partition.partition import Partition


def differences(stage: Environment) -> Iterator[Judged]:
    """Every partition, by each source of its state, and how its digest differs at the same input offsets.

    To be asked after a clean stop of workers with ``audience.digest_at_stop``.
    """
    clock, settings = SystemClock(), stage.settings
    decides, said = targeting_config(settings.audience, obey=True), _said(stage)
    for number in sorted(stage.partitions):
        found = {}
        for source, where in (("the changelog", None), ("the disk", stores(settings, clock))):
            try:
                told = digest(
                    stage.kafka, stage.naming, number, clock,
                    lambda n: Partition(n, stage.naming.audience_partitions, Catalogue(), decides), where,
                )  # fmt: skip
            except (StoreCorrupted, Unavailable) as error:
                yield "state", f"partition {number}: {source} cannot be read ({error})"
                continue
            if told is not None:
                found[source] = told.digest, told.at
        truth = found.get("the changelog")
        if truth is None:
            continue
        if "the disk" in found:
            other = f"partition {number}: the disk says {found['the disk']}, the changelog {truth}"
            yield "state", other if found["the disk"] != truth else None
        own = said.get((number, json.dumps(truth[1], sort_keys=True)))
        if own is None:
            yield "state", f"partition {number}: no worker said what its state was at {truth[1]}"
        else:
            other = f"partition {number}: its worker's state was {own}, the changelog says {truth[0]}"
            yield "state", other if own != truth[0] else None


def _said(stage: Environment) -> dict[tuple[int, str], str]:
    """What workers said of partitions at input offsets."""
    said = {}
    for log in stage.folder.glob("audience-*.log*"):
        for line in log.read_text(errors="replace").splitlines():
            try:
                words = json.loads(line)
            except ValueError:
                continue
            if words.get("event") == "state digest":
                said[words["partition"], json.dumps(words["at"], sort_keys=True)] = words["digest"]
    return said
