"""Workers: do they answer, are they ready, is every partition held, does every group make progress?"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

from confluent_kafka import KafkaError, KafkaException

from streams.operations.doctor.finding import Diagnosis, Patient, error, unknown, warning
from streams.operations.lag_judge import PartitionState
from streams.operations.lag_window import declared_inputs, one_window

_ANSWER_S: Final = 3.0
_WINDOW_S: Final = 10.0


def processes(patient: Patient) -> Iterator[Diagnosis]:
    """Each worker's health server."""
    versions: dict[str, list[str]] = defaultdict(list)
    slots: dict[tuple[str, object], list[str]] = defaultdict(list)
    for url in _urls(patient):
        try:
            ready = _asked(f"{url}/readyz")
            status = _asked(f"{url}/status")
        except TimeoutError:
            yield error(
                f"worker at {url}: frozen: its port is open, and nothing answers in {_ANSWER_S:g} s",
                "look at its process (state T: a signal stopped it, `kill -CONT`; D: a disk holds it up), or restart",
            )
            continue
        except ConnectionError as problem:
            yield error(
                f"worker at {url}: stopped: nothing listens there ({problem})",
                "start it (`coldstart worker songs`, `coldstart worker audience`); its last log line and exit code "
                "tell why it ended. Elsewhere: name each with --at http://host:port",
            )
            continue
        except OSError as problem:
            yield unknown(f"worker at {url}: cannot be asked ({problem})", "correct --at http://host:port")
            continue
        for name, reason in ready.get("conditions", {}).items():
            if reason != "ok":
                yield error(f"worker at {url} is not ready: {name}: {reason}", "do what the reason says")
        for name, note in ready.get("notes", {}).items():
            yield warning(f"worker at {url}: {name}: {note}", "do what the note says")
        if "version" in status:
            versions[str(status["version"])].append(url)
        if status.get("slot") is not None:
            slots[str(status.get("prefix")), status["slot"]].append(url)
    if len(versions) > 1:
        named = "; ".join(f"{version}: {', '.join(urls)}" for version, urls in sorted(versions.items()))
        yield warning(f"workers of different versions: {named}", "roll the older ones, one after the other")
    for (_, slot), urls in slots.items():
        if len(urls) > 1:
            yield error(f"duplicate slot {slot}: {', '.join(urls)}", "give every audience worker a --slot of its own")


def members(patient: Patient) -> Iterator[Diagnosis]:
    """Both roles' groups: who is in them, and whether two have one slot."""
    groups = list(declared_inputs(patient.naming))
    answers = patient.client.describe_consumer_groups(groups, request_timeout=patient.timeout)
    for group, answer in answers.items():
        try:
            described = answer.result(patient.timeout)
        except KafkaException as problem:
            if problem.args[0].code() != KafkaError.GROUP_ID_NOT_FOUND:
                raise
            described = None
        role = group.removeprefix(patient.naming.prefix)
        if described is None or not described.members:
            yield error(f"nobody is in group {group}", f"start a worker: `coldstart worker {role}`")
            continue
        names = Counter(each.group_instance_id for each in described.members if each.group_instance_id)
        for name, number in names.items():
            if number > 1:
                hosts = [each.host.lstrip("/") for each in described.members if each.group_instance_id == name]
                yield error(
                    f"duplicate slot: {number} members of {group} are {name} ({', '.join(hosts)})",
                    "give every audience worker a --slot of its own",
                )


def progress(patient: Patient) -> Iterator[Diagnosis]:
    """Lag by state, over a window."""
    found = one_window(patient.settings.kafka, patient.naming, patient.clock, _WINDOW_S)
    for gap in found.gaps:
        yield error(gap, "see above")
    kinds: dict[tuple[str, str, PartitionState], list[Any]] = defaultdict(list)
    for row in found.rows:
        if row.state not in (None, PartitionState.OK):
            kinds[row.lag.group, row.lag.topic, row.state].append(row.lag)
    for (group, topic, state), lags in kinds.items():
        seconds = max((lag.seconds for lag in lags if lag.seconds is not None), default=None)
        oldest = "" if seconds is None else f", the oldest for {seconds:,.0f} s"
        parts, records = ", ".join(str(lag.partition) for lag in lags), sum(lag.records for lag in lags)
        yield (warning if state is PartitionState.WARN else error)(
            f"{state}: {group} on {topic}, partition {parts}: {records:,} records wait{oldest}",
            state.meaning,
        )


def statuses(patient: Patient) -> dict[str, dict[str, Any]]:
    """``/status`` of the workers that answer, by URL."""
    found = {}
    for url in _urls(patient):
        with suppress(OSError):
            found[url] = _asked(f"{url}/status")
    return found


def _urls(patient: Patient) -> list[str]:
    if patient.urls:
        return [url.rstrip("/") if "//" in url else f"http://{url.rstrip('/')}" for url in patient.urls]
    roles = patient.settings.songs, patient.settings.audience
    return [f"http://{role.http_host}:{role.http_port}" for role in roles if role.http_port]


def _asked(url: str) -> dict[str, Any]:
    """The JSON of a health server; empty where it has no such page.

    Raises:
        TimeoutError: no answer in time.
        ConnectionError: nothing listens.
        OSError: it cannot be asked.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise OSError(f"{url}: not an http address")
    try:
        with urlopen(url, timeout=_ANSWER_S) as answer:
            text = answer.read()
    except HTTPError as problem:
        text = problem.read()
    except URLError as problem:
        raise problem.reason if isinstance(problem.reason, OSError) else OSError(str(problem.reason)) from None
    try:
        found = json.loads(text)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
