"""Brokers: do they answer, do partitions have leaders and copies, do their settings let the roles work?"""

from __future__ import annotations

import socket
from collections import defaultdict
from collections.abc import Iterator
from typing import Any, Final

from confluent_kafka.admin import ConfigResource, ResourceType

from streams.kafka.broker_version import LEVEL_OF_4_0, metadata_level
from streams.operations.doctor.finding import Diagnosis, Patient, error, unknown, warning

_CONNECT_S: Final = 3.0


def reachable(patient: Patient) -> Iterator[Diagnosis]:
    """Each bootstrap server, and then the cluster by the client of the roles."""
    dead: dict[str, str] = {}
    servers = patient.settings.kafka.bootstrap_servers.split(",")
    for server in servers:
        host, _, port = server.rpartition(":")
        try:
            socket.create_connection((host.strip("[]"), int(port)), timeout=_CONNECT_S).close()
        except OSError as problem:
            dead[server] = problem.strerror or str(problem)
    if len(dead) == len(servers):
        named = ", ".join(f"{server} ({why})" for server, why in dead.items())
        yield error(
            f"no broker answers: {named}",
            "start the brokers (here: `coldstart kafka up`), or correct kafka.bootstrap_servers",
        )
        return
    for server, why in dead.items():
        yield warning(f"broker {server} does not answer ({why})", "start it, or take it out of kafka.bootstrap_servers")
    # Raises what stands between this client and the brokers: a password, a certificate, silence.
    _ = patient.client


def version(patient: Patient) -> Iterator[Diagnosis]:
    """The release that the cluster works as, by the first bootstrap server that answers."""
    kafka = patient.settings.kafka
    context = kafka.ssl_context() if kafka.tls else None
    why = ""
    for server in kafka.bootstrap_servers.split(","):
        host, _, port = server.rpartition(":")
        try:
            level = metadata_level(host.strip("[]"), int(port), context)
        except (OSError, ValueError) as problem:
            why = f"{server}: {problem}"
            continue
        if level is None or level < LEVEL_OF_4_0:
            yield warning(
                f"broker version: older than 4.0 (metadata.version {level or 'none'})",
                "upgrade it (kafka-features.sh upgrade after the last broker), or test well: ours are run on 4.3",
            )
        return
    yield unknown(f"broker version: cannot be asked ({why})", "fix what else is found, then try again")


def leaders(patient: Patient) -> Iterator[Diagnosis]:
    """Partitions without a leader, and those with fewer copies in step than they have."""
    brokers = patient.metadata.brokers
    gone: dict[tuple[int, ...], list[str]] = defaultdict(list)
    lacking: dict[tuple[int, ...], list[str]] = defaultdict(list)
    for name, topic in sorted(patient.metadata.topics.items()):
        if not name.startswith((patient.naming.prefix, "__")):
            continue
        for number, part in sorted(topic.partitions.items()):
            if part.leader < 0:
                gone[tuple(sorted(part.replicas))].append(f"{name}[{number}]")
            elif missing := sorted(set(part.replicas) - set(part.isrs)):
                lacking[tuple(missing)].append(f"{name}[{number}]")
    for replicas, names in gone.items():
        away = [each for each in replicas if each not in brokers]
        copies = ", ".join(map(str, replicas))
        yield error(
            f"no leader: {_some(names)}; their copies are on broker {copies}"
            + (f", and broker {', '.join(map(str, away))} is not in the cluster" if away else ""),
            f"start broker {copies}; its log tells why it stopped",
        )
    for behind, names in lacking.items():
        numbers = ", ".join(map(str, behind))
        yield warning(
            f"under-replicated: {_some(names)} without the copy on broker {numbers}",
            f"start broker {numbers}, or wait until it has caught up; another loss may stop these partitions",
        )


def broker_settings(patient: Patient) -> Iterator[Diagnosis]:
    """What brokers allow, against what the roles ask for."""
    songs, audience = patient.settings.songs, patient.settings.audience
    for broker in sorted(patient.metadata.brokers):
        resource = ConfigResource(ResourceType.BROKER, str(broker))
        (future,) = patient.client.describe_configs([resource], request_timeout=patient.timeout).values()
        found = _values(future.result(patient.timeout))
        if found.get("auto.create.topics.enable") == "true":
            yield warning(
                f"broker {broker}: auto.create.topics.enable is true: a misspelt topic becomes a new one",
                "set it to false",
            )
        longest = int(found.get("transaction.max.timeout.ms") or 900_000) / 1000
        if longest < audience.transaction_timeout_s:
            yield error(
                f"broker {broker}: transaction.max.timeout.ms allows {longest:g} s, "
                f"audience.transaction_timeout_s is {audience.transaction_timeout_s:g}",
                "raise the broker's, or lower ours: audience workers cannot begin a transaction",
            )
        shortest = int(found.get("group.min.session.timeout.ms") or 6_000) / 1000
        longest = int(found.get("group.max.session.timeout.ms") or 1_800_000) / 1000
        for key, value in (
            ("songs.session_timeout_s", songs.session_timeout_s),
            ("audience.session_timeout_s", audience.session_timeout_s),
        ):
            if not shortest <= value <= longest:
                yield error(
                    f"broker {broker}: sessions of {shortest:g} to {longest:g} s are allowed, {key} is {value:g}",
                    f"change {key}, or the broker's group.min.session.timeout.ms and group.max.session.timeout.ms",
                )


def _values(entries: Any) -> dict[str, str | None]:
    return {name: entry.value for name, entry in entries.items()}


def _some(names: list[str], most: int = 5) -> str:
    more = len(names) - most
    return ", ".join(names[:most]) + (f" and {more} more" if more > 0 else "")
