"""All checks in one table, and what they find."""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final

from streams.contract.errors import ColdstartError
from streams.operations.doctor import (
    broker_checks,
    certificate_checks,
    host_checks,
    model_checks,
    rights_checks,
    topic_checks,
    worker_checks,
)
from streams.operations.doctor.finding import Check, Diagnosis, Patient, Severity, error, unknown

_AT_ONCE: Final = 6

CHECKS: Final = (
    Check("brokers", broker_checks.reachable, needs_kafka=False),
    Check("certificate files", certificate_checks.files, needs_kafka=False),
    Check("broker certificates", certificate_checks.brokers, needs_kafka=False),
    Check("disk room", host_checks.disk_room, needs_kafka=False),
    Check("disk speed", host_checks.disk_speed, needs_kafka=False),
    Check("memory", host_checks.memory, needs_kafka=False),
    Check("processes", worker_checks.processes, needs_kafka=False),
    Check("broker version", broker_checks.version),
    Check("leaders", broker_checks.leaders),
    Check("broker settings", broker_checks.broker_settings),
    Check("topics", topic_checks.declared),
    Check("clock", topic_checks.clock),
    Check("rights", rights_checks.rights),
    Check("model", model_checks.live_model),
    Check("members", worker_checks.members),
    Check("lag", worker_checks.progress),
    Check("bad records", topic_checks.refused_lately),
)
"""A new check is a line here and a function."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one check found, and how long it took; ``asked`` is False where no broker answered."""

    check: str
    findings: list[Diagnosis]
    seconds: float
    asked: bool = True

    @property
    def worst(self) -> Severity | None:
        """The worst severity; None: nothing was found."""
        order = list(Severity)
        return min((each.severity for each in self.findings), key=order.index, default=None)


def examine(patient: Patient) -> Iterator[Outcome]:
    """Every check, in the order of the table; those beside each other run at once."""
    first, *others = CHECKS
    found = _outcome(first, patient)
    yield found
    answered = found.worst is not Severity.ERROR
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        asked = [
            pool.submit(_outcome, check, patient) if answered or not check.needs_kafka else check for check in others
        ]
        for each in asked:
            yield Outcome(each.name, [], 0.0, asked=False) if isinstance(each, Check) else each.result()


def _outcome(check: Check, patient: Patient) -> Outcome:
    began = time.monotonic()
    findings: list[Diagnosis] = []
    try:
        findings.extend(check.examine(patient))
    except ColdstartError as problem:
        findings.append(error(str(problem), "do what it says"))
    except Exception as problem:  # noqa: BLE001 - one check that fails must not hide what the others find
        why = f"{check.name}: cannot be checked ({type(problem).__name__}: {problem})"
        findings.append(unknown(why, "fix what else is found, then try again"))
    return Outcome(check.name, findings, time.monotonic() - began)
